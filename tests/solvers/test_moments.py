"""Whitened moments against full tensors written out."""

import jax
import numpy as np
import pytest

from tgmm_jax.solvers import moments, tensor_power

WEIGHTS = np.array([0.2, 0.3, 0.5])


def exact_points(dim, variance, seed=0):
  """Weighted points whose first three moments are the mixture's, exactly.

  At each mean, plus and minus sqrt(d variance) along each axis: isotropic
  noise has the same covariance and no third moment either.
  """
  means = 3.0 * np.random.default_rng(seed).normal(size=(3, dim))
  radius = np.sqrt(dim * variance)
  offsets = radius * np.concatenate([np.eye(dim), -np.eye(dim)])
  points = (means[:, None] + offsets).reshape(-1, dim)
  return means, points, np.repeat(WEIGHTS / len(offsets), len(offsets))


@pytest.mark.parametrize("dim", [3, 5, 24])
@pytest.mark.parametrize("variance", [0.5, 1.0])
def test_the_whitened_tensor_is_that_of_the_means(dim, variance):
  with jax.enable_x64(True):
    means, points, weight = exact_points(dim, variance)
    whitened = moments.whitened_moments(
      points,
      3,
      variance,
      sample_weight=weight,
      max_components=4,
      min_eigenvalue=1e-3,
    )
    second = np.einsum("k,ki,kj->ij", WEIGHTS, means, means)
    expected = np.linalg.eigvalsh(second)[::-1][:3]
    np.testing.assert_allclose(whitened.eigenvalues[:3], expected, rtol=1e-6)
    third = np.einsum("k,ki,kj,kl->ijl", WEIGHTS, means, means, means)
    back = np.asarray(whitened.unwhitening)
    restored = np.einsum("abc,ia,jb,lc->ijl", whitened.tensor, back, back, back)
    np.testing.assert_allclose(restored, third, atol=1e-4)
    np.testing.assert_array_equal(whitened.eigenvalues[3:], 0.0)
    np.testing.assert_array_equal(whitened.tensor[3:], 0.0)


def test_exact_moments_give_the_means_back():
  with jax.enable_x64(True):
    means, points, weight = exact_points(5, 1.0)
    whitened = moments.whitened_moments(
      points,
      3,
      1.0,
      sample_weight=weight,
      max_components=3,
      min_eigenvalue=1e-3,
    )
    found = tensor_power.decompose(jax.random.key(0), whitened.tensor, 3)
    values = np.asarray(found.eigenvalues)
    estimate = values[:, None] * found.vectors @ whitened.unwhitening.T
    order = np.argsort(values**-2.0)
    np.testing.assert_allclose(values[order] ** -2.0, WEIGHTS, atol=1e-8)
    np.testing.assert_allclose(estimate[order], means, atol=1e-7)


def test_the_noise_variance_is_the_smallest_eigenvalue():
  with jax.enable_x64(True):
    _, points, weight = exact_points(5, 0.7)
    variance = moments.noise_variance(points, weight)
    np.testing.assert_allclose(variance, 0.7, rtol=1e-10)


def test_with_no_more_points_than_dimensions_it_is_zero():
  points = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
  weight = np.full(6, 1 / 6, np.float32)
  assert moments.noise_variance(points, weight) == 0.0
  eigenvalues = np.linalg.eigvalsh(np.cov(points.T))
  assert eigenvalues[0] == pytest.approx(0.0, abs=1e-5)
