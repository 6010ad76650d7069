"""A fit as JSON: for people, for other programs, and to be read again."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tgmm_jax import types
from tgmm_jax.fitting.saved.checks import SavedFitError

_FLOATS = ("weights", "means", "covariances", "log_likelihood", "probabilities")
_INTEGERS = ("num_components", "num_iters", "labels")
_NEEDED = ("num_components", "covariance_type", "weights", "means")
_NEEDED += ("covariances", "labels", "log_likelihood", "status", "method")


def encode(
  head: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
  static: Mapping[str, Any],
) -> bytes:
  """The text of a fit, one key a line.

  Args:
    head: format, version and digest.
    arrays: fields of a `Fit`; -inf in `log_likelihood` becomes null.
    static: its other fields.
  """
  listed = {name: value.tolist() for name, value in arrays.items()}
  names = [own.name for own in types.Status]
  values = {
    "num_components": listed["num_components"],
    "covariance_type": static["covariance_type"],
    "columns": static["columns"],
    "weights": listed["weights"],
    "means": listed["means"],
    "covariances": listed.get("covariances"),
    "log_likelihood": _each(
      lambda value: None if value == -np.inf else value,
      listed["log_likelihood"],
    ),
    "status": _each(names.__getitem__, listed["status"]),
    "num_iters": listed.get("num_iters"),
    "method": _each(static["methods"].__getitem__, listed["method_index"]),
    "methods": static["methods"],
    "is_outside_range": listed["is_outside_range"],
    "candidates": static["candidates"],
    "probabilities": listed.get("probabilities"),
    "labels": listed["labels"],
    "dtypes": {name: value.dtype.name for name, value in arrays.items()},
  }
  lines = (
    f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}"
    for name, value in (values | dict(head)).items()
  )
  return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def decode(
  found: Mapping[str, Any],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Arrays and other fields of a fit; keys that are not known are left out.

  Args:
    found: what the JSON holds.

  Raises:
    SavedFitError: a key is missing, or its value of the wrong kind.
  """
  missing = [name for name in _NEEDED if name not in found]
  if missing:
    raise SavedFitError(f"it has no {missing[0]!r}")
  dtypes = dict.fromkeys(_FLOATS, "float64")
  if isinstance(found.get("dtypes"), dict):
    dtypes |= found["dtypes"]
  arrays = {}
  for name in _FLOATS + _INTEGERS:
    value = found.get(name)
    if name == "log_likelihood":
      value = _each(lambda own: -np.inf if own is None else own, value)
    if value is not None:
      arrays[name] = _array(name, value, dtypes.get(name, "int32"))
  method = found["method"]
  methods = found.get("methods")
  if methods is None:
    methods = list(dict.fromkeys(_flat(method)))
  known = {"status": list(types.Status.__members__), "method_index": methods}
  for name, value in (("status", found["status"]), ("method_index", method)):
    own = _indices(name, value, known[name])
    arrays[name] = _array(name, own, dtypes.get(name, "int32"))
  value = found.get("is_outside_range")
  if value is None:
    value = _each(lambda _: False, found["status"])
  arrays["is_outside_range"] = _array("is_outside_range", value, "bool")
  static = {"methods": methods}
  for name in ("covariance_type", "columns", "candidates"):
    static[name] = found.get(name)
  return arrays, static


def _each(function, values):
  """The function of each number of a list, or of one that is no list."""
  if isinstance(values, list):
    return [_each(function, value) for value in values]
  return function(values)


def _array(name, value, dtype):
  try:
    found = np.array(value)
    is_known = found.dtype.kind in {"f": "iuf", "i": "iu", "b": "b"}[dtype[0]]
    wide = found.astype(dtype)
    # Integers that are too large would become others.
    if found.size and not (
      is_known and (dtype[0] == "f" or np.array_equal(found, wide))
    ):
      raise ValueError
    return wide
  except (ValueError, TypeError, KeyError, OverflowError):
    raise SavedFitError(f"{name} is no array of {dtype}") from None


def _indices(name, values, known):
  """Where names stand in a list of known ones."""

  def index(value):
    if not isinstance(known, list) or value not in known:
      raise SavedFitError(f"{name} has {value!r}, takes one of {known}")
    return known.index(value)

  return _each(index, values)


def _flat(values):
  return values if isinstance(values, list) else [values]
