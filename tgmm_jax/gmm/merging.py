"""Clusters that are unions of components.

A cluster that no normal density fits is covered by several components. BIC
counts these; which of them are one cluster their overlap tells (Baudry,
Raftery, Celeux, Lo and Gottardo 2010, Combining mixture components for
clustering).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy import special

from tgmm_jax import linalg


class Merging(NamedTuple):
  """The clusters that components make, for each number of clusters.

  Of L components with a weight, row m - 1 of both is for m clusters; where m
  is above L it repeats that for L.

  Attributes:
    assignments: `[K, K]` int32, the cluster of each component, from 0 to m - 1
      in the order of their first components; -1 for components of weight 0.
    entropies: `[K]`, of the clusters' probabilities at a point, the mean per
      unit of weight, in nats: 0 where all points are sure of their cluster.
  """

  assignments: jax.Array
  entropies: jax.Array


def merge(
  shares: jax.Array,
  *,
  sample_weight: jax.Array | None = None,
  weights: jax.Array | None = None,
) -> Merging:
  """Joins two clusters at a time, those whose joining lowers entropy the most.

  It begins with each component as a cluster and ends with one; of pairs that
  are equal the first is joined. How many clusters there are the entropies
  tell: they fall while parts of one cluster are joined, and hardly afterwards.

  Args:
    shares: `[N, K]`, `responsibilities` of a mixture at points.
    sample_weight: `[N]`, not all 0, or None for ones; where it is 0 shares may
      hold anything.
    weights: `[K]`, of the mixture: a component of weight 0 is padding. None
      takes those for components that have a share in some point.
  """
  shares = jnp.asarray(shares)
  if sample_weight is None:
    sample_weight = jnp.ones(shares.shape[0], shares.dtype)
  sample_weight = jnp.asarray(sample_weight, shares.dtype)
  columns = jnp.where(sample_weight > 0, shares.T, 0.0)  # [K, N]
  if weights is None:
    weights = jnp.sum(columns, axis=1)
  is_present = jnp.asarray(weights) > 0
  index = jnp.arange(is_present.size)
  point_weight = sample_weight / jnp.sum(sample_weight)

  def gains_of(columns, own):
    """By how much entropy falls where this cluster joins each other, `[K]`."""
    one = columns[own]
    parts = special.entr(one) + special.entr(columns)
    # Differences before the mean, which may be much larger than they are.
    return linalg.matmul(parts - special.entr(one + columns), point_weight)

  entropy = jnp.sum(linalg.matmul(special.entr(columns), point_weight))
  begun = _Clusters(
    columns=columns,
    gains=jax.lax.map(lambda own: gains_of(columns, own), index),
    first=jnp.where(is_present, index, -1),
    entropy=entropy,
  )

  _, (first, entropies) = jax.lax.scan(
    lambda clusters, _: _join(clusters, gains_of), begun, length=index.size
  )
  # The scan has seen L clusters, L - 1, ..., 1.
  row = jnp.maximum(jnp.sum(is_present) - 1 - index, 0)
  return Merging(_numbered(first[row]), entropies[row])


class _Clusters(NamedTuple):
  """Clusters on the way; each stands where its first component stood."""

  columns: jax.Array  # [K, N] probabilities; 0 where there is no cluster
  gains: jax.Array  # [K, K]
  first: jax.Array  # [K], the first component of the cluster of each, or -1
  entropy: jax.Array  # []


def _join(clusters, gains_of):
  """The clusters with the best pair joined, and what they were before."""
  columns, gains, first, entropy = clusters
  index = jnp.arange(first.size)
  is_cluster = first == index
  is_pair = is_cluster[:, None] & is_cluster & (index[:, None] < index)
  best = jnp.argmax(jnp.where(is_pair, gains, -jnp.inf))
  one, other = best // first.size, best % first.size
  columns = columns.at[one].add(columns[other]).at[other].set(0.0)
  row = gains_of(columns, one)
  joined = _Clusters(
    columns=columns,
    gains=gains.at[one].set(row).at[:, one].set(row),
    first=jnp.where(first == other, one, first),
    # Rounding may take an entropy of nothing below zero.
    entropy=jnp.maximum(entropy - gains[one, other], 0.0),
  )
  joined = jax.tree.map(
    lambda new, old: jnp.where(jnp.any(is_pair), new, old), joined, clusters
  )
  return joined, (first, entropy)


def _numbered(first):
  """Clusters `[..., K]` by consecutive numbers instead of first components."""
  is_first = first == jnp.arange(first.shape[-1])
  number = jnp.cumsum(is_first, axis=-1) - 1
  own = jnp.take_along_axis(number, jnp.maximum(first, 0), axis=-1)
  return jnp.where(first >= 0, own, -1).astype(jnp.int32)


def joined(shares: jax.Array, assignment: jax.Array) -> jax.Array:
  """Probability of each cluster at each point, `[N, K]`; 0 beyond the last.

  Args:
    shares: `[N, K]`, of the components.
    assignment: `[K]`, a row of `Merging.assignments`.
  """
  shares, assignment = jnp.asarray(shares), jnp.asarray(assignment)
  is_own = assignment[:, None] == jnp.arange(shares.shape[-1])
  return linalg.matmul(shares, is_own.astype(shares.dtype))
