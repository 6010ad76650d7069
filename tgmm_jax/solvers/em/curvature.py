"""How sure a fit is, by the curvature of its log-likelihood.

The cheap one of two ways, and exact only for many points; `replicates` has the
other.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em import uncertainty
from tgmm_jax.solvers.execution import programs

# Numbers in the scores of a block of points, and its points at most.
_BLOCK_SIZE, _MOST_POINTS = 2**20, 4096
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
) -> uncertainty.Uncertainty:
  """Standard errors of a fit by the observed information.

  The negative Hessian of the log-likelihood at the fit, inverted and carried to
  weights, means and covariances by the delta method (Efron and Hinkley 1978;
  McLachlan and Peel 2000, section 2.15). The parameters in which it is taken
  have no bounds: log ratios of the weights, means, Cholesky factors of the
  precisions, the latter two in units of each component. It is put together as
  by Louis (1982): the curvature if the component of every point were known,
  less the variance of the scores over the components. That is the Hessian
  itself by one product of matrices, where `jax.hessian` passes P times over the
  points, and unlike the outer product of the scores it does not need P to be
  small beside N.

  Costs N P^2 + P^3 products and memory P^2, for P parameters: about
  K d (d + 3) / 2 for full covariances, K (d + 2) for spherical ones.

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
  uncertainty.check(mixture, level, covariance_type=covariance_type)
  given = (points, mixture, num_components, sample_weight, level)
  is_quick = points.shape[0] <= _MOST_QUICK and not checks.is_traced(given)
  run = _information if is_quick else _information.optimized
  return run(
    *given,
    covariance_type=covariance_type,
    is_robust=is_robust,
  )


class _Places(NamedTuple):
  """Which entries of a factor are parameters, of NumPy.

  Attributes:
    rows: `[q]`, none where covariances are known.
    columns: `[q]`.
    is_one: whether they are all the same parameter.
    is_shared: whether they are those of all components.
  """

  rows: np.ndarray
  columns: np.ndarray
  is_one: bool
  is_shared: bool

  @property
  def count(self):
    """How many parameters there are for each factor."""
    return 1 if self.is_one else len(self.rows)

  def joined(self, array, axis=-1):
    """An array over entries as one over parameters."""
    if not self.is_one:
      return array
    return jnp.sum(array, axis=axis, keepdims=True)


def _places(dim, covariance_type):
  kind = gmm.kind_of(covariance_type)
  count = 0 if kind.is_known else dim
  rows, columns = np.arange(count), np.arange(count)
  if kind.structure == "matrix":
    rows, columns = np.tril_indices(dim)
  return _Places(
    rows, columns, kind.structure == "ball", not kind.is_per_component
  )


class _Local(NamedTuple):
  """The mixture in units of its components.

  Attributes:
    weights: `[K]`.
    means: `[K, d]`.
    inverse: `[K, d, d]`, takes differences from a mean to units.
    factor: `[K, d, d]`, its inverse, the Cholesky factor of the covariance.
  """

  weights: jax.Array
  means: jax.Array
  inverse: jax.Array
  factor: jax.Array


class _Sums(NamedTuple):
  """Sums over the points; p = d + q parameters of a component.

  Attributes:
    mass: `[K]`, weight of the points of each component.
    first: `[K, d]`, of these points in units.
    second: `[K, d, d]`, of their products.
    slopes: `[K, p]`, of the scores of a component at its points.
    products: `[K, p, p]`, of products of these.
    outer: `[P, P]`, of products of the scores of the mixture.
    score: `[P]`, of these scores.
    squared: `[P, P]`, as `outer` with squared weights, or None.
  """

  mass: jax.Array
  first: jax.Array
  second: jax.Array
  slopes: jax.Array
  products: jax.Array
  outer: jax.Array
  score: jax.Array
  squared: jax.Array | None


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
  mixture = start.mixture
  matrices = gmm.covariance_matrices(mixture, covariance_type=covariance_type)
  inverse = gmm.inverse_factor(matrices)
  local = _Local(
    mixture.weights,
    mixture.means,
    inverse,
    linalg.matmul(matrices, jnp.swapaxes(inverse, -1, -2)),
  )
  places = _places(points.shape[-1], covariance_type)
  sums = _sum_up(
    problem.columns,
    problem.sample_weight * total,
    local,
    places,
    is_robust=is_robust,
  )
  variance, is_definite = _inverse(
    _assembled(sums, local, places),
    _is_parameter(problem.num_components, local, places),
  )
  distance = jnp.sqrt(sums.score @ linalg.matmul(variance, sums.score))
  if is_robust:
    variance = linalg.matmul(linalg.matmul(variance, sums.squared), variance)
  errors, mean_covariances = _delta(
    variance, local, mixture, places, covariance_type
  )
  lower, upper = uncertainty.normal_interval(
    mixture, errors, level, covariance_type=covariance_type
  )
  is_valid = problem.is_valid & is_definite
  found = uncertainty.Uncertainty(
    standard_errors=errors,
    lower=lower,
    upper=upper,
    mean_covariances=mean_covariances,
    is_valid=is_valid,
    distance=jnp.where(is_valid, distance, jnp.inf),
  )
  return uncertainty.from_frame(problem, found, covariance_type=covariance_type)


def _sum_up(columns, sample_weight, local, places, *, is_robust):
  """The sums, a block of points at a time."""
  dim, num_points = columns.shape
  size = local.weights.size
  count = size * (1 + dim + places.count)
  block = min(max(1, _BLOCK_SIZE // count), _MOST_POINTS, num_points)
  missing = -num_points % block
  columns = jnp.pad(columns, ((0, 0), (0, missing)))
  columns = columns.reshape(dim, -1, block).swapaxes(0, 1)
  weights = jnp.pad(sample_weight, (0, missing)).reshape(-1, block)
  of_block = functools.partial(
    _of_block, local=local, places=places, is_robust=is_robust
  )

  def add(sums, inputs):
    return jax.tree.map(jnp.add, sums, of_block(*inputs)), None

  blank = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
    jax.eval_shape(of_block, columns[0], weights[0]),
  )
  return jax.lax.scan(add, blank, (columns, weights))[0]


def _of_block(columns, weights, *, local, places, is_robust):
  """The sums over points `[d, n]` of weights `[n]`."""
  rows, cols = places.rows, places.columns
  unit = linalg.matmul(local.inverse, columns - local.means[:, :, None])
  scales = jnp.diagonal(local.inverse, axis1=-2, axis2=-1)
  bias = jnp.sum(jnp.log(scales), axis=-1)
  bias += gmm.log_weights(types.Mixture(local.weights, local.means))
  log_joint = bias[:, None] - 0.5 * jnp.sum(unit**2, axis=1)
  share = jax.nn.softmax(log_joint, axis=0)
  mass = share * weights
  slopes = (rows == cols)[:, None] - unit[:, rows] * unit[:, cols]
  slopes = places.joined(slopes, axis=1)
  own = jnp.concatenate([unit, slopes], axis=1)  # [K, p, n]
  share = share[:, None]
  of_factors = share * slopes
  if places.is_shared:
    of_factors = jnp.sum(of_factors, axis=0)
  scores = [
    share[:, 0] - local.weights[:, None],
    (share * unit).reshape(-1, weights.size),
    of_factors.reshape(-1, weights.size),
  ]
  scores = jnp.concatenate(scores)  # [P, n]
  squared = None
  if is_robust:
    squared = linalg.matmul(scores * weights**2, scores.T)
  mass = mass[:, None]
  return _Sums(
    mass=jnp.sum(mass[:, 0], axis=-1),
    first=jnp.sum(mass * unit, axis=-1),
    second=linalg.matmul(mass * unit, jnp.swapaxes(unit, 1, 2)),
    slopes=jnp.sum(mass * own, axis=-1),
    products=linalg.matmul(mass * own, jnp.swapaxes(own, 1, 2)),
    outer=linalg.matmul(scores * weights, scores.T),
    score=jnp.sum(scores * weights, axis=-1),
    squared=squared,
  )


def _assembled(sums, local, places):
  """The negative Hessian `[P, P]`: of log ratios, means and factors."""
  size, dim = local.means.shape
  weights, mass = local.weights, sums.mass
  own = _complete(sums, places) - sums.products
  # The scores of the log ratios at points of each component.
  ratios = jnp.eye(size, dtype=weights.dtype) - weights
  total = jnp.sum(mass) * (jnp.diag(weights) - jnp.outer(weights, weights))
  of_ratios = total - linalg.matmul(ratios.T * mass, ratios)
  beside = -ratios.T[:, :, None] * sums.slopes  # [K, K, p]
  means = _block_diagonal(own[:, :dim, :dim])
  mixed, factors = own[:, :dim, dim:], own[:, dim:, dim:]
  if places.is_shared:
    mixed = mixed.reshape(size * dim, -1)
    factors = jnp.sum(factors, axis=0)
    of_factors = jnp.sum(beside[:, :, dim:], axis=1)
  else:
    mixed, factors = _block_diagonal(mixed), _block_diagonal(factors)
    of_factors = beside[:, :, dim:].reshape(size, -1)
  of_means = beside[:, :, :dim].reshape(size, -1)
  return sums.outer + jnp.block(
    [
      [of_ratios, of_means, of_factors],
      [of_means.T, means, mixed],
      [of_factors.T, mixed.T, factors],
    ]
  )


def _complete(sums, places):
  """The negative Hessian if the component of every point were known.

  Of the logarithm of |I + F| exp(-|(I + F) (z - m)|^2 / 2) at m = 0, F = 0,
  summed over the points z of each component, `[K, p, p]`.
  """
  rows, cols = places.rows, places.columns
  identity = np.eye(sums.first.shape[-1])
  mass = sums.mass[:, None, None]
  mixed = -(
    identity[:, rows] * sums.first[:, None, cols]
    + identity[:, cols] * sums.first[:, None, rows]
  )
  factors = (rows[:, None] == rows) * sums.second[:, cols[:, None], cols]
  factors += mass * np.diag((rows == cols).astype(int))
  mixed = places.joined(mixed)
  factors = places.joined(places.joined(factors), axis=-2)
  means = mass * identity.astype(mass.dtype)
  return jnp.concatenate(
    [
      jnp.concatenate([means, mixed], axis=-1),
      jnp.concatenate([jnp.swapaxes(mixed, 1, 2), factors], axis=-1),
    ],
    axis=1,
  )


def _block_diagonal(blocks):
  """`[K, a, b]` along the diagonal of `[K a, K b]`."""
  size, height, width = blocks.shape
  index = np.arange(size)
  found = jnp.zeros((size, height, size, width), blocks.dtype)
  return (
    found.at[index, :, index].set(blocks).reshape(size * height, size * width)
  )


def _is_parameter(num_components, local, places):
  """Which of P are free: not those of padding, nor the first log ratio."""
  size, dim = local.means.shape
  is_component = jnp.arange(size) < num_components
  of_factors = jnp.ones(places.count, bool)
  if not places.is_shared:
    of_factors = jnp.repeat(is_component, places.count)
  return jnp.concatenate(
    [
      is_component & (jnp.arange(size) > 0),
      jnp.repeat(is_component, dim),
      of_factors,
    ]
  )


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
