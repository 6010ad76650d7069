"""Many small clusters made into K by Ward's rule: a start that sees the whole.

Draws of K points miss a group now and then, and neither Lloyd's steps nor those
of EM come back from that. Among several times as many draws each group has
some, and clusters of one group are the cheapest to merge. k-means in two
phases, as in BIRCH (Zhang, Ramakrishnan and Livny 1996), costs little more than
one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg
from tgmm_jax.solvers.k_means import lloyd, seeding

# Small clusters: so many for each component, and at least so many.
_SEEDS_PER_COMPONENT, _LEAST_SEEDS = 4, 20


def ward_centres(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int,
) -> jax.Array:
  """Centres of small clusters that were merged until K were left.

  The small clusters are those of max(20, 4 K) points drawn by k-means++ and
  moved to the centres of what is nearest to them, once. With fewer distinct
  points than components the rest are drawn by weight.

  Args:
    key: consumed; see `seeding.k_means_plus_plus`.
    points: `[N, d]`; padding may hold anything.
    num_components: K of the problem, may be traced.
    sample_weight: `[N]`, or None for ones.
    max_components: static K of the result.

  Returns:
    means `[K, d]`, by descending weight of their clusters.
  """
  points = jnp.asarray(points)
  points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  most = max(_LEAST_SEEDS, _SEEDS_PER_COMPONENT * max_components)
  num_seeds = jnp.maximum(_LEAST_SEEDS, _SEEDS_PER_COMPONENT * num_components)
  # Who belongs to whom has no gradient; the centres have that of their points.
  known, weight = jax.lax.stop_gradient((points, sample_weight))
  seeds = seeding.k_means_plus_plus(
    key, known, num_seeds, sample_weight=weight, max_components=most
  )
  small = lloyd.move_means(
    known, seeds, num_seeds, sample_weight=weight, max_iter=1
  )
  mass = jnp.sum(
    lloyd.memberships(small.labels, most, sample_weight=weight), axis=-1
  )
  clusters = merged(small.means, mass, num_components)
  labels = clusters.labels[jnp.maximum(small.labels, 0)]
  share = lloyd.memberships(labels, max_components, sample_weight=sample_weight)
  mass = jnp.sum(share, axis=-1)[:, None]
  # About one of them nothing is lost to a large offset.
  means = clusters.means[:max_components]
  columns = jnp.where(weight > 0, points.T, 0.0)
  shift = linalg.matmul(share, columns.T - means[0]) / jnp.where(
    mass > 0, mass, 1.0
  )
  means = jnp.where(mass > 0, means[0] + shift, means)
  is_component = jnp.arange(max_components) < num_components
  return jnp.where(is_component[:, None], means, 0.0)


class Clusters(NamedTuple):
  """What is left of M clusters.

  Attributes:
    means: `[M, d]`, by descending mass; first those that are left.
    labels: `[M]` int32, in which of them each is now.
  """

  means: jax.Array
  labels: jax.Array


class _Merging(NamedTuple):
  """Where the merging stands; clusters that are left have mass.

  Attributes:
    means: `[M, d]`.
    mass: `[M]`.
    costs: `[M, M]`, by how much the sum of squares grows if two are merged; inf
      for those that are none.
    labels: `[M]`, in which cluster each is now.
  """

  means: jax.Array
  mass: jax.Array
  costs: jax.Array
  labels: jax.Array


def merged(
  means: jax.Array, mass: jax.Array, num_clusters: jax.Array | int
) -> Clusters:
  """Merges M clusters by Ward's rule (Ward 1963) until so many are left.

  Two clusters become one where this raises the sum of squared distances from
  the centres least. What is without mass counts for nothing.

  Args:
    means: `[M, d]`.
    mass: `[M]`, not negative.
    num_clusters: how many are left, may be traced.
  """
  size = mass.shape[0]
  everyone = jnp.arange(size, dtype=jnp.int32)

  def costs_of(mean, own, means, mass):
    """Of merging one with each of the others, `[M]`."""
    squared = jnp.sum((means - mean) ** 2, axis=-1)
    total = jnp.where(mass + own > 0, mass + own, 1.0)
    # The product of two masses may overflow.
    costs = squared * (mass * (own / total))
    return jnp.where((mass > 0) & (own > 0), costs, jnp.inf)

  def merge(merging):
    means, mass, costs, labels = merging
    first, second = _least(costs)
    both = mass[first] + mass[second]
    # So that nothing is lost far from the origin.
    shift = (mass[second] / both) * (means[second] - means[first])
    means = means.at[first].add(shift)
    mass = mass.at[first].set(both).at[second].set(0.0)
    own = costs_of(means[first], both, means, mass)
    own = jnp.where(everyone == first, jnp.inf, own)
    for index, row in ((first, own), (second, jnp.inf)):
      costs = costs.at[index].set(row).at[:, index].set(row)
    labels = jnp.where(labels == second, first, labels)
    return _Merging(means, mass, costs, labels)

  costs = jax.vmap(costs_of, in_axes=(0, 0, None, None))(
    means, mass, means, mass
  )
  costs = jnp.where(jnp.eye(size, dtype=bool), jnp.inf, costs)
  ended = jax.lax.fori_loop(
    0,
    jnp.sum(mass > 0) - num_clusters,
    lambda _, merging: merge(merging),
    _Merging(means, mass, costs, everyone),
  )
  order = jnp.argsort(-ended.mass)
  return Clusters(ended.means[order], jnp.argsort(order)[ended.labels])


def _least(costs):
  """Row and column of the smallest cost, the first of several."""
  size = costs.shape[0]
  index = jnp.arange(size**2, dtype=jnp.int32).reshape(costs.shape)
  # Faster than `argmin`, which XLA does one number after the other.
  least = jnp.min(jnp.where(costs == jnp.min(costs), index, size**2))
  return jnp.divmod(jnp.minimum(least, size**2 - 1), size)
