"""Densities of what is seen, imputation and its draws, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tests.solvers.em import observed
from tests.solvers.em import problems as em_problems
from tgmm_jax import gmm, types

KEY = jax.random.key(0)


def made(kind, covariance_type="full"):
  """Points with holes, their noise, and a mixture of three components."""
  points, _ = observed.holed_points()
  noise = observed.noise_of(kind)
  start = em_problems.start_of_long_clusters(covariance_type)
  if covariance_type == "full":
    generator = np.random.default_rng(3)
    factor = generator.normal(size=(3, 3, 3)) + 2.0 * np.eye(3)
    start = start._replace(covariances=factor @ np.swapaxes(factor, 1, 2))
  return points, noise, jax.tree.map(np.asarray, start)


def reference(points, noise, mixture, covariance_type):
  expanded = em_problems.expand(mixture.covariances, 3, 3, covariance_type)
  noise = observed.matrices_of(noise, points)
  return observed.posteriors(
    points, noise, mixture.weights, mixture.means, expanded
  )


@pytest.mark.parametrize(
  ("covariance_type", "kind"),
  [("full", "none"), ("diag", "variances"), ("spherical", "matrices")],
)
@pytest.mark.usefixtures("x64")
def test_densities_and_imputed_points_are_those_of_the_textbook(
  covariance_type, kind, monkeypatch
):
  # Many blocks, the last of them not full.
  monkeypatch.setattr("tgmm_jax.gmm.densities._LEAST_ROWS", 25)
  monkeypatch.setattr("tgmm_jax.gmm.densities._BLOCK_SIZE", 1)
  points, noise, mixture = made(kind, covariance_type)
  log_joint, latent, _ = reference(points, noise, mixture, covariance_type)
  options = {"covariance_type": covariance_type, "point_covariances": noise}
  found = gmm.observed_log_joint(points, mixture, **options)
  np.testing.assert_allclose(found, log_joint, rtol=1e-10, atol=1e-10)
  share = scipy.special.softmax(log_joint, axis=1)
  expected = np.einsum("nk,nkd->nd", share, latent)
  imputed = gmm.impute(mixture, points, **options)
  np.testing.assert_allclose(imputed, expected, rtol=1e-10, atol=1e-10)
  if noise is None:
    np.testing.assert_array_equal(
      np.where(np.isnan(points), np.nan, imputed), points
    )


@pytest.mark.parametrize("kind", ["none", "matrices", "variances"])
@pytest.mark.usefixtures("x64")
def test_draws_have_the_moments_of_the_posterior(kind):
  num_draws = 6_000
  points, noise, mixture = made(kind)
  # Between two components, so that labels matter.
  row = np.array([[2.0, np.nan, np.nan]])
  own = None if noise is None else noise[:1]
  log_joint, latent, rest = reference(row, own, mixture, "full")
  share = scipy.special.softmax(log_joint[0])
  mean = share @ latent[0]
  centred = latent[0] - mean
  second = rest[0] + centred[..., None] * centred[:, None]
  covariance = np.einsum("k,kij->ij", share, second)
  many = None if noise is None else np.repeat(own, num_draws, axis=0)
  draws = gmm.impute(
    mixture,
    np.repeat(row, num_draws, axis=0),
    covariance_type="full",
    point_covariances=many,
    key=KEY,
  )
  assert 0.1 < np.sort(share)[1]
  error = np.sqrt(np.diag(covariance) / num_draws)
  assert np.all(np.abs(np.mean(draws, axis=0) - mean) <= 4.0 * error + 1e-12)
  found = np.cov(draws.T)
  scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
  np.testing.assert_array_less(
    np.abs(found - covariance), 0.1 * np.maximum(scale, 1e-12)
  )
  if noise is None:
    np.testing.assert_array_equal(draws[:, 0], 2.0)


@pytest.mark.usefixtures("x64")
def test_gradients_are_finite_and_central_differences():
  points, noise, mixture = made("matrices")
  value = functools.partial(_mean_density, covariance_type="full")
  gradient = jax.jit(jax.grad(value, argnums=(0, 1, 2)))(points, noise, mixture)
  for leaf in jax.tree.leaves(gradient):
    assert np.all(np.isfinite(leaf))
  assert np.all(np.asarray(gradient[0])[np.isnan(points)] == 0.0)
  direction = np.random.default_rng(0).normal(size=(3, 3))
  ahead, behind = (
    value(points, noise, mixture._replace(means=mixture.means + step))
    for step in (1e-5 * direction, -1e-5 * direction)
  )
  np.testing.assert_allclose(
    np.sum(gradient[2].means * direction), (ahead - behind) / 2e-5, rtol=1e-6
  )


def _mean_density(points, noise, mixture, *, covariance_type):
  values = gmm.observed_log_joint(
    points,
    mixture,
    covariance_type=covariance_type,
    point_covariances=noise,
  )
  return jnp.mean(jax.nn.logsumexp(values, axis=1))


def test_a_row_of_nothing_and_one_out_of_range_are_imputed():
  mixture = types.Mixture(
    jnp.array([0.25, 0.75, 0.0]), jnp.array([[0.0, 0], [4, 8], [0, 0]])
  )
  points = jnp.array([[jnp.nan, jnp.nan], [1e30, jnp.nan]], jnp.float32)
  found = gmm.impute(mixture, points)
  np.testing.assert_allclose(found[0], [3.0, 6.0], rtol=1e-6)
  assert np.all(np.isfinite(found))
