"""Points with holes in an order that saves factors, on the host.

Points that lack the same cells have one factor for each component. They are
put into tiles of a few rows that are seen alike: all shapes stay static, and a
step is made of products of matrices.
"""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import starts as em_starts

# Rows of a tile.
_SIZES = (1, 4, 16, 64)
# What a factor takes by d^3, and a row by d^2 (measured, in float32 on a CPU).
_FACTOR, _ROW = 4.0, 1.0
# Numbers of tiles are rounded up to a multiple of a so-manieth of themselves.
_NUM_STEPS = 8


def arrange(
  inputs: em_starts.Inputs, form: em_options.Form
) -> tuple[em_starts.Inputs, em_options.Form]:
  """Problems with holes in tiles; what has none as it is, and said to be so.

  Where nothing is missing the program is that of complete points, bit for bit.
  What is traced is left to the program, which takes a factor for each point.

  Args:
    inputs: `points [N, d]`, or with the axis B everywhere.
    form: where it takes no holes nothing is done.
  """
  given = (inputs.points, inputs.sample_weight)
  if not form.takes_holes or checks.is_traced(given):
    return inputs, form
  points = np.asarray(inputs.points)
  weight = np.ones(points.shape[:-1], points.dtype)
  if inputs.sample_weight is not None:
    weight = np.asarray(inputs.sample_weight)
  is_missing = np.isnan(points)
  if not np.any(is_missing & (weight > 0)[..., None]):
    return inputs, form._replace(takes_holes=False)
  has_matrices = gmm.kind_of(form.covariance_type).structure == "matrix"
  if inputs.point_covariances is not None or not has_matrices:
    return inputs, form
  is_single = points.ndim == 2
  if is_single:
    points, weight, is_missing = points[None], weight[None], is_missing[None]
  size, rows = _best_tiles(is_missing, weight)
  if size > 1:
    points, weight = _taken(points, weight, rows)
    if is_single:
      points, weight = points[0], weight[0]
    inputs = inputs._replace(points=points, sample_weight=weight)
  return inputs, form._replace(tile_size=size)


def run_parts(
  run: Callable[[em_starts.Inputs, em_options.Form], types.SolverResult],
  inputs: em_starts.Inputs,
  form: em_options.Form,
) -> types.SolverResult:
  """Runs complete problems apart from those with holes.

  So a problem without holes has the result it would have alone, bit for bit.

  Args:
    run: of a batch.
    inputs: with the axis B.
    form: where it takes no holes there is one part.
  """
  given = (inputs.points, inputs.sample_weight)
  if not form.takes_holes or checks.is_traced(given):
    return run(inputs, form)
  has_holes = np.any(
    np.isnan(np.asarray(inputs.points))
    & (np.asarray(inputs.sample_weight) > 0)[..., None],
    axis=(1, 2),
  )
  groups = [np.flatnonzero(~has_holes), np.flatnonzero(has_holes)]
  groups = [group for group in groups if group.size]
  if len(groups) == 1:
    return run(*arrange(inputs, form))
  parts = [
    run(*arrange(jax.tree.map(operator.itemgetter(group), inputs), form))
    for group in groups
  ]
  order = np.argsort(np.concatenate(groups))
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *parts)


def noise_of(point_covariances: Any, points: Any) -> Any:
  """What a caller hands over as noise, as an array in the points' dtype.

  Args:
    point_covariances: what `checks.numbers_of` takes, or None.
    points: `[B, N, d]`.
  """
  if point_covariances is None:
    return None
  found = checks.numbers_of(
    "point_covariances", point_covariances, ("B", "N", "d", "d")
  )
  return found.astype(points.dtype, copy=False)


def check_noise(
  point_covariances: Any, points: Any, form: em_options.Form
) -> None:
  """Refuses covariances of another shape than the points ask for.

  Args:
    point_covariances: None, or with the axes of the points and one d more at
      most.
    points: `[N, d]` or `[B, N, d]`.
    form: not projected where there is noise.
  """
  if point_covariances is None:
    return
  if form.is_projected:
    raise ValueError("is_projected is True with point_covariances, takes False")
  shape, found = np.shape(points), np.shape(point_covariances)
  if found not in (shape, (*shape, shape[-1])):
    raise ValueError(
      f"point_covariances has shape {found}, takes {shape} or"
      f" {(*shape, shape[-1])}"
    )


def _best_tiles(is_missing, weight):
  """The size of tiles that takes the least time, and the rows in them."""
  dim = is_missing.shape[-1]
  best = None
  patterns = [
    _patterns(*problem) for problem in zip(is_missing, weight, strict=True)
  ]
  for size in _SIZES:
    most = max(int(np.sum(-(-counts // size))) for _, counts in patterns)
    cost = most * (_FACTOR * dim**3 + _ROW * size * dim**2)
    if best is None or cost < best[0]:
      best = cost, size, most
  _, size, most = best
  step = max(1, most // _NUM_STEPS)
  num_tiles = -(-most // step) * step
  return size, [_rows(*problem, size, num_tiles) for problem in patterns]


def _patterns(is_missing, weight):
  """Rows that count, those of one pattern together, and how many of each."""
  rows = np.flatnonzero((weight != 0) & ~np.all(is_missing, axis=1))
  packed = np.packbits(is_missing[rows], axis=1)
  _, which, counts = np.unique(
    packed, axis=0, return_inverse=True, return_counts=True
  )
  return rows[np.argsort(which.reshape(-1), kind="stable")], counts


def _rows(rows, counts, size, num_tiles):
  """Index of the point in each place `[T, R]`, and whether there is one."""
  tiles = -(-counts // size)
  first_tile = np.cumsum(tiles) - tiles
  first_row = np.cumsum(counts) - counts
  place = np.arange(rows.size) + np.repeat(
    first_tile * size - first_row, counts
  )
  index = np.zeros(num_tiles * size, int)
  is_point = np.zeros(num_tiles * size, bool)
  index[place], is_point[place] = rows, True
  # What fills a tile up is seen as its first point.
  index = index.reshape(num_tiles, size)
  is_point = is_point.reshape(num_tiles, size)
  index = np.where(is_point, index, index[:, :1])
  return index.reshape(-1), is_point.reshape(-1)


def _taken(points, weight, rows):
  """Points and weights in the order of the tiles."""
  index = np.stack([own for own, _ in rows])
  is_point = np.stack([own for _, own in rows])
  points = np.take_along_axis(points, index[..., None], axis=1)
  weight = np.take_along_axis(weight, index, axis=1)
  return points, np.where(is_point, weight, 0).astype(points.dtype)
