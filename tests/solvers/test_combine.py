"""Solvers made of solvers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tgmm_jax import types
from tgmm_jax.solvers import combine, em
from tgmm_jax.tasks import mixtures


def make_task():
  config = mixtures.TaskConfig(dim=2, num_components=(4,))
  task = mixtures.sample_batch(jax.random.key(2), config, 1)
  return jax.tree.map(lambda leaf: leaf[0], task)


def constant_solver(means, num_iters=7):
  def solve(key, points, num_components, *, sample_weight=None):
    del key, points, num_components, sample_weight
    size = means.shape[0]
    return types.SolverResult(
      types.Mixture(jnp.full(size, 1.0 / size), means),
      jnp.zeros(()),
      jnp.asarray(num_iters, jnp.int32),
      jnp.asarray(types.Status.CONVERGED, jnp.int32),
    )

  return solve


def test_then_em_takes_exactly_so_many_steps_from_the_answer():
  task = make_task()
  means = task.mixture.means + 0.1
  refined = combine.then_em(constant_solver(means), max_iter=5)
  result = refined(
    jax.random.key(0), task.points, 4, sample_weight=task.sample_weight
  )
  mixture = types.Mixture(jnp.full(4, 0.25), means)
  for _ in range(5):
    mixture = em.step(task.points, mixture, sample_weight=task.sample_weight)
  np.testing.assert_allclose(result.mixture.means, mixture.means, atol=1e-3)
  assert result.num_iters == 7 + 5
  assert result.status == types.Status.MAX_ITER


def test_then_em_brings_means_far_outside_back_to_the_points():
  task = make_task()
  points = jnp.where(task.sample_weight[:, None] > 0, task.points, 1e9)
  means = task.mixture.means.at[0].set(1e5)
  refined = combine.then_em(constant_solver(means), max_iter=50, tol=1e-6)
  result = refined(
    jax.random.key(0), points, 4, sample_weight=task.sample_weight
  )
  assert np.all(np.abs(result.mixture.means) < 10)
  assert result.status == types.Status.CONVERGED


@pytest.mark.slow
def test_best_of_returns_the_most_likely_try():
  task = make_task()
  solve = functools.partial(
    em.fit,
    sample_weight=task.sample_weight,
    max_components=4,
    init="k-means++",
  )
  key = jax.random.key(9)
  best = combine.best_of(solve, 6)(key, task.points, 4)
  each = [
    solve(key, task.points, 4).log_likelihood
    for key in jax.random.split(key, 6)
  ]
  assert max(each) - min(each) > 0.01
  np.testing.assert_allclose(best.log_likelihood, max(each), rtol=1e-5)


def test_then_em_goes_on_with_the_scales_and_the_floor():
  task = make_task()
  mixture = task.mixture._replace(covariances=jnp.full((4, 2), 0.6))

  def solve(*_, **options):
    result = constant_solver(mixture.means)(*_, **options)
    return result._replace(mixture=mixture)

  refined = combine.then_em(
    solve, max_iter=1, covariance_type="diag", min_variance=1.0
  )
  result = refined(
    jax.random.key(0), task.points, 4, sample_weight=task.sample_weight
  )
  step = em.step(
    task.points,
    mixture,
    covariance_type="diag",
    sample_weight=task.sample_weight,
  )
  assert np.any(step.covariances < 1.0)
  np.testing.assert_allclose(result.mixture.means, step.means, atol=1e-4)
  np.testing.assert_allclose(
    result.mixture.covariances, np.maximum(step.covariances, 1.0), rtol=1e-3
  )


def answer_by_key(values, statuses):
  """A solver whose answer is one of several, drawn by the key."""

  def solve(key, points, num_components):
    del points, num_components
    index = jax.random.randint(key, (), 0, len(values))
    return types.SolverResult(
      types.Mixture(jnp.ones(1), jnp.full((1, 1), index)),
      jnp.asarray(values)[index],
      jnp.zeros((), jnp.int32),
      jnp.asarray(statuses)[index],
    )

  return solve


@pytest.mark.parametrize(
  ("statuses", "best"),
  [((0, 1, 2), 1), ((0, 0, 0), 2), ((2, 2, 2), 2), ((1, 2, 3), 0)],
)
def test_best_of_takes_a_degenerate_answer_only_where_all_are(statuses, best):
  solve = combine.best_of(answer_by_key((0.0, 1.0, 2.0), statuses), 40)
  result = jax.jit(solve)(jax.random.key(0), jnp.zeros((2, 1)), 1)
  assert result.mixture.means[0, 0] == best
  assert result.status == statuses[best]


def test_best_of_refuses_no_runs():
  with pytest.raises(ValueError, match="num_runs is 0"):
    combine.best_of(em.fit, 0)


@pytest.mark.parametrize("is_batch", [False, True])
def test_whitened_is_em_with_that_covariance(x64, is_batch):
  generator = np.random.default_rng(3)
  points = generator.normal(size=(30, 2)) * [3.0, 0.5]
  points[:15] += [4.0, 2.0]
  covariance = np.array([[2.0, 0.6], [0.6, 0.5]])
  means, weights = points[[0, 20]], np.array([0.5, 0.5])
  start = types.Mixture(jnp.asarray(weights), jnp.asarray(means))
  options = {"init": start, "max_iter": 5, "tol": 0.0}
  if is_batch:
    options["init"] = jax.tree.map(lambda leaf: leaf[None], start)
    solve = combine.whitened(em.fit_batch, jnp.asarray(covariance))
    result = solve(jax.random.key(0), points[None], 2, **options)
    result = jax.tree.map(lambda leaf: leaf[0], result)
  else:
    solve = combine.whitened(em.fit, jnp.asarray(covariance))
    result = solve(jax.random.key(0), jnp.asarray(points), 2, **options)

  def joint_of(weights, means):
    return np.stack(
      [
        weight * scipy.stats.multivariate_normal(mean, covariance).pdf(points)
        for weight, mean in zip(weights, means, strict=True)
      ]
    )

  for _ in range(5):
    joint = joint_of(weights, means)
    share = joint / joint.sum(axis=0)
    weights = share.mean(axis=1)
    means = share @ points / share.sum(axis=1)[:, None]
  np.testing.assert_allclose(result.mixture.means, means, rtol=1e-10)
  np.testing.assert_allclose(result.mixture.weights, weights, rtol=1e-10)
  density = joint_of(weights, means).sum(axis=0)
  np.testing.assert_allclose(
    result.log_likelihood, np.log(density).mean(), rtol=1e-10
  )
