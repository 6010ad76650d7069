"""The curvature of a mixture's log-likelihood: its Hessian, as by Louis (1982).

In parameters without bounds, about the mixture itself: log ratios of the
weights; means m in units of each component; and the lower triangle F of the
Cholesky factor I + F of the precision in these units (its diagonal alone, or
one number, for simpler types). A component's density at z, in its units, is
|I + F| exp(-|(I + F) (z - m)|^2 / 2), and all is taken at m = 0, F = 0.
P parameters are in the order: K log ratios, K d means, the factors.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, linalg, types

# Numbers in the scores of a block of points, and its points at most.
_BLOCK_SIZE, _MOST_POINTS = 2**20, 4096


class Places(NamedTuple):
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


def places_of(dim: int, *, covariance_type: str) -> Places:
  """Which entries of a factor are parameters."""
  kind = gmm.kind_of(covariance_type)
  count = 0 if kind.is_known else dim
  rows, columns = np.arange(count), np.arange(count)
  if kind.structure == "matrix":
    rows, columns = np.tril_indices(dim)
  return Places(
    rows, columns, kind.structure == "ball", not kind.is_per_component
  )


class Local(NamedTuple):
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


def local_of(mixture: types.Mixture, *, covariance_type: str) -> Local:
  """A mixture in units of its components."""
  matrices = gmm.covariance_matrices(mixture, covariance_type=covariance_type)
  inverse = gmm.inverse_factor(matrices)
  return Local(
    mixture.weights,
    mixture.means,
    inverse,
    linalg.matmul(matrices, jnp.swapaxes(inverse, -1, -2)),
  )


class Sums(NamedTuple):
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


def sum_up(
  columns: jax.Array,
  local: Local,
  places: Places,
  *,
  sample_weight: jax.Array,
  is_robust: bool,
) -> Sums:
  """The sums, a block of points at a time.

  Args:
    columns: `[d, N]`.
    local: the mixture.
    places: of its type.
    sample_weight: `[N]`, how many points each counts for.
    is_robust: whether `Sums.squared` is asked for.
  """
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
  return Sums(
    mass=jnp.sum(mass[:, 0], axis=-1),
    first=jnp.sum(mass * unit, axis=-1),
    second=linalg.matmul(mass * unit, jnp.swapaxes(unit, 1, 2)),
    slopes=jnp.sum(mass * own, axis=-1),
    products=linalg.matmul(mass * own, jnp.swapaxes(own, 1, 2)),
    outer=linalg.matmul(scores * weights, scores.T),
    score=jnp.sum(scores * weights, axis=-1),
    squared=squared,
  )


def negative_hessian(sums: Sums, local: Local, places: Places) -> jax.Array:
  """Of the log-likelihood, `[P, P]`.

  What it were if the component of every point were known, less the variance of
  the scores over the components at each point.

  Args:
    sums: over the points.
    local: the mixture.
    places: of its type.
  """
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

  Summed over the points of each component, `[K, p, p]`.
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


def is_parameter(
  num_components: jax.Array, local: Local, places: Places
) -> jax.Array:
  """Which of P are free: not those of padding, nor the first log ratio.

  Args:
    num_components: `[]`, K without padding.
    local: the mixture.
    places: of its type.
  """
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
