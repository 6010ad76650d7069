"""Clusters are merged as by SciPy, and a start has a mean in each group."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.cluster import hierarchy

from tgmm_jax.solvers import k_means


def merged_by_scipy(means, counts, num_clusters):
  """Centres in any order; of repeated points, which merge for nothing."""
  points = np.repeat(means, counts, axis=0)
  labels = hierarchy.fcluster(
    hierarchy.linkage(points, "ward"), num_clusters, "maxclust"
  )
  return np.stack(
    [points[labels == label].mean(axis=0) for label in np.unique(labels)]
  )


def in_order(means):
  return means[np.argsort(means[:, 0])]


@pytest.mark.parametrize(("seed", "num_clusters"), [(0, 1), (1, 4), (2, 13)])
@pytest.mark.usefixtures("x64")
def test_it_is_wards_rule(seed, num_clusters):
  generator = np.random.default_rng(seed)
  means = generator.normal(size=(24, 3))
  counts = generator.permutation(np.arange(24))  # one of them 0
  # Nothing is lost far from the origin.
  for offset in (0.0, 1e8):
    found = k_means.merged(means + offset, 1.0 * counts, num_clusters)
    np.testing.assert_allclose(
      in_order(np.asarray(found.means)[:num_clusters] - offset),
      in_order(merged_by_scipy(means, counts, num_clusters)),
      atol=1e-9 if offset == 0.0 else 1e-6,
    )
    # Labels say the same.
    is_member = np.arange(num_clusters)[:, None] == np.asarray(found.labels)
    members = counts * is_member
    np.testing.assert_allclose(
      members @ means / members.sum(axis=1, keepdims=True),
      found.means[:num_clusters] - offset,
      atol=1e-6,
    )


def test_the_unit_of_mass_does_not_count():
  """Nor where the product of two masses is beyond float32."""
  generator = np.random.default_rng(3)
  means = generator.normal(size=(12, 2)).astype(np.float32)
  mass = generator.uniform(1.0, 2.0, 12).astype(np.float32)
  first = k_means.merged(means, mass, 4)
  for factor in (2.0**100, 2.0**-100):
    found = k_means.merged(means, np.float32(factor) * mass, 4)
    np.testing.assert_array_equal(found.labels, first.labels)
    np.testing.assert_array_equal(found.means, first.means)


def test_fewer_clusters_than_are_asked_for_stay():
  means = np.array([[1.0, 0.0], [5.0, 0.0], [0.0, 3.0]], np.float32)
  found = k_means.merged(means, np.array([1.0, 3.0, 0.0], np.float32), 3)
  np.testing.assert_array_equal(found.means, means[[1, 0, 2]])
  np.testing.assert_array_equal(found.labels[:2], [1, 0])


def test_every_group_has_a_mean_where_draws_alone_miss_some():
  generator = np.random.default_rng(0)
  corners = 10.0 * np.stack(np.meshgrid(*[np.arange(3)] * 2), -1).reshape(9, 2)
  points = np.repeat(corners, 20, axis=0) + generator.normal(size=(180, 2))
  keys = jax.random.split(jax.random.key(0), 100)

  def share_right(name):
    def start(key):
      return k_means.METHODS[name](
        key, points.astype(np.float32), 9, max_components=9
      )

    means = np.asarray(jax.jit(jax.vmap(start))(keys))
    near = np.linalg.norm(means[:, :, None] - corners, axis=-1) < 3.0
    return np.mean(np.all(near.any(axis=1), axis=1))

  assert share_right("ward") == 1.0
  assert share_right("k-means++") < 0.7


@pytest.mark.usefixtures("x64")
def test_means_move_with_their_points():
  generator = np.random.default_rng(0)
  points = np.repeat([[0.0, 0.0], [9.0, 0.0]], 10, axis=0)
  points += generator.normal(size=points.shape)

  def leftmost(points):
    means = k_means.ward_centres(jax.random.key(0), points, 2, max_components=2)
    return jnp.min(means[:, 0])

  gradient = jax.grad(leftmost)(points)
  expected = np.repeat([[0.1, 0.0], [0.0, 0.0]], 10, axis=0)
  np.testing.assert_allclose(gradient, expected, atol=1e-12)
