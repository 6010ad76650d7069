"""Experiments whose trainings are scored by curves: one `curves.csv` each.

The report joins them, draws the figures that the experiment asks for and has a
table of the studies.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
import rich.box
import rich.console
import rich.table
import rich.text
from matplotlib import figure as mpl_figure

from experiments import trainings
from tgmm_jax.evaluation import results
from tgmm_jax.figures import cells as cell_figures
from tgmm_jax.figures import report
from tgmm_jax.figures import style as figure_style
from tgmm_jax.training import files, interrupts
from tgmm_jax.training.learners import learner as learner_lib

CURVES = "curves.csv"
# Of a table that fits into a terminal.
_MOST_COLUMNS = 5
SETTINGS = "evaluation.json"

Rows = list[results.CurveRow]
# By caption, the name of the file and the figure.
Figures = Mapping[str, tuple[str, mpl_figure.Figure]]


class Experiment(trainings.Trainings):
  """Trainings in one work folder, each with its curves."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    runs: Sequence[trainings.Run],
    *,
    learner_of: Callable[[Any], learner_lib.Learner],
    measure: Callable[[Any, Any, interrupts.StopRequest], Rows],
    draw: Callable[[Rows], Figures],
  ):
    """Touches neither disk nor devices' memory.

    Args:
      config: to be run, already checked.
      workdir: its folder.
      runs: the trainings of the config.
      learner_of: `run -> Learner`; it may read data.
      measure: `(run, params, stop) -> rows`.
      draw: `rows -> {caption: (name, Figure)}`.
    """
    super().__init__(config, workdir, tuple(runs))
    self._learner_of = learner_of
    self._measure = measure
    self._draw = draw

  def _learner(self, run):
    return self._learner_of(run)

  def _evaluate_run(self, run, params, folder, stop):
    settings = self._identity["evaluation"]
    table, kept = folder / CURVES, folder / SETTINGS
    if trainings.is_evaluated(table, kept, settings) or jax.process_index():
      return
    rows = self._measure(run, params, stop)
    results.write_csv(table, rows, results.CurveRow)
    files.write_json(kept, settings)

  def _report(self):
    """Joins the runs' tables into one, draws it and writes the page."""
    rows, missing = [], []
    for run in self._runs:
      table = self._workdir / run.name / CURVES
      if table.exists():
        rows += results.read_csv(table, results.CurveRow)
      else:
        missing.append(run.name)
    results.write_csv(self._workdir / CURVES, rows, results.CurveRow)
    drawn = dict(self._draw(rows)) if rows else {}
    logged = self._read_curves()
    if logged:
      drawn["Training"] = (
        "learning_curves",
        cell_figures.learning_curves(logged),
      )
    folder = self._workdir / "figures"
    tables = {}
    if missing:
      tables["Missing"] = {name: "not measured yet" for name in missing}
    tables |= _tables(rows)
    page = self._workdir / "report.html"
    report.write_html(
      page,
      title=self._config.title,
      question=self._config.question,
      rows=[],
      figures={
        caption: figure_style.save(figure, folder / name)[0]
        for caption, (name, figure) in drawn.items()
      },
      tables=tables,
      **self._about_trainings(),
    )
    console = rich.console.Console()
    for title, lines in _tables(rows).items():
      console.print(_terminal_table(title, lines))
    console.print(f"report: {page}")


def _tables(rows):
  """By study and metric, a line for each series, abscissas across."""
  tables = {}
  for row in sorted(rows, key=lambda row: row.key):
    lines = tables.setdefault(f"{row.study}: {row.metric}", {})
    text = f"{row.value:.4g}"
    if row.standard_error > 0:
      text += f" ± {row.standard_error:.1g}"
    lines.setdefault(row.series, {})[f"{row.x:g}"] = text
  return tables


def _terminal_table(title, lines):
  table = rich.table.Table(
    title=title, box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False
  )
  columns = list(dict.fromkeys(x for cells in lines.values() for x in cells))
  if len(columns) > _MOST_COLUMNS:
    # Evenly, the first and the last among them: the page has them all.
    places = np.linspace(0, len(columns) - 1, _MOST_COLUMNS).round()
    columns = [columns[int(place)] for place in places]
  table.add_column("", no_wrap=True)
  for column in columns:
    table.add_column(column, justify="right", no_wrap=True)
  for series, cells in lines.items():
    # Without the standard error: a line has to fit.
    texts = [cells.get(x, "–").split(" ")[0] for x in columns]
    table.add_row(*map(rich.text.Text, (series, *texts)))
  return table
