"""What callers hand over, checked on the host.

The pure functions never raise on data; the front doors (`em.fit_batch`,
`em.fit_stream`, `GaussianMixture`, the command line) do, with one line that
names the argument, what it got and what it takes. What is traced has no values
to look at and is taken as it is.
"""

import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def name(
  argument: str, value: Any, known: tuple[str, ...], besides: str = ""
) -> None:
  """Refuses a name that is not known."""
  if not isinstance(value, str) or value not in known:
    takes = ", ".join(repr(one) for one in known) + f" {besides}".rstrip()
    raise ValueError(f"{argument} is {_brief(value)}, takes {takes}")


def options(given: Mapping[str, Any], record: type) -> Any:
  """Keyword arguments as a NamedTuple of options; refuses unknown ones."""
  for own in given:
    name("option", own, record._fields)
  return record(**given)


def integer(
  argument: str,
  value: Any,
  *,
  lowest: int | None = None,
  highest: int | None = None,
) -> None:
  """Refuses what is no integer, or one out of range.

  An array of integers is taken where there is no range.
  """
  if isinstance(value, jax.core.Tracer):
    return
  takes = "takes an integer"
  if highest is not None:
    takes += f" from {lowest} to {highest}"
  elif lowest is not None:
    takes += f" >= {lowest}"
  is_integer = isinstance(value, numbers.Integral) or (
    isinstance(value, np.ndarray | jax.Array)
    and (value.ndim == 0 or lowest is None)
    and jnp.issubdtype(value.dtype, jnp.integer)
  )
  if isinstance(value, bool | np.bool_) or not is_integer:
    raise ValueError(f"{argument} is {_brief(value)}, {takes}")
  is_low = lowest is not None and value < lowest
  if is_low or (highest is not None and value > highest):
    raise ValueError(f"{argument} is {value}, {takes}")


def number(argument: str, value: Any, *, lowest: float) -> None:
  """Refuses what is no finite number, or one below `lowest`."""
  if isinstance(value, jax.core.Tracer):
    return
  is_number = isinstance(value, numbers.Real) or (
    isinstance(value, np.ndarray | jax.Array)
    and value.ndim == 0
    and is_real(value.dtype)
  )
  is_bool = isinstance(value, bool | np.bool_) or (
    is_number and np.asarray(value).dtype == np.bool_
  )
  if is_bool or not is_number or not lowest <= value < np.inf:
    raise ValueError(
      f"{argument} is {_brief(value)}, takes a number >= {lowest:g}"
    )


def is_real(dtype: Any) -> bool:
  """Floating (bfloat16 too), integer or bool; no dates, no complex numbers.

  Args:
    dtype: of an array, JAX's or NumPy's.
  """
  # A key's dtype is none of NumPy's.
  return isinstance(dtype, np.dtype) and (
    dtype.kind in "fiub" or jnp.issubdtype(dtype, jnp.floating)
  )


def array(argument: str, value: Any, axes: tuple[str, ...]) -> jax.Array:
  """A JAX array of real numbers with the given axes, none of them empty.

  Args:
    argument: its name, for the message.
    value: what NumPy can make an array of.
    axes: letters of the axes.

  Returns:
    Less than float32, integers and bool become float32; float64 stays where
    JAX has 64 bits enabled.
  """
  value = numbers_of(argument, value, axes)
  shape(argument, value, axes)
  dtype = value.dtype
  if not jnp.issubdtype(dtype, jnp.floating):
    dtype = jnp.float32
  dtype = jnp.promote_types(dtype, jnp.float32)
  return jnp.asarray(value, jax.dtypes.canonicalize_dtype(dtype))


def numbers_of(
  argument: str, value: Any, axes: tuple[str, ...]
) -> np.ndarray | jax.Array:
  """What a caller hands over, as an array of real numbers; every door's way.

  Args:
    argument: its name, for the message.
    value: what NumPy can make an array of.
    axes: letters of the axes, for the message.

  Raises:
    ValueError: for masked values, sparse matrices, ragged lists, and numbers
      that are not real.
  """
  takes = f"takes real numbers of shape [{', '.join(axes)}]"
  if isinstance(value, np.ma.MaskedArray) and np.any(value.mask):
    raise ValueError(
      f"{argument} is a masked array with {int(np.sum(value.mask))} masked"
      " values, takes sample_weight 0 for what is missing"
    )
  if hasattr(value, "tocsr") or hasattr(value, "todense"):
    raise ValueError(f"{argument} is a sparse {type(value).__name__}, {takes}")
  if not isinstance(value, jax.Array):
    try:
      value = np.asarray(value)
    except ValueError:
      raise ValueError(f"{argument} is ragged, {takes}") from None
  if not is_real(value.dtype):
    raise ValueError(f"{argument} has dtype {value.dtype}, {takes}")
  return value


def shape(argument: str, value: Any, axes: tuple[str, ...]) -> None:
  """Refuses an array without just these axes, or with an empty one."""
  found = jnp.shape(value)
  if len(found) != len(axes) or 0 in found:
    raise ValueError(
      f"{argument} has shape {found}, takes real numbers of shape"
      f" [{', '.join(axes)}]"
    )


class Batch(NamedTuple):
  """Problems that have passed the door.

  Attributes:
    points: `[B, N, d]`.
    num_components: `[B]` int32.
    sample_weight: `[B, N]`.
    max_components: static K; None where it cannot be told, K being traced.
  """

  points: jax.Array
  num_components: jax.Array
  sample_weight: jax.Array
  max_components: int | None


def batch(
  points: Any,
  num_components: Any,
  *,
  sample_weight: Any = None,
  max_components: int | None = None,
) -> Batch:
  """What a caller hands over as a batch, as arrays.

  Args:
    points: what NumPy makes `[B, N, d]` of.
    num_components: `[B]`, or one K for all.
    sample_weight: what NumPy makes `[B, N]` of, or None for ones.
    max_components: static K, or None for the largest of `num_components`.

  Raises:
    ValueError: for wrong shapes and dtypes, K out of range, and where no
      problem is good.
  """
  points = array("points", points, ("B", "N", "d"))
  sample_weight = weights(sample_weight, points)
  num_components, max_components = _components(
    num_components, max_components, points.shape
  )
  values = (points, num_components, sample_weight)
  if not any(isinstance(value, jax.core.Tracer) for value in values):
    is_good = _is_good(points, sample_weight)
    highest = min(max_components, points.shape[1])
    is_good &= (num_components >= 1) & (num_components <= highest)
    if not np.any(is_good):
      integer("num_components", num_components[0], lowest=1, highest=highest)
      problem(points[0], sample_weight[0])
  return Batch(points, num_components, sample_weight, max_components)


def weights(sample_weight: Any, points: jax.Array) -> jax.Array:
  """Weights `[..., N]` of points `[..., N, d]`, ones for None.

  Raises:
    ValueError: for another shape, or a dtype that is none of real numbers.
  """
  expected = points.shape[:-1]
  if sample_weight is None:
    return jnp.ones(expected, points.dtype)
  axes = ("B", "N")[-len(expected) :]
  sample_weight = array("sample_weight", sample_weight, axes)
  if sample_weight.shape != expected:
    raise ValueError(
      f"sample_weight has shape {sample_weight.shape}, takes {expected} for"
      f" points of shape {points.shape}"
    )
  return sample_weight


def _components(num_components, max_components, shape_of):
  """K of each problem `[B]`, and the static K."""
  if max_components is not None:
    integer("max_components", max_components, lowest=1)
    max_components = int(max_components)
  if isinstance(num_components, jax.core.Tracer):
    return jnp.broadcast_to(num_components, shape_of[:1]), max_components
  if np.ndim(num_components) == 0:
    highest = shape_of[1]
    if max_components is not None:
      highest = min(highest, max_components)
    integer("num_components", num_components, lowest=1, highest=highest)
    counts = np.full(shape_of[0], int(num_components), np.int32)
  else:
    counts = np.asarray(num_components)
    if counts.shape != shape_of[:1] or not np.issubdtype(
      counts.dtype, np.integer
    ):
      raise ValueError(
        f"num_components has shape {counts.shape} and dtype {counts.dtype},"
        f" takes an integer or integers of shape {shape_of[:1]}"
      )
  if max_components is None:
    max_components = max(1, int(np.max(counts)))
  return jnp.asarray(counts, jnp.int32), max_components


def good_rows(points: jax.Array, weights: jax.Array) -> jax.Array:
  """Which points `[..., N, d]` are finite, or of weight 0, and have a weight.

  Args:
    points: `[..., N, d]`.
    weights: `[..., N]`; negative and infinite ones are none.

  Returns:
    `[..., N]` bool.
  """
  is_finite = jnp.all(jnp.isfinite(points), axis=-1) | ~(weights > 0)
  return is_finite & (weights >= 0) & (weights < jnp.inf)


@jax.jit
def _is_good(points, weights):
  """Which problems of a batch can be fitted, `[B]`."""
  has_points = jnp.any(weights > 0, axis=1)
  return jnp.all(good_rows(points, weights), axis=1) & has_points


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


def _brief(value):
  text = repr(value)
  return text if len(text) <= 60 else f"{text[:57]}..."
