"""Bounds of the entropy: beside draws, formulas and limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from tests.gmm import mixtures
from tgmm_jax import gmm, types

TYPES = pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)


@functools.partial(jax.jit, static_argnames="covariance_type")
def bounds_of(mixture, alpha=0.5, *, covariance_type):
  return gmm.entropy_bounds(
    mixture, covariance_type=covariance_type, alpha=alpha
  )


def numpy_bounds(mixture, covariance_type, alpha):
  """Both bounds by the formulas, with inverses and determinants."""
  matrices = mixtures.matrices_of(mixture, covariance_type)
  weights, means = mixture.weights, mixture.means
  dim = means.shape[1]

  def log_det(matrix):
    return np.linalg.slogdet(matrix)[1]

  lower = upper = 0.0
  for w, m, s in zip(weights, means, matrices, strict=True):
    own = stats.multivariate_normal(m, s).entropy()
    chernoff, kullback = [], []
    for mu, t in zip(means, matrices, strict=True):
      gap, mixed = m - mu, (1 - alpha) * s + alpha * t
      chernoff.append(
        alpha * (1 - alpha) / 2 * gap @ np.linalg.inv(mixed) @ gap
        + (log_det(mixed) - (1 - alpha) * log_det(s) - alpha * log_det(t)) / 2
      )
      inverse = np.linalg.inv(t)
      kullback.append(
        (log_det(t) - log_det(s) + gap @ inverse @ gap) / 2
        + (np.trace(inverse @ s) - dim) / 2
      )
    logs = np.log(weights)
    lower += w * (own - special.logsumexp(logs - chernoff))
    upper += w * (own - special.logsumexp(logs - kullback))
  return lower, upper


def drawn_entropy(mixture, covariance_type, num_points=40_000):
  """By draws, with its standard error."""
  generator = np.random.default_rng(0)
  matrices = mixtures.matrices_of(mixture, covariance_type)
  labels = generator.choice(len(matrices), num_points, p=mixture.weights)
  noise = generator.normal(size=(num_points, mixture.means.shape[1], 1))
  factors = np.linalg.cholesky(matrices)
  points = mixture.means[labels] + (factors[labels] @ noise)[..., 0]
  logs = [
    np.log(weight) + stats.multivariate_normal(mean, matrix).logpdf(points)
    for weight, mean, matrix in zip(
      mixture.weights, mixture.means, matrices, strict=True
    )
  ]
  values = -special.logsumexp(logs, axis=0)
  return values.mean(), values.std() / np.sqrt(num_points)


@TYPES
@pytest.mark.usefixtures("x64")
def test_bounds_are_those_of_the_formulas_and_hold_draws(covariance_type):
  mixture = mixtures.made(covariance_type)
  value, error = drawn_entropy(mixture, covariance_type)
  for alpha in (0.5, 0.3, 0.8):
    found = bounds_of(mixture, alpha, covariance_type=covariance_type)
    np.testing.assert_allclose(
      found, numpy_bounds(mixture, covariance_type, alpha), rtol=1e-11
    )
    assert found.lower < value + 4 * error
    assert found.upper > value - 4 * error
  # Not by being far away: better than what the weights alone say.
  own = [
    stats.multivariate_normal(cov=matrix).entropy()
    for matrix in mixtures.matrices_of(mixture, covariance_type)
  ]
  best = bounds_of(mixture, covariance_type=covariance_type)
  least = mixture.weights @ own
  assert least < best.lower <= best.upper
  assert best.upper < least + stats.entropy(mixture.weights)


@pytest.mark.parametrize("covariance_type", ["diag", "tied"])
@pytest.mark.usefixtures("x64")
def test_bounds_meet_where_components_are_equal_or_far_apart(covariance_type):
  mixture = mixtures.made(covariance_type)
  matrices = mixtures.matrices_of(mixture, covariance_type)
  own = [stats.multivariate_normal(cov=one).entropy() for one in matrices]
  far = mixture._replace(means=1e3 * mixture.means)
  expected = mixture.weights @ own + stats.entropy(mixture.weights)
  np.testing.assert_allclose(
    bounds_of(far, covariance_type=covariance_type), expected, rtol=1e-12
  )
  equal = jax.tree.map(
    lambda leaf: np.stack([leaf[0]] * 3) if leaf.shape[0] == 3 else leaf,
    mixture._replace(weights=np.full(3, 1 / 3)),
  )
  np.testing.assert_allclose(
    bounds_of(equal, covariance_type=covariance_type), own[0], rtol=1e-12
  )


@TYPES
def test_padding_has_no_effect_and_gradients_are_finite(covariance_type):
  mixture = mixtures.made(covariance_type)
  narrow = functools.partial(
    jax.tree.map, lambda leaf: jnp.asarray(leaf, jnp.float32)
  )
  padded = narrow(mixtures.padded(mixture, covariance_type))
  found = bounds_of(padded, covariance_type=covariance_type)
  np.testing.assert_allclose(
    found, numpy_bounds(mixture, covariance_type, 0.5), rtol=1e-4
  )

  @jax.jit
  @jax.grad
  def slopes(mixture):
    return sum(gmm.entropy_bounds(mixture, covariance_type=covariance_type))

  own = slopes(padded)
  for leaf in jax.tree.leaves(own):
    assert np.all(np.isfinite(leaf))
  assert np.max(np.abs(own.means)) > 1e-3


def test_of_one_component_both_are_its_entropy():
  mixture = types.Mixture(np.ones(1), np.zeros((1, 2)))
  np.testing.assert_allclose(
    gmm.entropy_bounds(mixture),
    stats.multivariate_normal(cov=np.eye(2)).entropy(),
    rtol=1e-6,
  )
