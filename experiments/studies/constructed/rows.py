"""Rows and arrays that the studies of the constructed networks share."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from experiments.runner import parts
from tgmm_jax.evaluation import results

# Problems at a time: hidden layers of more would not fit the caches.
BATCH_SIZE = 8


def in_float64(measure: Callable[..., parts.Rows]):
  """A study whose arrays are 64 bits wide."""

  @functools.wraps(measure)
  def wrapped(*args):
    with jax.enable_x64(True):
      return measure(*args)

  return wrapped


def point(
  study: str,
  metric: str,
  series: str,
  x: float,
  value: float,
  *,
  count: int,
  failures: int = 0,
) -> results.CurveRow:
  """A row whose value is no mean: it has no standard error."""
  return results.CurveRow(
    study, metric, series, float(x), float(value), np.nan, count, failures
  )
