"""k-means: seeds, then Lloyd's steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types
from tgmm_jax.solvers.k_means import seeding


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
  means = seeding.k_means_plus_plus(
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


class _Lloyd(NamedTuple):
  """Where the steps stand."""

  means: jax.Array
  labels: jax.Array  # before the last move
  is_done: jax.Array
  num_iters: jax.Array


def _lloyd(
  columns, means, is_component, is_valid, *, sample_weight, max_iter, tol
):
  """Lloyd's steps until no mean moves any more."""
  spread = jnp.sum(sample_weight * columns**2) / columns.shape[0]
  max_shift = tol * spread / jnp.sum(sample_weight)

  def move(state):
    labels, _ = _nearest(columns, state.means, is_component)
    share = memberships(labels, len(is_component), sample_weight=sample_weight)
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
  share = memberships(labels, len(is_component), sample_weight=sample_weight)
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


def _nearest(columns, means, is_component):
  """The first of the nearest means and its squared distance, `[N]` each."""
  distances = seeding.squared_distances(columns, means)
  distances = jnp.where(is_component[:, None], distances, jnp.inf)
  nearest = jnp.min(distances, axis=0)
  index = jnp.arange(means.shape[0], dtype=jnp.int32)[:, None]
  labels = jnp.where(distances == nearest, index, means.shape[0] - 1)
  return jnp.min(labels, axis=0), nearest


def memberships(labels, max_components, *, sample_weight):
  """The weight of each point in its cluster, `[K, N]`."""
  is_member = labels == jnp.arange(max_components)[:, None]
  return jnp.where(is_member, sample_weight, 0.0)
