"""Figures of the experiments with clustering: accuracies, errors, pairs."""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib import figure as mpl_figure

from experiments.labels import config as label_config
from experiments.runner import pages
from tgmm_jax.evaluation import labels as label_evaluation
from tgmm_jax.evaluation import results
from tgmm_jax.figures import curves as curve_figures

# What the rows of the pairs of classes add to the name of their run.
PAIRS = " by pair"
_ERROR = "share of wrong labels"
# More curves of 45 pairs nobody could follow; all are in the table.
_BY_PAIR = (
  label_evaluation.NETWORK,
  "k-means",
  "em/full-x10",
  label_evaluation.CLASS_MOMENTS,
)


# By source the label of the axis, and the caption of the figure.
_SHOWN = {
  label_config.TWO_CLASSES: (
    "|mu|, half the distance of the means",
    "Two classes, over their separation",
  ),
  label_config.MIXTURES: (
    "range of the means' entries",
    "Mixtures, over the range of their means",
  ),
}


def draw(
  runs: Sequence[label_config.LabelRun], rows: Sequence[results.CurveRow]
) -> pages.Figures:
  """A figure for each kind of mixtures, and one of the pairs of classes."""
  rows = [row for row in rows if row.metric == label_evaluation.METRIC]
  studies = {row.study for row in rows}
  found = {}
  for source, (axis, caption) in _SHOWN.items():
    shown = [run for run in runs if run.source == source]
    shown = [run for run in shown if run.name in studies]
    if shown:
      shown.sort(key=lambda run: run.sizes)
      figure = over_distance(rows, shown, axis)
      found[caption] = (source.replace("-", "_"), figure)
  shown = [run for run in runs if run.name + PAIRS in studies]
  if shown:
    found["Each pair of classes"] = ("by_pair", by_pair(rows, shown))
  return found


def over_distance(
  rows: Sequence[results.CurveRow],
  runs: Sequence[label_config.LabelRun],
  x_label: str,
) -> mpl_figure.Figure:
  """Accuracies of each run above, and below what they lack on a log scale.

  Args:
    rows: accuracies of these runs.
    runs: from left to right.
    x_label: how far apart the classes are.
  """
  panels = [_panel(rows, run.name, run.title, x_label=x_label) for run in runs]
  panels += [
    curve_figures.Panel(run.name, _ERROR, run.title, x_label, _ERROR)
    for run in runs
  ]
  shown = [row for row in rows if row.series != label_evaluation.CHANCE]
  shown += [_error_of(row) for row in shown]
  return _draw(shown, panels, num_columns=min(len(runs), 3))


def by_pair(
  rows: Sequence[results.CurveRow], runs: Sequence[label_config.LabelRun]
) -> mpl_figure.Figure:
  """Accuracies of some series for each pair of classes."""
  panels = [
    _panel(
      rows,
      run.name + PAIRS,
      run.title,
      x_label="pair of classes, in the order of the class moments",
    )
    for run in runs
  ]
  shown = [row for row in rows if row.series in _BY_PAIR]
  return _draw(shown, panels, num_columns=2)


_draw = functools.partial(
  curve_figures.draw, emphasised=label_evaluation.NETWORK
)


def _panel(rows, study, title, *, x_label):
  """Accuracies, with a line at what random labels have in the mean."""
  chance = [
    row.value
    for row in rows
    if (row.study, row.series) == (study, label_evaluation.CHANCE)
  ]
  return curve_figures.Panel(
    study,
    label_evaluation.METRIC,
    title,
    x_label,
    label_evaluation.METRIC,
    is_log_y=False,
    lines={"chance": float(np.mean(chance))},
  )


def _error_of(row):
  """The share of wrong labels; no bar that would reach down to 0."""
  value = 1.0 - row.value
  spread = row.standard_error if row.standard_error < 0.9 * value else np.nan
  return row._replace(metric=_ERROR, value=value, standard_error=spread)
