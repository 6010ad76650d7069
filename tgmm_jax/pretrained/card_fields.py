"""What the fields of a card take; whatever else is there is a damaged card.

A card is read by people's programs long after it was written. A field that is
missing, of another type or not finite must not become an answer: NaN as a
limit, for one, would let everything pass.
"""

import math
import re
import reprlib
from collections.abc import Callable
from typing import Any

from tgmm_jax.tasks import trained_range

_LIMITS = trained_range.TrainedRange._fields
_ROW = {
  "solver": str,
  "dim": int,
  "num_components": int,
  "num_points": int,
  "metric": str,
  "mean": float,
  "standard_error": float,
  "count": int,
  "failures": int,
}


def format_of(found: dict[str, Any]) -> int:
  """The version of a card.

  Raises:
    ValueError: it has none.
  """
  if "format" not in found:
    raise ValueError("it has no format")
  version = found["format"]
  if type(version) is not int or version < 1:
    raise ValueError(
      f"format is {reprlib.repr(version)}, takes an integer >= 1"
    )
  return version


def check(found: dict[str, Any]) -> None:
  """Refuses a card with a field that cannot be used.

  Args:
    found: all fields of a card, as JSON gives them.

  Raises:
    ValueError: the message names the field, in one line.
  """
  for name, value in found.items():
    if not _is_finite(value):
      raise ValueError(f"{name} has NaN or inf, takes finite numbers")
  for name, (is_right, takes) in _TAKES.items():
    if not is_right(found[name]):
      raise ValueError(f"{name} is {reprlib.repr(found[name])}, takes {takes}")
  for dim in found["dims"]:
    _check_limits(found["ranges"], dim)
  if len(found["ranges"]) > len(found["dims"]):
    raise ValueError("ranges has more entries than dims")
  if found["max_dim"] is not None and found["max_dim"] < found["dims"][-1]:
    raise ValueError(
      f"max_dim is {found['max_dim']}, takes at least {found['dims'][-1]}, as"
      " dims"
    )
  for index, row in enumerate(found["metrics"]):
    if not _has_types(row, _ROW) or not all(map(_is_possible, row.items())):
      raise ValueError(
        f"metrics[{index}] is {reprlib.repr(row)}, takes {', '.join(_ROW)}"
      )


def check_model(fields: dict[str, Any], model: dict[str, Any]) -> None:
  """Refuses what is not the config of a network.

  Args:
    fields: of the config, with their types.
    model: the values on a card.

  Raises:
    ValueError: the message names the field, in one line.
  """
  if wrong := sorted(fields.keys() ^ model.keys()):
    what = "no" if wrong[0] in fields else "the unknown"
    raise ValueError(f"model has {what} {reprlib.repr(wrong[0])}")
  for name, kind in fields.items():
    if not _is_of(model[name], kind):
      said = getattr(kind, "__name__", None) if kind in _PLAIN else kind
      raise ValueError(
        f"model.{name} is {reprlib.repr(model[name])}, takes {said}"
      )


_PLAIN = (int, float, bool, str)


def _is_of(value, kind):
  """Whether a value of JSON is of a type of Python."""
  if kind is float:
    return type(value) in (int, float) and math.isfinite(value)
  if kind in _PLAIN:
    return type(value) is kind
  # Else `tuple[int, ...]`.
  return (
    isinstance(value, (list, tuple))
    and bool(value)
    and all(type(item) is int for item in value)
  )


def _has_types(value, types):
  return (
    isinstance(value, dict)
    and value.keys() == types.keys()
    and all(_is_of(value[name], kind) for name, kind in types.items())
  )


def _is_possible(item):
  """Of a row with the right types: means alone may be negative."""
  name, value = item
  return bool(value) if isinstance(value, str) else name == "mean" or value >= 0


def _is_finite(value):
  if isinstance(value, dict):
    return all(map(_is_finite, value.values()))
  if isinstance(value, list):
    return all(map(_is_finite, value))
  return not isinstance(value, float) or math.isfinite(value)


def _check_limits(ranges, dim):
  limits = ranges.get(str(dim))
  if not _has_types(limits, dict.fromkeys(_LIMITS, float)) or not (
    0 <= limits["max_reach"]
    and 0 <= limits["min_spread"]
    and limits["min_spread"] <= limits["max_spread"]
  ):
    raise ValueError(
      f"ranges[{str(dim)!r}] is {reprlib.repr(limits)}, takes"
      f" {', '.join(_LIMITS)}, numbers >= 0 in order"
    )


def _is_text(value):
  return isinstance(value, str) and bool(value.strip()) and "\n" not in value


def _is_ascending(value, *, num=None):
  """Integers from 1 on; a number of them, or any but none, each once."""
  if not isinstance(value, list) or not value:
    return False
  if not all(type(item) is int and item >= 1 for item in value):
    return False
  if num is not None:
    return len(value) == num and value == sorted(value)
  return value == sorted(set(value))


def _is_model(value):
  """What is asked of a network before it is built."""
  return (
    isinstance(value, dict)
    and _is_ascending(value.get("num_components"))
    and _is_ascending([value.get("dim", 1)])
  )


_TAKES: dict[str, tuple[Callable[[Any], bool], str]] = {
  "name": (_is_text, "a name"),
  "title": (_is_text, "a line of text"),
  "network": (_is_text, "the name of a network"),
  "model": (_is_model, "the fields of a config, with ascending num_components"),
  "dims": (_is_ascending, "ascending integers >= 1"),
  "max_dim": (
    lambda value: value is None or _is_ascending([value]),
    "null or an integer >= 1",
  ),
  "num_points": (
    lambda value: _is_ascending(value, num=2),
    "two ascending integers >= 1",
  ),
  "ranges": (lambda value: isinstance(value, dict), "limits by d"),
  "sha256": (
    lambda value: (
      isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
    ),
    "64 hexadecimal digits",
  ),
  "metrics": (lambda value: isinstance(value, list), "a list of rows"),
  "training": (
    lambda value: isinstance(value, dict) and bool(value),
    "what the training was",
  ),
}
