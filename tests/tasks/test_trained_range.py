import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.tasks import mixtures, trained_range

NUM_TASKS = 2000


def law_of(dim, **changes):
  return mixtures.TaskConfig(dim=dim, **changes)


@functools.cache
def limits_of(dim):
  return trained_range.measure(jax.random.key(1), law_of(dim))


def share_outside(dim, **changes):
  batch = mixtures.sample_batch(
    jax.random.key(2), law_of(dim, **changes), NUM_TASKS
  )
  check = functools.partial(trained_range.is_outside, limits_of(dim))
  is_outside = jax.vmap(check)(batch.points, sample_weight=batch.sample_weight)
  return float(jnp.mean(is_outside))


@pytest.mark.parametrize("dim", [2, 8])
def test_ordinary_tasks_are_inside_and_far_ones_outside(dim):
  # Required: at most 5% of ordinary tasks, at least 95% of these.
  assert share_outside(dim) < 0.045
  fixed = {"min_points": 128, "max_points": 128}
  assert share_outside(dim, **fixed) < 0.05
  assert share_outside(dim, shift=10.0, **fixed) > 0.95


def test_other_scales_are_outside_and_a_scale_that_was_put_right_is_not():
  assert share_outside(8, shift_kind="scale", shift=1.0) > 0.95
  assert share_outside(8, shift_kind="scale", shift=-1.0) > 0.95
  assert share_outside(8, shift_kind="standardised", shift=1.0) < 0.2


def test_padding_does_not_count_and_nan_is_outside():
  law = dataclasses.replace(law_of(2), min_points=100, max_points=100)
  batch = mixtures.sample_batch(jax.random.key(3), law, 20)
  limits = limits_of(2)
  for points, weight in zip(
    np.asarray(batch.points), np.asarray(batch.sample_weight), strict=True
  ):
    padded = np.concatenate([points, np.full((7, 2), np.nan)])
    more = np.concatenate([weight, np.zeros(7)])
    own = trained_range.is_outside(limits, points, sample_weight=weight)
    assert own == trained_range.is_outside(limits, padded, sample_weight=more)
    points = points.copy()
    points[3] = np.nan
    assert trained_range.is_outside(limits, points, sample_weight=weight)


def test_each_limit_counts_alone():
  limits = trained_range.TrainedRange(10.0, 1.0, 5.0)
  rng = np.random.default_rng(0)
  usual = np.clip(rng.normal(scale=3.0, size=(100, 2)), -8.0, 8.0)
  ones = np.ones(100)
  assert not trained_range.is_outside(limits, usual, sample_weight=ones)
  far = usual.copy()
  far[0] = (-11.0, 0.0)
  assert trained_range.is_outside(limits, far, sample_weight=ones)
  assert trained_range.is_outside(limits, 0.1 * usual, sample_weight=ones)
  wide = 9.0 * np.sign(usual)
  assert trained_range.is_outside(limits, wide, sample_weight=ones)


def test_reach_about_the_mean_does_not_know_the_origin():
  law = law_of(2)
  limits = trained_range.measure(jax.random.key(1), law, about="mean")
  batch = mixtures.sample_batch(jax.random.key(2), law, NUM_TASKS)
  offset = jnp.array([1e3, -1e3])
  outside = {
    (about, is_moved): float(
      jnp.mean(
        jax.vmap(
          functools.partial(trained_range.is_outside, limits, about=about)
        )(batch.points + is_moved * offset, sample_weight=batch.sample_weight)
      )
    )
    for about in ("origin", "mean")
    for is_moved in (0, 1)
  }
  assert outside["mean", 0] < 0.045
  assert outside["mean", 1] == pytest.approx(outside["mean", 0], abs=0.002)
  assert outside["origin", 1] == 1.0


def test_reach_in_units_of_the_spread_does_not_know_the_unit():
  law = law_of(2)
  limits = trained_range.measure(jax.random.key(1), law, about="spread")
  batch = mixtures.sample_batch(jax.random.key(2), law, NUM_TASKS)

  def share_of(points):
    check = functools.partial(trained_range.is_outside, limits, about="spread")
    return float(
      jnp.mean(jax.vmap(check)(points, sample_weight=batch.sample_weight))
    )

  here = share_of(batch.points)
  assert here < 0.025
  assert share_of(1e3 * batch.points - 7.0) == pytest.approx(here, abs=0.002)
  # One point far from all others is beyond every reach.
  assert share_of(batch.points.at[:, 0].mul(100.0)) > 0.95
  assert share_of(batch.points.at[:, 0].set(jnp.nan)) == 1.0
