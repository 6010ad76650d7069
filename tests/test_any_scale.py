"""Units, origin and distances of other groups, at every door: no difference.

Groups that stand apart have the mixture of their own moments, whatever EM does:
that is what each door must find, in units of a group's width.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np
import pytest

from tests import doors
from tests.solvers.em import problems
from tgmm_jax import types

NUM_POINTS, DIM, K = 120, 2, 3
LABELS = np.random.default_rng(0).permutation(
  np.repeat([0, 1, 2], [30, 40, 50])
)
CORNERS = np.array([[0.0, 0.0], [1.0, 0.1], [0.2, 1.0]])
ESTIMATED = ("tied_spherical", "spherical", "diag", "tied", "full")


class Case(NamedTuple):
  """A table: groups of width 1, then in other units and at another place."""

  scale: float | tuple[float, float] = 1.0
  offset: float = 0.0  # in widths
  distance: float = 12.0  # in widths
  dtype: str = "float64"

  def __str__(self):
    return (
      f"{self.dtype}, scale {self.scale}, offset {self.offset:g}, distance"
      f" {self.distance:g}"
    )


CASES = [
  Case(*own)
  for own in (
    *itertools.product((1e-6, 1.0, 1e15), (0.0, 1e9), (12.0, 1e5)),
    (1e15, -1e6, 300.0),
    (1e-6, -1e3, 1e4),
  )
]
# In float32 a number is known to 6e-8 of itself, and so is a mean.
NARROW = [
  Case(*own, "float32")
  for own in (
    *itertools.product((1e-6, 1.0, 1e12), (0.0, 1e3), (12.0,)),
    (1e15, 0.0, 12.0),
    (1e-6, 0.0, 1e3),
  )
]
# Types that know each column's variance take each column's unit.
UNEVEN = [
  Case((1e-6, 1e15)),
  Case((1e15, 1e-6), 1e9),
  Case((1e-6, 1e6), 1e9, 1e5),
]
# Every variance has a millionth of those within components added.
TOLERANCE = {"float64": 1e-5, "float32": 1e-3}


@functools.cache
def unit_points(distance):
  """The points in widths about the origin."""
  noise = np.random.default_rng(1).normal(size=(NUM_POINTS, DIM))
  return distance * CORNERS[LABELS] + noise


@functools.cache
def table_of(case):
  """The table, and its points in widths as rounding has left them."""
  table = (unit_points(case.distance) + case.offset) * np.array(case.scale)
  table = table.astype(case.dtype)
  return table, table / np.array(case.scale) - case.offset


@functools.cache
def expected(case, covariance_type):
  """The moments of the groups, in widths, by ascending weight."""
  _, points = table_of(case)
  groups = [points[LABELS == label] for label in range(K)]
  weights = np.array([len(group) for group in groups]) / NUM_POINTS
  means = np.stack([group.mean(axis=0) for group in groups])
  full = np.stack([np.cov(group.T, bias=True) for group in groups])
  covariances = problems.restrict(full, weights, covariance_type)
  return types.Mixture(weights, means, covariances)


def in_widths(mixture, case, covariance_type):
  """A mixture of the table in widths about the origin, in float64."""
  weights, means, covariances = (
    np.asarray(leaf, np.float64) for leaf in mixture
  )
  scale = np.broadcast_to(case.scale, DIM)
  unit = {"diag": scale**2, "tied": np.outer(scale, scale)}
  unit["full"] = unit["tied"]
  unit = unit.get(covariance_type, scale[0] ** 2)
  return types.Mixture(weights, means / scale - case.offset, covariances / unit)


def check(name, covariance_type, num_components, cases, folder):
  """Goes through a door with each of the tables; all that is wrong, or not."""
  wrong = {}
  for case in cases:
    truth = expected(case, covariance_type)
    answer = doors.ask(
      name,
      folder,
      table_of(case)[0],
      num_components,
      covariance_type=covariance_type,
    )
    found = in_widths(answer.mixture, case, covariance_type)
    gaps = [
      np.max(np.abs(own - other)) if own.shape == other.shape else np.inf
      for own, other in zip(found, truth, strict=True)
    ]
    is_right = np.array_equal(answer.labels, LABELS)
    is_right &= answer.status == "CONVERGED"
    if not is_right or max(gaps) > TOLERANCE[case.dtype]:
      wrong[str(case)] = (answer.status, is_right, *map(float, gaps))
  assert not wrong


def ways(fast):
  """Each door, type and K; slow all but some."""
  every = itertools.product(doors.DOORS, ESTIMATED, (K, "auto"))
  return pytest.mark.parametrize(
    ("name", "covariance_type", "num_components"),
    [
      pytest.param(*way, marks=() if way in fast else pytest.mark.slow)
      for way in every
      if way[2] == K or way[0] in doors.FIND
    ],
  )


@ways(
  {(name, "full", K) for name in doors.DOORS}
  | {("fit", "full", "auto"), ("fit", "spherical", K)}
)
def test_tables_of_any_scale_are_fitted_as_about_the_origin_in_widths(
  name, covariance_type, num_components, tmp_path
):
  cases = list(CASES)
  if covariance_type in ("diag", "tied", "full"):
    cases += UNEVEN
  check(name, covariance_type, num_components, cases, tmp_path)


@ways({("fit", "full", K), ("fit", "full", "auto")})
def test_float32_is_as_good_as_its_rounding(
  name, covariance_type, num_components, tmp_path
):
  # In a file numbers have no precision.
  if name != "command line":
    check(name, covariance_type, num_components, NARROW, tmp_path)
