"""Shifted tasks, against the law without the shift."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from scipy import stats

from tgmm_jax.tasks import mixtures, shifts

LAW = mixtures.TaskConfig(
  dim=2, num_components=(3,), min_points=100, max_points=128
)
NUM_TASKS = 200


@functools.cache
def draw(kind="means", size=0.0):
  law = dataclasses.replace(LAW, shift_kind=kind, shift=size)
  batch = mixtures.sample_batch(jax.random.key(0), law, NUM_TASKS)
  return jax.device_get(batch)


def noise_of(batch):
  """Points less their means, one row for each point that is none of padding."""
  means = np.take_along_axis(
    batch.mixture.means, np.maximum(batch.labels, 0)[..., None], axis=1
  )
  return (batch.points - means)[batch.sample_weight > 0]


def test_every_kind_without_a_size_is_the_law_itself():
  for kind in shifts.KINDS:
    for own, other in zip(
      jax.tree.leaves(draw(kind, 0.0)), jax.tree.leaves(draw()), strict=True
    ):
      np.testing.assert_array_equal(own, other)


def test_weights_are_powers_of_the_usual_ones():
  usual, own = draw().mixture.weights, draw("weights", 2.0).mixture.weights
  expected = usual**3 / np.sum(usual**3, axis=1, keepdims=True)
  np.testing.assert_allclose(own, expected, rtol=1e-4)


def test_stated_components_leave_the_task_alone():
  for own, other in zip(
    jax.tree.leaves(draw("stated_components", 1.0)),
    jax.tree.leaves(draw()),
    strict=True,
  ):
    np.testing.assert_array_equal(own, other)


def test_student_noise_has_its_degrees_of_freedom():
  own = noise_of(draw("student_t", 0.25))
  # Each coordinate is Student's t; both of a point share one scale.
  assert stats.kstest(own[:, 0], stats.t(4.0).cdf).pvalue > 1e-3
  assert stats.kstest(own[:, 0], stats.norm.cdf).pvalue < 1e-6
  radius = np.sum(own**2, axis=1) / 2.0
  assert stats.kstest(radius, stats.f(2, 4).cdf).pvalue > 1e-3


def test_outliers_are_as_many_as_said_in_a_wide_box_and_of_no_component():
  usual, own = draw(), draw("outliers", 0.1)
  is_point = usual.sample_weight > 0
  is_outlier = is_point & (own.labels == -1)
  share = is_outlier.sum() / is_point.sum()
  assert share == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / is_point.sum()))
  assert np.all(
    own.points[is_point & ~is_outlier] == usual.points[is_point & ~is_outlier]
  )
  outliers = own.points[is_outlier][:, 0]
  assert stats.kstest(outliers, stats.uniform(-15, 30).cdf).pvalue > 1e-3
  np.testing.assert_array_equal(own.points[~is_point], 0.0)


def test_scale_multiplies_points_and_truth():
  usual, own = draw(), draw("scale", 2.0)
  np.testing.assert_allclose(own.points, 4.0 * usual.points, rtol=1e-6)
  np.testing.assert_allclose(
    own.mixture.means, 4.0 * usual.mixture.means, rtol=1e-6
  )
  np.testing.assert_array_equal(own.mixture.weights, usual.mixture.weights)


def test_standardised_does_not_depend_on_the_scale_and_has_the_usual_one():
  own, other = draw("standardised", 1.0), draw("standardised", -3.0)
  for one, two in zip(
    jax.tree.leaves(own), jax.tree.leaves(other), strict=True
  ):
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
  squares = np.sum(own.points**2, axis=(1, 2)) / 2.0
  mean_square = squares / own.sample_weight.sum(axis=1)
  np.testing.assert_allclose(mean_square, 25.0 / 3.0 + 1.0, rtol=1e-4)
  # The truth goes along: the noise about it is what it was, scaled.
  ratio = own.points[:, 0] / draw().points[:, 0]
  np.testing.assert_allclose(
    own.mixture.means[:, 0] / draw().mixture.means[:, 0], ratio, rtol=1e-3
  )


@pytest.mark.parametrize(
  ("kind", "size", "message"),
  [
    ("tails", 0.1, "shift_kind is 'tails', takes one of"),
    ("student_t", 0.5, "shift is 0.5, takes 0 to 0.5"),
    ("student_t", -0.1, "shift is -0.1, takes 0 to 0.5"),
    ("outliers", 1.5, "shift is 1.5, takes 0 to 1 for 'outliers'"),
    ("stated_components", 0.5, "shift is 0.5, takes -1, 0 or 1"),
    ("scale", float("nan"), "shift is nan, takes -20 to 20"),
    ("weights", float("inf"), "shift is inf, takes a finite number >= 0"),
  ],
)
def test_what_cannot_be_drawn_is_refused(kind, size, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(LAW, shift_kind=kind, shift=size)
