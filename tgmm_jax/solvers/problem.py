"""One problem made ready for a solver: checked, centred, scaled or projected.

Solvers never raise on data and never return NaN. Here the points of a bad
problem are replaced by zeros, which any solver survives, and the problem is
marked; padding, which may hold anything, is set to zero as well. `conclude`
makes a solver's result.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers import covariance as covariance_lib

# Of a coordinate of the frame, each way, in what EM adds up.
_NUM_ROUNDINGS = 4.0


class PreparedProblem(NamedTuple):
  """One problem made ready, in the coordinates of a frame.

  Attributes:
    columns: `[r, N]`, coordinates in the frame; r = d where not projected.
    sample_weight: `[N]`, sums to 1.
    num_components: `[]`, within its range.
    is_valid: `[]` bool; where False the columns are 0.
    centre: `[d]`.
    scale: `[d]`, units of the frame: powers of two, so that nothing is
      rounded; 1 for unit covariance.
    directions: `[d, r]`, or None where not projected.
    ridge: variance in the frame that is added to every estimate.
    num_points: `[]`, the effective number: see `effective_number`.
    log_density: `[]`, what the mean log density in the frame lacks: the
      normal density's constant, the scale, the distances from the subspace.
    observation: how the points are seen, in the frame; None where they are
      simply known. Cells that are not seen are 0.
    prior: of the parameters, in the frame (`em.Prior`), or None.
  """

  columns: jax.Array
  sample_weight: jax.Array
  num_components: jax.Array
  is_valid: jax.Array
  centre: jax.Array
  scale: jax.Array
  directions: jax.Array | None
  ridge: covariance_lib.Ridge
  num_points: jax.Array
  log_density: jax.Array
  observation: gmm.Observation | None = None
  prior: Any = None


def prepare(
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  max_components: int,
  sample_weight: jax.Array | None = None,
  covariance_type: str = "unit",
  rank: int | None = None,
  reg_share: jax.Array | float = 0.0,
  reg_covar: jax.Array | float = 0.0,
) -> PreparedProblem:
  """Checks one problem and puts it into its frame.

  Args:
    points: `[N, d]`; less than float32 becomes float32.
    num_components: K of the problem, may be traced.
    max_components: static K.
    sample_weight: `[N]`, or None for ones.
    covariance_type: one of `gmm.COVARIANCE_TYPES`; all but "unit" are scaled.
    rank: how many principal directions to keep, or None for no projection;
      for unit covariance only.
    reg_share: the ridge as a share of the variance within components.
    reg_covar: added to the ridge, in squared units of the points.
  """
  points, sample_weight, is_valid = linalg.usable(
    points,
    (num_components >= 1) & (num_components <= max_components),
    sample_weight=sample_weight,
  )
  is_point = sample_weight > 0
  num_points = effective_number(sample_weight)
  sample_weight = sample_weight / jnp.sum(sample_weight)
  centre, directions = _origin(points, rank, sample_weight=sample_weight)
  points = jnp.where(is_point[:, None], points - centre, 0.0)
  # Units are what they are: no gradient goes through them.
  extent = jax.lax.stop_gradient(jnp.max(jnp.abs(points), axis=0))
  scale, is_in_range = unit_of(extent, covariance_type=covariance_type)
  columns = points.T / scale[:, None]
  log_density = -0.5 * points.shape[-1] * math.log(2.0 * math.pi)
  log_density -= jnp.sum(jnp.log(scale))
  if directions is not None:
    columns = linalg.matmul(directions.T, columns)
    rest = points - linalg.matmul(columns.T, directions.T)
    log_density -= 0.5 * jnp.sum(sample_weight * jnp.sum(rest**2, axis=-1))
  return PreparedProblem(
    columns=columns,
    sample_weight=sample_weight,
    num_components=jnp.clip(num_components, 1, max_components),
    is_valid=is_valid & is_in_range,
    centre=centre,
    scale=scale,
    directions=directions,
    ridge=ridge_of(scale, reg_share, reg_covar),
    num_points=num_points,
    log_density=log_density,
  )


def _origin(points, rank, *, sample_weight):
  """Where the frame begins, and its directions, None for all of them."""
  if rank is not None:
    frame = linalg.principal_subspace(points, rank, sample_weight=sample_weight)
    return frame.mean, frame.directions
  # About one of the points, so that a constant column is centred exactly.
  first = points[jnp.argmax(sample_weight > 0)]
  mean = linalg.weighted_mean(points - first, sample_weight=sample_weight)
  return first + mean, None


def unit_of(
  extent: jax.Array,
  *,
  covariance_type: str,
) -> tuple[jax.Array, jax.Array]:
  """Units in which the coordinates are of the order of 1.

  EM gives the same in any units, so that only rounding and the ridge could
  tell. A coordinate without extent takes the largest of the others.

  Args:
    extent: `[d]`, the largest absolute value of each centred coordinate.
    covariance_type: types with one variance for all coordinates take one unit,
      the unit type leaves the points as they are.

  Returns:
    Powers of two `[d]`, and `[]` whether variances in these units are within
    the range of the dtype.
  """
  kind = gmm.kind_of(covariance_type)
  if kind.is_known:
    return jnp.ones_like(extent), jnp.ones((), bool)
  largest = jnp.max(extent)
  if kind.frame == "similarity":
    extent = jnp.full_like(extent, largest)
  extent = jnp.where(extent > 0, extent, largest)
  _, exponent = jnp.frexp(jnp.where(extent > 0, extent, 1.0))
  scale = jnp.ldexp(jnp.ones_like(extent), exponent)
  # A millionth of a variance, the usual ridge, is still a normal number.
  smallest = 1e6 * jnp.finfo(extent.dtype).tiny
  is_in_range = jnp.all(scale**2 > smallest)
  return jnp.where(is_in_range, scale, 1.0), is_in_range


def ridge_of(
  scale: jax.Array,
  reg_share: jax.Array | float,
  reg_covar: jax.Array | float,
) -> covariance_lib.Ridge:
  """What is added to every variance, in the units of the frame.

  Besides what the caller asks for it is what rounding leaves of a variance of
  nothing: coordinates are of the order of 1.

  Args:
    scale: `[d]`, units of the frame.
    reg_share: as in `prepare`.
    reg_covar: as in `prepare`.
  """
  rounding = _NUM_ROUNDINGS * jnp.finfo(scale.dtype).eps
  given = jnp.asarray(reg_covar, scale.dtype) / scale**2
  return covariance_lib.Ridge(given + rounding**2, reg_share)


def effective_number(sample_weight: jax.Array) -> jax.Array:
  """As many points of equal weight tell as much, `[]` (Kish 1965, section 8.2).

  `(sum w)^2 / sum w^2`: N for equal weights, whatever they are.

  Args:
    sample_weight: `[N]`, not all 0; of JAX or NumPy.
  """
  # Twice divided, so that no square leaves the range.
  share = sample_weight / sample_weight.max()
  return share.sum() ** 2 / (share**2).sum()


def conclude(
  problem: PreparedProblem,
  mixture: types.Mixture,
  *,
  log_likelihood: jax.Array,
  status: jax.Array,
  num_iters: jax.Array | int,
) -> types.SolverResult:
  """The result of a solver.

  Args:
    problem: from `prepare`; of one that is not valid the status is
      INVALID_INPUT, and then the log-likelihood -inf.
    mixture: finite, in the coordinates of the points.
    log_likelihood: `[]`, mean log density of the points.
    status: `[]`, of a valid problem.
    num_iters: `[]`.
  """
  status = jnp.where(problem.is_valid, status, types.Status.INVALID_INPUT)
  is_invalid = status == types.Status.INVALID_INPUT
  return types.SolverResult(
    mixture=mixture,
    log_likelihood=jnp.where(is_invalid, -jnp.inf, log_likelihood),
    num_iters=jnp.asarray(num_iters, jnp.int32),
    status=status.astype(jnp.int32),
  )


def log_likelihood(
  problem: PreparedProblem, mixture: types.Mixture
) -> jax.Array:
  """Mean log density of the points under a mixture of unit covariance, `[]`.

  Args:
    problem: not projected.
    mixture: in the coordinates of the points.
  """
  return gmm.log_likelihood(
    problem.columns.T + problem.centre,
    mixture,
    sample_weight=problem.sample_weight,
    covariance_type="unit",
  )


def static_components(
  num_components: jax.Array | int, max_components: int | None
) -> int:
  """The static K: `max_components`, or else a Python int `num_components`."""
  if max_components is not None:
    checks.integer("max_components", max_components, lowest=1)
    checks.integer("num_components", num_components)
    return int(max_components)
  if isinstance(num_components, jax.Array):
    raise ValueError(
      f"max_components is None with num_components = {num_components!r};"
      " takes the static K unless num_components is a Python int"
    )
  checks.integer("num_components", num_components, lowest=1)
  return int(num_components)


def to_frame(problem: PreparedProblem, means: jax.Array) -> jax.Array:
  """Means `[K, d]` in the coordinates of the frame, `[K, r]`."""
  means = (means - problem.centre) / problem.scale
  if problem.directions is None:
    return means
  return linalg.matmul(means, problem.directions)


def from_frame(problem: PreparedProblem, means: jax.Array) -> jax.Array:
  """Means `[K, r]` in the coordinates of the points; padding is 0."""
  if problem.directions is not None:
    means = linalg.matmul(means, problem.directions.T)
  is_component = jnp.arange(means.shape[0]) < problem.num_components
  means = means * problem.scale + problem.centre
  return jnp.where(is_component[:, None], means, 0.0)
