"""EM with a noise component: outliers that belong to no component.

Beside its K components the mixture has one that is uniform over the hypervolume
of the data (Banfield and Raftery 1993; Fraley and Raftery 1998, section 4). Its
label is -1. The mixture's own weights sum to 1, so that whatever takes a
`types.Mixture` takes this one; a point's density is

  noise_weight exp(noise_log_density) + (1 - noise_weight) mixture(x).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers.em import steps as em_steps
from tgmm_jax.solvers.em.robust import families as em_families
from tgmm_jax.solvers.em.robust import family_fits as em_fits
from tgmm_jax.solvers.em.robust import volume as em_volume

# Of all points: a component that answers for less has lost them to the noise.
_MIN_WEIGHT = 1e-6


class NoiseFit(NamedTuple):
  """A mixture beside a uniform density; of a batch with a leading axis B.

  Attributes:
    result: of the mixture, whose weights sum to 1; the log-likelihood is that
      of the mixture and the noise.
    noise_weight: `[]`, the share of the points that are noise.
    noise_log_density: `[]`, less the logarithm of the volume.
  """

  result: types.SolverResult
  noise_weight: jax.Array
  noise_log_density: jax.Array


class _Settings(NamedTuple):
  """What a caller says of the noise of one problem."""

  share: jax.Array | float
  volume: jax.Array | float | None


class _Noise(NamedTuple):
  """Its weight, and its log density as `steps.log_density` gives them."""

  weight: jax.Array
  log_density: jax.Array


def fit(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  noise_share: jax.Array | float = 0.1,
  volume: jax.Array | float | None = None,
  trimmed_share: jax.Array | float = 0.15,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  **options,
) -> NoiseFit:
  """Fits a mixture and a uniform density beside it by EM.

  Args:
    key: consumed; split over the starts.
    points: `[N, d]`; padding may hold anything.
    num_components: K, as in `em.fit`; the noise is none of them.
    noise_share: the noise's weight at the start, from 0 (where it stays) to
      below 1.
    volume: of the noise, in units of the points to the power of d; None takes
      that of `volume.log_volume`.
    trimmed_share: of the weight, that starts which are drawn leave out: the
      points with the least company. 0 draws from all, and k-means++ would take
      outliers.
    covariance_type: as in `em.fit`.
    sample_weight: as in `em.fit`.
    max_components: as in `em.fit`.
    **options: fields of `em.Options` but `is_projected` and
      `prior_if_degenerate`.

  Returns:
    A `NoiseFit`, with the statuses of `em.fit`; DEGENERATE also where a
    component has lost its points to the noise.

  Raises:
    ValueError: for options that no data could make right.
  """
  _check(noise_share, volume, trimmed_share)
  ended = em_fits.fit(
    key,
    points,
    num_components,
    em_families.Settings(_Settings(noise_share, volume), trimmed_share),
    options,
    family=_FAMILY,
    covariance_type=covariance_type,
    sample_weight=sample_weight,
    max_components=max_components,
  )
  return _conclude(ended)


def fit_batch(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  noise_share: jax.Array | float = 0.1,
  volume: jax.Array | float | None = None,
  trimmed_share: jax.Array | float = 0.15,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  batch_size: int = 64,
  **options,
) -> NoiseFit:
  """`fit` for B problems, as `em.fit_batch` is for `em.fit`.

  Args:
    key: consumed; one key, folded with the index of each problem, or `[B]`.
    points: `[B, N, d]`, as in `em.fit_batch`.
    num_components: `[B]`, or one K for all.
    noise_share: as in `fit`; `[B]`, or one for all.
    volume: as in `fit`; `[B]`, one for all, or None.
    trimmed_share: as in `fit`, one for all.
    covariance_type: as in `em.fit`.
    sample_weight: `[B, N]`, or None for ones.
    max_components: as in `em.fit_batch`.
    batch_size: as in `em.fit_batch`.
    **options: as in `fit`.

  Returns:
    A `NoiseFit` with a leading axis B, of NumPy where `em.fit_batch` answers
    in NumPy.

  Raises:
    ValueError: as `em.fit_batch`.
  """
  _check(noise_share, volume, trimmed_share)

  def settings_of(batch):
    shape, dtype = batch.points.shape[:1], batch.points.dtype
    each = functools.partial(em_fits.for_each, shape=shape, dtype=dtype)
    own = None if volume is None else each("volume", volume)
    return em_families.Settings(
      _Settings(each("noise_share", noise_share), own),
      each("trimmed_share", trimmed_share),
    )

  return em_fits.fit_batch(
    key,
    points,
    num_components,
    settings_of,
    options,
    _conclude,
    family=_FAMILY,
    covariance_type=covariance_type,
    sample_weight=sample_weight,
    max_components=max_components,
    batch_size=batch_size,
  )


def log_density(
  points: jax.Array, fit: NoiseFit, *, covariance_type: str = "unit"
) -> jax.Array:
  """Log density of mixture and noise at each point, `[N]`.

  Outside the volume as well, where noise is as dense as inside: so a point far
  from everything is noise.

  Args:
    points: `[N, d]`.
    fit: of one problem.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  own = gmm.log_density(
    points, fit.result.mixture, covariance_type=covariance_type
  )
  return jnp.logaddexp(*_log_joint(own, fit))


def responsibilities(
  points: jax.Array, fit: NoiseFit, *, covariance_type: str = "unit"
) -> jax.Array:
  """Posterior probability of each component at each point, `[N, K]`.

  Rows sum to 1 less the probability that the point is noise.

  Args:
    points: `[N, d]`.
    fit: of one problem.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  joint = gmm.log_joint(
    points, fit.result.mixture, covariance_type=covariance_type
  )
  noise, _ = _log_joint(jnp.zeros(()), fit)
  joint = joint + _log(1.0 - fit.noise_weight)
  noise = jnp.broadcast_to(noise, (*joint.shape[:-1], 1))
  joint = jnp.concatenate([joint, noise], axis=-1)
  return jax.nn.softmax(joint, axis=-1)[..., :-1]


def predict(
  points: jax.Array, fit: NoiseFit, *, covariance_type: str = "unit"
) -> jax.Array:
  """The most probable component of each point, `[N]` int32; -1 is noise.

  Args:
    points: `[N, d]`.
    fit: of one problem.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  share = responsibilities(points, fit, covariance_type=covariance_type)
  is_noise = 1.0 - jnp.sum(share, axis=-1) > jnp.max(share, axis=-1)
  labels = jnp.argmax(share, axis=-1).astype(jnp.int32)
  return jnp.where(is_noise, -1, labels)


def _log_joint(log_density, fit):
  """Of the noise and of the mixture, with their weights."""
  noise = _log(fit.noise_weight) + fit.noise_log_density
  return noise, _log(1.0 - fit.noise_weight) + log_density


def _log(share):
  """-inf for 0."""
  return jnp.where(
    share > 0, jnp.log(jnp.where(share > 0, share, 1.0)), -jnp.inf
  )


def _check(noise_share, volume, trimmed_share):
  """Refuses what no data can make right."""
  em_fits.share("noise_share", noise_share)
  em_fits.share("trimmed_share", trimmed_share)
  if volume is not None:
    em_fits.numbers(
      "volume",
      volume,
      "a number > 0",
      lambda given: (given > 0) & (given < np.inf),
    )


def _begin(problem, settings, form):
  """The noise at the start, in the frame."""
  dtype = problem.columns.dtype
  if settings.volume is not None:
    log_volume = jnp.log(jnp.asarray(settings.volume, dtype))
  else:
    columns = problem.columns * problem.scale[:, None]
    log_volume = em_volume.log_volume_of(
      columns,
      _least_variance(problem, columns, form),
      sample_weight=problem.sample_weight,
    )
  # The frame lacks a constant of every density, the noise's too.
  return _Noise(
    jnp.asarray(settings.share, dtype), -log_volume - problem.log_density
  )


def _least_variance(problem, columns, form):
  """What a component may have along each coordinate, `[d]`."""
  if gmm.kind_of(form.covariance_type).is_known:
    return jnp.ones_like(problem.centre)
  # What is added to a variance, and what rounding may: of all that varies.
  share = problem.ridge.share + gmm.roundings(columns.dtype)
  variance = linalg.matmul(columns**2, problem.sample_weight)
  return problem.ridge.fixed * problem.scale**2 + share * variance


def _e_step(columns, mixture, noise, *, sample_weight, covariance_type):
  """Responsibilities of components and noise, summed up."""
  differences = columns[None] - mixture.means[:, :, None]
  measured = gmm.metric(mixture, covariance_type=covariance_type)
  distances = gmm.squared_distances(
    differences, measured, covariance_type=covariance_type
  )
  bias = gmm.log_weights(mixture) + _log(1.0 - noise.weight)
  log_joint = (bias - 0.5 * measured.log_det)[:, None] - 0.5 * distances
  log_noise = jnp.full_like(log_joint[:1], _log(noise.weight))
  share, log_density = em_steps.shares(
    jnp.concatenate([log_joint, log_noise + noise.log_density]),
    sample_weight=sample_weight,
  )
  is_known = gmm.kind_of(covariance_type).is_known
  statistics = em_steps.sums_of(
    share[:-1],
    columns,
    None if is_known else differences,
    covariance_type=covariance_type,
  )
  statistics = statistics._replace(log_density=log_density)
  return statistics, jnp.sum(share[-1])


def _complete(statistics, mass, mixture, covariance_type):
  """Nothing is missing."""
  del mass, mixture, covariance_type
  return statistics


def _m_step(noise, statistics, mass, settings, dim):
  """The noise's share of all the weight."""
  del settings, dim
  weight = mass / (jnp.sum(statistics.mass) + mass)
  return noise._replace(weight=weight)


def _family_log_density(columns, mixture, noise, *, covariance_type):
  own = em_steps.log_density(
    columns,
    mixture,
    covariance_type=covariance_type,
    block_size=columns.shape[1],
  )
  return jnp.logaddexp(
    _log(noise.weight) + noise.log_density, _log(1.0 - noise.weight) + own
  )


def _is_degenerate(mixture, noise, num_components):
  """Whether a component has lost its points to the noise."""
  is_component = jnp.arange(mixture.weights.size) < num_components
  own = (1.0 - noise.weight) * mixture.weights
  return jnp.any(is_component & (own < _MIN_WEIGHT))


def _conclude(ended: em_families.Ended) -> NoiseFit:
  noise = ended.extras
  return NoiseFit(
    ended.result,
    noise.weight,
    noise.log_density + ended.problem_log_density,
  )


_FAMILY = em_families.Family(
  begin=_begin,
  e_step=_e_step,
  complete=_complete,
  m_step=_m_step,
  log_density=_family_log_density,
  is_degenerate=_is_degenerate,
)
