"""Where k-means begins, and EM too: points or numbers drawn at random.

Draws go one component at a time, so a problem's means do not depend on how far
it is padded; the means of padded components are 0.
"""

import math

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
    points: `[N, d]`; padding may hold anything.
    num_components: K of the problem, may be traced.
    sample_weight: `[N]`, or None for ones.
    max_components: static K of the result.

  Returns:
    means `[K, d]`.
  """
  points = jnp.asarray(points)

  def take_out(uniform, mass, left):
    index = _pick(uniform, mass)
    return index, left * (jnp.arange(left.shape[0]) != index)

  return _draw_in_turn(
    points,
    num_components,
    jax.random.uniform(key, (max_components,), points.dtype),
    take_out,
    1.0,
    sample_weight=sample_weight,
  )


def k_means_plus_plus(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int,
  num_trials: int | None = 1,
) -> jax.Array:
  """Means at points drawn by squared distance from those already drawn.

  k-means++ (Arthur and Vassilvitskii 2007, section 2.2): the first point in
  proportion to its weight, each next one in proportion to weight times squared
  distance to the nearest drawn so far. With several trials each next one is
  the best of as many candidates, the one that leaves the smallest sum of
  squared distances (their section 6; "greedy k-means++"). With fewer distinct
  points than components the rest are drawn by weight.

  Args:
    key: consumed; one uniform draw per component and trial.
    points: `[N, d]`; padding may hold anything.
    num_components: K of the problem, may be traced.
    sample_weight: `[N]`, or None for ones.
    max_components: static K of the result.
    num_trials: candidates per draw; None for 2 + floor(log K), scikit-learn's
      number.

  Returns:
    means `[K, d]`.
  """
  points = jnp.asarray(points)
  columns = points.T
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  # Padding may hold anything, and 0 times NaN is NaN.
  columns = jnp.where(sample_weight > 0, columns, 0.0)
  uniforms, is_tried = _trial_draws(
    key, num_components, max_components, num_trials, points.dtype
  )

  def nearest_of_best(draws, mass, distance):
    uniforms, is_tried = draws
    candidates = jax.vmap(_pick, in_axes=(0, None))(uniforms, mass)
    distances = jnp.minimum(
      distance, squared_distances(columns, points[candidates])
    )
    if uniforms.shape[0] == 1:
      return candidates[0], distances[0]
    potentials = jnp.sum(sample_weight * distances, axis=-1)
    best = jnp.argmin(jnp.where(is_tried, potentials, jnp.inf))
    return candidates[best], distances[best]

  return _draw_in_turn(
    points,
    num_components,
    (uniforms, is_tried),
    nearest_of_best,
    jnp.inf,
    sample_weight=sample_weight,
  )


def squared_distances(columns: jax.Array, means: jax.Array) -> jax.Array:
  """Of `columns [d, N]` from `means [K, d]`, `[K, N]`.

  Sums of squared differences: expanded, they would lose in float32 what is
  small beside the points' norms.
  """
  return jnp.sum((columns[None] - means[:, :, None]) ** 2, axis=1)


def _draw_in_turn(
  points,
  num_components,
  draws,
  choose,
  factor,
  *,
  sample_weight,
):
  """Draws a point per component by weight times a factor kept by `choose`."""
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  sample_weight = jnp.asarray(sample_weight).astype(points.dtype)

  def draw(carry, draws):
    mass, factor = carry
    index, factor = choose(draws, mass, factor)
    mass = sample_weight * factor
    mass = jnp.where(jnp.sum(mass) > 0, mass, sample_weight)
    return (mass, factor), points[index]

  factor = jnp.full(points.shape[0], factor, points.dtype)
  _, means = jax.lax.scan(draw, (sample_weight, factor), draws)
  is_component = jnp.arange(means.shape[0]) < num_components
  return jnp.where(is_component[:, None], means, 0.0)


def _trial_draws(key, num_components, max_components, num_trials, dtype):
  """Uniform draws `[K, T]`, and which of them are tried, `[K, T]` bool."""
  if num_trials == 1:
    uniforms = jax.random.uniform(key, (max_components, 1), dtype)
    return uniforms, jnp.ones((max_components, 1), bool)
  if num_trials is None:
    num_trials = 2 + int(math.log(max_components))
    # exp(1), exp(2), ... are no integers: nothing hangs on their rounding.
    steps = jnp.exp(jnp.arange(1.0, num_trials - 1.0))
    num_tried = 2 + jnp.sum(num_components >= steps)
  else:
    num_tried = num_trials
  # A key for each trial: the static number of trials follows the padding,
  # the draws must not.
  trials = jnp.arange(num_trials)
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, trials)
  uniforms = jax.vmap(
    lambda key: jax.random.uniform(key, (max_components,), dtype)
  )(keys)
  # The first point is no choice between candidates, in scikit-learn neither.
  is_first = jnp.arange(max_components)[:, None] == 0
  is_tried = jnp.where(is_first, trials == 0, trials < num_tried)
  return uniforms.T, is_tried


def _pick(uniform, mass):
  """Index drawn in proportion to `mass [N]`, by one uniform on [0, 1)."""
  bounds = jnp.cumsum(mass)
  index = jnp.sum(bounds <= uniform * bounds[-1])
  # Rounding may put the target on the last bound: nothing lies beyond it.
  last = jnp.max(jnp.where(mass > 0, jnp.arange(mass.shape[0]), 0))
  return jnp.minimum(index, last)
