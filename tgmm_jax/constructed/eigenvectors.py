"""Leading eigenpairs of points by the constructed power method.

Outside the network are the centre of the points, their scale (a power of two)
and the signs of the vectors.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types
from tgmm_jax.constructed import power_method, primitives
from tgmm_jax.solvers import pca


class Scaled(NamedTuple):
  """Points made ready for the network.

  Attributes:
    points: `[N, d]`, centred, each times the root of its share of the weight,
      of a total variance between 1 and 4; 0 where not valid.
    scale: `[]`, a power of two; its square is the unit of the eigenvalues.
    is_valid: `[]` bool.
  """

  points: jax.Array
  scale: jax.Array
  is_valid: jax.Array


def prepare(
  points: jax.Array,
  *,
  sample_weight: jax.Array | None,
  ddof: int = 0,
) -> Scaled:
  """Centres points and brings them to the range that the network covers.

  Args:
    points: `[N, d]`; padding may hold anything.
    sample_weight: `[N]`, or None for ones; 0 is padding.
    ddof: taken off the total weight, which is the divisor.
  """
  points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  weight = sample_weight.astype(points.dtype)
  points = jnp.where((weight > 0)[:, None], points, 0.0)
  limits = jnp.finfo(points.dtype)
  total = jnp.sum(weight)
  is_valid = jnp.all(jnp.isfinite(points)) & jnp.all(weight >= 0)
  is_valid &= (total > ddof) & (total < jnp.inf)
  points = jnp.where(is_valid, points, 0.0)
  weight = jnp.where(is_valid, weight, 1.0 + ddof)
  total = jnp.sum(weight)
  # Twice: first by the largest entry, so that no square leaves the range.
  points, scale = _divide(points, jnp.max(jnp.abs(points)))
  points = points - linalg.weighted_mean(points, sample_weight=weight)
  points = points - linalg.weighted_mean(points, sample_weight=weight)
  # Points are read to a rounding error: less spread than that is none.
  spread = jnp.max(jnp.abs(points))
  points = jnp.where(spread > 4.0 * limits.eps, points, 0.0)
  points *= jnp.sqrt(weight / (total - ddof))[:, None]
  points, second = _divide(points, jnp.sqrt(jnp.sum(points**2)))
  return Scaled(points, scale * second, is_valid)


def _divide(points, size):
  """The points over a power of two of this size, and that."""
  size = jnp.where(size > 0, size, 1.0)
  scale = jnp.ldexp(jnp.ones((), points.dtype), jnp.frexp(size)[1] - 1)
  return points / scale, scale


def fit(
  key: jax.Array,
  points: jax.Array,
  num_directions: int,
  *,
  num_steps: int,
  num_newton: int = 4,
  sample_weight: jax.Array | None = None,
  ddof: int = 0,
  start: jax.Array | None = None,
  tol: float = 1e-5,
  network: primitives.ConstructedTransformer | None = None,
) -> pca.Eigenpairs:
  """Leading eigenpairs of the covariance of points, as `pca.fit` gives them.

  Args:
    key: consumed; the start, if none is given.
    points: `[N, d]`; padding may hold anything.
    num_directions: k, static, at most d.
    num_steps: tau for each vector, see `num_steps_for`.
    num_newton: Newton steps on the length of each.
    sample_weight: `[N]`, or None for ones; 0 is padding.
    ddof: as in `pca.covariance`.
    start: `[d, k]`, a vector in each column, or None for random ones.
    tol: of the residuals and gaps, for the status only.
    network: from `power_method.build`, or None to build one.

  Returns:
    `pca.Eigenpairs`. CONVERGED, MAX_ITER and INVALID_INPUT as there;
    DEGENERATE for equal points, for a gap between those found that is within
    `tol`, and for an eigenvalue that the network does not cover (below 1e-4
    of the scaled points): its vector may be 0.

  Raises:
    ValueError: for k not in 1 ... d, a `num_steps` below 1, a start of the
      wrong shape, or more than the network was built for.
  """
  dim = points.shape[1]
  _check(start, dim, num_directions, num_steps)
  scaled = prepare(points, sample_weight=sample_weight, ddof=ddof)
  data = scaled.points
  if network is None:
    network = power_method.build(dim, num_directions, dtype=data.dtype)
  if start is None:
    start = jax.random.normal(key, (dim, num_directions), data.dtype)
  norms = jnp.linalg.norm(start, axis=0)
  is_valid = scaled.is_valid & jnp.all((norms > 0) & (norms < jnp.inf))
  start = jnp.where(is_valid, start / norms, jnp.eye(dim, num_directions))
  state = primitives.apply(
    network,
    power_method.encode(network, data, start.T.astype(data.dtype)),
    power_method.schedule(num_directions, num_steps, num_newton=num_newton),
  )
  values, vectors = power_method.decode(network, state, dim, num_directions)
  scaled = scaled._replace(is_valid=is_valid)
  num_iters = num_directions * num_steps
  return _conclude(scaled, values, vectors, num_iters, tol)


def _check(start, dim, num_directions, num_steps):
  """Refuses what no data can make right."""
  if not 1 <= num_directions <= dim:
    raise ValueError(f"num_directions is {num_directions}, takes 1 ... {dim}")
  if num_steps < 1:
    raise ValueError(f"num_steps is {num_steps}, takes an integer >= 1")
  expected = (dim, num_directions)
  if start is not None and start.shape != expected:
    raise ValueError(f"start has shape {start.shape}, takes {expected}")


def _conclude(scaled, values, vectors, num_iters, tol):
  """The pairs in the units of the points, with their status."""
  data = scaled.points
  values, vectors = values.astype(data.dtype), vectors.astype(data.dtype)
  residuals = _residuals(linalg.matmul(data.T, data), values, vectors)
  status = _status(values, residuals, tol)
  values = values * scaled.scale * scaled.scale
  limits = jnp.finfo(data.dtype)
  is_valid = scaled.is_valid & (values[0] < jnp.inf)
  is_valid &= (values[0] >= limits.tiny) | jnp.all(data == 0)
  status = jnp.where(is_valid, status, types.Status.INVALID_INPUT)
  return pca.Eigenpairs(
    eigenvalues=jnp.minimum(values, limits.max),
    vectors=linalg.fix_signs(vectors),
    residuals=residuals,
    num_iters=jnp.asarray(num_iters, jnp.int32),
    status=status.astype(jnp.int32),
  )


def _residuals(matrix, values, vectors):
  """`|A v - value v|` over the largest value, A as deflated so far."""

  def take_off(matrix, pair):
    value, vector = pair
    error = linalg.matmul(matrix, vector) - value * vector
    return pca.deflate(matrix, value, vector), jnp.sqrt(jnp.sum(error**2))

  _, errors = jax.lax.scan(take_off, matrix, (values, vectors.T))
  largest = jnp.max(values)
  return errors / jnp.where(largest > 0, largest, 1.0)


def _status(values, residuals, tol):
  eps = jnp.finfo(values.dtype).eps
  largest = jnp.max(values)
  is_gap = values[:-1] - values[1:] > jnp.maximum(tol, 1e3 * eps) * largest
  status = jnp.where(
    jnp.all(is_gap), types.Status.CONVERGED, types.Status.DEGENERATE
  )
  status = jnp.where(jnp.all(residuals <= tol), status, types.Status.MAX_ITER)
  is_covered = jnp.all(values >= power_method.LEAST_SQUARE**0.5)
  return jnp.where(is_covered, status, types.Status.DEGENERATE)


def num_steps_for(
  ratio: float, dim: int, *, tol: float = 1e-6, miss: float = 1e-3
) -> int:
  """The tau after which a gap leaves `1 - |cos|` below a tolerance.

  A step multiplies the tangent of the angle by the ratio. A random start has
  a tangent above `sqrt(d) / miss` with a probability of about 0.8 miss. Later
  vectors take over errors of the earlier; of 3300 problems with d up to 8, k
  up to 3 and ratios from 0.5 to 0.95 none missed the default tolerance.

  Args:
    ratio: largest of `value_(l + 1) / value_l` of the eigenvalues, below 1.
    dim: d.
    tol: what `1 - |cos|` may be.
    miss: how unlucky a start is reckoned with.

  Raises:
    ValueError: for a ratio not in [0, 1), where no number suffices.
  """
  if not 0 <= ratio < 1:
    raise ValueError(f"ratio is {ratio}, takes a number in [0, 1)")
  if ratio == 0:
    return 1
  # 1 - cos is half the square of a small tangent.
  needed = math.log(math.sqrt(dim) / miss / math.sqrt(2.0 * tol))
  return max(math.ceil(needed / -math.log(ratio)), 1)
