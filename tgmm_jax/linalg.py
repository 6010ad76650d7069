"""Products, weighted moments, leading directions, signs, factors, assignments.

What both the classical solvers and the networks need, below both.
"""

import itertools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# What may be lost of a mean, in standard deviations, without a warning.
_MOST_LOST = 0.01
# Above this dimension a few subspace iterations replace the full
# eigendecomposition, which costs O(d^3) and whose cost we would not use.
_MAX_DENSE_DIM = 16
# Up to here elimination is written out: a quarter faster in batches, and the
# compiler takes as much longer as d is larger.
_MAX_UNROLLED_DIM = 8
_NUM_SUBSPACE_ITERS = 8
_EXTRA_COLUMNS = 12
# Enumerating permutations beats the Hungarian algorithm up to here: 2.4 ms
# against 3.2 ms for 2,048 problems with K = 5, 83 against 9 with K = 6.
_MAX_ENUMERATED = 5

# In full float32 also where the device would take fewer bits: squared distances
# and moments are differences of numbers much larger than they are.
PRECISION = jax.lax.Precision.HIGHEST


def matmul(left: jax.Array, right: jax.Array) -> jax.Array:
  """`jnp.matmul` in the full precision of its inputs."""
  return jnp.matmul(left, right, precision=PRECISION)


def einsum(subscripts: str, *operands: jax.Array) -> jax.Array:
  """`jnp.einsum` in the full precision of its inputs."""
  return jnp.einsum(subscripts, *operands, precision=PRECISION)


def max_squared_norm(dtype: jax.typing.DTypeLike) -> float:
  """Bound of the squared norms of points whose distances can be squared."""
  return 1e-3 * float(jnp.finfo(dtype).max)


def is_squarable(points: jax.Array) -> jax.Array:
  """Whether points `[N, d]` hold no NaN and no number too large, `[]` bool.

  Every squared distance between them then stays within the dtype's range.
  """
  # Of NaN the comparison is false.
  squares = jnp.sum(points**2, axis=-1)
  return jnp.all(squares < max_squared_norm(points.dtype))


def is_weighted(weights: jax.Array) -> jax.Array:
  """Whether weights `[N]` are not negative and sum to a number above 0."""
  total = jnp.sum(weights)
  return (
    jnp.all(weights >= 0) & (total > 0) & (total < jnp.finfo(weights.dtype).max)
  )


def usable(
  points: jax.Array,
  is_valid: jax.Array | bool = True,
  *,
  sample_weight: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Points and weights that no solver fails on, and whether they are the given.

  Args:
    points: `[N, d]`; less than float32 becomes float32. Padding, which may
      hold anything, becomes 0.
    is_valid: `[]` bool, whether all else about the problem is as it should be.
    sample_weight: `[N]`, or None for ones; 0 is padding.

  Returns:
    The same points and weights where they can be used (see `is_squarable` and
    `is_weighted`), else zeros and ones; and `[]` bool, whether they can.
  """
  points = jnp.asarray(points)
  points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  sample_weight = sample_weight.astype(points.dtype)
  points = jnp.where((sample_weight > 0)[:, None], points, 0.0)
  is_valid &= is_squarable(points) & is_weighted(sample_weight)
  return (
    jnp.where(is_valid, points, 0.0),
    jnp.where(is_valid, sample_weight, 1.0),
    is_valid,
  )


def is_variance(values: jax.Array) -> jax.Array:
  """Which values can be variances: finite and not negative, elementwise."""
  return (values >= 0) & (values < jnp.inf)


def weighted_mean(
  points: jax.Array,
  *,
  sample_weight: jax.Array,
) -> jax.Array:
  """Mean of `points [N, d]` under `sample_weight [N]`, `[d]`.

  With no weight at all it is 0.
  """
  total = jnp.sum(sample_weight)
  normalised = sample_weight / jnp.where(total > 0, total, 1.0)
  return normalised @ points


def weighted_covariance(
  points: jax.Array,
  *,
  sample_weight: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Mean `[d]` and covariance `[d, d]` (divisor: the total weight).

  In centred form, so that float32 points far from the origin stay right.
  """
  mean = weighted_mean(points, sample_weight=sample_weight)
  centred = points - mean
  total = jnp.sum(sample_weight)
  normalised = sample_weight / jnp.where(total > 0, total, 1.0)
  return mean, (centred * normalised[:, None]).T @ centred


class PrincipalSubspace(NamedTuple):
  """The leading principal directions of a set of points.

  Attributes:
    mean: `[d]`.
    directions: `[d, r]`, orthonormal columns; zero columns beyond d.
    eigenvalues: `[r]`, variance along each, descending; 0 beyond d.
  """

  mean: jax.Array
  directions: jax.Array
  eigenvalues: jax.Array


def principal_subspace(
  points: jax.Array,
  rank: int,
  *,
  sample_weight: jax.Array,
) -> PrincipalSubspace:
  """The `rank` leading principal directions of weighted points.

  For d > 16 by subspace iteration from a fixed start, so the directions are
  those of the sample covariance only up to the gap between its eigenvalues:
  means of a mixture stand far above the noise.

  Args:
    points: `[N, d]`.
    sample_weight: `[N]`.
    rank: r, static; may exceed d, the rest is zero.
  """
  mean = weighted_mean(points, sample_weight=sample_weight)
  total = jnp.sum(sample_weight)
  normalised = sample_weight / jnp.where(total > 0, total, 1.0)
  scaled = (points - mean) * jnp.sqrt(normalised)[:, None]
  eigenvalues, directions = leading_directions(scaled, rank)
  return PrincipalSubspace(mean, directions, eigenvalues)


def leading_directions(
  rows: jax.Array, rank: int
) -> tuple[jax.Array, jax.Array]:
  """Leading eigenvalues and eigenvectors of `rows^T rows`.

  For d > 16 by subspace iteration from a fixed start: eigenvalues close to
  the next ones come out a little low and their vectors mixed.

  Args:
    rows: `[N, d]`.
    rank: r, static; may exceed d, the rest is zero.

  Returns:
    Eigenvalues `[r]`, descending and not negative, and orthonormal vectors
    `[d, r]`.
  """
  dim = rows.shape[-1]
  kept = min(rank, dim)
  if dim <= _MAX_DENSE_DIM:
    eigenvalues, vectors = jnp.linalg.eigh(matmul(rows.T, rows))
    eigenvalues = eigenvalues[::-1][:kept]
    directions = vectors[:, ::-1][:, :kept]
  else:
    eigenvalues, directions = _subspace_iteration(rows, kept)
  return (
    jnp.pad(jnp.maximum(eigenvalues, 0.0), (0, rank - kept)),
    jnp.pad(directions, ((0, 0), (0, rank - kept))),
  )


def _subspace_iteration(rows, rank):
  """Orthogonal iteration on X^T X, then Rayleigh-Ritz."""
  num_rows, dim = rows.shape
  # More columns than asked for: a direction converges at the ratio of the
  # eigenvalue after the block to its own, and noise eigenvalues are dense.
  block = min(rank + _EXTRA_COLUMNS, dim)
  basis = jax.random.normal(jax.random.key(0), (dim, block), rows.dtype)
  gram = matmul(rows.T, rows) if dim <= num_rows else None

  def iterate(_, basis):
    if gram is None:
      product = matmul(rows.T, matmul(rows, basis))
    else:
      product = matmul(gram, basis)
    return jnp.linalg.qr(product)[0]

  basis = jax.lax.fori_loop(0, _NUM_SUBSPACE_ITERS, iterate, basis)
  projected = matmul(rows, basis)
  eigenvalues, vectors = jnp.linalg.eigh(matmul(projected.T, projected))
  directions = matmul(basis, vectors[:, ::-1][:, :rank])
  return eigenvalues[::-1][:rank], directions


def inverse_cholesky(
  matrices: jax.Array, *, floor: jax.Array | None = None
) -> jax.Array:
  """`L^-1` of symmetric `matrices = L L^T`, by elimination.

  In place of LAPACK: batches of small matrices take less than half the time,
  and two batched LAPACK calls at once can wait for each other for ever in the
  thread pool of jaxlib 0.10 on a machine of two cores.

  Args:
    matrices: `[..., d, d]`.
    floor: `[..., d]`, positive, or None. What is left of the variance of a
      coordinate, those before it given, counts as no less: then there is always
      a factor.

  Returns:
    `[..., d, d]`, lower triangular; without a floor NaN where a matrix is not
    positive definite.
  """
  matrices = jnp.asarray(matrices)
  if floor is None:
    floor = jnp.full(matrices.shape[:-1], -jnp.inf, matrices.dtype)
  if matrices.shape[-1] > _MAX_UNROLLED_DIM:
    return _inverse_cholesky_scan(matrices, floor)
  batch, dim = matrices.shape[:-2], matrices.shape[-1]
  rest, inverse, rows = matrices, matrices[..., :0], []
  for pivot in range(dim):
    # What is left shrinks by a row and a column, what was the identity grows
    # by a column: a third of the work of the full rectangle.
    unit = jnp.zeros((dim - pivot, 1), matrices.dtype).at[0, 0].set(1.0)
    unit = jnp.broadcast_to(unit, (*batch, *unit.shape))
    inverse = jnp.concatenate([inverse, unit], axis=-1)
    least = floor[..., pivot, None, None]
    root = jax.lax.rsqrt(jnp.maximum(rest[..., :1, :1], least))
    column = rest[..., 1:, :1] * root
    row = inverse[..., :1, :] * root
    missing = jnp.zeros((*batch, 1, dim - pivot - 1), matrices.dtype)
    rows.append(jnp.concatenate([row, missing], axis=-1))
    inverse = inverse[..., 1:, :] - column * row
    rest = rest[..., 1:, 1:] - column * jnp.swapaxes(column, -1, -2)
  return jnp.concatenate(rows, axis=-2)


def _inverse_cholesky_scan(matrices, floor):
  """The same on the full rectangle, which compiles in no time at any size."""
  dim = matrices.shape[-1]
  index = jnp.arange(dim)[:, None]
  identity = jnp.eye(dim, dtype=matrices.dtype)
  rows = jnp.concatenate(
    [matrices, jnp.broadcast_to(identity, matrices.shape)], axis=-1
  )

  def eliminate(rows, pivot):
    row = jax.lax.dynamic_index_in_dim(rows, pivot, -2)
    column = jax.lax.dynamic_index_in_dim(rows, pivot, -1)
    least = jax.lax.dynamic_index_in_dim(floor, pivot, -1)[..., None]
    left = jax.lax.dynamic_index_in_dim(row, pivot, -1)
    root = jax.lax.rsqrt(jnp.maximum(left, least))
    below = jnp.where(index > pivot, column * root, 0.0)
    row = row * root
    return jnp.where(index == pivot, row, rows - below * row), None

  rows, _ = jax.lax.scan(eliminate, rows, jnp.arange(dim))
  return rows[..., dim:]


def orthonormal(columns: jax.Array) -> jax.Array:
  """Orthonormal factor `[d, k]` of columns, the other's diagonal positive.

  Of a standard normal matrix it is uniform over rotations and reflections.

  Args:
    columns: `[d, k]`, k at most d.
  """
  basis, triangle = jnp.linalg.qr(columns)
  return jnp.where(jnp.diagonal(triangle) < 0, -basis, basis)


def fix_signs(vectors: jax.Array) -> jax.Array:
  """Makes the entry of largest size in each column positive.

  Of entries of exactly the same size the first counts; of entries that differ
  by rounding only, either may. `[d, k]` to `[d, k]`.
  """
  largest = jnp.argmax(jnp.abs(vectors), axis=0)
  entries = jnp.take_along_axis(vectors, largest[None], axis=0)
  return jnp.where(entries < 0, -vectors, vectors)


def align(cost: jax.Array, num_components: jax.Array | int) -> jax.Array:
  """Finds the assignment of least total cost.

  Args:
    cost: `[K, K]`; `cost[i, j]` is the price of matching estimate i with true
      component j. One that is not finite counts as more than all others
      together.
    num_components: how many leading rows and columns are real.

  Returns:
    `[K]` int32: `permutation[i]` is the true component matched to estimate i.
    Padded components are matched to themselves.
  """
  size = cost.shape[0]
  is_component = jnp.arange(size) < num_components
  is_real = is_component[:, None] & is_component[None, :]
  is_finite = jnp.isfinite(cost)
  highest = jnp.max(jnp.where(is_real & is_finite, cost, 0.0))
  lowest = jnp.min(jnp.where(is_real & is_finite, cost, 0.0))
  # From 0 to 1, so that bad prices and those of padding are out of reach
  # whatever the unit: padding has 0 on the diagonal, more than any assignment
  # elsewhere.
  span = jnp.maximum(highest - lowest, jnp.finfo(cost.dtype).tiny)
  price = jnp.where(is_finite, (cost - lowest) / span, 2.0 * size)
  price = jnp.where(is_real, price, 4.0 * size**2 * (1.0 - jnp.eye(size)))
  if size <= _MAX_ENUMERATED:
    table = np.array(list(itertools.permutations(range(size))), np.int32)
    totals = jnp.sum(price[np.arange(size), table], axis=-1)
    return jnp.asarray(table)[jnp.argmin(totals)]
  import optax  # takes its time, and few components need none

  rows, columns = optax.assignment.hungarian_algorithm(price)
  # Its pairs come in an order of its own: rows are not sorted.
  return jnp.zeros(size, jnp.int32).at[rows].set(columns.astype(jnp.int32))


def warn_if_rounded(means: Any, covariances: Any) -> None:
  """Warns where float32 loses means of NumPy.

  Pure functions compute with 64 bits only where JAX has them.

  Args:
    means: float64 of NumPy, or what is not looked at.
    covariances: of any type; what is lost is measured by them.
  """
  is_host = isinstance(means, np.ndarray) and isinstance(
    covariances, np.ndarray
  )
  if not is_host or means.dtype != np.float64 or jax.config.jax_enable_x64:
    return
  with np.errstate(over="ignore", invalid="ignore"):
    lost = np.max(np.abs(means - means.astype(np.float32)))
    widest = np.sqrt(np.max(np.abs(covariances)))
  if lost > _MOST_LOST * widest:
    warnings.warn(
      f"means are rounded by up to {lost:.2g} to float32, of which JAX is: take"
      " means and points about a point, or jax.enable_x64(True)",
      stacklevel=4,
    )
