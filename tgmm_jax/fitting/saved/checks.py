"""Whether what a file holds is a fit."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tgmm_jax import gmm, types

# How far a sum of weights may be from 1: files of others are rounded.
_TOLERANCE = 1e-3
_FLOATS, _INTEGERS = (np.float32, np.float64), (np.int32, np.int64)
# What there must be, with its dtypes and axes before those of the covariances;
# what may be missing is in `_OPTIONAL`.
_KINDS = {
  "weights": (_FLOATS, "BK"),
  "means": (_FLOATS, "BKd"),
  "covariances": (_FLOATS, None),
  "num_components": (_INTEGERS, "B"),
  "log_likelihood": (_FLOATS, "B"),
  "labels": (_INTEGERS, "BN"),
  "status": (_INTEGERS, "B"),
  "method_index": (_INTEGERS, "B"),
  "is_outside_range": ((np.bool_,), "B"),
  "num_iters": (_INTEGERS, "B"),
  "probabilities": (_FLOATS, "BR"),
}
_OPTIONAL = ("covariances", "num_iters", "probabilities")


class SavedFitError(ValueError):
  """A file that cannot be read as a fit, in one line: which, and why."""


def check(arrays: Mapping[str, np.ndarray], static: Mapping[str, Any]) -> None:
  """Refuses what is no fit.

  Args:
    arrays: fields of a `Fit`, weights, means and covariances for the mixture.
    static: its other fields.

  Raises:
    SavedFitError: in a few words, without the path.
  """
  _check_static(static)
  missing = sorted(_KINDS.keys() - arrays.keys() - set(_OPTIONAL))
  unknown = sorted(arrays.keys() - _KINDS.keys())
  if missing or unknown:
    raise SavedFitError(
      f"it has no {missing[0]!r}" if missing else f"it has {unknown[0]!r}"
    )
  kind = gmm.kind_of(static["covariance_type"])
  if kind.is_known == ("covariances" in arrays):
    raise SavedFitError(
      f"it has {'' if kind.is_known else 'no '}'covariances', covariance_type"
      f" is {static['covariance_type']!r}"
    )
  if (static["candidates"] is None) == ("probabilities" in arrays):
    raise SavedFitError("candidates and probabilities do not go together")
  _check_shapes(arrays, static, kind)
  _check_values(arrays, static, kind)


def _check_static(static):
  """Names: of the type, of methods and of columns; candidates."""
  kind, methods = static["covariance_type"], static["methods"]
  if not isinstance(kind, str) or kind not in gmm.COVARIANCE_TYPES:
    raise SavedFitError(
      f"covariance_type is {kind!r}, takes one of {tuple(gmm.COVARIANCE_TYPES)}"
    )
  for name, own in (
    ("methods", str),
    ("columns", str),
    ("candidates", int),
  ):
    values = static[name]
    if values is None and name != "methods":
      continue
    if not isinstance(values, tuple) or not all(
      type(value) is own for value in values
    ):
      raise SavedFitError(f"{name} is no list of {own.__name__}")
  if not methods:
    raise SavedFitError("methods is empty")


def _check_shapes(arrays, static, kind):
  """Shapes and dtypes, by those of the means."""
  means = arrays["means"]
  if means.ndim not in (2, 3) or 0 in means.shape:
    raise SavedFitError(f"means has shape {means.shape}, takes [K, d]")
  sizes = dict(zip("BKd"[3 - means.ndim :], means.shape, strict=True))
  sizes["N"] = arrays["labels"].shape[-1] if arrays["labels"].ndim else 0
  sizes["R"] = len(static["candidates"] or ())
  for name, value in arrays.items():
    dtypes, axes = _KINDS[name]
    if axes is None:
      expected = kind.shape(sizes["K"], sizes["d"])
      expected = (sizes["B"], *expected) if "B" in sizes else expected
    else:
      expected = tuple(sizes[axis] for axis in axes if axis in sizes)
    if value.dtype not in dtypes:
      raise SavedFitError(
        f"{name} has dtype {value.dtype}, takes"
        f" {' or '.join(np.dtype(own).name for own in dtypes)}"
      )
    if value.shape != expected:
      raise SavedFitError(
        f"{name} has shape {value.shape}, takes {expected} beside means of"
        f" shape {means.shape}"
      )
  columns = static["columns"]
  if columns is not None and len(columns) != sizes["d"]:
    raise SavedFitError(f"columns has {len(columns)} names, d = {sizes['d']}")


def _check_values(arrays, static, kind):
  """Parameters that can be, and numbers that point to what there is."""
  for name in ("weights", "means", "covariances"):
    if name in arrays and not np.all(np.isfinite(arrays[name])):
      raise SavedFitError(f"{name} has NaN or inf")
  status, size = arrays["status"], arrays["weights"].shape[-1]
  _check_range("status", status, 0, len(types.Status) - 1)
  _check_range(
    "method_index", arrays["method_index"], 0, len(static["methods"]) - 1
  )
  _check_range("labels", arrays["labels"], -1, size - 1)
  is_valid = status != types.Status.INVALID_INPUT
  counts = np.where(is_valid, arrays["num_components"], 1)
  _check_range("num_components", counts, 1, size)
  weights = arrays["weights"]
  total = np.where(is_valid, np.sum(weights, axis=-1), 1.0)
  if np.any(weights < 0) or np.any(np.abs(total - 1.0) > _TOLERANCE):
    raise SavedFitError("weights are no numbers >= 0 that sum to 1")
  if kind.is_known:
    return
  variances = arrays["covariances"]
  if kind.structure == "matrix":
    variances = np.diagonal(variances, axis1=-2, axis2=-1)
  is_positive = variances > 0
  if kind.is_per_component:
    is_present = weights > 0
    is_present = (
      is_present[..., None] if kind.structure != "ball" else is_present
    )
    is_positive |= ~is_present
  is_positive = is_positive.reshape(*status.shape, -1).all(axis=-1)
  if not np.all(is_positive | ~is_valid):
    raise SavedFitError("covariances has a variance that is not above 0")


def _check_range(name, values, lowest, highest):
  is_inside = (values >= lowest) & (values <= highest)
  if not np.all(is_inside):
    wrong = values[~is_inside].flat[0] if values.ndim else values
    raise SavedFitError(f"{name} is {wrong}, takes {lowest} to {highest}")
