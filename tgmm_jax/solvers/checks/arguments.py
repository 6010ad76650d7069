"""Options of a call: names, integers and numbers; and warnings about them."""

import numbers
import pathlib
import sys
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax.solvers.checks import conversion


def name(
  argument: str, value: Any, known: Collection[str], besides: str = ""
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
    and conversion.is_real(value.dtype)
  )
  is_bool = isinstance(value, bool | np.bool_) or (
    is_number and np.asarray(value).dtype == np.bool_
  )
  if is_bool or not is_number or not lowest <= value < np.inf:
    raise ValueError(
      f"{argument} is {_brief(value)}, takes a number >= {lowest:g}"
    )


def _brief(value):
  text = " ".join(repr(value).split())
  return text if len(text) <= 60 else f"{text[:57]}..."


def warn(message: str, category: type[Warning] = UserWarning) -> None:
  """Warns at the caller's line, wherever in the library this is called.

  Args:
    message: one line.
    category: of the warning.
  """
  package = str(pathlib.Path(__file__).parents[2])
  level, frame = 2, sys._getframe(1)
  while frame.f_back and frame.f_code.co_filename.startswith(package):
    level, frame = level + 1, frame.f_back
  warnings.warn(message, category, stacklevel=level)
