"""Moments of a spherical mixture, whitened.

The second and third moments of the points, less what the noise adds, are
`sum_k w_k m_k m_k^T` and `sum_k w_k m_k (x) m_k (x) m_k` (Hsu and Kakade 2013,
theorem 1; Anandkumar et al. 2014, theorem 3.2). Whitened by the second, the
third is an orthogonal tensor of size K, whatever the dimension.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg

_PRECISION = jax.lax.Precision.HIGHEST


class WhitenedMoments(NamedTuple):
  """What the means and weights are read from.

  Attributes:
    tensor: `[K, K, K]`, the whitened third moment; 0 for padding. In exact
      moments `sum_k w_k^(-1/2) v_k (x) v_k (x) v_k`, the `v_k` orthonormal.
    unwhitening: `[d, K]`; it takes `w_k^(-1/2) v_k` to the mean.
    eigenvalues: `[K]`, of the second moment without the noise, descending,
      as they are; 0 for padding. The moments determine the components only
      where all the real ones are positive.
  """

  tensor: jax.Array
  unwhitening: jax.Array
  eigenvalues: jax.Array


def noise_variance(points: jax.Array, sample_weight: jax.Array) -> jax.Array:
  """Smallest eigenvalue of the covariance: the noise's variance if K <= d.

  Hsu and Kakade 2013, theorem 1. With hardly more points than dimensions it
  is far too low.

  Args:
    points: `[N, d]`.
    sample_weight: `[N]`.
  """
  if points.shape[0] <= points.shape[1]:
    # Centred, so few points leave some direction without variance.
    return jnp.zeros((), points.dtype)
  _, covariance = linalg.weighted_covariance(points, sample_weight)
  return jnp.maximum(jnp.linalg.eigvalsh(covariance)[0], 0.0)


def whitened_moments(
  points: jax.Array,
  num_components: jax.Array | int,
  variance: jax.Array | float,
  *,
  sample_weight: jax.Array,
  max_components: int,
  min_eigenvalue: float,
) -> WhitenedMoments:
  """Whitens first, so that nothing is larger than `[N, K^2]` or `[d, N]`.

  Args:
    points: `[N, d]`; the moments are about the origin.
    num_components: K of the problem, may be traced.
    variance: of the noise, in every coordinate.
    sample_weight: `[N]`, summing to 1.
    max_components: static K.
    min_eigenvalue: to which smaller ones are raised before whitening.
  """
  is_component = jnp.arange(max_components) < num_components
  second, directions = linalg.leading_directions(
    points * jnp.sqrt(sample_weight)[:, None], max_components
  )
  eigenvalues = jnp.where(is_component, second - variance, 0.0)
  raised = jnp.maximum(eigenvalues, min_eigenvalue)
  inverse = jnp.where(is_component, 1.0 / raised, 0.0)
  whitening = directions * jnp.sqrt(inverse)
  whitened = jnp.matmul(points, whitening, precision=_PRECISION)
  products = (whitened[:, :, None] * whitened[:, None, :]).reshape(
    -1, max_components**2
  )
  tensor = jnp.matmul(
    (whitened * sample_weight[:, None]).T, products, precision=_PRECISION
  ).reshape((max_components,) * 3)
  # The noise adds variance * sum_i (m (x) e_i (x) e_i) and its permutations;
  # whitened, sum_i e_i (x) e_i is the inverse of the eigenvalues.
  mean = jnp.matmul(sample_weight, whitened, precision=_PRECISION)
  noise = variance * mean[:, None, None] * jnp.diag(inverse)[None]
  noise = noise + noise.transpose(1, 0, 2) + noise.transpose(1, 2, 0)
  return WhitenedMoments(
    tensor=tensor - noise,
    unwhitening=directions * jnp.sqrt(raised),
    eigenvalues=eigenvalues,
  )
