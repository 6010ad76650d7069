"""The two steps of EM, for one problem and every covariance type.

Points are columns `[d, N]` and everything per point has N as its last axis:
under `vmap` a step then costs little more than its K N exponentials and, with
estimated covariances, a few passes over K d N differences.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import covariance as covariance_lib
from tgmm_jax.solvers.em import blocks, moments, priors

# A mean over less than this share of the weight says nothing.
MIN_MASS = 1e-9

# In place of the mass of a component without points: it counts for nothing.
_LEAST = 1e-30

# A component of less weight has lost its points; two means that are closer,
# in standard deviations, are one component.
_MIN_WEIGHT = 1e-6
_MIN_DISTANCE = 1e-3


class Statistics(NamedTuple):
  """What the E-step hands to the M-step: sums over the points.

  Attributes:
    mass: `[K]`, weight of the points that each component answers for.
    sums: `[K, d]`, weighted sum of these points; where covariances are
      estimated, of their differences from the means of the E-step, so that
      what is small beside the distance from the origin stays.
    scatter: squares and products of these differences, shaped as the
      covariances; None for unit covariance.
    log_density: `[N]`, of the mixture at each point, without the terms that
      are the same for every mixture: -d/2 log(2 pi) and, for unit
      covariance, -|x|^2 / 2.
  """

  mass: jax.Array
  sums: jax.Array
  scatter: jax.Array | None
  log_density: jax.Array


def e_step(
  columns: jax.Array,
  mixture: types.Mixture,
  *,
  sample_weight: jax.Array,
  covariance_type: str = "unit",
  block_size: int | None = None,
) -> Statistics:
  """Responsibilities, summed up (one exponential per point and component).

  Many points are taken block by block: nothing of the size `K d N` is held,
  and a block stays in the caches.

  Args:
    columns: `[d, N]` points, centred: with unit covariance, squared norms are
      subtracted from each other, so float32 loses what is small beside them.
    sample_weight: `[N]`.
    mixture: the parameters; a component of weight 0 takes no points.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    block_size: points at a time, static, or None for `blocks.default_size`.
  """
  block_size = block_size or blocks.default_size(columns.shape[1])
  model = _Model(mixture, gmm.metric(mixture, covariance_type=covariance_type))

  def sum_up(function):
    return blocks.sum_over(
      functools.partial(function, model, covariance_type),
      columns,
      sample_weight=sample_weight,
      block_size=block_size,
    )

  def separately():
    sums, log_density = sum_up(_sums)
    return sums._replace(log_density=log_density)

  if columns.shape[1] <= block_size or covariance_type != "full":
    return separately()
  thinnest = moments.thinnest(mixture, model.measured)

  def together():
    own = functools.partial(_moments, thinnest.index)
    (raw, scatter), log_density = sum_up(own)
    mass, sums, others = moments.about_means(raw, mixture.means)
    scatter = others.at[thinnest.index].set(scatter)
    return Statistics(mass, sums, scatter, log_density)

  return jax.lax.cond(thinnest.are_enough, together, separately)


class _Model(NamedTuple):
  """A mixture, and what is made of it once for all the points."""

  mixture: types.Mixture
  measured: gmm.Metric


def _sums(model, covariance_type, columns, sample_weight):
  """The statistics of one block, each component by itself, and `[n]`."""
  share, log_density, differences = _share(
    model, covariance_type, columns, sample_weight
  )
  sums = sums_of(share, columns, differences, covariance_type=covariance_type)
  return sums, log_density


def sums_of(
  share: jax.Array,
  columns: jax.Array,
  differences: jax.Array | None,
  *,
  covariance_type: str,
) -> Statistics:
  """What shares of points add up to; without the log density.

  Args:
    share: `[K, n]`, responsibility times weight.
    columns: `[d, n]`.
    differences: `[K, d, n]`, of them from the means; None with unit covariance.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  mass = jnp.sum(share, axis=-1)
  if differences is None:
    return Statistics(mass, linalg.matmul(share, columns.T), None, None)
  sums = linalg.einsum("kn,kdn->kd", share, differences)
  scatter = covariance_lib.scatter(
    share, differences, covariance_type=covariance_type
  )
  return Statistics(mass, sums, scatter, None)


def _moments(own, model, covariance_type, columns, sample_weight):
  """The moments of one block, the scatter of some components, and `[n]`."""
  share, log_density, differences = _share(
    model, covariance_type, columns, sample_weight
  )
  scatter = covariance_lib.scatter(
    share[own], differences[own], covariance_type=covariance_type
  )
  return (moments.about_origin(share, columns), scatter), log_density


def _share(model, covariance_type, columns, sample_weight):
  """What each component has of the points of one block.

  Returns:
    Responsibility times weight `[K, n]`, log density `[n]`, and the differences
    from the means `[K, d, n]`, None with unit covariance.
  """
  mixture, measured = model
  means, log_weights = mixture.means, gmm.log_weights(mixture)
  differences = None
  if gmm.kind_of(covariance_type).is_known:
    bias = log_weights - 0.5 * jnp.sum(means**2, axis=-1)
    log_joint = linalg.matmul(means, columns) + bias[:, None]
  else:
    differences = columns[None] - means[:, :, None]
    distances = gmm.squared_distances(
      differences, measured, covariance_type=covariance_type
    )
    bias = log_weights - 0.5 * measured.log_det
    log_joint = bias[:, None] - 0.5 * distances
  return *shares(log_joint, sample_weight=sample_weight), differences


def shares(
  log_joint: jax.Array, *, sample_weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Responsibility times weight `[K, n]`, and log density `[n]`.

  Args:
    log_joint: `[K, n]`, of components (and whatever else takes points).
    sample_weight: `[n]`.
  """
  highest = jnp.max(log_joint, axis=0)
  joint = jnp.exp(log_joint - highest)
  total = jnp.sum(joint, axis=0)
  return joint * (sample_weight / total), highest + jnp.log(total)


def m_step(
  statistics: Statistics,
  mixture: types.Mixture,
  anchor: types.Mixture,
  *,
  covariance_type: str = "unit",
  ridge: covariance_lib.Ridge | None = None,
  lowest: jax.Array | None = None,
  prior_share: jax.Array | float = 0.0,
  prior: priors.Prior | None = None,
  num_points: jax.Array | float = 1.0,
) -> types.Mixture:
  """The most likely parameters, where there are points to tell them.

  A component of less than `MIN_MASS` of the weight falls back to its anchor and
  keeps that much, so that it can come to life; one of weight 0 stays without.

  Args:
    statistics: from the E-step.
    mixture: the parameters before.
    anchor: means and covariances to fall back to.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    ridge: added to the variances, if they are not known.
    lowest: `[d]`, floor of the variances, or None.
    prior_share: weight of the prior of each covariance, as a share of that of
      all points; see `em.Options.prior_size`.
    prior: in the frame, or None; see `em.Options.prior`.
    num_points: `[]`, how many points; only used with a prior.
  """
  total = jnp.sum(statistics.mass)
  mass = statistics.mass / total
  has_mass = mass >= MIN_MASS
  counted, sums, scatter, _ = statistics
  if prior is not None:
    counted, sums, scatter = priors.joined(
      *(priors.Sums(*statistics[:3]), mixture, prior, num_points),
      covariance_type=covariance_type,
    )
  safe = jnp.where(has_mass, counted, total)
  moved = jnp.where(has_mass[:, None], sums / safe[:, None], 0.0)
  weights = jnp.where(mixture.weights > 0, jnp.maximum(mass, MIN_MASS), 0.0)
  covariances, kind = None, gmm.kind_of(covariance_type)
  if not kind.is_known:
    covariances = covariance_lib.estimate(
      covariance_lib.kept(scatter, has_mass, 0.0, kind),
      jnp.where(has_mass, counted, _LEAST * total),
      moved,
      ridge,
      covariance_type=covariance_type,
      prior_size=prior_share * total,
    )
    if lowest is not None:
      covariances = covariance_lib.raise_to(
        covariances, lowest, covariance_type=covariance_type
      )
    given = anchor.covariances
    covariances = covariance_lib.kept(covariances, has_mass, given, kind)
  means = moved if kind.is_known else mixture.means + moved
  means = jnp.where(has_mass[:, None], means, anchor.means)
  return types.Mixture(weights / jnp.sum(weights), means, covariances)


def step(
  points: jax.Array,
  mixture: types.Mixture,
  *,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  reg_covar: jax.Array | float = 0.0,
) -> types.Mixture:
  """One EM step: Dempster, Laird and Rubin 1977, section 4.3.

  Args:
    points: `[N, d]`, near the origin (see `e_step`).
    mixture: the parameters before; components without points stay.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]`, or None for ones.
    reg_covar: added to the variances.
  """
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  statistics = e_step(
    points.T,
    mixture,
    sample_weight=sample_weight,
    covariance_type=covariance_type,
  )
  return m_step(
    statistics,
    mixture,
    mixture,
    covariance_type=covariance_type,
    ridge=covariance_lib.Ridge(
      jnp.full(points.shape[1], reg_covar, points.dtype), 0.0
    ),
  )


def log_density(
  columns: jax.Array,
  mixture: types.Mixture,
  *,
  covariance_type: str = "unit",
  block_size: int | None = None,
) -> jax.Array:
  """Log density of the mixture at each point, `[N]`, without -d/2 log(2 pi).

  By distances for every type: the value is reported, and the terms of the
  E-step with unit covariance may be much larger than it.

  Args:
    columns: `[d, N]`.
    mixture: the parameters.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    block_size: as in `e_step`.
  """

  def of_block(columns, _):
    distances, log_det = gmm.component_energies(
      columns, mixture, covariance_type=covariance_type
    )
    bias = gmm.log_weights(mixture) - 0.5 * log_det
    return None, jax.nn.logsumexp(bias[:, None] - 0.5 * distances, axis=0)

  _, values = blocks.sum_over(
    of_block, columns, sample_weight=columns[0], block_size=block_size
  )
  return values


def is_degenerate(
  mixture: types.Mixture,
  num_components: jax.Array,
  *,
  covariance_type: str = "unit",
  ridge: covariance_lib.Ridge | None = None,
) -> jax.Array:
  """Whether a component is empty, twice there, or collapsed, `[]`.

  Args:
    mixture: the parameters.
    num_components: how many components are not padding.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    ridge: as in `m_step`.
  """
  weights, means = mixture.weights, mixture.means
  is_component = jnp.arange(weights.size) < num_components
  is_empty = is_component & (weights < _MIN_WEIGHT)
  gaps = jnp.sum((means[:, None] - means[None]) ** 2, axis=-1)
  is_known = gmm.kind_of(covariance_type).is_known
  variances = jnp.ones(())
  is_alike = jnp.ones((1, 1), bool)
  if not is_known:
    variances = covariance_lib.mean_variance(
      mixture.covariances, covariance_type=covariance_type
    )
    is_alike = covariance_lib.is_alike(
      mixture.covariances, covariance_type=covariance_type
    )
  is_near = gaps < _MIN_DISTANCE**2 * variances
  is_later = jnp.tril(jnp.ones_like(gaps, dtype=bool), -1)
  is_double = is_component[:, None] & is_later & is_near & is_alike
  result = jnp.any(is_empty) | jnp.any(is_double)
  if not is_known:
    collapsed = covariance_lib.is_collapsed(
      mixture, ridge, covariance_type=covariance_type
    )
    result |= jnp.any(collapsed & (is_component | (collapsed.ndim == 0)))
  return result
