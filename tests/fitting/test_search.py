"""The best mixture of given K: proposals, restarts, EM."""

import jax
import numpy as np
import pytest

from tgmm_jax import types
from tgmm_jax.fitting import search, sizes

COUNT, NUM_POINTS = 18, 40
OPTIONS = {"max_iter": 100, "tol": 1e-6, "min_variance": None}
SETTINGS = search.Settings("diag", 2, 2, OPTIONS, 0)
NUMBERS = np.array([1, 2, 3] * 6)
CENTRES = np.array([[0.0, 0.0], [12.0, 2.0], [3.0, 15.0]])


def problems_of(count=COUNT, spoilt=()):
  """Groups far apart, as many as `NUMBERS` says, and far from the origin."""
  generator = np.random.default_rng(0)
  noise = generator.normal(size=(count, NUM_POINTS, 2))
  labels = np.arange(NUM_POINTS) % NUMBERS[:count, None]
  points = CENTRES[labels] + noise + 1e6
  for problem in spoilt:
    points[problem, 3, 1] = np.nan
  return (
    labels,
    points,
    sizes.problems_of(
      points, sample_weight=np.ones((count, NUM_POINTS)), seed=0
    ),
  )


@pytest.fixture(scope="module")
def found():
  return search.find(problems_of()[-1], NUMBERS, SETTINGS)


def test_more_problems_than_a_program_takes(found):
  labels, points, _ = problems_of()
  size = sizes.max_components_for(3)
  assert found.mixture.weights.shape == (COUNT, size)
  assert found.log_likelihood.shape == found.status.shape == (COUNT,)
  assert found.methods == (
    *("network diag", "EM"),
    *("network diag, with a prior", "EM, with a prior"),
  )
  assert np.all(found.method_index < 2)
  assert np.all(found.prior_size == 0.0)
  for index, number in enumerate(NUMBERS):
    weights, means, covariances = jax.tree.map(
      lambda leaf, index=index: leaf[index], found.mixture
    )
    assert found.status[index] == types.Status.CONVERGED
    # By ascending weight, padding last and nothing.
    assert np.all(np.diff(weights[:number]) >= 0)
    assert not np.any(weights[number:])
    assert not np.any(means[number:])
    assert np.all(covariances > 0)
    groups = [
      points[index][found.labels[index, :NUM_POINTS] == own]
      for own in range(number)
    ]
    for own, group in enumerate(groups):
      np.testing.assert_allclose(means[own], group.mean(axis=0), atol=1e-5)
      np.testing.assert_allclose(covariances[own], group.var(axis=0), rtol=1e-4)
    pairs = set(zip(found.labels[index], labels[index], strict=False))
    assert len(pairs) == number
  assert np.all(found.labels[:, NUM_POINTS:] == -1)


def test_neighbours_have_no_say(found):
  _, _, problems = problems_of(spoilt=(0, 17))
  spoilt = search.find(problems, NUMBERS, SETTINGS)
  is_bad = np.isin(np.arange(COUNT), (0, 17))
  np.testing.assert_array_equal(
    spoilt.status == types.Status.INVALID_INPUT, is_bad
  )
  assert np.all(spoilt.log_likelihood[is_bad] == -np.inf)
  assert not np.any(spoilt.is_outside[is_bad])
  for own, other in zip(spoilt.mixture, found.mixture, strict=True):
    assert np.all(np.isfinite(own))
    np.testing.assert_array_equal(own[~is_bad], other[~is_bad])
  np.testing.assert_array_equal(spoilt.labels[~is_bad], found.labels[~is_bad])


def test_the_seed_is_all_that_is_random(found):
  again = search.find(problems_of()[-1], NUMBERS, SETTINGS)
  for own, other in zip(again[:-1], found[:-1], strict=True):
    jax.tree.map(np.testing.assert_array_equal, own, other)


def test_one_that_collapses_has_a_prior():
  points = np.random.default_rng(0).normal(size=(1, NUM_POINTS, 2))
  points[0, ::4] = 20.0
  problems = sizes.problems_of(
    points, sample_weight=np.ones((1, NUM_POINTS)), seed=0
  )
  found = search.find(problems, np.array([2]), SETTINGS)
  assert found.status[0] < types.Status.DEGENERATE
  assert found.prior_size[0] == search.PRIOR_SIZE
  assert found.methods[found.method_index[0]].endswith(", with a prior")
  np.testing.assert_array_equal(
    found.labels[0, :NUM_POINTS] == 0, np.arange(NUM_POINTS) % 4 == 0
  )


@pytest.mark.slow
def test_beyond_the_networks_it_is_em():
  generator = np.random.default_rng(0)
  points = 30.0 * (np.arange(60) % 6)[None, :, None]
  points = points + generator.normal(size=(1, 60, 2))
  problems = sizes.problems_of(points, sample_weight=np.ones((1, 60)), seed=0)
  found = search.find(problems, np.array([6]), SETTINGS)
  assert found.mixture.weights.shape == (1, sizes.max_components_for(6))
  assert found.methods == ("EM", "EM, with a prior")
  np.testing.assert_allclose(found.mixture.weights[0, :6], 1 / 6, rtol=1e-5)


def test_what_is_random_does_not_depend_on_the_other_problems(found):
  _, _, problems = problems_of()
  rows = np.array([5, 2])
  alone = search.find(problems.take(rows), NUMBERS[rows], SETTINGS)
  np.testing.assert_array_equal(alone.mixture.means, found.mixture.means[rows])
  np.testing.assert_array_equal(alone.method_index, found.method_index[rows])


@pytest.mark.parametrize("covariance_type", ["unit", "diag", "tied", "full"])
@pytest.mark.parametrize("kind", ["apart", "overlapping", "constant", "equal"])
def test_added_coordinates_change_nothing(covariance_type, kind, monkeypatch):
  generator = np.random.default_rng(4)
  labels = np.arange(60) % 2
  distance = 1.5 if kind == "overlapping" else 9.0
  points = generator.normal(size=(60, 5)) + distance * labels[:, None]
  if kind == "constant":
    points[:, 3] = 7.0
  if kind == "equal":
    # One group has too few distinct points for covariances of its own.
    points[labels == 1] = points[1::2][np.arange(30) % 2]
  settings = SETTINGS._replace(covariance_type=covariance_type)

  def find():
    problems = sizes.problems_of(
      points[None], sample_weight=np.ones((1, 60)), seed=0
    )
    wide = problems.widened(covariance_type=covariance_type)
    return wide.shape[-1], search.find(problems, np.array([2]), settings)

  size, found = find()
  assert size == 6
  monkeypatch.setattr(sizes, "_DIMS", ())
  size, expected = find()
  assert size == 5
  assert found.status == expected.status
  assert found.method_index == expected.method_index
  np.testing.assert_array_equal(found.labels, expected.labels)
  np.testing.assert_allclose(
    found.log_likelihood, expected.log_likelihood, rtol=1e-9
  )
  for own, other in zip(found.mixture, expected.mixture, strict=True):
    if other is not None:
      np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_many_problems_are_fitted_as_few(monkeypatch):
  _, points, few = problems_of()
  expected = search.find(few, NUMBERS, SETTINGS)
  monkeypatch.setattr(sizes, "_FEW_PROBLEMS", COUNT - 1)
  many = sizes.problems_of(
    points, sample_weight=np.ones((COUNT, NUM_POINTS)), seed=0
  )
  assert many.points.shape[1] < few.points.shape[1]
  found = search.find(many, NUMBERS, SETTINGS)
  np.testing.assert_array_equal(
    found.labels[:, :NUM_POINTS], expected.labels[:, :NUM_POINTS]
  )
  np.testing.assert_allclose(found.mixture.means, expected.mixture.means)
