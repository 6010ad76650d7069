"""Two classes by the network against labels by eigh and the Bayes rate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.constructed import results
from tgmm_jax import types
from tgmm_jax.constructed import clustering, power_method

KEY = jax.random.key(0)
CLUSTER = jax.jit(functools.partial(clustering.cluster, num_steps=20))
FIT = jax.jit(functools.partial(clustering.fit, max_components=3, num_steps=20))


def sample(separation, num_points=64, dim=4, seed=0):
  generator = np.random.default_rng(seed)
  mean = generator.normal(size=dim)
  mean *= separation / np.linalg.norm(mean)
  signs = generator.choice([-1, 1], size=num_points)
  noise = generator.normal(size=(num_points, dim))
  return mean, signs, signs[:, None] * mean + noise


def share_wrong(labels, signs):
  is_wrong = (2 * np.asarray(labels) - 1) != signs
  return min(np.mean(is_wrong), 1.0 - np.mean(is_wrong))


@pytest.mark.slow
@pytest.mark.parametrize("separation", [2.0, 2.5, 3.0])
def test_errors_are_within_one_point_of_the_bayes_rate(separation):
  network = power_method.build(16)
  solve = jax.jit(
    lambda keys, points: jax.lax.map(
      lambda inputs: clustering.cluster(*inputs, num_steps=12, network=network),
      (keys, points),
    )
  )
  # 16,384 points: the standard error of the rate is 0.0012 at most.
  data = [sample(separation, 512, 16, seed) for seed in range(32)]
  points = np.array([points for _, _, points in data], np.float32)
  found = solve(jax.random.split(KEY, 32), points)
  errors = [
    share_wrong(labels, signs)
    for labels, (_, signs, _) in zip(found.labels, data, strict=True)
  ]
  assert abs(np.mean(errors) - stats.norm.cdf(-separation)) < 0.01
  np.testing.assert_array_equal(found.status, types.Status.CONVERGED)


@pytest.mark.parametrize("seed", range(3))
def test_labels_are_the_sides_of_the_leading_direction(seed):
  _, signs, points = sample(2.0, seed=seed)
  found = CLUSTER(KEY, points.astype(np.float32), sample_weight=np.ones(64))
  centred = points - points.mean(axis=0)
  direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
  sides = np.sign(centred @ direction) * np.sign(found.direction @ direction)
  np.testing.assert_array_equal(2 * found.labels - 1, sides)
  assert abs(found.direction @ direction) > 1 - 1e-6
  assert share_wrong(found.labels, signs) < 0.1
  assert found.status == types.Status.CONVERGED


def test_a_shift_and_a_scale_change_no_label():
  _, _, points = sample(2.0)
  weight = np.ones(64)
  plain = CLUSTER(KEY, points.astype(np.float32), sample_weight=weight)
  for size, shift in ((1e-12, 0.0), (1.0, 30.0), (1e12, -1e13)):
    moved = (size * points + shift).astype(np.float32)
    found = CLUSTER(KEY, moved, sample_weight=weight)
    np.testing.assert_array_equal(found.labels, plain.labels)


def test_padding_has_no_label_and_may_hold_anything():
  _, _, points = sample(2.0)
  weight = np.r_[np.ones(50), np.zeros(14)].astype(np.float32)
  filled = [
    np.where(weight[:, None] > 0, points, junk).astype(np.float32)
    for junk in (0.0, np.nan)
  ]
  plain, spoilt = (CLUSTER(KEY, x, sample_weight=weight) for x in filled)
  np.testing.assert_array_equal(plain.labels, spoilt.labels)
  np.testing.assert_array_equal(plain.labels[50:], -1)
  assert set(np.asarray(plain.labels[:50])) == {0, 1}


def test_the_mixture_is_that_of_the_two_classes():
  mean, signs, points = sample(3.0)
  points = (points + 5.0).astype(np.float32)
  weight = np.ones(64, np.float32)
  found = FIT(KEY, points, 2, sample_weight=weight)
  labels = np.asarray(CLUSTER(KEY, points, sample_weight=weight).labels)
  for label in (0, 1):
    np.testing.assert_allclose(
      found.mixture.means[label], points[labels == label].mean(axis=0), 1e-4
    )
    np.testing.assert_allclose(
      found.mixture.weights[label], np.mean(labels == label), rtol=1e-5
    )
  half = (found.mixture.means[0] - found.mixture.means[1]) / 2.0
  half *= np.sign(half @ mean)
  assert np.linalg.norm(half - mean) < 0.6
  np.testing.assert_array_equal(found.mixture.means[2], 0.0)
  assert found.mixture.weights[2] == 0.0
  assert found.mixture.covariances is None
  assert found.status == types.Status.CONVERGED


@pytest.mark.parametrize(
  ("separation", "half"), [(1.0, 1.1666), (2.0, 2.0170), (3.0, 3.0008)]
)
def test_class_means_are_too_far_apart_by_what_the_docstring_says(
  separation, half
):
  # Of m + z the mean absolute value, z standard normal.
  folded = stats.foldnorm(separation).mean()
  np.testing.assert_allclose(folded, half, atol=1e-4)


def status_of(points, num_components=2, weight=None):
  points = jnp.asarray(points, jnp.float32)
  weight = jnp.ones(64) if weight is None else jnp.asarray(weight)
  found = FIT(KEY, points, num_components, sample_weight=weight)
  return results.status_of(found)


def test_statuses():
  _, _, points = sample(2.0)
  invalid = types.Status.INVALID_INPUT
  for bad in (np.nan, np.inf, 1e30):
    spoilt = points.copy()
    spoilt[1, 2] = bad
    assert status_of(spoilt) == invalid
  assert status_of(points, 3) == invalid
  assert status_of(points, 1) == invalid
  assert status_of(points, weight=np.zeros(64)) == invalid
  assert status_of(np.ones((64, 4))) == types.Status.DEGENERATE
  round_points = np.random.default_rng(0).normal(size=(64, 4))
  assert status_of(round_points) == types.Status.MAX_ITER


def test_what_no_data_can_make_right_is_refused():
  points = jnp.ones((10, 3))

  def fit(num_components=2, **options):
    def solve(key, points):
      return clustering.fit(key, points, num_components, **options)

    jax.eval_shape(solve, KEY, points)

  with pytest.raises(ValueError, match="num_components is 3, takes 2"):
    fit(3)
  with pytest.raises(ValueError, match="max_components is 1"):
    fit(max_components=1)
  with pytest.raises(ValueError, match="num_steps is 0"):
    fit(num_steps=0)
  with pytest.raises(ValueError, match="max_dim = 2"):
    fit(network=power_method.build(2))
