"""New points for a fit, checked: numbers of any origin, in the fit's order."""

import warnings
from typing import Any

import jax
import numpy as np

from tgmm_jax import types
from tgmm_jax.solvers import checks

# So many points at a time are looked at for NaN and inf.
_NUM_CHECKED = 2**16


def arrays(
  points: Any,
  *,
  sample_weight: Any,
  status: Any,
  dim: int,
  columns: tuple[str, ...] | None = None,
) -> tuple[Any, Any]:
  """New points and their weights as a fit's methods get them, as arrays.

  Args:
    points: what `checks.numbers_of` makes `[N, d]` or `[B, N, d]` of.
    sample_weight: what it makes `[N]` or `[B, N]` of, or None.
    status: `[]` or `[B]`, of the fit; where it is INVALID_INPUT points may
      hold anything.
    dim: d of the fit.
    columns: their names, where the fit knows them. A table that has them is
      read by name, in whatever order.

  Raises:
    ValueError: for another shape or dtype, columns that are missing, NaN or
      inf, and weights that are none.
  """
  leading = np.shape(status)
  axes = (*("B" for _ in leading), "N", "d")
  given = _by_name(points, columns)
  points = checks.numbers_of("points", given, axes)
  if np.ndim(points) == len(axes) and points.shape[-1] != dim:
    raise ValueError(
      f"points has {points.shape[-1]} columns, takes {dim} as the fit"
      + (f": {', '.join(columns)}" if columns else "")
    )
  checks.shape("points", points, axes, given=given)
  if points.shape[:-2] != leading:
    raise ValueError(
      f"points has {points.shape[0]} problems, takes {leading[0]} as the fit"
    )
  if sample_weight is not None:
    sample_weight = checks.numbers_of("sample_weight", sample_weight, axes[:-1])
    if sample_weight.shape != points.shape[:-1]:
      raise ValueError(
        f"sample_weight has shape {sample_weight.shape}, takes"
        f" {points.shape[:-1]} for points of shape {points.shape}"
      )
  if checks.is_traced((points, sample_weight, status)):
    return points, sample_weight
  points, sample_weight = jax.tree.map(np.asarray, (points, sample_weight))
  is_valid = np.asarray(status) != types.Status.INVALID_INPUT
  _check_values(points, sample_weight, is_valid)
  return points, sample_weight


def columns_of(points: Any) -> tuple[str, ...] | None:
  """The names of a table's columns; None where it has none, or no texts.

  Args:
    points: a frame of any library, a structured array, or what has no names.
  """
  names = getattr(getattr(points, "dtype", None), "names", None)
  for own in ("column_names", "columns"):  # of Arrow, whose columns are arrays
    if names is None:
      names = getattr(points, own, None)
  if names is None and hasattr(points, "__dataframe__"):
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # pandas warns of its own protocol
      names = points.__dataframe__().column_names()
  names = () if names is None or callable(names) else tuple(names)
  is_text = all(isinstance(own, str) for own in names)
  if not names or not is_text or len(set(names)) < len(names):
    return None
  return tuple(str(own) for own in names)


def _by_name(points, columns):
  """The columns of a table that has names, in the order of the fit."""
  names = columns_of(points)
  if columns is None or names is None or names == columns:
    return points
  missing = [own for own in columns if own not in names]
  if missing:
    raise ValueError(
      f"points has no column {missing[0]!r}, takes {', '.join(columns)}"
    )
  if hasattr(points, "select") and not hasattr(points, "iloc"):
    # Arrow's and Polars'; pandas' older ones have no such method.
    return points.select(list(columns))
  if hasattr(points, "__getitem__"):
    return points[list(columns)]
  import pandas as pd  # takes its time, and few frames need it

  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return pd.api.interchange.from_dataframe(points)[list(columns)]


def _check_values(points, sample_weight, is_valid):
  """Refuses NaN and inf where the weight is not 0, a block at a time."""
  for index in map(tuple, np.argwhere(is_valid)):
    own = points[index]
    for first in range(0, len(own), _NUM_CHECKED):
      rows = slice(first, first + _NUM_CHECKED)
      weights = np.ones(len(own[rows]), np.int8)
      if sample_weight is not None:
        weights = sample_weight[index][rows]
      try:
        checks.values(own[rows], weights, first=first)
      except ValueError as error:
        where = f"problem {index[0]}: " if index else ""
        raise ValueError(f"{where}{error}") from None
