"""EM on what cannot be fitted: by its front door `fit_batch`, and in the core.

Points, weights, numbers of components and shapes of no use.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.solvers import odd_data
from tgmm_jax import types
from tgmm_jax.solvers import em

Status = types.Status
NUM_POINTS, DIM = odd_data.NUM_POINTS, odd_data.DIM


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_at_the_front_door(value):
  points = odd_data.plain_points()[None].astype(np.float32)
  points[0, 7, 1] = value
  with pytest.raises(ValueError, match=rf"points contains {value}.*\[7, 1\]"):
    odd_data.front_door(points)
  weight = np.ones((1, NUM_POINTS))
  weight[0, 4] = value
  with pytest.raises(ValueError, match=f"sample_weight is {value} at 4"):
    odd_data.front_door(np.ones_like(points), sample_weight=weight)


@pytest.mark.parametrize(
  ("weight", "named"),
  [(0.0, "sample_weight is zero for all of 30"), (-1.0, "sample_weight is -1")],
)
def test_useless_weights_at_the_front_door(weight, named):
  points = odd_data.plain_points()[None]
  with pytest.raises(ValueError, match=named):
    odd_data.front_door(points, sample_weight=np.full((1, NUM_POINTS), weight))


@pytest.mark.parametrize("num_components", [5, np.array([5, 5])])
def test_k_gt_n_at_the_front_door(num_components):
  points = odd_data.plain_points()[:4]
  with pytest.raises(ValueError, match="num_components is 5, .*from 1 to 4"):
    odd_data.front_door(np.stack([points, points]), num_components)


@pytest.mark.parametrize(
  "shape", [(2, 0, 3), (2, 9, 0), (0, 9, 3), (9, 3), (9,), (1, 2, 9, 3), ()]
)
def test_shapes(shape):
  with pytest.raises(ValueError, match="points has shape") as caught:
    odd_data.front_door(np.zeros(shape))
  assert str(shape) in str(caught.value)
  assert "[B, N, d]" in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 3), (9, 0), (9,), (1, 9, 3), ()])
def test_shapes_in_the_core(shape):
  with pytest.raises(ValueError, match="points") as caught:
    em.fit(jax.random.key(0), jnp.zeros(shape), 2)
  assert str(shape) in str(caught.value)


def test_shapes_of_ragged_lists_weights_and_k():
  with pytest.raises(ValueError, match="points is ragged"):
    odd_data.front_door([[[1.0, 2.0], [3.0]]])
  points = np.zeros((2, 9, 3))
  with pytest.raises(ValueError, match=r"sample_weight has shape \(2, 8\)"):
    odd_data.front_door(points, sample_weight=np.ones((2, 8)))
  with pytest.raises(ValueError, match=r"sample_weight has shape \(9,\)"):
    odd_data.front_door(points, sample_weight=np.ones(9))
  with pytest.raises(ValueError, match=r"num_components has shape \(3,\)"):
    odd_data.front_door(points, np.array([1, 2, 3]))


K_VALUES = [0, -1, 2.5, "3", True, None, np.nan, 10**6]


@pytest.mark.parametrize("value", K_VALUES)
def test_k_values(value):
  points = odd_data.plain_points()[None]
  with pytest.raises(ValueError, match="num_components is") as one:
    odd_data.front_door(points, value)
  assert "takes an integer from 1 to 30" in str(one.value)


@pytest.mark.parametrize("value", K_VALUES[:-1])
def test_k_values_in_the_core(value):
  with pytest.raises(ValueError, match="num_components"):
    em.fit(jax.random.key(0), odd_data.plain_points(), value)


@pytest.mark.parametrize("value", [2.5, "3", True, None])
def test_k_values_beside_max_components(value):
  with pytest.raises(ValueError, match="num_components"):
    em.fit(jax.random.key(0), odd_data.plain_points(), value, max_components=3)


def test_k_above_max_components():
  points = odd_data.plain_points()
  with pytest.raises(ValueError, match="num_components is 3, .*from 1 to 2"):
    odd_data.front_door(points[None], 3, max_components=2)
  # K may be traced in the core, so there it is a matter of the data.
  result = em.fit(jax.random.key(0), points, 3, max_components=2)
  assert result.status == Status.INVALID_INPUT


def test_k_of_one_problem_out_of_range():
  points = np.stack([odd_data.plain_points()] * 2)
  for bad in (0, 5, -1):
    counts = np.array([3, bad])
    result = odd_data.front_door(points, counts, max_components=3)
    np.testing.assert_array_equal(
      result.status, [Status.CONVERGED, Status.INVALID_INPUT]
    )
  with pytest.raises(ValueError, match="num_components is 0, .*from 1 to 3"):
    odd_data.front_door(points, np.array([0, 5]), max_components=3)
