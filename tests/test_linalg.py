"""Moments and leading directions against NumPy."""

import numpy as np
import pytest

from tgmm_jax import linalg


def make_points(dim, num_points=60, seed=0):
  generator = np.random.default_rng(seed)
  scales = np.geomspace(8.0, 1.0, dim)
  points = scales * generator.normal(size=(num_points, dim)) + 3.0
  weight = generator.uniform(0.5, 2.0, num_points)
  return points.astype(np.float32), weight.astype(np.float32)


def numpy_covariance(points, weight):
  return np.cov(np.float64(points.T), aweights=np.float64(weight), ddof=0)


def test_mean_and_covariance_are_numpys():
  points, weight = make_points(5)
  mean, covariance = linalg.weighted_covariance(points, sample_weight=weight)
  np.testing.assert_allclose(
    mean, np.average(points, axis=0, weights=weight), rtol=1e-5
  )
  np.testing.assert_allclose(
    linalg.weighted_mean(points, sample_weight=weight), mean, rtol=1e-6
  )
  np.testing.assert_allclose(
    covariance, numpy_covariance(points, weight), atol=1e-3
  )


def test_the_covariance_far_from_the_origin_is_right():
  points, weight = make_points(3)
  _, near = linalg.weighted_covariance(points, sample_weight=weight)
  _, far = linalg.weighted_covariance(points + 1e4, sample_weight=weight)
  np.testing.assert_allclose(far, near, atol=0.1)


def test_no_weight_gives_zeros():
  points, weight = make_points(3)
  mean, covariance = linalg.weighted_covariance(
    points, sample_weight=0.0 * weight
  )
  np.testing.assert_array_equal(mean, 0.0)
  np.testing.assert_array_equal(covariance, 0.0)


@pytest.mark.parametrize("dim", [2, 16, 17, 40, 90])
def test_the_subspace_is_numpys(dim):
  points, weight = make_points(dim)
  found = linalg.principal_subspace(points, 3, sample_weight=weight)
  kept = min(dim, 3)
  values, vectors = np.linalg.eigh(numpy_covariance(points, weight))
  values, vectors = values[::-1][:kept], vectors[:, ::-1][:, :kept]
  np.testing.assert_allclose(found.eigenvalues[:kept], values, rtol=5e-3)
  np.testing.assert_allclose(
    found.mean, np.average(points, axis=0, weights=weight), rtol=1e-4
  )
  directions = np.asarray(found.directions)
  np.testing.assert_allclose(
    directions[:, :kept].T @ directions[:, :kept], np.eye(kept), atol=1e-5
  )
  # The variance inside the subspace, whatever the vectors in it.
  np.testing.assert_array_equal(directions[:, kept:], 0.0)
  np.testing.assert_array_equal(found.eigenvalues[kept:], 0.0)
  covariance = numpy_covariance(points, weight)
  captured = np.trace(directions.T @ covariance @ directions)
  np.testing.assert_allclose(captured, values.sum(), rtol=5e-3)


def test_noise_eigenvalues_at_d_128_are_within_one_percent():
  generator = np.random.default_rng(0)
  points = generator.normal(size=(128, 128)).astype(np.float32)
  points[:40] += 5.0
  found = linalg.principal_subspace(
    points, 4, sample_weight=np.ones(128, np.float32)
  )
  covariance = numpy_covariance(points, np.ones(128))
  values = np.linalg.eigvalsh(covariance)[::-1][:4]
  np.testing.assert_allclose(found.eigenvalues, values, rtol=0.01)


@pytest.mark.parametrize("dim", [3, 40])
def test_equal_points_have_no_variance_and_no_nan(dim):
  points = np.ones((10, dim), np.float32)
  found = linalg.principal_subspace(
    points, 4, sample_weight=np.ones(10, np.float32)
  )
  np.testing.assert_allclose(found.eigenvalues, 0.0, atol=1e-10)
  assert np.all(np.isfinite(found.directions))
