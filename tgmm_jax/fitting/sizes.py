"""Problems of all sizes as arrays of a few: those share compiled programs."""

from typing import NamedTuple

import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.solvers import problem as problem_lib

# Points of a problem; of more a sample stands for all of them.
_ROWS = (512, 2048)
# More problems than this are worth an optimising compiler, and points are then
# padded to a power of two alone, not less than `_LEAST_ROWS`.
_FEW_PROBLEMS, _LEAST_ROWS = 64, 32
# Components; networks answer the first.
_COMPONENTS = (5, 10, 20)
# Coordinates, up to which some are padded; more are as they are.
_DIMS = (1, 2, 4, 6, 8, 12, 16, 20)
# Problems that are fitted together.
_PROBLEMS = (1, 16)

# Numbers of rows are multiples of it.
_LEAST_STEP = 32


class Problems(NamedTuple):
  """B problems of N points as a program takes them, on the host.

  Attributes:
    points: `[B, n, d]` about the origin; padding is 0.
    sample_weight: `[B, n]`; 0 on padding.
    origin: `[B, d]` float64, one of the points: what is small beside the
      distance from 0 stays.
    is_sample: whether there are more points than these.
    index: `[B]`, their places in the batch, whatever is taken of it: what is
      random does not depend on the others.
  """

  points: np.ndarray
  sample_weight: np.ndarray
  origin: np.ndarray
  is_sample: bool
  index: np.ndarray

  def take(self, index: np.ndarray) -> "Problems":
    """Some of the problems."""
    return self._replace(
      points=self.points[index],
      sample_weight=self.sample_weight[index],
      origin=self.origin[index],
      index=self.index[index],
    )

  def widened(self, *, covariance_type: str) -> np.ndarray:
    """The points with columns of zeros up to the d of a program.

    These change nothing but the log-likelihood, unless one variance is that of
    all columns.

    Args:
      covariance_type: one of `gmm.COVARIANCE_TYPES`.
    """
    dim = self.points.shape[-1]
    size = next((size for size in _DIMS if size >= dim), dim)
    if gmm.kind_of(covariance_type).structure == "ball" or not self._is_large:
      return self.points
    return np.pad(self.points, ((0, 0), (0, 0), (0, size - dim)))

  @property
  def _is_large(self):
    """Whether the square of a rounding of the points is a normal number."""
    with np.errstate(invalid="ignore"):
      extent = np.max(np.abs(self.points), axis=(1, 2))
    limits = np.finfo(self.points.dtype)
    return not np.any((extent > 0) & (extent * limits.eps < limits.tiny**0.5))

  def num_points(self) -> np.ndarray:
    """Their effective numbers `[B]`, see `problem.effective_number`."""
    weights = self.sample_weight.astype(np.float64)
    weights = np.where(weights.any(axis=1, keepdims=True), weights, 1.0)
    return np.array([problem_lib.effective_number(own) for own in weights])

  def sampled(self, num_rows: int, *, seed: int) -> "Problems":
    """So many rows of each, as a sample or padded."""
    missing = num_rows - self.points.shape[1]
    if missing >= 0:
      return self._replace(
        points=np.pad(self.points, ((0, 0), (0, missing), (0, 0))),
        sample_weight=np.pad(self.sample_weight, ((0, 0), (0, missing))),
      )
    rows = _samples(self.sample_weight, num_rows, seed=seed)
    return self._replace(
      points=np.take_along_axis(self.points, rows[..., None], axis=1),
      sample_weight=np.take_along_axis(self.sample_weight, rows, axis=1),
      is_sample=True,
    )


def problems_of(
  points: np.ndarray, *, sample_weight: np.ndarray, seed: int
) -> Problems:
  """Problems about one of their points, sampled or padded.

  Args:
    points: `[B, N, d]`; where the weight is 0 anything.
    sample_weight: `[B, N]`.
    seed: of the sample.
  """
  is_sample = points.shape[1] > _ROWS[-1]
  if is_sample:
    rows = _samples(sample_weight, _ROWS[-1], seed=seed)
    points = np.take_along_axis(points, rows[..., None], axis=1)
    sample_weight = np.take_along_axis(sample_weight, rows, axis=1)
  is_point = sample_weight > 0
  first = np.argmax(is_point, axis=1)
  origin = points[np.arange(len(points)), first].astype(np.float64)
  num_problems, num_points, dim = points.shape
  num_rows = num_rows_for(num_points, num_problems)
  moved = np.zeros((num_problems, num_rows, dim), points.dtype)
  with np.errstate(invalid="ignore", over="ignore"):
    moved[:, :num_points] = np.where(
      is_point[..., None], points - origin[:, None], 0.0
    )
  weights = np.zeros((num_problems, num_rows), points.dtype)
  weights[:, :num_points] = sample_weight
  return Problems(moved, weights, origin, is_sample, np.arange(num_problems))


def _samples(sample_weight, num_rows, *, seed):
  """Rows `[B, n]` with a weight; others only where there are too few."""
  generator = np.random.default_rng(seed)
  rows = [
    np.argpartition(generator.random(own.size) + ~(own > 0), num_rows)[
      :num_rows
    ]
    for own in sample_weight
  ]
  return np.sort(rows, axis=1)


def num_rows_for(num_points: int, num_problems: int = 1) -> int:
  """How many rows stand for so many points.

  Args:
    num_points: N.
    num_problems: many are worth a program of their own.
  """
  if are_many(num_problems):
    power = max(num_points - 1, 1).bit_length()
    return min(max(2**power, _LEAST_ROWS), _ROWS[-1])
  return next((rows for rows in _ROWS if rows >= num_points), _ROWS[-1])


def padded(rows: np.ndarray) -> np.ndarray:
  """Rows of 0 below, so that tables of about the same size share a program.

  Args:
    rows: `[N, ...]`; N becomes a multiple of an eighth to a quarter of itself.
  """
  step = max(_LEAST_STEP, 2 ** (len(rows).bit_length() - 3))
  widths = [(0, -len(rows) % step)] + [(0, 0)] * (rows.ndim - 1)
  return np.pad(rows, widths)


def are_many(num_problems: int) -> bool:
  """Whether so many problems run for longer than a program is compiled."""
  return num_problems > _FEW_PROBLEMS


def max_components_for(num_components: int) -> int:
  """The static K of a program that answers so many components."""
  for size in _COMPONENTS:
    if size >= num_components:
      return size
  most = _COMPONENTS[-1]
  return -(-num_components // most) * most


def num_problems_for(count: int) -> int:
  """How many problems a program takes at a time."""
  return _PROBLEMS[0] if count == 1 else _PROBLEMS[-1]


def widened(
  mixture: types.Mixture, dim: int, *, covariance_type: str
) -> types.Mixture:
  """A mixture with so many coordinates: those that are added are 0.

  Args:
    mixture: of NumPy, with leading axes; covariances may be None.
    dim: d, at least that of the means.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  weights, means, covariances = mixture
  missing = dim - means.shape[-1]

  def widen(leaf, num_axes):
    padding = [(0, 0)] * (leaf.ndim - num_axes) + [(0, missing)] * num_axes
    return np.pad(leaf, padding)

  num_axes = _num_axes(covariance_type)
  if covariances is not None and num_axes:
    covariances = widen(covariances, num_axes)
  return types.Mixture(weights, widen(means, 1), covariances)


def narrowed(
  mixture: types.Mixture,
  log_likelihood: np.ndarray,
  dim: int,
  *,
  covariance_type: str,
) -> tuple[types.Mixture, np.ndarray]:
  """What was fitted to points with columns of zeros, without these.

  Each is as likely under all components, so that the log-likelihood is that of
  the points and of what the variances of these columns say.

  Args:
    mixture: of B problems, in NumPy.
    log_likelihood: `[B]`, of points with all coordinates.
    dim: d of the points without those that were added.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.

  Returns:
    The mixture, and the log-likelihood of the points.
  """
  weights, means, covariances = mixture
  missing, num_axes = means.shape[-1] - dim, _num_axes(covariance_type)
  if missing == 0:
    return mixture, log_likelihood
  variances = np.ones((len(means), missing))
  if num_axes:
    added = covariances[..., dim:]
    if num_axes > 1:
      added = np.diagonal(covariances, axis1=-2, axis2=-1)[..., dim:]
    # The same in all components; padding is last.
    variances = added.reshape(len(means), -1, missing)[:, 0]
    kept = (..., *(slice(dim),) * num_axes)
    covariances = covariances[kept]
  constant = 0.5 * np.sum(np.log(2.0 * np.pi * variances), axis=-1)
  log_likelihood = log_likelihood + constant.astype(log_likelihood.dtype)
  return types.Mixture(weights, means[..., :dim], covariances), log_likelihood


def _num_axes(covariance_type):
  """How many axes of one covariance are coordinates."""
  structure = gmm.kind_of(covariance_type).structure
  return {"axes": 1, "matrix": 2}.get(structure, 0)


def resized(
  mixture: types.Mixture, size: int, *, covariance_type: str
) -> types.Mixture:
  """A mixture with padding up to K, or without.

  Args:
    mixture: of NumPy, with leading axes, padding last; covariances may be None.
    size: K.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  missing = max(0, size - mixture.weights.shape[-1])

  def resize(leaf, num_axes, mode="constant"):
    """The axis of components stands before so many others."""
    leaf = leaf[(..., slice(size), *(slice(None),) * num_axes)]
    axis = leaf.ndim - 1 - num_axes
    padding = [(0, missing if own == axis else 0) for own in range(leaf.ndim)]
    return np.pad(leaf, padding, mode)

  weights, means, covariances = mixture
  has_own = gmm.kind_of(covariance_type).is_per_component
  if has_own and covariances is not None:
    # Padding has a covariance that can be inverted.
    covariances = resize(covariances, _num_axes(covariance_type), "edge")
  return types.Mixture(resize(weights, 0), resize(means, 1), covariances)
