"""The laws of the starts, against brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tgmm_jax.solvers import init

POINTS = np.array(
  [[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [-2.0, 1.0], [9.0, 9.0]], np.float32
)
WEIGHT = np.array([1.0, 2.0, 0.5, 1.0, 0.0], np.float32)
NUM_DRAWS = 20000


def sampled_counts(method, num_components):
  """How often each ordered choice of points is drawn."""
  means = jax.jit(
    jax.vmap(
      lambda key: method(
        key,
        POINTS,
        num_components,
        sample_weight=WEIGHT,
        max_components=num_components,
      )
    )
  )(jax.random.split(jax.random.key(0), NUM_DRAWS))
  is_point = np.all(means[:, :, None] == POINTS, axis=-1)
  assert np.all(np.sum(is_point, axis=-1) == 1)
  index = np.asarray(np.argmax(is_point, axis=-1))
  choices = list(itertools.product(range(len(POINTS)), repeat=num_components))
  return {
    choice: int(np.sum(np.all(index == choice, axis=1))) for choice in choices
  }


def choice_probability(choice, factor_of):
  """Product of the conditional probabilities of drawing in this order."""
  probability = 1.0
  for position, index in enumerate(choice):
    mass = WEIGHT * factor_of(choice[:position])
    probability *= mass[index] / mass.sum()
  return probability


def squared_distances(drawn):
  if not drawn:
    return 1.0
  differences = POINTS[:, None] - POINTS[list(drawn)]
  return np.sum(differences**2, axis=-1).min(axis=1)


def left_over(drawn):
  return ~np.isin(np.arange(len(POINTS)), drawn)


@pytest.mark.parametrize(
  ("method", "factor_of"),
  [
    (init.k_means_plus_plus, squared_distances),
    (init.random_points, left_over),
  ],
)
def test_choices_follow_the_brute_force_law(method, factor_of):
  counts = sampled_counts(method, 3)
  expected = {
    choice: NUM_DRAWS * choice_probability(choice, factor_of)
    for choice in counts
  }
  assert sum(expected.values()) == pytest.approx(NUM_DRAWS)
  possible = [choice for choice in counts if expected[choice] > 1e-9]
  assert sum(counts[choice] for choice in possible) == NUM_DRAWS
  frequencies = np.array([expected[c] for c in possible], np.float64)
  _, p_value = scipy.stats.chisquare(
    [counts[choice] for choice in possible],
    # SciPy wants the same sum to eight digits; the probabilities are float32.
    frequencies / frequencies.sum() * NUM_DRAWS,
  )
  assert p_value > 1e-3


def test_normal_means_are_standard_normal_whatever_the_points():
  means = init.normal(
    jax.random.key(0), POINTS * 1e6, 2000, max_components=2000
  )
  assert scipy.stats.kstest(np.ravel(means), "norm").pvalue > 1e-3


@pytest.mark.parametrize("name", sorted(init.METHODS))
def test_means_do_not_depend_on_padding(name):
  padded = np.concatenate([POINTS, np.full((4, 2), np.nan, np.float32)])
  weight = np.concatenate([WEIGHT, np.zeros(4, np.float32)])
  method, key = init.METHODS[name], jax.random.key(3)
  means = method(key, POINTS, 3, sample_weight=WEIGHT, max_components=3)
  more = method(
    key, padded, jnp.asarray(3), sample_weight=weight, max_components=6
  )
  np.testing.assert_array_equal(more[:3], means)
  np.testing.assert_array_equal(more[3:], 0.0)


@pytest.mark.parametrize("name", ["k-means++", "random_points"])
def test_fewer_distinct_points_than_components_are_repeated(name):
  points = np.repeat(POINTS[:2], [1, 3], axis=0)
  means = init.METHODS[name](jax.random.key(1), points, 6, max_components=6)
  is_point = np.any(np.all(means[:, None] == points, axis=-1), axis=1)
  assert np.all(is_point)
  assert len(np.unique(np.asarray(means), axis=0)) == 2
