"""One way to score: who is scored, on what, and which rows come out.

Mixtures, spectra and labels each make an `Evaluator`; whoever has one runs it
here, however different the answers are.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tgmm_jax.evaluation import results

# `(key, problems) -> {series: {metric: values [B, ...]}}`: one contender's
# answers, scored. Several series where a first answer is refined, so that it
# is found once.
Contender = Callable[[jax.Array, Any], Mapping[str, Mapping[str, jax.Array]]]
# By series and metric, the values of all problems of a place.
Values = dict[str, dict[str, np.ndarray]]


class Evaluator(NamedTuple):
  """Who is scored, on what, and which rows come out.

  Attributes:
    contenders: who, by name.
    problems: on what: by place in the table, a function that draws batches,
      each with the key for the contenders' own draws.
    rows: `(place, values) -> rows` of `results.csv` or of `curves.csv`.
  """

  contenders: Mapping[str, Contender]
  problems: Mapping[Hashable, Callable[[], Sequence[tuple[jax.Array, Any]]]]
  rows: Callable[[Hashable, Values], list[results.Row | results.CurveRow]]


def measure(
  evaluator: Evaluator,
  *,
  on_contender: Callable[[Hashable, str], None] = lambda place, name: None,
) -> dict[Hashable, Values]:
  """The values of every contender on every problem, by place.

  Args:
    evaluator: what is to be done.
    on_contender: called with place and name before each contender.
  """
  found = {}
  for place, draw in evaluator.problems.items():
    batches = draw()
    parts = {}
    for name, contender in evaluator.contenders.items():
      on_contender(place, name)
      for key, problems in batches:
        scored = jax.device_get(contender(key, problems))
        for series, by_metric in scored.items():
          own = parts.setdefault(series, {})
          for metric, values in by_metric.items():
            own.setdefault(metric, []).append(np.asarray(values))
    found[place] = {
      series: {metric: np.concatenate(values) for metric, values in own.items()}
      for series, own in parts.items()
    }
  return found


def run(
  evaluator: Evaluator,
  *,
  on_contender: Callable[[Hashable, str], None] = lambda place, name: None,
) -> list[results.Row | results.CurveRow]:
  """The rows of every contender in every place; arguments as in `measure`."""
  measured = measure(evaluator, on_contender=on_contender)
  return [
    row
    for place, values in measured.items()
    for row in evaluator.rows(place, values)
  ]
