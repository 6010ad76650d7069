"""The laws of the starts, against brute force."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.cluster

from tgmm_jax import types
from tgmm_jax.solvers import k_means

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
    (k_means.k_means_plus_plus, squared_distances),
    (k_means.random_points, left_over),
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
  means = k_means.normal(
    jax.random.key(0), POINTS * 1e6, 2000, max_components=2000
  )
  assert scipy.stats.kstest(np.ravel(means), "norm").pvalue > 1e-3


@pytest.mark.parametrize("name", sorted(k_means.METHODS))
def test_means_do_not_depend_on_padding(name):
  padded = np.concatenate([POINTS, np.full((4, 2), np.nan, np.float32)])
  weight = np.concatenate([WEIGHT, np.zeros(4, np.float32)])
  method, key = k_means.METHODS[name], jax.random.key(3)
  means = method(key, POINTS, 3, sample_weight=WEIGHT, max_components=3)
  more = method(
    key, padded, jnp.asarray(3), sample_weight=weight, max_components=6
  )
  np.testing.assert_array_equal(more[:3], means)
  np.testing.assert_array_equal(more[3:], 0.0)


@pytest.mark.parametrize(
  "name", ["ward", "k-means++", "k-means", "random_points"]
)
def test_fewer_distinct_points_than_components_are_repeated(name):
  points = np.repeat(POINTS[:2], [1, 3], axis=0)
  means = k_means.METHODS[name](jax.random.key(1), points, 6, max_components=6)
  is_point = np.any(np.all(means[:, None] == points, axis=-1), axis=1)
  assert np.all(is_point)
  assert len(np.unique(np.asarray(means), axis=0)) == 2


def clusters(num_points=60, seed=0):
  """Points in eight groups of unequal spread, and unequal weights."""
  rng = np.random.default_rng(seed)
  centres = rng.uniform(-5, 5, (8, 2))
  labels = rng.integers(8, size=num_points)
  noise = (
    rng.normal(size=(num_points, 2)) * rng.uniform(0.1, 1, 8)[labels, None]
  )
  return centres[labels] + noise, rng.uniform(0.0, 2.0, num_points)


def potential_of(points, weight, means):
  distances = np.sum((points[:, None] - means) ** 2, axis=-1)
  return weight @ distances.min(axis=1)


def assert_same_mean(ours, theirs):
  variance = np.var(ours) / len(ours) + np.var(theirs) / len(theirs)
  assert abs(np.mean(ours) - np.mean(theirs)) < 3.0 * np.sqrt(variance)


@pytest.mark.parametrize(
  ("num_components", "num_trials"), [(6, 1), (6, 2), (6, None), (1, 4)]
)
def test_seeding_potentials_are_those_of_scikit_learn(
  num_components, num_trials
):
  points, weight = clusters()
  theirs = [
    potential_of(
      points,
      weight,
      sklearn.cluster.kmeans_plusplus(
        points,
        num_components,
        sample_weight=weight,
        random_state=seed,
        n_local_trials=num_trials,
      )[0],
    )
    for seed in range(3000)
  ]
  means = jax.jit(
    jax.vmap(
      lambda key: k_means.k_means_plus_plus(
        key,
        points.astype(np.float32),
        num_components,
        sample_weight=weight,
        max_components=num_components,
        num_trials=num_trials,
      )
    )
  )(jax.random.split(jax.random.key(0), 6000))
  ours = [potential_of(points, weight, one) for one in np.asarray(means)]
  assert_same_mean(ours, theirs)


def test_k_means_potentials_are_those_of_scikit_learn():
  points, weight = clusters()
  theirs = [
    sklearn.cluster.KMeans(6, n_init=1, random_state=seed)
    .fit(points, sample_weight=weight)
    .inertia_
    for seed in range(200)
  ]
  found = jax.jit(
    jax.vmap(
      lambda key: k_means.k_means(
        key,
        points.astype(np.float32),
        6,
        sample_weight=weight,
        max_components=6,
      )
    )
  )(jax.random.split(jax.random.key(0), 4000))
  assert np.all(found.status == types.Status.CONVERGED)
  assert_same_mean(np.asarray(found.potential, np.float64), theirs)


def test_default_number_of_trials_follows_scikit_learn():
  # Greedy draws of any number of trials differ: the rule shows in the means.
  points, weight = clusters(400)

  @functools.partial(jax.jit, static_argnames="num_trials")
  def draw(num_components, num_trials):
    return k_means.k_means_plus_plus(
      jax.random.key(5),
      points.astype(np.float32),
      num_components,
      sample_weight=weight,
      max_components=21,
      num_trials=num_trials,
    )

  for num_components in (2, 3, 7, 8, 20, 21):
    num_trials = 2 + int(np.log(num_components))
    np.testing.assert_array_equal(
      draw(num_components, None), draw(num_components, num_trials)
    )


def test_k_means_of_a_batch_with_one_bad_item():
  points = np.stack([clusters(seed=seed)[0] for seed in range(4)])
  points = points.astype(np.float32)
  keys = jax.random.split(jax.random.key(0), 4)

  @jax.jit
  @jax.vmap
  def fit(key, points):
    return k_means.k_means(key, points, 3, max_components=4)

  poisoned = points.copy()
  poisoned[2, 7, 0] = np.nan
  good, bad = fit(keys, points), fit(keys, poisoned)
  np.testing.assert_array_equal(bad.status, [0, 0, 3, 0])
  for one, other in zip(good, bad, strict=True):
    np.testing.assert_array_equal(
      np.delete(one, 2, axis=0), np.delete(other, 2, axis=0)
    )
  assert np.all(np.isfinite(bad.means))
  assert np.all(bad.labels[2] == -1)
  assert bad.potential[2] == np.inf


@pytest.mark.parametrize("num_components", [0, 5])
def test_number_of_components_out_of_range_is_invalid_input(num_components):
  found = k_means.k_means(
    jax.random.key(0), POINTS, jnp.asarray(num_components), max_components=4
  )
  assert found.status == types.Status.INVALID_INPUT
  np.testing.assert_array_equal(found.means, 0.0)
