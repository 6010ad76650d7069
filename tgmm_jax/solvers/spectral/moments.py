"""Moments of a spherical mixture, whitened.

The second and third moments of the points, less what the noise adds, are
`sum_k w_k m_k m_k^T` and `sum_k w_k m_k (x) m_k (x) m_k` (Hsu and Kakade 2013,
theorem 1; Anandkumar et al. 2014, theorem 3.2). Whitened by the second, the
third is an orthogonal tensor of size K, whatever the dimension.

About the origin this needs linearly independent means. About the mean of all
points the weighted means add up to zero, so the same is done with one more
coordinate, which is 1 in every point: then the means need be in no common
flat of K - 2 dimensions only, and K may be d + 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg

# An eigenvalue below this many roundings of the largest is 0.
_NUM_ROUNDINGS = 100.0
# Above its median the largest eigenvalue of noise has a known scale (Tracy and
# Widom); fewer than one in a hundred is more than twice that scale above.
_NUM_EDGE_SCALES = 2.0


class WhitenedMoments(NamedTuple):
  """What the means and weights are read from.

  Attributes:
    tensor: `[K, K, K]`, the whitened third moment; 0 for padding. In exact
      moments `sum_k w_k^(-1/2) v_k (x) v_k (x) v_k`, the `v_k` orthonormal.
    unwhitening: `[d, K]`; it takes `w_k^(-1/2) v_k` to the mean less `centre`.
    centre: `[d]`, the point that the moments are about.
    eigenvalues: `[K]`, of the second moment without the noise, descending,
      as they are; 0 for padding. About the mean the first belongs to the
      coordinate that is 1, and is 1.
    rank: `[]` int32, how many of them are positive: above rounding, and,
      from points, above what the noise alone would show (`noise_edge`). The
      moments determine the components only where it is K.
  """

  tensor: jax.Array
  unwhitening: jax.Array
  centre: jax.Array
  eigenvalues: jax.Array
  rank: jax.Array


def noise_variance(
  points: jax.Array,
  *,
  sample_weight: jax.Array,
) -> jax.Array:
  """Smallest eigenvalue of the covariance: the noise's variance if K <= d.

  Hsu and Kakade 2013, theorem 1. True of the population; of N points it is
  too low. At K = d one direction is free of means, and it loses the share
  d / N at least; at d > K it is the least of d - K + 1 directions and loses
  far more, up to `1 - (1 - sqrt((d - K + 1) / N))^2`. Mean over tasks of the
  paper with N = 128 and unit variance (d, K): 0.99 (2, 2), 0.93 (5, 5), 0.64
  (8, 2), 0.73 (8, 5), 0.28 (32, 2), 0.29 (32, 5), 0 (128, 5). Of one task at
  K = d = 2 the standard deviation is 0.13. `residual_variance` loses less.

  Args:
    points: `[N, d]`.
    sample_weight: `[N]`.

  Returns:
    `[]`, in squared units of the points; 0 where N <= d.
  """
  if points.shape[0] <= points.shape[1]:
    # Centred, so few points leave some direction without variance.
    return jnp.zeros((), points.dtype)
  _, covariance = linalg.weighted_covariance(
    points, sample_weight=sample_weight
  )
  return jnp.maximum(jnp.linalg.eigvalsh(covariance)[0], 0.0)


def residual_variance(
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array,
  max_components: int,
) -> jax.Array:
  """Mean of the covariance's eigenvalues but the K - 1 largest.

  The means span K - 1 dimensions about their own mean, so the rest is noise
  (the maximum likelihood of Tipping and Bishop 1999, equation 8, with K - 1
  factors). At d = K this is the smallest eigenvalue. Too low by about the
  share K / N, for d > N too; where `noise_variance` gives 0.64, 0.73, 0.28,
  0.29 and 0 this gives 0.98, 0.96, 0.98, 0.96 and 0.96. Means that span fewer
  dimensions, as equal ones, lower it further.

  Args:
    points: `[N, d]`.
    num_components: K of the problem, may be traced.
    sample_weight: `[N]`, summing to 1.
    max_components: static K.

  Returns:
    `[]`, in squared units of the points; 0 where K > d.
  """
  dim = points.shape[1]
  rows = _scaled_rows(points, sample_weight=sample_weight)
  leading, _ = linalg.leading_directions(rows, max(max_components - 1, 1))
  is_mean = jnp.arange(leading.size) < num_components - 1
  rest = jnp.sum(rows**2) - jnp.sum(jnp.where(is_mean, leading, 0.0))
  num_rest = dim - num_components + 1
  return jnp.where(
    num_rest > 0, jnp.maximum(rest, 0.0) / jnp.maximum(num_rest, 1), 0.0
  )


def noise_edge(
  variance: jax.Array, dim: jax.Array | int, num_points: jax.Array
) -> jax.Array:
  """What the largest eigenvalue of a covariance of noise hardly exceeds.

  Johnstone 2001, theorem 1.1: the centre of the largest eigenvalue's law, and
  two of its scales. Smaller eigenvalues of data may be noise alone.

  Args:
    variance: of the noise.
    dim: number of directions.
    num_points: N; of weighted points the effective number.
  """
  spread = jnp.sqrt(jnp.maximum(num_points - 1.0, 1.0))
  root = jnp.sqrt(jnp.maximum(1.0 * dim, 1.0))
  scale = (spread + root) * (1.0 / spread + 1.0 / root) ** (1.0 / 3.0)
  largest = (spread + root) ** 2 + _NUM_EDGE_SCALES * scale
  return variance * largest / jnp.maximum(num_points, 1.0)


def whitened_moments(
  points: jax.Array,
  num_components: jax.Array | int,
  variance: jax.Array | float,
  *,
  sample_weight: jax.Array,
  max_components: int,
  min_eigenvalue: jax.Array | float,
) -> WhitenedMoments:
  """Moments about the origin, for linearly independent means, K <= d.

  Whitens first, so that nothing is larger than `[N, K^2]` or `[d, N]`.

  Args:
    points: `[N, d]`, of a size whose fourth power the dtype holds.
    num_components: K of the problem, may be traced.
    variance: of the noise, in every coordinate.
    sample_weight: `[N]`, summing to 1.
    max_components: static K.
    min_eigenvalue: to which smaller ones are raised before whitening.
  """
  dim = points.shape[1]
  is_component = jnp.arange(max_components) < num_components
  second, directions = linalg.leading_directions(
    points * jnp.sqrt(sample_weight)[:, None], max_components
  )
  eigenvalues = jnp.where(is_component, second - variance, 0.0)
  whitening, unwhitening, inverse = _whitening(
    eigenvalues, directions, is_component, min_eigenvalue
  )
  whitened = linalg.matmul(points, whitening)
  tensor = _third_moment(whitened, sample_weight=sample_weight)
  # The noise adds variance * sum_i (m (x) e_i (x) e_i) and its permutations;
  # whitened, sum_i e_i (x) e_i is the inverse of the eigenvalues.
  mean = linalg.matmul(sample_weight, whitened)
  noise = _symmetric_sum(mean, variance * jnp.diag(inverse))
  edge = _edge(variance, dim - num_components + 1, sample_weight=sample_weight)
  is_present = second > jnp.maximum(edge, _rounding(second))
  return WhitenedMoments(
    tensor=tensor - noise,
    unwhitening=unwhitening,
    centre=jnp.zeros(dim, points.dtype),
    eigenvalues=eigenvalues,
    rank=jnp.sum(is_component & is_present, dtype=jnp.int32),
  )


def central_moments(
  points: jax.Array,
  num_components: jax.Array | int,
  variance: jax.Array | float,
  *,
  sample_weight: jax.Array,
  max_components: int,
  min_eigenvalue: jax.Array | float,
) -> WhitenedMoments:
  """Moments about the mean, with a further coordinate that is 1; K <= d + 1.

  Moving the points moves the means and changes nothing else, and the noise
  adds nothing to third moments about the mean. Takes what `whitened_moments`
  takes.
  """
  dim = points.shape[1]
  centre = linalg.weighted_mean(points, sample_weight=sample_weight)
  second, directions = linalg.leading_directions(
    _scaled_rows(points, sample_weight=sample_weight),
    max(max_components - 1, 1),
  )
  # The coordinate that is 1 comes first and is a direction of its own, so
  # K - 1 follow it.
  second = second[: max_components - 1]
  directions = directions[:, : max_components - 1]
  is_direction = jnp.arange(max_components - 1) < num_components - 1
  eigenvalues = jnp.where(is_direction, second - variance, 0.0)
  whitening, unwhitening, _ = _whitening(
    eigenvalues, directions, is_direction, min_eigenvalue
  )
  whitened = linalg.matmul(points - centre, whitening)
  # The further coordinate with two others gives the whitened second moment, 1
  # by construction; with another and itself the mean, 0; with itself 1.
  tensor = jnp.pad(
    _third_moment(whitened, sample_weight=sample_weight), ((1, 0),) * 3
  )
  first = jnp.zeros(max_components, points.dtype).at[0].set(1.0)
  second_moment = jnp.diag(jnp.pad(is_direction.astype(points.dtype), (1, 0)))
  tensor += _symmetric_sum(first, second_moment)
  tensor = tensor.at[0, 0, 0].set(1.0)
  edge = _edge(variance, dim - num_components + 2, sample_weight=sample_weight)
  is_present = second > jnp.maximum(edge, _rounding(second))
  return WhitenedMoments(
    tensor=tensor,
    unwhitening=jnp.pad(unwhitening, ((0, 0), (1, 0))),
    centre=centre,
    eigenvalues=jnp.pad(eigenvalues, (1, 0), constant_values=1.0),
    rank=1 + jnp.sum(is_direction & is_present, dtype=jnp.int32),
  )


def remove_noise(
  mean: jax.Array,
  second: jax.Array,
  third: jax.Array,
  variance: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
  """Takes what spherical noise adds off raw moments about the origin.

  Hsu and Kakade 2013, theorem 1.

  Args:
    mean: `[d]`, the mean of x.
    second: `[d, d]`, the mean of `x x^T`.
    third: `[d, d, d]`, the mean of `x (x) x (x) x`.
    variance: of the noise in every coordinate.

  Returns:
    `sum_k w_k m_k m_k^T` `[d, d]` and `sum_k w_k m_k (x) m_k (x) m_k`
    `[d, d, d]`, if the moments are those of a spherical mixture.
  """
  noise = variance * jnp.eye(mean.size, dtype=second.dtype)
  return second - noise, third - _symmetric_sum(mean, noise)


def whiten(
  second: jax.Array,
  third: jax.Array,
  num_components: jax.Array | int,
  *,
  max_components: int,
  min_eigenvalue: jax.Array | float = 0.0,
) -> WhitenedMoments:
  """Whitens given moments that hold no noise, of K <= d components.

  Args:
    second: `[d, d]`, `sum_k w_k m_k m_k^T`.
    third: `[d, d, d]`, `sum_k w_k m_k (x) m_k (x) m_k`.
    num_components: K of the problem, may be traced.
    max_components: static K.
    min_eigenvalue: to which smaller ones are raised, at least to rounding.
  """
  dim = second.shape[0]
  kept = min(dim, max_components)
  is_component = jnp.arange(max_components) < num_components
  values, vectors = jnp.linalg.eigh(second)
  rounding = _rounding(values)
  padding = max_components - kept
  leading = jnp.pad(values[::-1][:kept], (0, padding))
  directions = jnp.pad(vectors[:, ::-1][:, :kept], ((0, 0), (0, padding)))
  eigenvalues = jnp.where(is_component, leading, 0.0)
  whitening, unwhitening, _ = _whitening(
    eigenvalues,
    directions,
    is_component,
    jnp.maximum(min_eigenvalue, rounding),
  )
  return WhitenedMoments(
    tensor=linalg.einsum(
      "ijk,ia,jb,kc->abc", third, whitening, whitening, whitening
    ),
    unwhitening=unwhitening,
    centre=jnp.zeros(dim, second.dtype),
    eigenvalues=eigenvalues,
    rank=jnp.sum(eigenvalues > rounding, dtype=jnp.int32),
  )


def _whitening(eigenvalues, directions, is_real, min_eigenvalue):
  """`[d, K]` there, `[d, K]` back, and the inverse eigenvalues; 0 if not real.

  An eigenvalue that is raised to 0 is left out as padding is.
  """
  raised = jnp.maximum(eigenvalues, min_eigenvalue)
  is_real = is_real & (raised > 0)
  inverse = jnp.where(is_real, 1.0 / jnp.where(is_real, raised, 1.0), 0.0)
  root = jnp.sqrt(jnp.where(is_real, raised, 0.0))
  return directions * jnp.sqrt(inverse), directions * root, inverse


def _third_moment(
  rows,
  *,
  sample_weight,
):
  """`[K, K, K]` from `[N, K]`, by way of `[N, K^2]`."""
  num_rows, size = rows.shape
  products = rows[:, :, None] * rows[:, None, :]
  products = products.reshape(num_rows, size**2)
  return linalg.matmul((rows * sample_weight[:, None]).T, products).reshape(
    (size,) * 3
  )


def _symmetric_sum(vector, matrix):
  """The three tensors `vector (x) matrix`, the vector in each place."""
  first = vector[:, None, None] * matrix[None]
  return first + first.transpose(1, 0, 2) + first.transpose(1, 2, 0)


def _scaled_rows(
  points,
  *,
  sample_weight,
):
  """Rows whose products add up to the covariance."""
  centred = points - linalg.weighted_mean(points, sample_weight=sample_weight)
  return centred * jnp.sqrt(sample_weight)[:, None]


def _edge(
  variance,
  dim,
  *,
  sample_weight,
):
  return noise_edge(variance, dim, 1.0 / jnp.sum(sample_weight**2))


def _rounding(eigenvalues):
  """What an eigenvalue computed with these may be and still be 0."""
  largest = jnp.max(jnp.abs(eigenvalues), initial=0.0)
  return _NUM_ROUNDINGS * jnp.finfo(eigenvalues.dtype).eps * largest
