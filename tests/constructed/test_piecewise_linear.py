"""Curves against their functions on dense grids, in both precisions."""

import numpy as np
import pytest

from tgmm_jax.constructed import piecewise_linear

GRID = np.linspace(0.0, 1.0, 20_001)
SHARES = np.concatenate([GRID, np.geomspace(1e-12, 1.0, 20_001)])

# Rounding in float32, on functions of these sizes.
ROUNDING = {"float64": 1e-12, "float32": 3e-5}


def curves(segments):
  """Curve, grid, and largest error of the curve on it by the bound."""
  geometric = np.geomspace(1e-4, 1.0, 10_001)
  power, constant = piecewise_linear.power_geometric(-0.5, 0.1, 9.0, segments)
  power = power._replace(offset=constant)
  powers = np.geomspace(0.1, 9.0, 10_001)
  # The same on every segment: on [1, q] the chord `1 + s (x - 1)` over
  # `x^-1/2` is largest where its derivative vanishes.
  ratio = 90.0 ** (1.0 / segments)
  slope = (ratio**-0.5 - 1.0) / (ratio - 1.0)
  worst = -0.5 * (1.0 - slope) / (1.5 * slope)
  relative = (1.0 + slope * (worst - 1.0)) * worst**0.5 - 1.0
  square = piecewise_linear.half_square
  return {
    "half_square": (
      square(10.0, segments),
      10.0 * GRID,
      50.0 * GRID**2,
      piecewise_linear.half_square_bound(10.0, segments),
    ),
    "log_geometric": (
      piecewise_linear.log_geometric(1e-4, segments),
      geometric,
      np.log(geometric),
      piecewise_linear.log_geometric_bound(1e-4, segments),
    ),
    "power_geometric": (
      power,
      powers,
      powers**-0.5,
      relative * powers**-0.5,
    ),
  }


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("segments", [16, 256])
@pytest.mark.parametrize(
  "name", ["half_square", "log_geometric", "power_geometric"]
)
def test_error_is_within_the_bound(name, segments, dtype):
  curve, x, expected, bound = curves(segments)[name]
  error = np.abs(curve(x.astype(dtype)) - expected)
  assert np.all(error <= bound + ROUNDING[dtype])
  # The bound is not generous: it is met to a factor of two.
  assert np.max(error / np.max(bound)) > 0.5


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("segments", [16, 64, 256])
def test_log_share_under_an_exponential(segments, dtype):
  curve = piecewise_linear.log_share(segments)
  error = np.abs(np.exp(curve(SHARES.astype(dtype))) - SHARES)
  bound = piecewise_linear.log_share_bound(segments)
  assert np.max(error) <= bound + ROUNDING[dtype]
  assert np.max(error) > 0.5 * bound


@pytest.mark.parametrize(
  "name", ["half_square", "log_geometric", "power_geometric"]
)
def test_error_falls_as_the_square_of_the_segments(name):
  errors = []
  for segments in (64, 256):
    curve, x, expected, _ = curves(segments)[name]
    errors.append(np.max(np.abs(curve(x) - expected)))
  assert 13.0 < errors[0] / errors[1] < 19.0


def test_chords_of_half_square_and_log_share_are_right_on_average():
  x = 10.0 * GRID
  curve = piecewise_linear.half_square(10.0, 64)
  error = curve(x) - x**2 / 2.0
  assert abs(np.mean(error)) < 0.02 * np.max(np.abs(error))
  x = np.linspace(0.05, 0.95, 10_001)
  error = piecewise_linear.log_share(64)(x) - np.log(x)
  assert abs(np.mean(error)) < 0.02 * np.max(np.abs(error))


def test_the_reversed_basis_is_needed_in_float32():
  # The same interpolation summed up from the left: slopes of 1e11 cancel.
  curve = piecewise_linear.log_share(256)
  knots = np.concatenate([[0.0], curve.knots])
  values = curve._replace(offset=0.0)(knots)
  usual = piecewise_linear.from_left(knots, values - values[0])
  usual = usual._replace(offset=values[0] + curve.offset)
  x = np.linspace(0.01, 1.0, 10_001)
  np.testing.assert_allclose(usual(x), curve(x), atol=1e-3)
  single = x.astype(np.float32)
  assert np.max(np.abs(curve(single) - curve(x))) < 1e-5
  assert np.max(np.abs(usual(single) - curve(x))) > 1e3


def test_bases_interpolate_and_stop_where_they_should():
  knots, rng = np.array([-1.0, 0.5, 1.0, 3.0]), np.random.default_rng(0)
  values = rng.normal(size=4)
  x = np.linspace(-1.0, 3.0, 101)
  left = piecewise_linear.from_left(knots, values - values[0])
  right = piecewise_linear.from_right(knots, values - values[-1])
  expected = np.interp(x, knots, values)
  np.testing.assert_allclose(left(x) + values[0], expected, atol=1e-14)
  np.testing.assert_allclose(right(x) + values[-1], expected, atol=1e-14)
  assert left(np.array([-5.0])) == 0.0
  assert right(np.array([5.0])) == 0.0
  with pytest.raises(ValueError, match=r"values\[0\]"):
    piecewise_linear.from_left(knots, values)
  with pytest.raises(ValueError, match=r"values\[-1\]"):
    piecewise_linear.from_right(knots, values)


def test_logit_inverts_the_sigmoid():
  curve = piecewise_linear.logit_centred(0.16, 256)
  x = np.linspace(0.0, 0.16, 10_001)
  expected = np.log((0.5 + x) / (0.5 - x))
  np.testing.assert_allclose(curve(x), expected, atol=1e-6)
