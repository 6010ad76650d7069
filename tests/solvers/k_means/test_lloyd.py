"""The steps of k-means, against scikit-learn and by their properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.cluster
import sklearn.datasets

from tgmm_jax import types
from tgmm_jax.solvers import k_means

MOVE_MEANS = jax.jit(k_means.move_means)


def iris():
  return sklearn.datasets.load_iris().data


def blobs():
  return sklearn.datasets.make_blobs(300, 3, centers=7, random_state=0)[0]


@pytest.mark.parametrize("points", [iris(), blobs()], ids=["iris", "blobs"])
@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("max_iter", [300, 3])
@pytest.mark.usefixtures("x64")
def test_scikit_learn_takes_the_same_steps(points, is_weighted, max_iter):
  rng = np.random.default_rng(1)
  weight = rng.uniform(0, 2, len(points)) if is_weighted else None
  start = points[rng.choice(len(points), 5, replace=False)]
  theirs = sklearn.cluster.KMeans(
    5, init=start, n_init=1, algorithm="lloyd", tol=0, max_iter=max_iter
  ).fit(points, sample_weight=weight)
  ours = MOVE_MEANS(
    points, start, sample_weight=weight, max_iter=max_iter, tol=0.0
  )
  assert theirs.n_iter_ > 2
  assert ours.num_iters == theirs.n_iter_
  np.testing.assert_allclose(ours.potential, theirs.inertia_, rtol=1e-10)
  np.testing.assert_allclose(ours.means, theirs.cluster_centers_, rtol=1e-10)
  np.testing.assert_array_equal(ours.labels, theirs.labels_)
  assert ours.status == (
    types.Status.MAX_ITER if max_iter == 3 else types.Status.CONVERGED
  )


@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-3])
@pytest.mark.usefixtures("x64")
def test_tolerance_is_that_of_scikit_learn(tol):
  points = blobs()
  start = points[:7]
  theirs = sklearn.cluster.KMeans(7, init=start, n_init=1, tol=tol).fit(points)
  ours = MOVE_MEANS(points, start, tol=tol)
  assert ours.num_iters == theirs.n_iter_
  np.testing.assert_allclose(ours.means, theirs.cluster_centers_, rtol=1e-10)


def test_weight_two_is_a_duplicate_and_weight_zero_is_absence():
  points = iris().astype(np.float32)
  counts = np.random.default_rng(0).integers(0, 3, len(points))
  repeated = np.repeat(points, counts, axis=0)
  hidden = np.where(counts[:, None] > 0, points, np.nan)
  one = MOVE_MEANS(repeated, points[[0, 60, 120]])
  other = MOVE_MEANS(hidden, points[[0, 60, 120]], sample_weight=counts)
  np.testing.assert_allclose(one.means, other.means, rtol=1e-5)
  np.testing.assert_allclose(one.potential, other.potential, rtol=1e-5)
  assert one.num_iters == other.num_iters
  np.testing.assert_array_equal(one.labels, np.repeat(other.labels, counts))
  assert np.all(other.labels[counts == 0] == -1)


def test_padded_components_take_no_points():
  points = iris().astype(np.float32)
  start = np.concatenate([points[[0, 60, 120]], points[:2]])
  one = MOVE_MEANS(points, start[:3])
  other = MOVE_MEANS(points, start, jnp.asarray(3))
  np.testing.assert_allclose(other.means[:3], one.means, rtol=1e-6)
  np.testing.assert_array_equal(other.means[3:], 0.0)
  np.testing.assert_array_equal(other.labels, one.labels)
  assert other.status == types.Status.CONVERGED


def test_mean_without_points_stays_and_is_told():
  points = np.array([[0.0], [1.0], [5.0], [6.0]], np.float32)
  found = MOVE_MEANS(points, np.array([[0.0], [9.0], [100.0]], np.float32))
  np.testing.assert_allclose(found.means, [[0.5], [5.5], [100.0]])
  assert found.status == types.Status.DEGENERATE
  np.testing.assert_array_equal(found.labels, [0, 0, 1, 1])
  assert found.potential == 1.0


def test_large_offset_costs_no_more_than_the_points_own_rounding():
  points = iris().astype(np.float32) * 4.0
  start = points[[0, 60, 120]]
  shifted = points + np.float32(1e4)
  exact = MOVE_MEANS(shifted - np.float32(1e4), start)
  found = MOVE_MEANS(shifted, start + np.float32(1e4))
  np.testing.assert_array_equal(found.labels, exact.labels)
  np.testing.assert_allclose(found.potential, exact.potential, rtol=1e-5)
  np.testing.assert_allclose(found.means - 1e4, exact.means, atol=2e-3)


@pytest.mark.parametrize(
  ("points", "weight"),
  [
    (np.full((5, 2), np.inf), np.ones(5)),
    (np.full((5, 2), 1e30), np.ones(5)),
    (np.ones((5, 2)), np.zeros(5)),
    (np.ones((5, 2)), -np.ones(5)),
    (np.ones((5, 2)), np.full(5, np.nan)),
  ],
)
def test_bad_input_is_told_and_nothing_is_nan(points, weight):
  found = MOVE_MEANS(
    points.astype(np.float32),
    np.eye(2, dtype=np.float32),
    sample_weight=weight.astype(np.float32),
  )
  assert found.status == types.Status.INVALID_INPUT
  assert not any(np.any(np.isnan(leaf)) for leaf in found)
