"""Problems that callers hand over: points, their weights and K."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax.solvers.checks import arguments, conversion


class Batch(NamedTuple):
  """Problems that have passed the door.

  Attributes:
    points: `[B, N, d]`.
    num_components: `[B]` int32.
    sample_weight: `[B, N]`.
    max_components: static K; None where it cannot be told, K being traced.
  """

  points: np.ndarray | jax.Array
  num_components: np.ndarray | jax.Array
  sample_weight: np.ndarray | jax.Array
  max_components: int | None


def batch(
  points: Any,
  num_components: Any,
  *,
  sample_weight: Any = None,
  max_components: int | None = None,
  takes_holes: bool = False,
) -> Batch:
  """What a caller hands over as a batch, as arrays: of NumPy, but JAX's own.

  Args:
    points: what `numbers_of` makes `[B, N, d]` of.
    num_components: `[B]`, or one K for all.
    sample_weight: what `numbers_of` makes `[B, N]` of, or None for ones.
    max_components: static K, or None for the largest of `num_components`.
    takes_holes: whether NaN in the points is a missing cell.

  Raises:
    ValueError: for wrong shapes and dtypes, K out of range, and where no
      problem is good.
  """
  points = conversion.array("points", points, ("B", "N", "d"))
  sample_weight = weights(sample_weight, points)
  num_components, max_components = _components(
    num_components, max_components, points.shape
  )
  values = (points, num_components, sample_weight)
  if not any(isinstance(value, jax.core.Tracer) for value in values):
    seen = without_holes(points) if takes_holes else points
    is_good = _is_good(seen, sample_weight)
    highest = min(max_components, points.shape[1])
    is_good &= (num_components >= 1) & (num_components <= highest)
    if not np.any(is_good):
      arguments.integer(
        "num_components", num_components[0], lowest=1, highest=highest
      )
      problem(seen[0], sample_weight[0])
  return Batch(points, num_components, sample_weight, max_components)


def one_or_many(
  points: Any, *, sample_weight: Any = None
) -> tuple[np.ndarray | jax.Array, np.ndarray | jax.Array | None, bool]:
  """One problem as a batch of one, in numbers; a batch as it is.

  Args:
    points: what `numbers_of` makes `[N, d]` or `[B, N, d]` of.
    sample_weight: `[N]` or `[B, N]` of the same kind, or None.

  Returns:
    Points `[B, N, d]`, weights `[B, N]` or None, and whether it was one
    problem.

  Raises:
    ValueError: see `numbers_of`; for one problem the shapes are wrong.
  """
  found = conversion.numbers_of("points", points, ("N", "d"))
  is_single = found.ndim != 3
  if found.ndim > 3:
    raise ValueError(
      f"points has shape {found.shape}, takes [N, d], or [B, N, d] for B"
      " problems"
    )
  if not is_single:
    return found, sample_weight, False
  conversion.shape("points", found, ("N", "d"), given=points)
  if sample_weight is not None:
    sample_weight = _of_points(sample_weight, found, conversion.numbers_of)[
      None
    ]
  return found[None], sample_weight, True


def weights(
  sample_weight: Any, points: np.ndarray | jax.Array
) -> np.ndarray | jax.Array:
  """Weights `[..., N]` of points `[..., N, d]` in their dtype, ones for None.

  Raises:
    ValueError: for another shape, or a dtype that is none of real numbers.
  """
  if sample_weight is None:
    return _library_of(points).ones(points.shape[:-1], points.dtype)
  found = _of_points(sample_weight, points, conversion.array)
  if isinstance(points, np.ndarray) and not isinstance(found, jax.core.Tracer):
    # JAX has not float64 unless told.
    found = np.asarray(found)
  # What becomes inf is refused by its value.
  with np.errstate(over="ignore"):
    return found.astype(points.dtype, copy=False)


def _of_points(sample_weight, points, convert):
  """Weights by a function of the conversion, of the shape of the points."""
  expected = points.shape[:-1]
  axes = ("B", "N")[-len(expected) :]
  found = convert("sample_weight", sample_weight, axes)
  if found.shape != expected:
    if found.ndim != len(axes):
      conversion.shape("sample_weight", found, axes, given=sample_weight)
    raise ValueError(
      f"sample_weight has shape {found.shape}, takes {expected} for points of"
      f" shape {points.shape}"
    )
  return found


def _components(num_components, max_components, shape_of):
  """K of each problem `[B]`, and the static K."""
  if max_components is not None:
    arguments.integer("max_components", max_components, lowest=1)
    max_components = int(max_components)
  if isinstance(num_components, jax.core.Tracer):
    return jnp.broadcast_to(num_components, shape_of[:1]), max_components
  try:
    given = np.asarray(num_components)
  except ValueError:
    raise ValueError(
      "num_components is ragged, takes an integer or integers of shape"
      f" {shape_of[:1]}"
    ) from None
  if given.ndim == 0:
    highest = shape_of[1]
    if max_components is not None:
      highest = min(highest, max_components)
    arguments.integer(
      "num_components", num_components, lowest=1, highest=highest
    )
    counts = np.full(shape_of[0], int(num_components), np.int32)
  else:
    counts = given
    if counts.shape != shape_of[:1] or not np.issubdtype(
      counts.dtype, np.integer
    ):
      raise ValueError(
        f"num_components has shape {counts.shape} and dtype {counts.dtype},"
        f" takes an integer or integers of shape {shape_of[:1]}"
      )
  if max_components is None:
    max_components = max(1, int(np.max(counts)))
  return np.asarray(counts, np.int32), max_components


def without_holes(points: Any) -> np.ndarray:
  """Points with 0 in place of NaN: all that there is to check.

  Args:
    points: an array of any shape.
  """
  points = np.asarray(points)
  return np.where(np.isnan(points), points.dtype.type(0), points)


def good_rows(points: jax.Array, weights: jax.Array) -> jax.Array:
  """Which points `[..., N, d]` are finite, or of weight 0, and have a weight.

  Args:
    points: `[..., N, d]`.
    weights: `[..., N]`; negative and infinite ones are none.

  Returns:
    `[..., N]` bool.
  """
  library = _library_of(points)
  is_finite = library.all(library.isfinite(points), axis=-1) | ~(weights > 0)
  return is_finite & (weights >= 0) & (weights < np.inf)


def _is_good(points, weights):
  """Which problems of a batch can be fitted, `[B]`."""
  has_points = (weights > 0).any(axis=1)
  return good_rows(points, weights).all(axis=1) & has_points


def _library_of(points):
  return np if isinstance(points, np.ndarray) else jnp


def problem(points: Any, weights: Any) -> None:
  """Refuses one problem whose values cannot be fitted; see `values`."""
  values(points, weights)
  if not np.any(np.asarray(weights) > 0):
    raise ValueError(
      f"sample_weight is zero for all of {len(weights)} points, takes some"
      " above 0"
    )


def values(points: Any, weights: Any, *, first: int = 0) -> None:
  """Refuses weights below 0, and NaN or inf where the weight is not 0.

  Args:
    points: `[N, d]`.
    weights: `[N]`.
    first: index of the first point, where these are a block of more.
  """
  points, weights = np.asarray(points), np.asarray(weights)
  is_weight = (weights >= 0) & (weights < np.inf)
  if not np.all(is_weight):
    index = int(np.argmin(is_weight))
    raise ValueError(
      f"sample_weight is {weights[index]} at {first + index}, takes finite"
      " numbers >= 0"
    )
  is_bad = ~np.isfinite(points) & (weights > 0)[:, None]
  if np.any(is_bad):
    row, column = np.argwhere(is_bad)[0]
    raise ValueError(
      f"points contains {points[row, column]} (first at"
      f" [{first + row}, {column}]), takes finite {points.dtype} numbers"
    )
