"""EM against the textbook in NumPy, for every covariance type."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.solvers.em import problems as em_problems
from tgmm_jax import gmm, types
from tgmm_jax.solvers import em

NUM_STEPS = 40


def numpy_em(points, sample_weight, start, num_steps, covariance_type):
  """The textbook with full matrices; the log-likelihood before each step."""
  weights, means = np.asarray(start.weights), np.asarray(start.means)
  num_components, dim = means.shape
  covariances = em_problems.expand(
    start.covariances, *means.shape, covariance_type
  )
  history = []
  for step in range(num_steps + 1):
    normals = map(scipy.stats.multivariate_normal, means, covariances)
    log_joint = np.log(weights) + np.stack(
      [normal.logpdf(points) for normal in normals], axis=-1
    )
    log_density = scipy.special.logsumexp(log_joint, axis=-1)
    history.append(np.average(log_density, weights=sample_weight))
    if step == num_steps:
      break
    share = np.exp(log_joint - log_density[:, None]) * sample_weight[:, None]
    weights = share.sum(axis=0) / sample_weight.sum()
    means = share.T @ points / share.sum(axis=0)[:, None]
    estimates = []
    for k in range(num_components):
      centred = points - means[k]
      scatter = (share[:, k, None] * centred).T @ centred
      estimates.append(
        scatter / share[:, k].sum() + em_problems.REG_COVAR * np.eye(dim)
      )
    restricted = em_problems.restrict(
      np.stack(estimates), weights, covariance_type
    )
    covariances = em_problems.expand(restricted, *means.shape, covariance_type)
  restricted = em_problems.restrict(covariances, weights, covariance_type)
  return types.Mixture(weights, means, restricted), np.array(history)


def small_problem(covariance_type, seed=3):
  """40 points and 7 of padding, their weights, and a start."""
  points = em_problems.random_problems(seed + 1)[0][seed, :40]
  start = em_problems.make_start(points, 3, covariance_type, seed)
  weight = np.random.default_rng(seed).uniform(0.5, 2.0, len(points))
  points = np.concatenate([points, np.full((7, 3), np.nan)])
  return points, np.concatenate([weight, np.zeros(7)]), start


@pytest.mark.parametrize(
  "covariance_type", em_problems.fast_only(("full",), gmm.COVARIANCE_TYPES)
)
@pytest.mark.usefixtures("x64")
def test_fit_unroll_and_step_equal_a_numpy_em(covariance_type):
  points, weight, start = small_problem(covariance_type)
  expected, history = numpy_em(
    points[:40], weight[:40], start, NUM_STEPS, covariance_type
  )
  options = {
    "covariance_type": covariance_type,
    "reg_covar": em_problems.REG_COVAR,
  }
  inputs = (jax.random.key(0), points, 3)
  frame = {
    "sample_weight": weight,
    "init": start,
    "reg_share": 0.0,
    "tol": 0.0,
  }
  fitted = em.fit(*inputs, max_iter=NUM_STEPS, **frame, **options)
  unrolled = em.unroll(*inputs, num_steps=NUM_STEPS, **frame, **options)
  stepped = jax.tree.map(jnp.asarray, start)
  step = jax.jit(
    functools.partial(em.step, sample_weight=weight[:40], **options)
  )
  for _ in range(NUM_STEPS):
    stepped = step(points[:40], stepped)
  for found in (fitted.mixture, unrolled.mixture, stepped):
    for one, other in zip(found, expected, strict=True):
      if one is not None and other is not None:
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)
  for result in (fitted, unrolled):
    assert result.num_iters == NUM_STEPS
    assert result.status == types.Status.MAX_ITER
    np.testing.assert_allclose(result.log_likelihood, history[-1], rtol=1e-11)
  np.testing.assert_allclose(unrolled.history, history[:-1], rtol=1e-11)
  assert history[-1] - history[0] > 0.01


@pytest.mark.parametrize(
  "covariance_type", em_problems.fast_only(("full",), gmm.COVARIANCE_TYPES)
)
@pytest.mark.usefixtures("x64")
def test_a_weight_of_two_is_a_row_given_twice(covariance_type):
  points, _, start = small_problem(covariance_type)
  # Seven rows twice, or seven of weight 2 and as many of padding.
  points = np.concatenate([points[:40], points[:7]])
  weight = np.concatenate([np.full(7, 2.0), np.ones(33), np.zeros(7)])
  fit = functools.partial(
    em.fit,
    jax.random.key(0),
    points,
    3,
    covariance_type=covariance_type,
    init=start,
    max_iter=20,
    tol=0.0,
  )
  one = fit(sample_weight=weight)
  other = fit(sample_weight=np.ones(47))
  for found, expected in zip(
    jax.tree.leaves(one), jax.tree.leaves(other), strict=True
  ):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
  plain = fit(sample_weight=np.where(weight > 0, 1.0, 0.0))
  assert abs(plain.log_likelihood - one.log_likelihood) > 1e-3


@pytest.mark.parametrize(
  "covariance_type", em_problems.fast_only(("full",), gmm.COVARIANCE_TYPES)
)
@pytest.mark.usefixtures("x64")
def test_a_converged_run_is_frozen(covariance_type):
  points, weight, start = small_problem(covariance_type)
  tol = 3e-3
  inputs = (jax.random.key(0), points, 3)
  options = {
    "covariance_type": covariance_type,
    "sample_weight": weight,
    "init": start,
    "tol": tol,
  }
  fitted = em.fit(*inputs, max_iter=NUM_STEPS, **options)
  unrolled = em.unroll(*inputs, num_steps=NUM_STEPS, **options)
  steps = int(fitted.num_iters)
  assert 2 < steps < NUM_STEPS - 5
  assert fitted.status == unrolled.status == types.Status.CONVERGED
  assert unrolled.num_iters == steps
  for one, other in zip(
    jax.tree.leaves((fitted.mixture, fitted.log_likelihood)),
    jax.tree.leaves((unrolled.mixture, unrolled.log_likelihood)),
    strict=True,
  ):
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
  changes = np.diff(unrolled.history)
  np.testing.assert_array_equal(changes[steps - 1 :], 0.0)
  assert np.all(changes[: steps - 2] >= tol)
  assert 0 < changes[steps - 2] < tol


@pytest.mark.parametrize(
  "covariance_type", em_problems.fast_only(("diag",), gmm.COVARIANCE_TYPES)
)
# Without optimisation XLA of jaxlib 0.10 makes some of these gradients NaN.
@pytest.mark.usefixtures("optimized", "x64")
def test_gradients_through_the_steps_are_central_differences(covariance_type):
  points, weight, start = small_problem(covariance_type)
  flat, unflatten = jax.flatten_util.ravel_pytree(
    (points[:15] / 2.0, weight[:15], start.means / 2.0)
  )

  @jax.jit
  @jax.value_and_grad
  def final(flat):
    points, weight, means = unflatten(flat)
    result = em.unroll(
      jax.random.key(0),
      points,
      3,
      num_steps=3,
      covariance_type=covariance_type,
      sample_weight=weight,
      init=start._replace(means=means),
      reg_share=1e-2,
    )
    return result.log_likelihood + 0.3 * result.mixture.means[0, 1]

  _, gradient = final(flat)
  expected = []
  for shift in 1e-6 * np.eye(flat.size):
    (ahead, _), (behind, _) = final(flat + shift), final(flat - shift)
    expected.append((ahead - behind) / 2e-6)
  np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)
  for leaf in unflatten(gradient):
    assert np.max(np.abs(leaf)) > 1e-3
