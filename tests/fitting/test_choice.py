"""Which K is taken, of fits that are made up."""

import math
import warnings

import numpy as np
import pytest

import tgmm_jax
from tgmm_jax import types
from tgmm_jax.fitting import choice, search, sizes

NUM_POINTS, DIM = 60, 2
SETTINGS = search.Settings("spherical", 1, 1, {}, 0)
# K - 1 weights, K variances and K means.
NUM_PARAMETERS = {size: size * (DIM + 2) - 1 for size in range(1, 40)}


@pytest.fixture
def made_up(monkeypatch):
  """Fits of given likelihoods: a function that takes and asks for them.

  The calls are `(K, problems)`, of which the first point is its number.
  """
  calls = []

  def make(values, lost=()):
    def find(problems, num_components, settings):
      (size,) = np.unique(num_components)
      which = problems.points[:, 0, 0].astype(int)
      calls.append((int(size), which.tolist()))
      count = len(which)
      return search.Found(
        mixture=types.Mixture(
          np.full((count, size), 1.0 / size),
          np.full((count, size, DIM), float(size)),
          np.ones((count, size)),
        ),
        log_likelihood=np.array([values(size, own) for own in which]),
        labels=np.full((count, problems.points.shape[1]), size),
        status=np.array(
          [
            types.Status.DEGENERATE
            if (size, own) in lost or size in lost
            else types.Status.CONVERGED
            for own in which
          ]
        ),
        num_iters=np.full(count, 3),
        method_index=np.zeros(count, int),
        prior_size=np.zeros(count),
        is_outside=np.zeros(count, bool),
        methods=("network unit", "EM") if size <= 5 else ("EM",),
      )

    monkeypatch.setattr(search, "find", find)
    return calls

  return make


def problems_of(count=1, num_points=NUM_POINTS, weight=1.0):
  """The first point says which of the problems it is."""
  points = np.zeros((count, 128, DIM))
  points[:, 0, 0] = np.arange(count)
  weights = np.zeros((count, 128))
  weights[:, :num_points] = weight
  origin = np.zeros((count, DIM))
  return sizes.Problems(points, weights, origin, False, np.arange(count))


def up_to(best):
  """A likelihood that grows by much up to a K and then by nothing."""
  return lambda size, _: float(min(size, best))


@pytest.mark.parametrize(
  ("best", "last"), [(1, 5), (3, 5), (4, 6), (5, 7), (8, 10), (17, 19)]
)
def test_it_goes_on_until_two_more_are_no_better(made_up, best, last):
  calls = made_up(up_to(best))
  found = choice.choose(problems_of(), 20, SETTINGS)
  assert found.num_components == [best]
  assert found.candidates == tuple(range(1, last + 1))
  assert [size for size, _ in calls] == list(found.candidates)
  assert found.found.mixture.means[0, 0, 0] == best
  assert found.found.labels[0, 0] == best
  name = found.found.methods[found.found.method_index[0]]
  assert name == ("network unit" if best <= 5 else "EM")


def test_probabilities_are_those_of_bic_for_all_orders(made_up):
  values = [-3.0, -2.5, -2.3, -2.27, -2.26]
  made_up(lambda size, _: values[size - 1])
  found = choice.choose(problems_of(), 5, SETTINGS)
  evidence = [
    math.factorial(size)
    * math.exp(
      NUM_POINTS * values[size - 1]
      - 0.5 * NUM_PARAMETERS[size] * math.log(NUM_POINTS)
    )
    for size in range(1, 6)
  ]
  np.testing.assert_allclose(
    found.probabilities[0], np.array(evidence) / sum(evidence), rtol=1e-9
  )
  assert found.num_components[0] == 1 + np.argmax(evidence)


@pytest.mark.parametrize("factor", [1e-300, 1.0 / NUM_POINTS, 1e300])
def test_a_factor_of_all_weights_does_not_count(made_up, factor):
  made_up(lambda size, _: -3.0 + 0.2 * min(size, 3))
  found = choice.choose(problems_of(), 20, SETTINGS)
  other = choice.choose(problems_of(weight=factor), 20, SETTINGS)
  np.testing.assert_allclose(
    other.probabilities, found.probabilities, rtol=1e-9
  )


@pytest.mark.parametrize("most", [2, 5, 6, 9])
def test_the_largest_that_was_allowed_is_taken_with_a_warning(made_up, most):
  made_up(up_to(30))
  with pytest.warns(UserWarning, match=f"^max_components is {most}, and so"):
    found = choice.choose(problems_of(), most, SETTINGS)
  assert found.num_components == [most]


@pytest.mark.parametrize(
  ("best", "most", "num_points"), [(1, 1, 60), (3, 3 + 1, 60), (9, 20, 4)]
)
def test_no_warning_where_there_is_nothing_to_warn_of(
  made_up, best, most, num_points
):
  made_up(up_to(best))
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    found = choice.choose(problems_of(num_points=num_points), most, SETTINGS)
  # No more components than points.
  assert found.num_components[0] == min(best, num_points)
  assert found.candidates[-1] == min(most, num_points, max(5, best + 2))


def test_what_is_degenerate_is_not_chosen(made_up):
  made_up(up_to(5), lost={4, 5})
  found = choice.choose(problems_of(), 20, SETTINGS)
  assert found.num_components[0] == 3
  assert found.probabilities[0, 3] == 0.0


def test_one_that_is_left_because_all_others_are_lost_says_so(made_up):
  made_up(up_to(5), lost={1, 3, 4, 5})
  with pytest.warns(UserWarning, match="^num_components is 2 because the fits"):
    found = choice.choose(problems_of(), 5, SETTINGS)
  assert found.num_components == [2]
  assert found.probabilities[0].tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]


def test_where_all_are_lost_it_is_one_and_its_status_says_so(made_up):
  made_up(up_to(5), lost={1, 2, 3, 4, 5})
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    found = choice.choose(problems_of(), 20, SETTINGS)
  assert found.num_components == [1]
  assert found.found.status == [types.Status.DEGENERATE]
  assert found.probabilities[0].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_each_problem_of_a_batch_has_its_own_number(made_up):
  best = [2, 7, 1]
  calls = made_up(lambda size, which: float(min(size, best[which])))
  found = choice.choose(problems_of(3), 20, SETTINGS)
  np.testing.assert_array_equal(found.num_components, best)
  assert found.candidates == tuple(range(1, 10))
  # Only the second needs more than all are given.
  assert calls[4] == (5, [0, 1, 2])
  assert calls[5:] == [(size, [1]) for size in range(6, 10)]
  np.testing.assert_array_equal(found.probabilities[[0, 2], 5:], 0.0)
  np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0)
  for row, size in enumerate(best):
    mixture = found.found.mixture
    assert np.count_nonzero(mixture.weights[row]) == size
    assert mixture.means[row, 0, 0] == size


def groups(count, size=25):
  labels = np.repeat(np.arange(count), size)
  noise = np.random.default_rng(0).normal(size=(len(labels), 1))
  return 20.0 * labels[:, None] + noise


def test_the_door_says_that_more_may_be_better():
  with pytest.warns(
    UserWarning, match="^max_components is 2, and so"
  ) as caught:
    found = tgmm_jax.fit(groups(3), max_components=2)
  assert found.num_components == 2
  # It is the caller's line that is pointed at.
  assert caught[0].filename == __file__


@pytest.mark.slow
@pytest.mark.parametrize("number", [4, 8])
def test_as_many_groups_as_there_are(number):
  found = tgmm_jax.fit(groups(number))
  assert found.num_components == number
  np.testing.assert_array_equal(np.bincount(found.labels), np.full(number, 25))
