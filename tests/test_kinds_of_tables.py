"""What tables have that makes a covariance flat, or a group look collapsed."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from tests import doors

NUM_POINTS = 120
CORNERS = np.array([[0.0, 0.0], [12.0, 1.0], [2.0, 12.0]])


class Kind(NamedTuple):
  """Groups that anybody sees.

  Attributes:
    make: a function of a generator and the group `[N]` of each point that gives
      the points `[N, 3]`.
    sizes: of the groups.
    has_spike: whether one of them has no width: it needs a prior, which only
      `fit` has by itself.
  """

  make: Callable[[np.random.Generator, np.ndarray], np.ndarray]
  sizes: tuple[int, ...] = (30, 40, 50)
  has_spike: bool = False


def plane(generator, groups):
  """Groups of width 1 in two columns."""
  return CORNERS[groups] + generator.normal(size=(NUM_POINTS, 2))


def constant_column(generator, groups):
  return np.c_[plane(generator, groups), np.full(NUM_POINTS, 3.3)]


def dependent_column(generator, groups):
  points = plane(generator, groups)
  return np.c_[points, points @ [0.3, 0.7]]


def percentages(generator, groups):
  """They sum to 100, but for two decimals."""
  shares = np.array(
    [[20.0, 30.0, 50.0], [50.0, 20.0, 30.0], [30.0, 50.0, 20.0]]
  )
  points = shares[groups] + generator.normal(size=(NUM_POINTS, 3))
  return np.round(100.0 * points / points.sum(axis=1, keepdims=True), 2)


def one_hot(generator, groups):
  """A column of two values, as two columns that sum to one."""
  is_first = generator.random(NUM_POINTS) < 0.5
  line = 12.0 * groups + generator.normal(size=NUM_POINTS)
  return np.c_[line, is_first, ~is_first]


def far_point(generator, groups):
  """One point is 10,000 widths from all others."""
  centres = np.array([[1e4, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 12.0, 0.0]])
  return centres[groups] + generator.normal(size=(NUM_POINTS, 3))


def zeros(generator, groups):
  """A fifth of the rows has nothing to say."""
  centres = np.array([[0.0] * 3, [8.0, 8.0, 8.0], [20.0, 8.0, 8.0]])
  points = centres[groups] + generator.normal(size=(NUM_POINTS, 3))
  return np.where(groups[:, None] == 0, 0.0, points)


def repeated(generator, groups, count=4):
  """Each row so many times."""
  points = np.c_[plane(generator, groups), generator.normal(size=NUM_POINTS)]
  first = np.arange(NUM_POINTS)
  for group in np.unique(groups):
    rows = np.flatnonzero(groups == group)
    first[rows] = rows[np.arange(len(rows)) // count * count]
  return points[first]


def duplicates(generator, groups):
  """A twentieth of the rows are others once more."""
  points = np.c_[plane(generator, groups), generator.normal(size=NUM_POINTS)]
  first = np.arange(NUM_POINTS)
  for row in range(0, NUM_POINTS, 20):
    first[row] = generator.choice(np.flatnonzero(groups == groups[row]))
  return points[first]


def two_places(generator, groups):
  """10,000 widths apart."""
  points = generator.normal(size=(NUM_POINTS, 3))
  return points + 1e4 * groups[:, None] * [1.0, 0.0, 0.0]


def two_widths(generator, groups):
  """One is a hundred times as wide as the other."""
  points = generator.normal(size=(NUM_POINTS, 3))
  points = points * np.array([1.0, 100.0])[groups, None]
  return points + 1e3 * groups[:, None] * [1.0, 0.0, 0.0]


KINDS = {
  "a constant column": Kind(constant_column),
  "a column that follows from others": Kind(dependent_column),
  "percentages": Kind(percentages),
  "one-hot columns": Kind(one_hot),
  "a far point": Kind(far_point, (1, 49, 70), has_spike=True),
  "zeros": Kind(zeros, (24, 40, 56), has_spike=True),
  "duplicates": Kind(duplicates),
  "each row four times": Kind(repeated, (28, 40, 52)),
  "two places": Kind(two_places, (50, 70)),
  "two widths": Kind(two_widths, (50, 70)),
}


@functools.cache
def table_of(name, dtype="float64"):
  """The points, and the group of each by ascending size."""
  kind = KINDS[name]
  generator = np.random.default_rng(0)
  groups = np.repeat(np.arange(len(kind.sizes)), kind.sizes)
  groups = generator.permutation(groups)
  return kind.make(generator, groups).astype(dtype), groups


def ask(door, name, num_components, folder=None, dtype="float64", **options):
  options = {"covariance_type": "full"} | options
  return doors.ask(
    door, folder, table_of(name, dtype)[0], num_components, **options
  )


def assert_right(answer, name):
  groups = table_of(name)[1]
  assert answer.num_components == len(KINDS[name].sizes)
  np.testing.assert_array_equal(answer.labels, groups)
  assert answer.status == "CONVERGED"


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
@pytest.mark.parametrize("name", KINDS)
def test_groups_of_given_number_are_found(name, covariance_type):
  number = len(KINDS[name].sizes)
  assert_right(ask("fit", name, number, covariance_type=covariance_type), name)


# Where points are equal few of them may make a group that is all but flat, and
# the likelihood has a maximum there.
REPEATED = ("duplicates", "each row four times")
FOUND = [name for name in KINDS if name not in REPEATED]


@pytest.mark.parametrize("name", FOUND)
def test_the_number_is_found(name):
  if name == "one-hot columns":
    # Two values are two groups, of which each may be divided.
    answer = ask("fit", name, "auto")
    pairs = set(zip(answer.labels, table_of(name)[1], strict=True))
    assert len(pairs) == answer.num_components >= 3
    return
  assert_right(ask("fit", name, "auto"), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_float32_is_enough(name):
  number = len(KINDS[name].sizes)
  assert_right(ask("fit", name, number, dtype="float32"), name)


# A far point is nothing that a network was trained on, and it says so.
pytestmark = pytest.mark.filterwarnings("ignore:points are unlike those")
OTHERS = [name for name in doors.DOORS if name != "fit"]


@pytest.mark.parametrize("door", OTHERS)
def test_every_door_finds_them(door, tmp_path):
  for name, kind in KINDS.items():
    if kind.has_spike and door != "command line":
      continue
    if kind.make is repeated and door == "select":
      # BIC takes copies for new points: scikit-learn's falls from 3 to 5, too.
      continue
    assert_right(ask(door, name, len(kind.sizes), tmp_path), name)


@pytest.mark.parametrize("door", [*OTHERS[:-1], "fit"])
def test_a_common_factor_of_the_weights_does_not_count(door):
  number = "auto" if door == "fit" else 3
  weights = np.random.default_rng(1).uniform(0.5, 2.0, NUM_POINTS)
  first = ask(door, "percentages", number, sample_weight=weights)
  assert_right(first, "percentages")
  for factor in (1.0 / NUM_POINTS, 1000.0):
    answer = ask(door, "percentages", number, sample_weight=factor * weights)
    assert answer.num_components == first.num_components
    np.testing.assert_array_equal(answer.labels, first.labels)
    for own, other in zip(answer.mixture, first.mixture, strict=True):
      np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)
