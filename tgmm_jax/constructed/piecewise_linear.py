"""Functions of one number as sums of ReLU units, with bounds of their errors.

A curve interpolates a function between its knots. Which side the units are
counted from decides the rounding: a function that is steep at its left end
(a logarithm, a power below 0) must be summed up from the right, where its
slopes are small, or slopes of 1e11 cancel.
"""

import math
from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
  """`x -> offset + sum_j coefficients_j relu(sign (x - knots_j))`.

  Attributes:
    sign: 1 for units that rise to the right, -1 for the reversed basis.
    knots: `[F]`.
    coefficients: `[F]`.
    offset: a constant, which no unit of the curve gives: it cancels in a
      softmax, and elsewhere is added by a unit of its own.
  """

  sign: int
  knots: np.ndarray
  coefficients: np.ndarray
  offset: float = 0.0

  def __call__(self, x: np.ndarray) -> np.ndarray:
    """The value at each x, in the dtype of x."""
    knots = self.knots.astype(x.dtype)
    units = np.maximum(self.sign * (x[..., None] - knots), 0.0)
    return units @ self.coefficients.astype(x.dtype) + x.dtype.type(self.offset)


def from_left(knots: np.ndarray, values: np.ndarray) -> Curve:
  """Interpolates from the left end, where the value must be 0.

  0 to the left of the first knot, straight on after the last.

  Args:
    knots: `[F + 1]`, ascending.
    values: `[F + 1]`; the first is 0.
  """
  if values[0] != 0.0:
    raise ValueError(f"values[0] is {values[0]}, takes 0 from the left")
  slopes = np.diff(values) / np.diff(knots)
  return Curve(1, knots[:-1], np.diff(slopes, prepend=0.0))


def from_right(knots: np.ndarray, values: np.ndarray) -> Curve:
  """Interpolates from the right end, where the value must be 0.

  0 to the right of the last knot, straight on before the first.

  Args:
    knots: `[F + 1]`, ascending.
    values: `[F + 1]`; the last is 0.
  """
  if values[-1] != 0.0:
    raise ValueError(f"values[-1] is {values[-1]}, takes 0 from the right")
  slopes = np.diff(values) / np.diff(knots)
  return Curve(-1, knots[1:], np.diff(slopes, append=0.0))


def half_square(max_range: float, num_segments: int) -> Curve:
  """`x^2 / 2` on `[0, max_range]`; twice, with x and -x, for both signs.

  Segments are shorter near 0 (knots `(j / F)^1.5`): means that are close to
  each other, where EM is sensitive, are often close to their centre.

  Args:
    max_range: right end.
    num_segments: F.
  """
  knots = max_range * np.linspace(0.0, 1.0, num_segments + 1) ** 1.5
  values = _balanced(knots, knots**2 / 2.0, np.ones_like(knots))
  curve = from_left(knots, values - values[0])
  return curve._replace(offset=float(values[0]))


def half_square_bound(max_range: float, num_segments: int) -> float:
  """Largest error of `half_square` on its range: `h^2 / 8`, h the last one.

  About `(1.5 max_range / F)^2 / 8`.
  """
  longest = max_range * (1.0 - (1.0 - 1.0 / num_segments) ** 1.5)
  return longest**2 / 8.0


def log_share(num_segments: int, *, floor: float = 15.0) -> Curve:
  """`log x` on [0, 1], to be used under an exponential.

  The knots are `(j / S)^4`: `exp(curve(x))` has an error of the same order
  everywhere, see `log_share_bound`.

  Args:
    num_segments: S; shares below `S^-4` are not told apart.
    floor: how far the value at 0 is below that at the first knot.
  """
  knots = (np.arange(num_segments + 1) / num_segments) ** 4
  inner = knots[1:]
  values = np.log(inner)
  values[1:] = _balanced(inner, values, -(inner**-2))[1:]
  values = np.concatenate([[values[0] - floor], values])
  curve = from_right(knots, values - values[-1])
  return curve._replace(offset=float(values[-1]))


def log_share_bound(num_segments: int) -> float:
  """Largest `|exp(curve(x)) - x|` of `log_share` on [0, 1]: `2 / S^2`.

  On a segment of length h the chord is off by at most `h^2 / (8 x^2)`, the
  correction of `_balanced` by two thirds of it; with `h <= 4 x^(3/4) / S` at
  the right end, that times x is at most `2 x^(1/2) / S^2`.
  """
  return 2.0 / num_segments**2


def log_geometric(lowest: float, num_segments: int) -> Curve:
  """`log x` on `[lowest, 1]`, the same relative error on every segment.

  Below `lowest` it goes straight on and thereby stays finite at 0.

  Args:
    lowest: left end.
    num_segments: with ends in a constant ratio.
  """
  knots = np.geomspace(lowest, 1.0, num_segments + 1)
  values = np.log(knots)
  values[-1] = 0.0
  return from_right(knots, values)


def log_geometric_bound(lowest: float, num_segments: int) -> float:
  """Largest error of `log_geometric` on its range, exact.

  With ends of a segment in the ratio `e^u`, about `u^2 / 8`.
  """
  step = -math.log(lowest) / num_segments
  slope = step / math.expm1(step)
  return slope - 1.0 - math.log(slope)


def power_geometric(
  exponent: float, lowest: float, highest: float, num_segments: int
) -> tuple[Curve, float]:
  """`x^exponent` on `[lowest, highest]` for an exponent below 0.

  Args:
    exponent: below 0.
    lowest: left end, above 0; the curve goes straight on before it.
    highest: right end; the curve is constant after it.
    num_segments: with ends in a constant ratio.

  Returns:
    The curve, and the constant to be added to it.
  """
  knots = np.geomspace(lowest, highest, num_segments + 1)
  values = knots**exponent
  return from_right(knots, values - values[-1]), float(values[-1])


def logit_centred(rise: float, num_segments: int) -> Curve:
  """`log(s / (1 - s))` of `s = 1/2 + x`, for x in `[0, rise]`.

  Args:
    rise: right end, below 1/2.
    num_segments: of equal length.
  """
  knots = np.linspace(0.0, rise, num_segments + 1)
  return from_left(knots, np.log1p(2.0 * knots) - np.log1p(-2.0 * knots))


def _balanced(knots, values, curvatures):
  """Values at knots between which chords have no error on average.

  A chord of length h is above a function by `h^2 f'' / 12` on average and
  that much is taken off. What is left is averaged out over points or
  coordinates, and a bias is not: errors of EM are halved.

  Args:
    knots: `[F + 1]`.
    values: `[F + 1]`, the function.
    curvatures: `[F + 1]`, its second derivative.
  """
  lengths = np.diff(knots)
  squares = np.concatenate(
    [lengths[:1] ** 2, lengths[1:] * lengths[:-1], lengths[-1:] ** 2]
  )
  return values - squares * curvatures / 12.0
