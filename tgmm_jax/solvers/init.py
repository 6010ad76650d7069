"""Where EM starts: component means drawn for one problem.

Every function is `(key, points [N, d], num_components, *, sample_weight,
max_components) -> means [K, d]`, K being `max_components`; the means of
padded components are 0. Draws go one component at a time, so a problem's
means do not depend on how far it is padded.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def normal(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int,
) -> jax.Array:
  """Means from the standard normal distribution, whatever the points are.

  The start of the TGMM paper's EM baseline (arXiv 2505.11918, A.1). It
  presumes points around the origin.

  Args:
    key: consumed; draws the means.
    points: `[N, d]`; only their dimension and dtype are used.
    num_components: K of the problem, may be traced.
    sample_weight: not used.
    max_components: static K of the result.

  Returns:
    means `[K, d]`.
  """
  del sample_weight
  means = jax.random.normal(
    key, (max_components, points.shape[-1]), points.dtype
  )
  is_component = jnp.arange(max_components) < num_components
  return jnp.where(is_component[:, None], means, 0.0)


def random_points(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int,
) -> jax.Array:
  """Means at points drawn in proportion to weight, without replacement.

  With fewer points than components the rest are drawn with replacement.

  Args:
    key: consumed; one uniform draw per component.
    points: `[N, d]`.
    num_components: K of the problem, may be traced.
    sample_weight: `[N]`, or None for ones.
    max_components: static K of the result.

  Returns:
    means `[K, d]`.
  """

  def take_out(left, index):
    return left * (jnp.arange(left.shape[0]) != index)

  return _draw_in_turn(
    key, points, num_components, sample_weight, max_components, take_out, 1.0
  )


def k_means_plus_plus(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int,
) -> jax.Array:
  """Means at points drawn by squared distance from those already drawn.

  Plain k-means++ (Arthur and Vassilvitskii 2007, section 2.2), one candidate
  per draw: the first point in proportion to its weight, each next one in
  proportion to weight times squared distance to the nearest drawn so far.
  With fewer distinct points than components the rest are drawn by weight.

  Args:
    key: consumed; one uniform draw per component.
    points: `[N, d]`.
    num_components: K of the problem, may be traced.
    sample_weight: `[N]`, or None for ones.
    max_components: static K of the result.

  Returns:
    means `[K, d]`.
  """
  columns = jnp.asarray(points).T
  if sample_weight is not None:
    # Padding may hold anything, and 0 times NaN is NaN.
    columns = jnp.where(sample_weight > 0, columns, 0.0)

  def nearest(distance, index):
    difference = columns - columns[:, index][:, None]
    return jnp.minimum(distance, jnp.sum(difference**2, axis=0))

  return _draw_in_turn(
    key,
    points,
    num_components,
    sample_weight,
    max_components,
    nearest,
    jnp.inf,
  )


METHODS: dict[str, Callable[..., jax.Array]] = {
  "k-means++": k_means_plus_plus,
  "random_points": random_points,
  "normal": normal,
}


def _draw_in_turn(
  key, points, num_components, sample_weight, max_components, update, factor
):
  """Draws a point per component by weight times a factor kept by `update`."""
  points = jnp.asarray(points)
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  uniforms = jax.random.uniform(key, (max_components,), points.dtype)

  def draw(carry, uniform):
    mass, factor = carry
    index = _pick(uniform, mass)
    factor = update(factor, index)
    mass = sample_weight * factor
    mass = jnp.where(jnp.sum(mass) > 0, mass, sample_weight)
    return (mass, factor), points[index]

  factor = jnp.full(points.shape[0], factor, points.dtype)
  _, means = jax.lax.scan(draw, (sample_weight, factor), uniforms)
  is_component = jnp.arange(max_components) < num_components
  return jnp.where(is_component[:, None], means, 0.0)


def _pick(uniform, mass):
  """Index drawn in proportion to `mass [N]`, by one uniform on [0, 1)."""
  bounds = jnp.cumsum(mass)
  index = jnp.sum(bounds <= uniform * bounds[-1])
  # Rounding may put the target on the last bound: nothing lies beyond it.
  last = jnp.max(jnp.where(mass > 0, jnp.arange(mass.shape[0]), 0))
  return jnp.minimum(index, last)
