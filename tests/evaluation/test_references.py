"""The reference rows against NumPy."""

import jax
import numpy as np

from tgmm_jax import types
from tgmm_jax.evaluation import references
from tgmm_jax.tasks import mixtures


def make_task(num_components=3):
  config = mixtures.TaskConfig(dim=3, num_components=(3,), max_components=4)
  task = mixtures.sample_batch(jax.random.key(1), config, 1)
  return jax.tree.map(lambda leaf: leaf[0], task)


def test_label_limit_is_the_means_and_shares_of_the_true_clusters():
  task = make_task()
  result = references.label_limit(task)
  labels = np.asarray(task.labels)
  for k in range(3):
    np.testing.assert_allclose(
      result.mixture.means[k],
      np.mean(np.asarray(task.points)[labels == k], axis=0),
      rtol=1e-4,
    )
    np.testing.assert_allclose(
      result.mixture.weights[k],
      np.sum(labels == k) / np.sum(labels >= 0),
      rtol=1e-5,
    )
  np.testing.assert_array_equal(result.mixture.means[3], 0.0)
  assert result.mixture.weights[3] == 0.0
  assert result.status == types.Status.CONVERGED


def test_an_empty_cluster_has_the_overall_mean_and_a_status():
  task = make_task()
  labels = np.where(task.labels == 0, 1, task.labels)
  result = references.label_limit(task._replace(labels=labels))
  centre = np.average(task.points, axis=0, weights=task.sample_weight)
  np.testing.assert_allclose(result.mixture.means[0], centre, atol=1e-5)
  assert result.mixture.weights[0] == 0.0
  assert result.status == types.Status.DEGENERATE
  assert np.isfinite(result.log_likelihood)


def test_label_limit_has_the_variances_of_the_true_clusters():
  task = make_task()
  result = references.label_limit(task, covariance_type="diag")
  labels = np.asarray(task.labels)
  for k in range(3):
    np.testing.assert_allclose(
      result.mixture.covariances[k],
      np.var(np.asarray(task.points)[labels == k], axis=0),
      rtol=1e-3,
    )
  np.testing.assert_array_equal(result.mixture.covariances[3], 1.0)
  # A cluster of one point, and one of none.
  labels = np.where(labels == 0, 1, labels)
  labels[np.argmax(labels == 1)] = 0
  single = references.label_limit(
    task._replace(labels=labels), covariance_type="diag"
  )
  empty = references.label_limit(
    task._replace(labels=np.where(labels == 0, 1, labels)),
    covariance_type="diag",
  )
  for limit in (single, empty):
    assert np.all(np.asarray(limit.mixture.covariances) > 0.0)
    assert np.isfinite(limit.log_likelihood)
  assert np.all(single.mixture.covariances[0] < 1e-3)
  assert empty.status == types.Status.DEGENERATE


def test_label_limit_has_the_covariances_of_the_true_clusters():
  task = make_task()
  points, labels = np.asarray(task.points), np.asarray(task.labels)
  own = [np.cov(points[labels == k].T, ddof=0) for k in range(3)]
  full = references.label_limit(task, covariance_type="full").mixture
  np.testing.assert_allclose(full.covariances[:3], own, rtol=1e-3, atol=1e-4)
  np.testing.assert_array_equal(full.covariances[3], np.eye(3))
  shares = [np.mean(labels[labels >= 0] == k) for k in range(3)]
  within = sum(s * cov for s, cov in zip(shares, own, strict=True))
  for covariance_type, expected in (
    ("tied", within),
    ("tied_spherical", np.trace(within) / 3),
    ("spherical", [np.trace(cov) / 3 for cov in own] + [1.0]),
  ):
    limit = references.label_limit(task, covariance_type=covariance_type)
    np.testing.assert_allclose(
      limit.mixture.covariances, expected, rtol=1e-3, atol=1e-4
    )
  empty = task._replace(labels=np.where(labels == 0, 1, labels))
  result = references.label_limit(empty, covariance_type="full")
  overall = np.cov(points[labels >= 0].T, ddof=0)
  np.testing.assert_allclose(
    result.mixture.covariances[0], overall, rtol=1e-3, atol=1e-3
  )
