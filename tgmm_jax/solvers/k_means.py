"""k-means: its seeding, which is also where EM starts, and Lloyd's steps.

Every function of `METHODS` is `(key, points [N, d], num_components, *,
sample_weight, max_components) -> means [K, d]`, K being `max_components`; the
means of padded components are 0. Draws go one component at a time, so a
problem's means do not depend on how far it is padded.

Inside, points are columns `[d, N]` and squared distances are sums of squared
differences: expanded, they would lose in float32 what is small beside the
points' norms.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types


class KMeans(NamedTuple):
  """What k-means returns for one problem; no value is ever NaN.

  Attributes:
    means: `[K, d]`; 0 for padded components.
    potential: `[]`, the weighted sum of squared distances from the points to
      the nearest mean (scikit-learn's inertia); inf for invalid input.
    labels: `[N]` int32, the nearest mean of each point, the first of several;
      -1 on padding.
    num_iters: `[]` int32.
    status: `[]` int32, a `types.Status`: CONVERGED; MAX_ITER; DEGENERATE where
      a mean is the nearest to no point, as with fewer distinct points than
      components; INVALID_INPUT for NaN, inf or numbers whose squares overflow
      in points or means, for weights that are negative or sum to 0 or inf, and
      for K out of range.
  """

  means: jax.Array
  potential: jax.Array
  labels: jax.Array
  num_iters: jax.Array
  status: jax.Array


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


def k_means(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int,
  num_trials: int | None = None,
  max_iter: int = 300,
  tol: float = 1e-4,
) -> KMeans:
  """k-means++, then the steps of Lloyd.

  The defaults are scikit-learn's. The potential found is a local minimum.

  Args:
    key: consumed; see `k_means_plus_plus`.
    points: `[N, d]`; padding may hold anything.
    num_components: K of the problem, may be traced.
    sample_weight: `[N]`, or None for ones.
    max_components: static K of the result.
    num_trials: see `k_means_plus_plus`.
    max_iter: see `move_means`.
    tol: see `move_means`.

  Returns:
    A `KMeans`.
  """
  points = jnp.asarray(points)
  points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
  means = k_means_plus_plus(
    key,
    points,
    num_components,
    sample_weight=sample_weight,
    max_components=max_components,
    num_trials=num_trials,
  )
  return move_means(
    points,
    means,
    num_components,
    sample_weight=sample_weight,
    max_iter=max_iter,
    tol=tol,
  )


def k_means_centres(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int,
) -> jax.Array:
  """The means of `k_means` with its defaults, `[K, d]`."""
  return k_means(
    key,
    points,
    num_components,
    sample_weight=sample_weight,
    max_components=max_components,
  ).means


METHODS: dict[str, Callable[..., jax.Array]] = {
  "k-means++": k_means_plus_plus,
  "k-means": k_means_centres,
  "random_points": random_points,
  "normal": normal,
}


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


class _Lloyd(NamedTuple):
  """Where the steps stand."""

  means: jax.Array
  labels: jax.Array  # before the last move
  is_done: jax.Array
  num_iters: jax.Array


def move_means(
  points: jax.Array,
  means: jax.Array,
  num_components: jax.Array | int | None = None,
  *,
  sample_weight: jax.Array | None = None,
  max_iter: int = 300,
  tol: float = 1e-4,
) -> KMeans:
  """Moves means to the centres of their points until they stay (Lloyd 1982).

  A mean that is the nearest to no point stays where it is; scikit-learn moves
  it to a point far from its own mean.

  Args:
    points: `[N, d]`; padding may hold anything.
    means: `[K, d]`, where to start.
    num_components: the means from there on are padding; None for all of them.
    sample_weight: `[N]`, or None for ones.
    max_iter: steps at most.
    tol: stop when the squared shifts of the means sum to no more than this
      times the variance per coordinate; the steps stop in any case when no
      label changes.

  Returns:
    A `KMeans`, labels and potential being those of its means.
  """
  max_components = means.shape[0]
  if num_components is None:
    num_components = max_components
  points, sample_weight, is_valid = linalg.usable(
    points, sample_weight=sample_weight
  )
  is_component = jnp.arange(max_components) < num_components
  means = jnp.where(is_component[:, None], means.astype(points.dtype), 0.0)
  is_valid &= linalg.is_squarable(means)
  is_valid &= (num_components >= 1) & (num_components <= max_components)
  # About the centre the sums lose nothing to a large offset.
  centre = linalg.weighted_mean(points, sample_weight=sample_weight)
  columns = jnp.where(sample_weight > 0, (points - centre).T, 0.0)
  ended = _lloyd(
    columns,
    jnp.where(is_component[:, None] & is_valid, means - centre, 0.0),
    is_component,
    is_valid,
    sample_weight=sample_weight,
    max_iter=max_iter,
    tol=tol,
  )
  found = _conclude(columns, ended, is_component, sample_weight=sample_weight)
  means = jnp.where(is_component[:, None], found.means + centre, 0.0)
  status = jnp.where(is_valid, found.status, types.Status.INVALID_INPUT)
  return KMeans(
    means=jnp.where(is_valid, means, 0.0),
    potential=jnp.where(is_valid, found.potential, jnp.inf),
    labels=jnp.where(is_valid, found.labels, -1),
    num_iters=found.num_iters,
    status=status.astype(jnp.int32),
  )


def _lloyd(
  columns, means, is_component, is_valid, *, sample_weight, max_iter, tol
):
  """Lloyd's steps until no mean moves any more."""
  spread = jnp.sum(sample_weight * columns**2) / columns.shape[0]
  max_shift = tol * spread / jnp.sum(sample_weight)

  def move(state):
    labels, _ = _nearest(columns, state.means, is_component)
    share = _memberships(labels, len(is_component), sample_weight=sample_weight)
    mass = jnp.sum(share, axis=-1)[:, None]
    sums = linalg.matmul(share, columns.T)
    moved = sums / jnp.where(mass > 0, mass, 1.0)
    moved = jnp.where(mass > 0, moved, state.means)
    is_done = jnp.all(labels == state.labels)
    is_done |= jnp.sum((moved - state.means) ** 2) <= max_shift
    return _Lloyd(moved, labels, is_done, state.num_iters + 1)

  start = _Lloyd(
    means=means,
    labels=jnp.full(columns.shape[1], -1, jnp.int32),
    is_done=~is_valid,
    num_iters=jnp.zeros((), jnp.int32),
  )
  return jax.lax.while_loop(
    lambda state: ~state.is_done & (state.num_iters < max_iter), move, start
  )


def _conclude(columns, ended, is_component, *, sample_weight):
  """Labels and potential of the means, about the centre of the points."""
  labels, distances = _nearest(columns, ended.means, is_component)
  share = _memberships(labels, len(is_component), sample_weight=sample_weight)
  is_empty = is_component & ~jnp.any(share > 0, axis=-1)
  status = jnp.where(
    ended.is_done, types.Status.CONVERGED, types.Status.MAX_ITER
  )
  return KMeans(
    means=ended.means,
    potential=jnp.sum(sample_weight * distances),
    labels=jnp.where(sample_weight > 0, labels, -1),
    num_iters=ended.num_iters,
    status=jnp.where(jnp.any(is_empty), types.Status.DEGENERATE, status),
  )


def squared_distances(columns: jax.Array, means: jax.Array) -> jax.Array:
  """Of `columns [d, N]` from `means [K, d]`, `[K, N]`.

  Sums of squared differences: expanded, they would lose in float32 what is
  small beside the points' norms.
  """
  return jnp.sum((columns[None] - means[:, :, None]) ** 2, axis=1)


def _nearest(columns, means, is_component):
  """The first of the nearest means and its squared distance, `[N]` each."""
  distances = squared_distances(columns, means)
  distances = jnp.where(is_component[:, None], distances, jnp.inf)
  nearest = jnp.min(distances, axis=0)
  index = jnp.arange(means.shape[0], dtype=jnp.int32)[:, None]
  labels = jnp.where(distances == nearest, index, means.shape[0] - 1)
  return jnp.min(labels, axis=0), nearest


def _memberships(labels, max_components, *, sample_weight):
  """The weight of each point in its cluster, `[K, N]`."""
  is_member = labels == jnp.arange(max_components)[:, None]
  return jnp.where(is_member, sample_weight, 0.0)
