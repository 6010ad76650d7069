"""EM with Student t components, whose tails reach out to outliers.

Peel and McLachlan (2000), sections 4 and 5: a point is normal given a gamma
weight of its own, so that one far from a component says little about it. Each
component has its degrees of freedom. `Mixture.covariances` then are the scale
matrices: covariances are `degrees / (degrees - 2)` times as large, where that
is positive; with "unit" the scale is the identity.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import covariance as covariance_lib
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.em import steps as em_steps
from tgmm_jax.solvers.em.robust import families as em_families
from tgmm_jax.solvers.em.robust import family_fits as em_fits
from tgmm_jax.solvers.em.robust import student_density

# Where estimated degrees of freedom begin: tails that reach far.
_FIRST = 5.0
# Halvings of the range of the degrees' logarithm; more are below rounding.
_NUM_HALVINGS = 48


class StudentFit(NamedTuple):
  """A mixture of t distributions; of a batch with a leading axis B.

  Attributes:
    result: weights, locations and scale matrices; the log-likelihood is that
      of the t mixture.
    degrees: `[K]`, of freedom; those of padding mean nothing.
  """

  result: types.SolverResult
  degrees: jax.Array


class _Settings(NamedTuple):
  """What a caller says of the degrees of freedom, `[K]` and twice `[]`."""

  first: jax.Array
  lowest: jax.Array
  highest: jax.Array


def fit(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  degrees: jax.Array | float | None = None,
  degrees_range: tuple[float, float] = (1.0, 200.0),
  trimmed_share: jax.Array | float = 0.15,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  **options,
) -> StudentFit:
  """Fits a mixture of t distributions by EM.

  Args:
    key: consumed; split over the starts.
    points: `[N, d]`; padding may hold anything.
    num_components: K, as in `em.fit`.
    degrees: of freedom, `[K]` or one for all, that stay; None estimates those
      of each component.
    degrees_range: lowest and highest that are estimated.
    trimmed_share: of the weight, that starts which are drawn leave out: the
      points with the least company.
    covariance_type: as in `em.fit`.
    sample_weight: as in `em.fit`.
    max_components: as in `em.fit`.
    **options: fields of `em.Options` but `is_projected` and
      `prior_if_degenerate`.

  Returns:
    A `StudentFit`, with the statuses of `em.fit`.

  Raises:
    ValueError: for options that no data could make right.
  """
  _check(degrees, degrees_range, trimmed_share)
  size = problem_lib.static_components(num_components, max_components)
  dtype = jnp.promote_types(jnp.asarray(points).dtype, jnp.float32)
  settings = _settings(degrees, degrees_range, trimmed_share, (size,), dtype)
  ended = em_fits.fit(
    key,
    points,
    num_components,
    settings,
    options,
    family=_ESTIMATED if degrees is None else _GIVEN,
    covariance_type=covariance_type,
    sample_weight=sample_weight,
    max_components=max_components,
  )
  return StudentFit(ended.result, ended.extras)


def fit_batch(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  degrees: jax.Array | float | None = None,
  degrees_range: tuple[float, float] = (1.0, 200.0),
  trimmed_share: jax.Array | float = 0.15,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  batch_size: int = 64,
  **options,
) -> StudentFit:
  """`fit` for B problems, as `em.fit_batch` is for `em.fit`.

  Args:
    key: consumed; one key, folded with the index of each problem, or `[B]`.
    points: `[B, N, d]`, as in `em.fit_batch`.
    num_components: `[B]`, or one K for all.
    degrees: as in `fit`; `[B, K]`, or what broadcasts to it.
    degrees_range: as in `fit`, one for all.
    trimmed_share: as in `fit`, one for all.
    covariance_type: as in `em.fit`.
    sample_weight: `[B, N]`, or None for ones.
    max_components: as in `em.fit_batch`.
    batch_size: as in `em.fit_batch`.
    **options: as in `fit`.

  Returns:
    A `StudentFit` with a leading axis B, of NumPy where `em.fit_batch` answers
    in NumPy.

  Raises:
    ValueError: as `em.fit_batch`.
  """
  _check(degrees, degrees_range, trimmed_share)

  def settings_of(batch):
    shape = batch.points.shape[0], batch.max_components
    dtype = batch.points.dtype
    return _settings(degrees, degrees_range, trimmed_share, shape, dtype)

  return em_fits.fit_batch(
    key,
    points,
    num_components,
    settings_of,
    options,
    lambda ended: StudentFit(ended.result, ended.extras),
    family=_ESTIMATED if degrees is None else _GIVEN,
    covariance_type=covariance_type,
    sample_weight=sample_weight,
    max_components=max_components,
    batch_size=batch_size,
  )


def log_density(
  points: jax.Array, fit: StudentFit, *, covariance_type: str = "unit"
) -> jax.Array:
  """Log density of the t mixture at each point, `[N]`.

  Args:
    points: `[N, d]`.
    fit: of one problem.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  joint = _of_points(points, fit, covariance_type)
  return jax.nn.logsumexp(joint, axis=-1)


def responsibilities(
  points: jax.Array, fit: StudentFit, *, covariance_type: str = "unit"
) -> jax.Array:
  """Posterior probability of each component at each point, `[N, K]`.

  Args:
    points: `[N, d]`.
    fit: of one problem.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  joint = _of_points(points, fit, covariance_type)
  return jax.nn.softmax(joint, axis=-1)


def predict(
  points: jax.Array, fit: StudentFit, *, covariance_type: str = "unit"
) -> jax.Array:
  """The most probable component of each point, `[N]` int32.

  Args:
    points: `[N, d]`.
    fit: of one problem.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  joint = _of_points(points, fit, covariance_type)
  return jnp.argmax(joint, axis=-1).astype(jnp.int32)


def _of_points(points, fit, covariance_type):
  """Log joint density of points and components, `[N, K]`."""
  mixture = jax.tree.map(jnp.asarray, fit.result.mixture)
  distances, log_det = gmm.component_energies(
    jnp.asarray(points).T, mixture, covariance_type=covariance_type
  )
  dim = mixture.means.shape[-1]
  joint = student_density.log_joint(
    mixture, fit.degrees, distances, log_det, dim
  )
  return joint.T - 0.5 * dim * math.log(2.0 * math.pi)


def _check(degrees, degrees_range, trimmed_share):
  """Refuses what no data can make right."""
  em_fits.share("trimmed_share", trimmed_share)
  if degrees is not None:
    em_fits.numbers("degrees", degrees, "a number > 0", _is_positive)
  em_fits.numbers(
    "degrees_range",
    degrees_range,
    "two numbers, 0 < lowest <= highest",
    lambda given: (
      given.shape == (2,)
      and np.all(_is_positive(given)) & (given[0] <= given[1])
    ),
  )


def _is_positive(given):
  return (given > 0) & (given < np.inf)


def _settings(degrees, degrees_range, trimmed_share, shape, dtype):
  each = functools.partial(em_fits.for_each, dtype=dtype)
  lowest, highest = degrees_range
  first = degrees
  if degrees is None:
    first = np.clip(_FIRST, lowest, highest)
  of_problem = shape[:-1]
  return em_families.Settings(
    _Settings(
      each("degrees", first, shape=shape),
      each("degrees_range", lowest, shape=of_problem),
      each("degrees_range", highest, shape=of_problem),
    ),
    each("trimmed_share", trimmed_share, shape=of_problem),
  )


def _begin(problem, settings, form):
  del problem, form
  return settings.first


def _e_step(columns, mixture, degrees, *, sample_weight, covariance_type):
  """Responsibilities and gamma weights, summed up.

  The M-step of a normal mixture makes Peel and McLachlan's of the statistics
  (their equations 21 to 24, covariances divided by the mass): sums and scatter
  are scaled to it, and the scatter has what the gamma weights take of the
  shift of the mean.
  """
  dim, is_known = columns.shape[0], gmm.kind_of(covariance_type).is_known
  differences = columns[None] - mixture.means[:, :, None]
  measured = gmm.metric(mixture, covariance_type=covariance_type)
  distances = gmm.squared_distances(
    differences, measured, covariance_type=covariance_type
  )
  log_joint = student_density.log_joint(
    mixture, degrees, distances, measured.log_det, dim
  )
  log_density = jax.nn.logsumexp(log_joint, axis=0)
  share = jnp.exp(log_joint - log_density) * sample_weight
  gamma = (degrees[:, None] + dim) / (degrees[:, None] + distances)
  weighted = share * gamma
  scatter = None
  if not is_known:
    scatter = covariance_lib.scatter(
      weighted, differences, covariance_type=covariance_type
    )
  statistics = em_steps.Statistics(
    mass=jnp.sum(share, axis=-1),
    sums=linalg.einsum("kn,kdn->kd", weighted, differences),
    scatter=scatter,
    log_density=log_density,
  )
  sums = _Sums(
    jnp.sum(weighted, axis=-1),
    jnp.sum(share * (jnp.log(gamma) - gamma + 1.0), axis=-1),
  )
  return statistics, sums


class _Sums(NamedTuple):
  """Over the points: gamma weights, and what the degrees follow from."""

  gamma: jax.Array
  tails: jax.Array


def _complete(statistics, sums, mixture, covariance_type):
  """Statistics of all points of which the normal M-step makes that of t."""
  mass = statistics.mass
  gamma = jnp.where(sums.gamma > 0, sums.gamma, 1.0)
  shifts = statistics.sums / gamma[:, None]
  if gmm.kind_of(covariance_type).is_known:
    return statistics._replace(sums=mass[:, None] * (mixture.means + shifts))
  taken = covariance_lib.scatter(
    (mass - sums.gamma)[:, None],
    shifts[:, :, None],
    covariance_type=covariance_type,
  )
  return statistics._replace(
    sums=mass[:, None] * shifts, scatter=statistics.scatter + taken
  )


def _estimate(degrees, statistics, sums, settings, dim):
  """The degrees of freedom of the M-step, `[K]`, by halving their range.

  The root of equation 29 of Peel and McLachlan, which falls with the degrees:
  with x = v / 2, `log x - digamma(x)` is what the tails leave of it.
  """
  mass = statistics.mass
  has_mass = mass >= em_steps.MIN_MASS * jnp.sum(mass)
  tails = sums.tails / jnp.where(has_mass, mass, 1.0)
  wanted = _excess(0.5 * (degrees + dim)) - tails

  def halve(_, bounds):
    low, high = bounds
    middle = 0.5 * (low + high)
    is_low = _excess(0.5 * jnp.exp(middle)) > wanted
    return jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)

  bounds = (
    jnp.full_like(degrees, jnp.log(settings.lowest)),
    jnp.full_like(degrees, jnp.log(settings.highest)),
  )
  low, high = jax.lax.fori_loop(0, _NUM_HALVINGS, halve, bounds)
  return jnp.where(has_mass, jnp.exp(0.5 * (low + high)), degrees)


def _excess(x):
  """`log x - digamma(x)`, positive and falling."""
  return jnp.log(x) - jax.lax.digamma(x)


def _keep(degrees, statistics, sums, settings, dim):
  del statistics, sums, settings, dim
  return degrees


def _family_log_density(columns, mixture, degrees, *, covariance_type):
  distances, log_det = gmm.component_energies(
    columns, mixture, covariance_type=covariance_type
  )
  joint = student_density.log_joint(
    mixture, degrees, distances, log_det, columns.shape[0]
  )
  return jax.nn.logsumexp(joint, axis=0)


def _is_degenerate(mixture, degrees, num_components):
  del mixture, degrees, num_components
  return jnp.zeros((), bool)


_ESTIMATED = em_families.Family(
  begin=_begin,
  e_step=_e_step,
  complete=_complete,
  m_step=_estimate,
  log_density=_family_log_density,
  is_degenerate=_is_degenerate,
)
_GIVEN = _ESTIMATED._replace(m_step=_keep)
