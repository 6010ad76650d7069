"""A fit as text that a person can read."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tgmm_jax import gmm, types

# What a table and a line hold at most; then there is "...".
_NUM_COMPONENTS, _NUM_COORDINATES, _NUM_NAMES = 8, 6, 8
# More are written with an exponent.
_MOST_DECIMALS = 6


def text(fit: Any) -> str:
  """What `repr` of a `Fit` says: of one problem a line and a table."""
  if np.ndim(fit.status):
    return "\n".join(_summary(fit))
  return "\n".join([title(fit), *_aligned(table(fit))])


def title(fit: Any) -> str:
  """The fit of one problem in a line."""
  size = int(fit.num_components)
  count = int(np.sum(np.asarray(fit.labels) >= 0))
  share = ""
  if fit.probabilities is not None and size in fit.candidates:
    found = float(fit.probabilities[fit.candidates.index(size)])
    share = f" (probability {found:.3f})"
  return (
    f"Fit of {count:,} points, d = {fit.mixture.means.shape[-1]}: K = {size}"
    f"{share}, {fit.covariance_type}, by {fit.method}, {_word(fit.status)},"
    f" log-likelihood {float(fit.log_likelihood):.4f}"
  )


def table(fit: Any) -> list[list[str]]:
  """Weights, means and standard deviations, with a row of headings."""
  weights, means = (np.asarray(leaf) for leaf in fit.mixture[:2])
  deviations = _deviations(fit)
  num_components, dim = means.shape
  names = fit.columns or [f"x{index}" for index in range(dim)]
  more = ["..."] if dim > _NUM_COORDINATES else []
  rows = [["", "weight", *names[:_NUM_COORDINATES], *more]]
  for index in range(min(num_components, _NUM_COMPONENTS)):
    pairs = zip(means[index], deviations[index], strict=True)
    cells = [_pair(*pair) for pair in list(pairs)[:_NUM_COORDINATES]]
    rows.append([str(index), f"{weights[index]:.3f}", *cells, *more])
  if num_components > _NUM_COMPONENTS:
    rows.append(["..."] + [""] * (len(rows[0]) - 1))
  return rows


def _summary(fit):
  """The lines about a batch."""
  num_problems, num_points = np.shape(fit.labels)
  values = np.asarray(fit.log_likelihood)
  values = values[np.isfinite(values)]
  lines = [
    f"Fit of {num_problems:,} problems of up to {num_points:,} points,"
    f" d = {fit.mixture.means.shape[-1]}, {fit.covariance_type}",
    f"K: {_counted(np.asarray(fit.num_components))}",
    f"status: {_counted(np.asarray(fit.status), _word)}",
    f"by: {_counted(fit.method)}",
  ]
  if values.size:
    lines.append(
      f"log-likelihood: {np.min(values):.4f} to {np.max(values):.4f},"
      f" mean {np.mean(values):.4f}"
    )
  return lines


def _counted(values, name=str):
  """`4 (990), 5 (10)`."""
  found, counts = np.unique(values, return_counts=True)
  texts = [
    f"{name(one)} ({count:,})" for one, count in zip(found, counts, strict=True)
  ]
  more = ["..."] if len(texts) > _NUM_NAMES else []
  return ", ".join(texts[:_NUM_NAMES] + more)


def _word(status):
  return types.Status(int(status)).name.lower()


def _deviations(fit):
  """Standard deviations `[K, d]`, in the mixture's precision."""
  means = np.asarray(fit.mixture.means)
  kind = gmm.kind_of(fit.covariance_type)
  if kind.is_known:
    return np.ones_like(means)
  variances = np.asarray(fit.mixture.covariances)
  if kind.structure == "matrix":
    variances = np.diagonal(variances, axis1=-2, axis2=-1)
  if kind.structure == "ball" and kind.is_per_component:
    variances = variances[:, None]
  return np.broadcast_to(np.sqrt(variances), means.shape)


def _pair(mean, deviation):
  """`mean ± deviation`, with two digits of the deviation."""
  mean, deviation = float(mean), float(deviation)
  if deviation > 0 and math.isfinite(deviation):
    decimals = max(0, 1 - math.floor(math.log10(deviation)))
    if decimals <= _MOST_DECIMALS and max(abs(mean), deviation) < 1e9:
      return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"
    digits = 2 + math.ceil(max(0.0, math.log10(abs(mean) / deviation + 1.0)))
    return f"{mean:.{min(digits, 15)}g} ± {deviation:.2g}"
  return f"{mean:.4g} ± {deviation:.2g}"


def _aligned(rows: Iterable[list[str]]):
  rows = list(rows)
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    cells = [cell.rjust(w) for cell, w in zip(row, widths, strict=True)]
    yield "  ".join(cells).rstrip()
