"""Whatever somebody has as numbers, as an array of real numbers; on the host.

Frames of pandas, Polars and Arrow, and structured arrays, are their columns.
Nothing of these libraries is imported: what an object can do says what it is.
"""

import os
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax.solvers.checks import elements, forks

_FILE_HINT = ": read a file with `python -m tgmm_jax fit FILE` or pandas"
# Float64 has all integers up to here.
_EXACT = 2**53


def is_real(dtype: Any) -> bool:
  """Floating (bfloat16 too), integer or bool; no dates, no complex numbers.

  Args:
    dtype: of an array, JAX's or NumPy's.
  """
  # A key's dtype is none of NumPy's.
  return isinstance(dtype, np.dtype) and (
    dtype.kind in "fiub" or jnp.issubdtype(dtype, jnp.floating)
  )


def numbers_of(
  argument: str, value: Any, axes: tuple[str, ...], *, first: int = 0
) -> np.ndarray | jax.Array:
  """What a caller hands over, as an array of real numbers; every door's way.

  Args:
    argument: its name, for the message.
    value: an array of any library on the host, a frame, a series, or nested
      lists. NaN stays NaN.
    axes: letters of the axes, for the message.
    first: index of the first row, where these are rows of more.

  Returns:
    An array of JAX as it is. Of all else an array of NumPy in the byte order
    of the machine: float32 of bool, of integers of 16 bits or less and of
    floating numbers of 32 bits or less, float64 of all other. Where float64
    rounds an integer a warning says so.

  Raises:
    ValueError: for what has a value that is missing or no real number, for
      sparse matrices, ragged lists, text and paths.
    RuntimeError: in a process that was forked, see `forks`.
  """
  forks.refuse()
  if isinstance(value, jax.Array):
    if not is_real(value.dtype):
      raise ValueError(f"{argument} has dtype {value.dtype}, {_takes(axes)}")
    return value
  if isinstance(value, str | bytes | os.PathLike):
    hint = _FILE_HINT if axes[-1] == "d" else ""
    raise ValueError(
      f"{argument} is the text {elements.brief(value)}, {_takes(axes)}{hint}"
    )
  try:
    return _converted(argument, value)
  except elements.Refused as refused:
    takes = refused.takes or _takes(axes)
    refused = refused.from_row(first)
    raise ValueError(f"{argument} {refused}, {takes}") from None


def array(
  argument: str, value: Any, axes: tuple[str, ...]
) -> np.ndarray | jax.Array:
  """An array of real numbers with the given axes, none of them empty.

  Args:
    argument: its name, for the message.
    value: see `numbers_of`.
    axes: letters of the axes.

  Returns:
    Float32 or float64; JAX's of an array of JAX, else NumPy's.
  """
  found = numbers_of(argument, value, axes)
  shape(argument, found, axes, given=value)
  dtype = found.dtype
  if not jnp.issubdtype(dtype, jnp.floating):
    dtype = jnp.float32
  return found.astype(jnp.promote_types(dtype, jnp.float32), copy=False)


def shape(
  argument: str, value: Any, axes: tuple[str, ...], *, given: Any = None
) -> None:
  """Refuses an array without just these axes, or with an empty one.

  Args:
    argument: its name, for the message.
    value: an array.
    axes: letters of the axes.
    given: what it was made of.
  """
  found = jnp.shape(value)
  if len(found) == len(axes) and 0 not in found:
    return
  hint = ""
  # A block has a name with a number; no code can be made of it.
  is_known = argument.isidentifier() and 0 not in found
  has_one_less = is_known and len(found) == len(axes) - 1
  if has_one_less and axes[0] == "B":
    hint = f": for one problem [{argument}]"
  elif has_one_less and axes[-1] == "d":
    column = ".to_frame()" if hasattr(given, "to_frame") else "[:, None]"
    hint = f": for one column {argument}{column}"
  elif is_known and len(axes) == 1 and found[1:] == (1,):
    hint = f": of one column np.ravel({argument})"
  raise ValueError(
    f"{argument} has shape {found}, takes [{', '.join(axes)}]{hint}"
  )


def _takes(axes):
  return f"takes real numbers of shape [{', '.join(axes)}]"


def _converted(argument, value):
  """An array of NumPy, float32 or float64; see `numbers_of`."""
  if hasattr(value, "tocsr") or hasattr(value, "todense"):
    raise elements.Refused(f"is a sparse {type(value).__name__}")
  if isinstance(value, np.ndarray):
    return _of_array(argument, elements.unmasked(value))
  if isinstance(value, list | tuple):
    return _of_list(argument, value)
  if _is_uniform(value):
    return _of_array(argument, _as_array(value))
  columns = _columns_of(value)
  if columns is not None:
    return _of_columns(argument, columns, (len(value),))
  if hasattr(value, "isna") or hasattr(value, "is_null"):
    return _of_column(argument, value)
  if not hasattr(value, "__array__") and _is_foreign_frame(value):
    return _converted(argument, _as_pandas(value))
  return _of_array(argument, _as_array(value))


def _of_array(argument, value):
  """Of an array of any dtype."""
  dtype = value.dtype
  if dtype.names is not None:
    fields = [(name, value[name]) for name in dtype.names]
    for name, field in fields:
      if field.ndim != value.ndim or field.dtype.names is not None:
        raise elements.Refused("has more than a number", column=name)
    return _of_columns(argument, fields, value.shape)
  if dtype.kind == "O":
    if value.ndim == 0:
      item = value[()]
      text = "None" if item is None else f"a {type(item).__name__}"
      raise elements.Refused(f"is {text}")
    found = elements.as_floats(value)
    if np.any(np.abs(found) >= _EXACT):
      elements.warn_if_rounded(
        argument, filter(elements.is_rounded, value.flat)
      )
    return found
  if not is_real(dtype):
    raise elements.Refused(f"has dtype {dtype}")
  is_floating = jnp.issubdtype(dtype, jnp.floating)
  is_narrow = dtype.itemsize <= (4 if is_floating else 2)
  found = value.astype(np.float32 if is_narrow else np.float64, copy=False)
  if not is_floating and dtype.itemsize == 8:
    elements.warn_if_rounded(argument, _rounded(value, found))
  return found


def _of_list(argument, value):
  """Of nested lists; what is in the outermost may be arrays and frames."""
  if not value or not _is_array(value[0]):
    return _of_array(argument, _as_array(value))
  rows = []
  for index, item in enumerate(value):
    try:
      rows.append(_converted(argument, item))
    except elements.Refused as refused:
      raise refused.within(index) from None
  if len({row.shape for row in rows}) > 1:
    raise elements.Refused("is ragged")
  return np.stack(rows)


def _is_uniform(value):
  """Whether all columns of a frame of pandas have one dtype of NumPy's."""
  if not hasattr(value, "iloc") or not hasattr(value, "columns"):
    return False
  dtypes = set(value.dtypes)
  return len(dtypes) == 1 and is_real(dtypes.pop())


def _columns_of(value):
  """Names and columns of a frame; None of what is none."""
  if hasattr(value, "iloc") and hasattr(value, "columns"):  # as of pandas
    names = list(value.columns)
    return [(name, value.iloc[:, i]) for i, name in enumerate(names)]
  if hasattr(value, "get_columns"):  # as of Polars
    return [(column.name, column) for column in value.get_columns()]
  if hasattr(value, "itercolumns"):  # as of Arrow
    return list(zip(value.schema.names, value.itercolumns(), strict=True))
  return None


def _of_columns(argument, columns, rows):
  """Columns become the last axis; `rows` is the shape of each."""
  found = []
  for name, column in columns:
    try:
      found.append(_of_column(argument, column))
    except elements.Refused as refused:
      raise refused.in_column(name) from None
  if not found:
    return np.zeros((*rows, 0))
  return np.stack(found, axis=-1)


def _of_column(argument, column):
  """Of a series; libraries tell in their own ways what is missing."""
  if not isinstance(getattr(column, "dtype", None), np.dtype):
    for ask in ("isna", "is_null"):
      if hasattr(column, ask):
        elements.refuse_missing(_as_array(getattr(column, ask)()))
        break
  return _of_array(argument, elements.unmasked(_as_array(column)))


def _as_array(value):
  try:
    return np.asanyarray(value)
  except Exception as error:
    # Every library has its own.
    if "inhomogeneous" in str(error):
      raise elements.Refused("is ragged") from None
    line = str(error).strip().split("\n")[0]
    raise elements.Refused(
      f"is a {type(value).__name__} that NumPy cannot read ({line})"
    ) from None


def _is_array(value):
  is_number = isinstance(value, np.generic)
  has_numbers = hasattr(value, "__array__") or _is_foreign_frame(value)
  return has_numbers and not is_number


def _is_foreign_frame(value):
  names = ("__dataframe__", "__arrow_c_stream__")
  return any(hasattr(value, name) for name in names)


def _as_pandas(value):
  """A frame of pandas of what hands over columns in another way."""
  # Only here: pandas takes its time, and few frames need it.
  import pandas as pd

  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      if hasattr(value, "__arrow_c_stream__"):
        return pd.DataFrame.from_arrow(value)
      return pd.api.interchange.from_dataframe(value)
  except Exception as error:
    # Every library has its own; Arrow's way needs pyarrow.
    line = str(error).strip().split("\n")[0]
    raise elements.Refused(
      f"is a {type(value).__name__} that pandas cannot read ({line})"
    ) from None


def _rounded(value, found):
  """The integers that are not the float64 beside them."""
  is_large = np.abs(found) >= _EXACT
  integers, floats = value[is_large], found[is_large]
  # Halves of 32 bits are exact, and so is the difference of the upper one.
  upper, lower = integers >> 32, integers & 0xFFFFFFFF
  return integers[floats - upper.astype(float) * 2.0**32 != lower]
