import numpy as np
import pytest

from experiments.benchmarks import large_problem


@pytest.mark.parametrize("door", large_problem.DOORS)
def test_every_door_takes_the_same_steps(door):
  case = large_problem.Case(5_000, 2, 2, 3)
  points, start = large_problem.make(case)
  found = large_problem.DOORS[door](points, start, case)
  if door == "fit (whole)":
    assert found.means.shape == (2, 2)
    return
  expected = large_problem.by_sklearn(points, start, case)
  for leaf, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(leaf, other, rtol=1e-8, atol=1e-10)
