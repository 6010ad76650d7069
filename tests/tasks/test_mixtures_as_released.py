"""What the released sampler has of its own, against NumPy."""

import functools

import jax
import numpy as np
import pytest
from scipy import stats

from tgmm_jax.tasks import mixtures

LEAST_P = 1e-3
NUM_TASKS = 2000
DRAW = jax.jit(
  mixtures.sample_batch, static_argnums=(1, 2), static_argnames="has_each_k"
)


def law_of(num_components=(2, 3, 4, 5), **changes):
  return mixtures.TaskConfig(
    dim=2,
    num_components=num_components,
    min_points=3,
    max_points=8,
    **{"covariance_type": "diag", **changes},
  )


@functools.cache
def batch_of(num_components, has_scale_rule=True, **changes):
  law = law_of(
    (num_components,),
    has_scale_rule=has_scale_rule,
    max_components=6,
    **changes,
  )
  return jax.device_get(DRAW(jax.random.key(0), law, NUM_TASKS))


def exponents_of(batch, num_components):
  """The numbers u / 5 behind the scales, `[B, K, d]`."""
  variances = batch.mixture.covariances[:, :num_components].astype(np.float64)
  return np.log(np.expm1(np.sqrt(variances) / 2.0))


def cosines_of(vectors):
  """Of all pairs of `[B, K, d]`, `[B, pairs]`."""
  directions = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
  rows, columns = np.triu_indices(vectors.shape[1], 1)
  gram = directions @ np.swapaxes(directions, -1, -2)
  return gram[:, rows, columns]


def expected_exponents(num_components, num_tasks=4000):
  """One candidate after the other, as the rule says; and what it refused."""
  generator = np.random.default_rng(num_components)
  kept, num_tried = [], 0
  while len(kept) < num_tasks:
    block = generator.uniform(-5.0, 5.0, (4000, num_components, 2))
    is_apart = cosines_of(block).max(1) < 0.8
    num_needed = num_tasks - len(kept)
    places = np.flatnonzero(is_apart)[:num_needed]
    num_tried += 4000 if len(places) < num_needed else places[-1] + 1
    kept.extend(block[places])
  return np.array(kept) / 5.0, num_tasks / num_tried


@pytest.mark.parametrize("num_components", [2, 4])
def test_scales_obey_the_rule_of_the_means(num_components):
  found = exponents_of(batch_of(num_components), num_components)
  expected, acceptance = expected_exponents(num_components)
  assert np.abs(found).max() <= 1.0 + 1e-5
  assert cosines_of(found).max() < 0.8 + 1e-3
  assert acceptance == pytest.approx(
    law_of().acceptance(num_components), abs=0.02
  )
  # The components are exchangeable: each is looked at, both coordinates are.
  for component in range(num_components):
    coordinate = component % 2
    one, other = found[:, component], expected[:, component]
    assert (
      stats.ks_2samp(one[:, coordinate], other[:, coordinate]).pvalue > LEAST_P
    )
    error = 5.0 / NUM_TASKS**0.5
    np.testing.assert_allclose(one.mean(0), 0.0, atol=error)
    np.testing.assert_allclose(
      np.mean(one**2, 0), np.mean(other**2, 0), atol=error
    )
  for of in (np.max, np.min):
    own, others = (of(cosines_of(u), axis=1) for u in (found, expected))
    assert stats.ks_2samp(own, others).pvalue > LEAST_P


def test_without_the_rule_scales_are_independent():
  # As many pairs as chance has are above 0.8: the test above can fail.
  found = exponents_of(batch_of(2, has_scale_rule=False), 2)
  share = np.mean(cosines_of(found) > 0.8)
  assert share == pytest.approx(1.0 - law_of().acceptance(2), abs=0.03)


def test_the_rule_of_scales_changes_nothing_else():
  one, other = batch_of(4), batch_of(4, has_scale_rule=False)
  np.testing.assert_array_equal(one.mixture.means, other.mixture.means)
  np.testing.assert_array_equal(one.mixture.weights, other.mixture.weights)
  np.testing.assert_array_equal(one.labels, other.labels)
  np.testing.assert_array_equal(one.mixture.covariances[:, 4:], 1.0)
  # Scales are none of the means' business: not their box, not their shift.
  moved = batch_of(4, mean_range=50.0, shift=3.0)
  np.testing.assert_array_equal(
    moved.mixture.covariances, one.mixture.covariances
  )
  assert np.abs(moved.mixture.means).max() > 25.0


def test_there_is_no_rule_for_scales_that_are_known():
  for name in ("unit", "full"):
    with pytest.raises(ValueError, match="has_scale_rule is True, takes False"):
      law_of(covariance_type=name, has_scale_rule=True)


def test_as_many_tasks_of_each_number_of_components():
  law = law_of(covariance_type="unit")
  batch = jax.device_get(DRAW(jax.random.key(1), law, 256, has_each_k=True))
  counts = np.bincount(batch.num_components)
  np.testing.assert_array_equal(counts, [0, 0, 64, 64, 64, 64])
  np.testing.assert_array_equal(
    (batch.mixture.weights > 0).sum(1), batch.num_components
  )
  # Of one K they are the tasks of the law: those of the usual draw.
  usual = jax.device_get(DRAW(jax.random.key(1), law, 256))
  is_same = usual.num_components == batch.num_components
  assert 20 < is_same.sum() < 120
  np.testing.assert_array_equal(batch.points[is_same], usual.points[is_same])
  # Task i is that of a smaller batch too.
  small = jax.device_get(DRAW(jax.random.key(1), law, 8, has_each_k=True))
  np.testing.assert_array_equal(batch.points[:8], small.points)
