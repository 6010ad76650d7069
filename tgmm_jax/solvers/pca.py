"""The power method: leading eigenpairs of a covariance.

"deflation": power iterations on one vector after the other, each found pair
taken off the matrix (He et al. 2025, "Learning spectral methods by
transformers", section 2). "block": orthogonal iteration on k vectors and a few
more (Golub and Van Loan, section 8.2.4), with a Rayleigh-Ritz step at the end.
A step shrinks the tangent of the angle to the j-th eigenvector by
`value_(j+1) / value_j` with deflation and `value_(k+e+1) / value_j` with a
block of k + e, the error of the eigenvalue by the square of that.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types

METHODS = ("block", "deflation")

# More columns than asked for make the block converge faster, and the first of
# them shows the gap after the last eigenvalue asked for.
_NUM_EXTRA = 4
# The block's residuals cost an eigendecomposition: not after every step.
_STEPS_PER_CHECK = 4
# In roundings of the largest eigenvalue: what may be 0, and which gap is none.
_NUM_ZERO_ROUNDINGS = 16.0
_NUM_GAP_ROUNDINGS = 1000.0


class Eigenpairs(NamedTuple):
  """The k leading eigenpairs of a positive semidefinite matrix; finite.

  Attributes:
    eigenvalues: `[k]`, not negative; descending where CONVERGED.
    vectors: `[d, k]`, a unit vector in each column with the sign of
      `linalg.fix_signs`; orthogonal as far as they have converged.
    residuals: `[k]`, `|A v - value v|` over the largest eigenvalue, A with
      deflation the deflated matrix. Some eigenvalue is within that (times the
      largest), and the angle is about that over the relative gap.
    num_iters: `[]` int32, steps of the block, or of the k vectors together.
    status: `[]` int32. CONVERGED: the residuals are within the tolerance;
      MAX_ITER: some is not; DEGENERATE: the rank is below k, or, of what has
      converged, a gap up to the one after the k-th eigenvalue is within the
      tolerance or 1000 roundings of the largest, so that vectors could be any
      of a span; INVALID_INPUT: NaN or inf, no symmetry, a negative eigenvalue
      if one was met, a start with a zero column, weights that are negative or
      not above `ddof` in total, or eigenvalues out of the dtype's range.
  """

  eigenvalues: jax.Array
  vectors: jax.Array
  residuals: jax.Array
  num_iters: jax.Array
  status: jax.Array


def power_step(matrix: jax.Array, vector: jax.Array) -> jax.Array:
  """`A v` over its norm; a vector mapped to 0 stays where it is.

  Args:
    matrix: `[d, d]`, symmetric, its entries neither so large nor so small
      that their squares leave the range of the dtype.
    vector: `[d]`.
  """
  return _normalise(linalg.matmul(matrix, vector), vector, 0.0)


def deflate(
  matrix: jax.Array, eigenvalue: jax.Array, vector: jax.Array
) -> jax.Array:
  """`A - value v v^T`: the matrix without a found eigenpair."""
  return matrix - eigenvalue * vector[:, None] * vector


def block_step(matrix: jax.Array, basis: jax.Array) -> jax.Array:
  """Orthonormal factor `[d, k]` of `A Q`, the other's diagonal positive.

  A `[d, d]` is symmetric, the columns of Q `[d, k]` orthonormal. The first j
  columns of the result are those of the first j columns of Q alone.
  """
  return linalg.orthonormal(linalg.matmul(matrix, basis))


def covariance(
  points: jax.Array,
  *,
  sample_weight: jax.Array,
  ddof: int = 0,
) -> jax.Array:
  """Weighted covariance `[d, d]`, about the mean.

  Args:
    points: `[N, d]`.
    sample_weight: `[N]`; how often each point counts.
    ddof: taken off the total weight, which is the divisor: 0, or 1 for the
      N - 1 of He et al. 2025 (and of numpy.cov).
  """
  total = jnp.sum(sample_weight)
  # Centred twice: of equal points nothing then remains.
  centred = points - linalg.weighted_mean(points, sample_weight=sample_weight)
  _, second = linalg.weighted_covariance(centred, sample_weight=sample_weight)
  divisor = total - ddof
  return second * (total / jnp.where(divisor > 0, divisor, 1.0))


def fit(
  key: jax.Array,
  points: jax.Array,
  num_directions: int,
  *,
  sample_weight: jax.Array | None = None,
  ddof: int = 0,
  **options,
) -> Eigenpairs:
  """Leading eigenpairs of the covariance of points: variances, directions.

  Args:
    key: consumed, as in `leading_eigenpairs`.
    points: `[N, d]`; padding may hold anything.
    num_directions: k, static, at most d.
    sample_weight: `[N]`, or None for ones; 0 is padding.
    ddof: as in `covariance`.
    **options: method, start, max_iter and tol of `leading_eigenpairs`, whose
      errors these are too.

  Returns:
    `Eigenpairs`, the eigenvalues in squared units of the points. Points that
    are all the same are DEGENERATE.
  """
  points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  sample_weight = sample_weight.astype(points.dtype)
  points = jnp.where((sample_weight > 0)[:, None], points, 0.0)
  total = jnp.sum(sample_weight)
  is_valid = jnp.all(jnp.isfinite(points)) & jnp.all(sample_weight >= 0)
  is_valid &= (total > ddof) & (total < jnp.inf)
  points = jnp.where(is_valid, points, 0.0)
  sample_weight = jnp.where(is_valid, sample_weight, 1.0 + ddof)
  points, scale = _scale_to_one(points)
  found = leading_eigenpairs(
    key,
    covariance(points, sample_weight=sample_weight, ddof=ddof),
    num_directions,
    **options,
  )
  limits = jnp.finfo(points.dtype)
  largest = found.eigenvalues[0]
  eigenvalues = found.eigenvalues * scale * scale
  is_in_range = (eigenvalues[0] >= limits.tiny) & (eigenvalues[0] < jnp.inf)
  is_valid &= is_in_range | (largest == 0)
  # Points are read to a rounding error: less spread than that is none.
  is_constant = largest <= (4.0 * limits.eps) ** 2
  least = jnp.where(is_constant, types.Status.DEGENERATE, 0)
  status = jnp.maximum(found.status, least)
  return found._replace(
    eigenvalues=jnp.minimum(eigenvalues, limits.max),
    status=_or_invalid(is_valid, status),
  )


def leading_eigenpairs(
  key: jax.Array,
  matrix: jax.Array,
  num_directions: int,
  *,
  method: str = "block",
  start: jax.Array | None = None,
  max_iter: int = 1000,
  tol: float = 1e-5,
) -> Eigenpairs:
  """`Eigenpairs` of a positive semidefinite matrix.

  Close eigenvalues take many steps. Eigenvalues below the rounding error of
  the largest, or below the tolerance times it, are found only as small.

  Args:
    key: consumed; the start, or, with a given one, its additional columns.
    matrix: `[d, d]`, of any scale.
    num_directions: k, static, at most d.
    method: "block" or "deflation".
    start: `[d, k]`, a vector in each column, or None for random ones.
    max_iter: number of steps; with deflation for each vector.
    tol: stops where all residuals are below this; with 0 after exactly
      `max_iter` steps, and the status is never CONVERGED.

  Raises:
    ValueError: for k not in 1 ... d, an unknown method, a matrix or a start of
      the wrong shape, `max_iter` below 1 or `tol` not in [0, 1).
  """
  _check(matrix, num_directions, method, start, max_iter, tol)
  matrix = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
  matrix, scale, is_valid = _check_matrix(matrix)
  solve, num_extra = _block, _NUM_EXTRA
  if method == "deflation":
    solve, num_extra = _deflation, 1
  width = min(num_directions + num_extra, matrix.shape[0])
  start, is_start = _full_start(key, matrix, start, width)
  limits = jnp.finfo(matrix.dtype)
  zero = _NUM_ZERO_ROUNDINGS * limits.eps * jnp.abs(jnp.trace(matrix))
  values, vectors, residuals, num_iters = solve(
    matrix, start, num_directions, zero, max_iter, tol
  )
  status = _status(values, residuals, num_directions, zero, tol)
  largest = jnp.maximum(jnp.max(values), limits.tiny)
  return Eigenpairs(
    eigenvalues=jnp.maximum(values[:num_directions], 0.0) * scale,
    vectors=linalg.fix_signs(vectors[:, :num_directions]),
    residuals=residuals[:num_directions] / largest,
    num_iters=num_iters,
    status=_or_invalid(is_valid & is_start, status),
  )


def _check(matrix, num_directions, method, start, max_iter, tol):
  """Refuses what no data can make right."""
  dim = matrix.shape[0]
  if matrix.shape != (dim, dim):
    raise ValueError(f"matrix has shape {matrix.shape}, takes [d, d]")
  if not 1 <= num_directions <= dim:
    raise ValueError(f"num_directions is {num_directions}, takes 1 ... {dim}")
  if method not in METHODS:
    raise ValueError(f"method is {method!r}, takes {METHODS}")
  expected = (dim, num_directions)
  if start is not None and start.shape != expected:
    raise ValueError(f"start has shape {start.shape}, takes {expected}")
  if max_iter < 1:
    raise ValueError(f"max_iter is {max_iter}, takes an integer >= 1")
  if not 0 <= tol < 1:
    raise ValueError(f"tol is {tol}, takes a number in [0, 1)")


def _check_matrix(matrix):
  """The matrix with entries of about 1, their scale, and if it is valid."""
  matrix, scale = _scale_to_one(matrix)
  # Of inf the difference is NaN, which is not below either.
  tolerance = jnp.finfo(matrix.dtype).eps ** 0.5
  is_valid = jnp.all(jnp.abs(matrix - matrix.T) <= tolerance)
  return jnp.where(is_valid, 0.5 * (matrix + matrix.T), 0.0), scale, is_valid


def _scale_to_one(array):
  """The array with a largest entry from 1 to 2, and that power of two."""
  largest = jnp.max(jnp.abs(array))
  largest = jnp.where((largest > 0) & (largest < jnp.inf), largest, 1.0)
  scale = jnp.ldexp(jnp.ones((), array.dtype), jnp.frexp(largest)[1] - 1)
  return array / scale, scale


def _full_start(key, matrix, start, width):
  """Starting vectors `[d, width]` of norm 1, and whether those given were."""
  random = jax.random.normal(key, (matrix.shape[0], width), matrix.dtype)
  if start is None:
    return linalg.orthonormal(random), jnp.asarray(True)
  extra = random[:, start.shape[1] :]
  start = jnp.concatenate([start.astype(matrix.dtype), extra], axis=1)
  norms = jnp.linalg.norm(start, axis=0)
  is_valid = jnp.all((norms > 0) & (norms < jnp.inf))
  return jnp.where(
    is_valid, start / norms, linalg.orthonormal(random)
  ), is_valid


def _deflation(matrix, start, num_directions, zero, max_iter, tol):
  """Power iterations, one vector after the other."""

  def find(carry, inputs):
    matrix, found, largest = carry
    index, vector = inputs
    vector, num_iters = _iterate(matrix, vector, zero, largest, max_iter, tol)
    value = jnp.sum(vector * linalg.matmul(matrix, vector))
    # What is left is what the earlier pairs are off by: it has no direction.
    is_zero = value <= jnp.maximum(zero, tol * largest)
    vector = jnp.where(is_zero, _complement(found), vector)
    mapped = linalg.matmul(matrix, vector)
    value = jnp.where(value < 0, value, jnp.sum(vector * mapped))
    residual = jnp.linalg.norm(mapped - value * vector)
    matrix = deflate(matrix, value, vector)
    found = found.at[:, index].set(vector)
    largest = jnp.maximum(largest, value)
    return (matrix, found, largest), (value, residual, num_iters)

  (_, found, _), (values, residuals, num_iters) = jax.lax.scan(
    find,
    (matrix, jnp.zeros_like(start), jnp.zeros((), matrix.dtype)),
    (jnp.arange(start.shape[1]), start.T),
  )
  return values, found, residuals, jnp.sum(num_iters[:num_directions])


def _iterate(matrix, vector, zero, largest, max_iter, tol):
  """Power steps on one vector until it is an eigenvector; their number."""

  def is_going(state):
    vector, mapped, num_iters = state
    value = jnp.sum(vector * mapped)
    residual = jnp.linalg.norm(mapped - value * vector)
    is_met = _is_met(residual, jnp.maximum(largest, value), tol)
    return (num_iters < max_iter) & ~is_met

  def step(state):
    vector, mapped, num_iters = state
    vector = _normalise(mapped, vector, zero)
    return vector, linalg.matmul(matrix, vector), num_iters + 1

  state = (vector, linalg.matmul(matrix, vector), jnp.zeros((), jnp.int32))
  vector, _, num_iters = jax.lax.while_loop(is_going, step, state)
  return vector, num_iters


def _block(matrix, start, num_directions, zero, max_iter, tol):
  """Orthogonal iteration, with Rayleigh-Ritz where it is checked."""
  del zero  # An orthonormal basis has a direction for every eigenvalue.

  def ritz(basis):
    mapped = linalg.matmul(matrix, basis)
    values, rotation = jnp.linalg.eigh(linalg.matmul(basis.T, mapped))
    values, rotation = values[::-1], rotation[:, ::-1]
    vectors = linalg.matmul(basis, rotation)
    errors = linalg.matmul(mapped, rotation) - values * vectors
    return values, vectors, jnp.linalg.norm(errors, axis=0)

  def is_going(state):
    _, (values, _, residuals), num_iters = state
    is_met = _is_met(residuals[:num_directions], jnp.max(values), tol)
    return (num_iters < max_iter) & ~is_met

  def advance(state):
    basis, _, num_iters = state
    num_steps = jnp.minimum(_STEPS_PER_CHECK, max_iter - num_iters)
    basis = jax.lax.fori_loop(
      0, num_steps, lambda _, basis: block_step(matrix, basis), basis
    )
    return basis, ritz(basis), num_iters + num_steps

  basis = linalg.orthonormal(start)
  state = (basis, ritz(basis), jnp.zeros((), jnp.int32))
  _, found, num_iters = jax.lax.while_loop(is_going, advance, state)
  return *found, num_iters


def _status(values, residuals, num_directions, zero, tol):
  """Status by the eigenvalues, with one more than asked for if there is."""
  eps = jnp.finfo(values.dtype).eps
  largest = jnp.max(jnp.abs(values))
  lowest = jnp.min(values)
  values = values[: num_directions + 1]
  gaps = values[:-1] - values[1:]
  min_gap = jnp.maximum(tol, _NUM_GAP_ROUNDINGS * eps) * largest
  status = jnp.where(
    jnp.all(gaps > min_gap), types.Status.CONVERGED, types.Status.DEGENERATE
  )
  is_met = _is_met(residuals[:num_directions], largest, tol)
  status = jnp.where(is_met, status, types.Status.MAX_ITER)
  is_low = jnp.any(values[:num_directions] <= zero)
  status = jnp.where(is_low, types.Status.DEGENERATE, status)
  return _or_invalid(lowest >= -min_gap, status)


def _is_met(residuals, largest, tol):
  # With tol = 0 the number of steps is fixed, also where none is needed.
  return (tol > 0) & jnp.all(residuals <= tol * largest)


def _or_invalid(is_valid, status):
  status = jnp.where(is_valid, status, types.Status.INVALID_INPUT)
  return status.astype(jnp.int32)


def _complement(vectors):
  """A unit vector orthogonal to the columns `[d, k]`, some of which are 0."""
  # The coordinate that they cover least is never covered whole: k < d.
  least = jnp.argmin(jnp.sum(vectors**2, axis=1))
  vector = jnp.zeros(len(vectors), vectors.dtype).at[least].set(1.0)
  for _ in range(2):  # The second time takes off what rounding left.
    vector -= linalg.matmul(vectors, linalg.matmul(vectors.T, vector))
    vector /= jnp.linalg.norm(vector)
  return vector


def _normalise(mapped, vector, zero):
  norm = jnp.linalg.norm(mapped)
  is_mapped = norm > zero
  return jnp.where(is_mapped, mapped / jnp.where(is_mapped, norm, 1.0), vector)
