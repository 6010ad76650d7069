"""How sure a fit is, by the curvature of its log-likelihood.

The cheap one of two ways, and exact only for many points; `replicates` has the
other. The curvature is put together by one product of matrices (`curvature`),
where `jax.hessian` would pass P times over the points; it is the Hessian
itself, and not the outer product of the scores, which is near it only where N
is far above P.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em.uncertainty import curvature, record
from tgmm_jax.solvers.execution import programs

# Of so many points it takes less time than an optimising compiler.
_MOST_QUICK = 2**14
# Roundings, times the parameters, below which a curvature counts as none.
_NUM_ROUNDINGS = 10.0


def information(
  points: jax.Array,
  mixture: types.Mixture,
  num_components: jax.Array | int | None = None,
  *,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  level: jax.Array | float = 0.9,
  is_robust: bool = False,
) -> record.Uncertainty:
  """Standard errors of a fit by the observed information.

  The negative Hessian of the log-likelihood at the fit (`curvature`), inverted
  and carried to weights, means and covariances by the delta method (Efron and
  Hinkley 1978; McLachlan and Peel 2000, section 2.15). Costs N P^2 + P^3
  products and memory P^2, for P parameters: about K d (d + 3) / 2 for full
  covariances, K (d + 2) for spherical ones.

  Args:
    points: `[N, d]`; padding may hold anything.
    mixture: a fit, a maximum of the likelihood; see `Uncertainty.distance`.
    num_components: K of the problem, may be traced; None where the mixture has
      no padding.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]`, or None for ones; 0 is padding. A point of weight 2
      counts as two points, so that unlike in a fit a common factor matters.
    level: the probability that an interval is to hold.
    is_robust: whether to take the variance of the scores over the points for
      that of a Gaussian mixture (the sandwich of Huber 1967 and White 1982).
      It is right too where points are no mixture of Gaussians, and each is one
      observation whatever its weight, as in the bootstrap, whose errors it has.

  Returns:
    An `Uncertainty`. It is not valid where the Hessian is not positive
    definite: the fit is no maximum, or the points do not determine it.

  Raises:
    ValueError: for arguments that no data could make right.
  """
  size = mixture.weights.shape[-1]
  if num_components is None:
    num_components = size
  em_options.make_plan(
    {"init": mixture},
    points,
    num_components,
    covariance_type=covariance_type,
    max_components=size,
  )
  record.check(mixture, level, covariance_type=covariance_type)
  given = (points, mixture, num_components, sample_weight, level)
  is_quick = points.shape[0] <= _MOST_QUICK and not checks.is_traced(given)
  run = _information if is_quick else _information.optimized
  return run(
    *given,
    covariance_type=covariance_type,
    is_robust=is_robust,
  )


@programs.quick
def _information(
  points,
  mixture,
  num_components,
  sample_weight,
  level,
  *,
  covariance_type,
  is_robust,
):
  problem, mixture, weight = _prepared(
    points,
    mixture,
    num_components,
    sample_weight=sample_weight,
    covariance_type=covariance_type,
  )
  local = curvature.local_of(mixture, covariance_type=covariance_type)
  places = curvature.places_of(
    points.shape[-1], covariance_type=covariance_type
  )
  sums = curvature.sum_up(
    problem.columns,
    local,
    places,
    sample_weight=weight,
    is_robust=is_robust,
  )
  variance, is_definite = _inverse(
    curvature.negative_hessian(sums, local, places),
    curvature.is_parameter(problem.num_components, local, places),
  )
  distance = _root(sums.score @ linalg.matmul(variance, sums.score))
  if is_robust:
    variance = linalg.matmul(linalg.matmul(variance, sums.squared), variance)
  errors, mean_covariances = _delta(
    variance, local, mixture, places, covariance_type
  )
  widths = record.widths(
    mixture,
    level,
    problem.num_points if is_robust else None,
    covariance_type=covariance_type,
  )
  lower, upper = record.normal_interval(
    mixture, errors, widths, covariance_type=covariance_type
  )
  is_valid = problem.is_valid & is_definite
  found = record.Uncertainty(
    standard_errors=errors,
    lower=lower,
    upper=upper,
    mean_covariances=mean_covariances,
    is_valid=is_valid,
    distance=jnp.where(is_valid, distance, jnp.inf),
  )
  return record.from_frame(problem, found, covariance_type=covariance_type)


def _prepared(
  points, mixture, num_components, *, sample_weight, covariance_type
):
  """The problem and the fit in a frame, and how much each point counts."""
  problem = problem_lib.prepare(
    points,
    num_components,
    sample_weight=sample_weight,
    max_components=mixture.weights.shape[-1],
    covariance_type=covariance_type,
  )
  total = points.shape[0]
  if sample_weight is not None:
    total = jnp.sum(sample_weight)
  problem, start = em_starts.check(
    problem, mixture, covariance_type=covariance_type
  )
  return problem, start.mixture, problem.sample_weight * total


def _inverse(matrix, is_parameter):
  """Its inverse, 0 beside the parameters, and whether it was definite."""
  diagonal = jnp.diagonal(matrix)
  scale = jnp.where(
    is_parameter & (diagonal > 0),
    jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1.0)),
    0.0,
  )
  scaled = matrix * scale[:, None] * scale
  factor = jnp.linalg.cholesky(scaled + jnp.diag(~is_parameter))
  least = _NUM_ROUNDINGS * jnp.finfo(matrix.dtype).eps * len(matrix)
  is_definite = jnp.all(jnp.diagonal(factor) ** 2 > least)  # of NaN false
  identity = jnp.eye(len(matrix), dtype=matrix.dtype)
  factor = jnp.where(is_definite, factor, identity)
  root = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
  root *= scale
  return linalg.matmul(root.T, root), is_definite


def _delta(variance, local, mixture, places, covariance_type):
  """Standard errors as a mixture, and the covariances of the means."""
  size, dim = local.means.shape
  weights, split = local.weights, (size, size * (1 + dim))
  slope = jnp.diag(weights) - jnp.outer(weights, weights)
  of_ratios = variance[: split[0], : split[0]]
  of_weights = linalg.matmul(linalg.matmul(slope, of_ratios), slope)
  index = np.arange(size)
  of_means = variance[split[0] : split[1], split[0] : split[1]]
  of_means = of_means.reshape(size, dim, size, dim)[index, :, index]
  transposed = jnp.swapaxes(local.factor, 1, 2)
  of_means = linalg.matmul(linalg.matmul(local.factor, of_means), transposed)
  covariances = None
  if not gmm.kind_of(covariance_type).is_known:
    of_factors = variance[split[1] :, split[1] :]
    covariances = _errors_of_covariances(
      of_factors, local.factor, mixture.covariances, places, covariance_type
    )
  errors = types.Mixture(
    _root(jnp.diagonal(of_weights)),
    _root(jnp.diagonal(of_means, axis1=-2, axis2=-1)),
    covariances,
  )
  return errors, of_means


def _errors_of_covariances(
  variance, factor, covariances, places, covariance_type
):
  """By dS = -L (F + F^T) L^T."""
  if gmm.kind_of(covariance_type).structure != "matrix":
    own = _root(jnp.diagonal(variance)).reshape(covariances.shape)
    return 2.0 * covariances * own
  size = 1 if places.is_shared else len(factor)
  count, index = len(places.rows), np.arange(size)
  own = variance.reshape(size, count, size, count)[index, :, index]
  rows = factor[:size, :, None, places.rows]
  cols = factor[:size, None, :, places.columns]
  slope = rows * cols
  slope = slope + jnp.swapaxes(slope, 1, 2)  # [K, d, d, q]
  carried = linalg.einsum("kabi,kij->kabj", slope, own)
  return _root(jnp.sum(carried * slope, axis=-1)).reshape(covariances.shape)


def _root(variances):
  """Rounding may take a variance of nothing below zero."""
  return jnp.sqrt(jnp.maximum(variances, 0.0))
