"""How much room points take up: the density of noise that is anywhere in it."""

import math

import jax
import jax.numpy as jnp

from tgmm_jax import linalg

# A uniform density of this width has a variance of 1.
_WIDTH = math.sqrt(12.0)


def log_volume(
  points: jax.Array, *, sample_weight: jax.Array | None = None
) -> jax.Array:
  """Logarithm of the volume that points take up, `[]`; -inf where it is 0.

  The smaller of two boxes, one along the axes and one along the principal
  directions: the hypervolume of mclust (Fraley and Raftery).

  Args:
    points: `[N, d]`; padding may hold anything.
    sample_weight: `[N]`, or None for ones; 0 is padding, all others count
      alike but for the principal directions.
  """
  points, sample_weight, _ = linalg.usable(points, sample_weight=sample_weight)
  # About one of the points: of a distant origin only rounding is left.
  points = points - points[jnp.argmax(sample_weight > 0)]
  points = jnp.where((sample_weight > 0)[:, None], points, 0.0)
  least = jnp.zeros(points.shape[-1], points.dtype)
  return log_volume_of(points.T, least, sample_weight=sample_weight)


def log_volume_of(
  columns: jax.Array, least_variance: jax.Array, *, sample_weight: jax.Array
) -> jax.Array:
  """`log_volume` of centred columns, none of its edges without length.

  Where points have no extent in some direction they would else be noise, all
  of them.

  Args:
    columns: `[d, N]`; padding is finite.
    least_variance: `[d]`, of a density along each coordinate: the uniform one
      of that variance is the narrowest.
    sample_weight: `[N]`.
  """
  is_point = sample_weight > 0
  _, covariance = linalg.weighted_covariance(
    columns.T, sample_weight=sample_weight
  )
  _, directions = jnp.linalg.eigh(covariance)

  def of_box(coordinates, variance):
    highest = jnp.max(jnp.where(is_point, coordinates, -jnp.inf), axis=1)
    lowest = jnp.min(jnp.where(is_point, coordinates, jnp.inf), axis=1)
    extent = jnp.maximum(highest - lowest, _WIDTH * jnp.sqrt(variance))
    return jnp.sum(jnp.log(extent))

  along = linalg.matmul(directions.T, columns)
  variance = linalg.matmul(least_variance, directions**2)
  return jnp.minimum(of_box(columns, least_variance), of_box(along, variance))
