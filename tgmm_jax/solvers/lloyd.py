"""The steps of k-means: means move to the centres of their nearest points.

Inside, points are columns `[d, N]` and everything per point has N as its last
axis, as in `em`.
"""

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


class _State(NamedTuple):
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
  points, sample_weight, is_valid = _checked(points, sample_weight)
  is_component = jnp.arange(max_components) < num_components
  means = jnp.where(is_component[:, None], means.astype(points.dtype), 0.0)
  is_valid &= _is_small(means)
  is_valid &= (num_components >= 1) & (num_components <= max_components)
  # About the centre the sums lose nothing to a large offset.
  centre = linalg.weighted_mean(points, sample_weight)
  columns = jnp.where(sample_weight > 0, (points - centre).T, 0.0)
  spread = jnp.sum(sample_weight * columns**2) / columns.shape[0]
  max_shift = tol * spread / jnp.sum(sample_weight)

  def move(state):
    labels, _ = _nearest(columns, state.means, is_component)
    share = _memberships(labels, sample_weight, max_components)
    mass = jnp.sum(share, axis=-1)[:, None]
    sums = jnp.matmul(share, columns.T, precision=jax.lax.Precision.HIGHEST)
    moved = sums / jnp.where(mass > 0, mass, 1.0)
    moved = jnp.where(mass > 0, moved, state.means)
    is_done = jnp.all(labels == state.labels)
    is_done |= jnp.sum((moved - state.means) ** 2) <= max_shift
    return _State(moved, labels, is_done, state.num_iters + 1)

  start = _State(
    means=jnp.where(is_component[:, None] & is_valid, means - centre, 0.0),
    labels=jnp.full(columns.shape[1], -1, jnp.int32),
    is_done=~is_valid,
    num_iters=jnp.zeros((), jnp.int32),
  )
  state = jax.lax.while_loop(
    lambda state: ~state.is_done & (state.num_iters < max_iter), move, start
  )
  labels, distances = _nearest(columns, state.means, is_component)
  share = _memberships(labels, sample_weight, max_components)
  is_empty = is_component & ~jnp.any(share > 0, axis=-1)
  status = jnp.where(
    state.is_done, types.Status.CONVERGED, types.Status.MAX_ITER
  )
  status = jnp.where(jnp.any(is_empty), types.Status.DEGENERATE, status)
  status = jnp.where(is_valid, status, types.Status.INVALID_INPUT)
  means = jnp.where(is_component[:, None], state.means + centre, 0.0)
  return KMeans(
    means=jnp.where(is_valid, means, 0.0),
    potential=jnp.where(is_valid, jnp.sum(sample_weight * distances), jnp.inf),
    labels=jnp.where(is_valid & (sample_weight > 0), labels, -1),
    num_iters=state.num_iters,
    status=status.astype(jnp.int32),
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


def _memberships(labels, sample_weight, max_components):
  """The weight of each point in its cluster, `[K, N]`."""
  is_member = labels == jnp.arange(max_components)[:, None]
  return jnp.where(is_member, sample_weight, 0.0)


def _checked(points, sample_weight):
  """Points and weights, zeros and ones where they cannot be used."""
  points = jnp.asarray(points)
  points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  sample_weight = jnp.asarray(sample_weight).astype(points.dtype)
  points = jnp.where((sample_weight > 0)[:, None], points, 0.0)
  total = jnp.sum(sample_weight)
  is_valid = (
    _is_small(points)
    & jnp.all(sample_weight >= 0)
    & (total > 0)
    & (total < jnp.finfo(points.dtype).max)
  )
  points = jnp.where(is_valid, points, 0.0)
  return points, jnp.where(is_valid, sample_weight, 1.0), is_valid


def _is_small(points):
  """No NaN, and every squared distance stays within the dtype's range."""
  largest = jnp.finfo(points.dtype).max
  return jnp.all(jnp.sum(points**2, axis=-1) < 1e-3 * largest)
