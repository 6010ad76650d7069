"""Whitened moments against full tensors written out."""

import functools

import jax
import numpy as np
import pytest

from tgmm_jax.solvers.spectral import moments, tensor_power
from tgmm_jax.tasks import mixtures

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
    variance = moments.noise_variance(points, sample_weight=weight)
    np.testing.assert_allclose(variance, 0.7, rtol=1e-10)


def test_with_no_more_points_than_dimensions_it_is_zero():
  points = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
  weight = np.full(6, 1 / 6, np.float32)
  assert moments.noise_variance(points, sample_weight=weight) == 0.0
  eigenvalues = np.linalg.eigvalsh(np.cov(points.T))
  assert eigenvalues[0] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.slow
def test_the_noise_variance_of_few_points_is_too_low_as_documented():
  """Mean over tasks at N = 128, true variance 1."""
  documented = {
    (2, 2): (0.99, 0.99),
    (8, 2): (0.64, 0.98),
    (8, 5): (0.73, 0.96),
  }
  for (dim, num_components), expected in documented.items():
    config = mixtures.TaskConfig(
      dim=dim,
      num_components=(num_components,),
      min_points=128,
      max_points=128,
    )
    tasks = mixtures.sample_batch(jax.random.key(dim), config, 300)
    weight = np.full(128, 1 / 128, np.float32)
    residual = functools.partial(
      moments.residual_variance,
      num_components=num_components,
      sample_weight=weight,
      max_components=5,
    )
    found = jax.jit(
      jax.vmap(
        lambda points, residual=residual, weight=weight: (
          moments.noise_variance(points, sample_weight=weight),
          residual(points),
        )
      )
    )(tasks.points)
    np.testing.assert_allclose(np.mean(found, axis=1), expected, atol=0.02)


@pytest.mark.parametrize(("dim", "num_points"), [(3, 50), (6, 50), (30, 20)])
def test_the_residual_variance_is_what_numpy_leaves(dim, num_points, x64):
  generator = np.random.default_rng(0)
  points = generator.normal(size=(num_points, dim)) * np.linspace(1, 9, dim)
  weight = generator.uniform(size=num_points)
  weight /= weight.sum()
  covariance = np.cov(points.T, aweights=weight, ddof=0)
  values = np.linalg.eigvalsh(covariance)[::-1]
  for num_components in (1, 2, 3):
    found = moments.residual_variance(
      points, num_components, sample_weight=weight, max_components=4
    )
    # For d > 16 the leading eigenvalues are only nearly exact.
    np.testing.assert_allclose(
      found,
      values[num_components - 1 :].mean(),
      rtol=1e-9 if dim < 16 else 0.05,
    )
  none = moments.residual_variance(
    points[:, :2], 3, sample_weight=weight, max_components=4
  )
  assert none == 0.0


@pytest.mark.parametrize(("dim", "num_points"), [(2, 128), (4, 30), (20, 128)])
def test_noise_hardly_exceeds_its_edge(dim, num_points):
  """Fewer than one sample in fifty does, of points without structure."""
  generator = np.random.default_rng(dim)
  points = generator.normal(size=(2000, num_points, dim))
  points -= points.mean(axis=1, keepdims=True)
  largest = np.linalg.eigvalsh(points.swapaxes(1, 2) @ points)[:, -1]
  edge = moments.noise_edge(1.0, dim, num_points)
  assert 0.0 < np.mean(largest / num_points > edge) < 0.02


@pytest.mark.parametrize("dim", [2, 3, 6])
@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_the_central_tensor_is_that_of_the_means_and_a_one(dim, shift, x64):
  """K = 3 means in two dimensions too, about whatever origin."""
  means, points, weight = exact_points(dim, 0.7)
  whitened = moments.central_moments(
    points + shift,
    3,
    0.7,
    sample_weight=weight,
    max_components=4,
    min_eigenvalue=1e-3,
  )
  centre = WEIGHTS @ means
  np.testing.assert_allclose(whitened.centre, centre + shift, rtol=1e-9)
  lifted = np.concatenate([np.ones((3, 1)), means - centre], axis=1)
  third = np.einsum("k,ki,kj,kl->ijl", WEIGHTS, lifted, lifted, lifted)
  back = np.zeros((dim + 1, 4))
  back[0, 0], back[1:] = 1.0, whitened.unwhitening
  restored = np.einsum("abc,ia,jb,lc->ijl", whitened.tensor, back, back, back)
  np.testing.assert_allclose(restored, third, atol=1e-7)
  between = np.einsum("k,ki,kj->ij", WEIGHTS, lifted[:, 1:], lifted[:, 1:])
  np.testing.assert_allclose(
    whitened.eigenvalues[1:3], np.linalg.eigvalsh(between)[::-1][:2], rtol=1e-7
  )
  assert whitened.eigenvalues[0] == 1.0
  np.testing.assert_array_equal(whitened.tensor[3:], 0.0)


def test_the_rank_counts_what_stands_above_noise(x64):
  generator = np.random.default_rng(0)
  noise = generator.normal(size=(400, 6))
  weight = np.full(400, 1 / 400)
  means = np.zeros((4, 6))
  means[1:, :3] = 8.0 * np.eye(3)
  for num_means in (1, 2, 3, 4):
    points = noise + means[np.arange(400) % num_means]
    options = {
      "sample_weight": weight,
      "max_components": 5,
      "min_eigenvalue": 1e-3,
    }
    central = moments.central_moments(points, 5, 1.0, **options)
    about_origin = moments.whitened_moments(points, 5, 1.0, **options)
    assert central.rank == num_means
    # One of the means is the origin itself.
    assert about_origin.rank == num_means - 1
  tight = moments.whitened_moments(0.1 * noise, 5, 1.0, **options)
  assert tight.rank == 0


def test_population_moments_with_their_noise_removed_and_whitened(x64):
  means, points, weight = exact_points(5, 1.3)
  second = np.einsum("n,ni,nj->ij", weight, points, points)
  third = np.einsum("n,ni,nj,nk->ijk", weight, points, points, points)
  second, third = moments.remove_noise(weight @ points, second, third, 1.3)
  expected = np.einsum("k,ki,kj->ij", WEIGHTS, means, means)
  np.testing.assert_allclose(second, expected, atol=1e-9)
  expected = np.einsum("k,ki,kj,kl->ijl", WEIGHTS, means, means, means)
  np.testing.assert_allclose(third, expected, atol=1e-9)
  whitened = moments.whiten(second, third, 3, max_components=7)
  assert whitened.rank == 3
  back = np.asarray(whitened.unwhitening)
  restored = np.einsum("abc,ia,jb,lc->ijl", whitened.tensor, back, back, back)
  np.testing.assert_allclose(restored, third, atol=1e-8)
  np.testing.assert_allclose(back @ back.T, second, atol=1e-9)


def test_the_sign_of_given_eigenvalues_is_told(x64):
  second = np.diag([3.0, 1.0, 0.0, -0.5, -2.0])
  whitened = moments.whiten(second, np.zeros((5, 5, 5)), 3, max_components=3)
  np.testing.assert_allclose(whitened.eigenvalues, [3.0, 1.0, 0.0], atol=1e-12)
  assert whitened.rank == 2
  assert all(np.all(np.isfinite(leaf)) for leaf in whitened)
