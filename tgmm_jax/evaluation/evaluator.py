"""One way to score: who is scored, on what, and which rows come out.

Mixtures, spectra and labels each make an `Evaluator`; whoever has one runs it
here, however different the answers are.
"""

import io
import itertools
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tgmm_jax.evaluation import results
from tgmm_jax.training import hosts

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
  is_shared: bool = False,
) -> dict[Hashable, Values]:
  """The values of every contender on every problem, by place.

  Args:
    evaluator: what is to be done.
    on_contender: called with place and name before each contender.
    is_shared: whether the processes of a run (`hosts`), which must all call it,
      deal the work out; each gets the values of all.
  """
  places = list(evaluator.problems)
  turns = list(
    enumerate(itertools.product(range(len(places)), evaluator.contenders))
  )
  scored, drawn = [], None
  for turn, (number, name) in hosts.my_share(turns) if is_shared else turns:
    place = places[number]
    if number != drawn:
      batches, drawn = evaluator.problems[place](), number
    on_contender(place, name)
    contender = evaluator.contenders[name]
    scored += [
      ((turn, number, series, metric), np.asarray(values))
      for batch in batches
      for series, by_metric in jax.device_get(contender(*batch)).items()
      for metric, values in by_metric.items()
    ]
  if is_shared:
    scored = _gather(scored)
  return _by_place(places, scored)


def _gather(scored):
  """What all processes have scored, in the order of one alone."""
  content = io.BytesIO()
  names = np.array([json.dumps(name) for name, _ in scored], dtype="U")
  np.savez(content, names, *(values for _, values in scored))
  gathered = []
  for own in hosts.gather_bytes(content.getvalue()):
    # No pickle: what comes over a network is data.
    with np.load(io.BytesIO(own), allow_pickle=False) as stored:
      names, *arrays = (stored[name] for name in stored.files)
      gathered += zip(map(json.loads, names), arrays, strict=True)
  return sorted(gathered, key=lambda own: own[0][0])


def _by_place(places, scored) -> dict[Hashable, Values]:
  parts = {place: {} for place in places}
  for (_, number, series, metric), values in scored:
    own = parts[places[number]].setdefault(series, {})
    own.setdefault(metric, []).append(values)
  return {
    place: {
      series: {metric: np.concatenate(values) for metric, values in own.items()}
      for series, own in by_series.items()
    }
    for place, by_series in parts.items()
  }


def run(
  evaluator: Evaluator,
  *,
  on_contender: Callable[[Hashable, str], None] = lambda place, name: None,
  is_shared: bool = False,
) -> list[results.Row | results.CurveRow]:
  """The rows of every contender in every place; arguments as in `measure`."""
  measured = measure(evaluator, on_contender=on_contender, is_shared=is_shared)
  return [
    row
    for place, values in measured.items()
    for row in evaluator.rows(place, values)
  ]
