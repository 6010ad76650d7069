"""The spectral method with the network's power steps against the classical."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.constructed import results
from tgmm_jax import gmm, metrics, types
from tgmm_jax.constructed import spectral, tensor_power
from tgmm_jax.solvers import spectral as classical
from tgmm_jax.tasks import mixtures

FIT = jax.jit(
  functools.partial(spectral.fit, max_components=3, num_restarts=4),
)
KEY = jax.random.key(0)


@functools.cache
def problem():
  """Points `[48, 2]`, their weight with 8 of padding, and the means."""
  generator = np.random.default_rng(0)
  means = np.array([[4.0, 1.0], [-1.0, 3.0]])
  labels = np.arange(48) % 5 < 2
  points = means[labels.astype(int)] + generator.normal(size=(48, 2))
  weight = np.arange(48) < 40
  return (
    jnp.asarray(points, jnp.float32),
    jnp.asarray(weight, jnp.float32),
    jnp.asarray(means, jnp.float32),
  )


def solve(fit, batch, **options):
  one = functools.partial(fit, max_components=5, **options)

  def solve_one(points, weight, num_components):
    return one(KEY, points, num_components, sample_weight=weight)

  return jax.jit(jax.vmap(solve_one))(
    batch.points, batch.sample_weight, batch.num_components
  )


@pytest.mark.slow
def test_errors_are_those_of_the_classical_solver_on_the_papers_tasks():
  config = mixtures.TaskConfig(dim=8)
  batch = mixtures.sample_batch(jax.random.key(1), config, 8)
  found = solve(spectral.fit, batch)
  expected = solve(classical.fit, batch)
  errors = [
    jax.vmap(metrics.l2_error)(
      result.mixture.means, batch.mixture.means, batch.num_components
    )
    for result in (found, expected)
  ]
  np.testing.assert_array_equal(found.status, expected.status)
  # Where the moments do not tell, starts decide: the two draw the same ones.
  np.testing.assert_allclose(errors[0], errors[1], rtol=1e-3)
  assert np.median(errors[0]) < 0.06
  np.testing.assert_allclose(
    found.log_likelihood, expected.log_likelihood, rtol=1e-4
  )


def test_two_components_are_found():
  points, weight, means = problem()
  found = FIT(KEY, points, 2, sample_weight=weight)
  assert found.status == types.Status.CONVERGED
  assert metrics.l2_error(found.mixture.means[:2], means, 2) < 0.1
  assert found.mixture.covariances is None
  np.testing.assert_array_equal(found.mixture.means[2], 0.0)
  np.testing.assert_allclose(np.sum(found.mixture.weights), 1.0, rtol=1e-6)
  expected = gmm.log_likelihood(points, found.mixture, sample_weight=weight)
  np.testing.assert_allclose(found.log_likelihood, expected, rtol=1e-6)


@pytest.mark.parametrize("junk", [0.0, np.nan, 1e30])
def test_padding_may_hold_anything(junk):
  points, weight, _ = problem()
  spoilt = np.where(weight[:, None] > 0, points, np.float32(junk))
  plain = FIT(KEY, points, 2, sample_weight=weight)
  found = FIT(KEY, spoilt, 2, sample_weight=weight)
  np.testing.assert_array_equal(found.mixture.means, plain.mixture.means)


@pytest.mark.slow
def test_the_normalised_network_and_more_steps_a_pass_give_the_same():
  points, weight, _ = problem()
  plain = FIT(KEY, points, 2, sample_weight=weight)
  network = tensor_power.build(3, 64, is_normalised=True)
  found = jax.jit(
    functools.partial(
      spectral.fit,
      max_components=3,
      num_restarts=4,
      num_passes=1,
      steps_per_pass=15,
    )
  )(KEY, points, 2, sample_weight=weight, network=network)
  assert found.status == types.Status.CONVERGED
  np.testing.assert_allclose(
    found.mixture.means, plain.mixture.means, atol=2e-3
  )


def test_points_far_larger_than_the_noise_are_within_range():
  points, weight, means = problem()
  for size in (1e3, 1e12):
    found = FIT(KEY, size * points, 2, sample_weight=weight)
    error = metrics.l2_error(found.mixture.means[:2] / size, means, 2)
    assert error < 0.5
    assert np.isfinite(found.log_likelihood)


def status_of(points, num_components, weight=None):
  if weight is None:
    weight = jnp.ones(len(points))
  found = FIT(KEY, points, num_components, sample_weight=weight)
  return results.status_of(found)


def test_statuses():
  points, weight, _ = problem()
  invalid = types.Status.INVALID_INPUT
  for bad in (np.nan, np.inf, 1e30):
    assert status_of(points.at[2, 1].set(bad), 2) == invalid
  assert status_of(points, 2, 0.0 * weight) == invalid
  assert status_of(points, 2, weight.at[0].set(-1.0)) == invalid
  assert status_of(points, 0) == invalid
  assert status_of(points, 4) == invalid
  assert status_of(points, 1) == types.Status.CONVERGED
  degenerate = types.Status.DEGENERATE
  assert status_of(0.0 * points, 2) == degenerate
  assert status_of(jnp.tile(points[:1], (48, 1)), 2) == degenerate
  few = weight.at[1:].set(0.0)
  assert status_of(points, 2, few) == degenerate
  assert status_of(points, 3) == degenerate  # d is 2
  # Of one component the weights of two may well add up to 1.
  for seed in (3, 4, 9):
    noise = np.random.default_rng(seed).normal(size=(48, 2))
    one = jnp.asarray(noise + [3.0, 1.0], jnp.float32)
    assert status_of(one, 2) == degenerate


def test_one_component_is_the_mean():
  points, weight, _ = problem()
  found = FIT(KEY, points, 1, sample_weight=weight)
  mean = np.average(points, axis=0, weights=weight)
  np.testing.assert_allclose(found.mixture.means[0], mean, rtol=1e-5)
  np.testing.assert_array_equal(found.mixture.weights, [1.0, 0.0, 0.0])


def test_what_no_data_can_make_right_is_refused():
  points = jnp.ones((10, 2))

  def fit(*inputs, **options):
    jax.eval_shape(functools.partial(spectral.fit, **options), KEY, *inputs)

  for name, value in (
    ("num_restarts", 0),
    ("num_passes", 0),
    ("steps_per_pass", 0),
    ("min_eigenvalue", -1.0),
  ):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
      fit(points, num_components=2, **{name: value})
  with pytest.raises(ValueError, match="max_components is None"):
    fit(points, jnp.asarray(2))
  with pytest.raises(ValueError, match="T <= 16"):
    fit(points, num_components=2, network=tensor_power.build(2, 16))
  with pytest.raises(ValueError, match="max_dim = 2"):
    fit(points, num_components=3, network=tensor_power.build(2, 32))
