"""Experiments with mixtures: trainings, and solvers in cells of one table.

Beside the folders of the trainings the work folder holds one of the baselines;
each keeps its own `results.csv`, and the report joins what is there.
"""

import pathlib

import jax
import ml_collections
import rich.console
from absl import logging

from experiments import mixture_base, trainings
from tgmm_jax import pretrained
from tgmm_jax.evaluation import contenders, results
from tgmm_jax.evaluation import mixtures as mixture_evaluation
from tgmm_jax.figures import cells as cell_figures
from tgmm_jax.figures import report
from tgmm_jax.figures import style as figure_style
from tgmm_jax.models import factory
from tgmm_jax.tasks import shifts
from tgmm_jax.training import files, loop, run_folder
from tgmm_jax.training.learners import mixtures as mixture_learner

RESULTS = "results.csv"
SETTINGS = "evaluation.json"
METRICS = (
  "l2_error",
  "l2_error_released",
  "weight_error",
  "accuracy",
  "log_likelihood",
  "log_likelihood_fresh",
)


class Experiment(trainings.Trainings):
  """One experiment in one work folder."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    draw_more=lambda config, rows: {},
  ):
    """Checks the config whole; touches neither disk nor devices' memory.

    Args:
      config: to be run.
      workdir: its folder.
      draw_more: `(config, rows) -> {caption: (name, Figure)}`, figures that
        this experiment alone has.
    """
    self._draw_more = draw_more
    self._plan = mixture_base.make_plan(config)
    super().__init__(config, workdir, self._plan.runs)

  def _learner(self, run):
    return mixture_learner.make(factory.build(run.model), run.tasks)

  def _evaluate_run(self, run, params, folder, stop):
    dims = [d for d in self._plan.evaluation.dims if d in run.tasks.dims]
    model = factory.build(run.model)
    group = contenders.network(run.solver, model, params)
    self._evaluate(folder, {run.solver: group}, dims, stop)

  def _evaluate_rest(self, stop):
    groups = self._classical()
    if self._config.only not in ("", mixture_base.BASELINES) or not groups:
      return
    folder = self._workdir / mixture_base.BASELINES
    with run_folder.lock(folder):
      dims = self._plan.evaluation.dims
      self._evaluate(folder, groups, dims, stop, with_range=True)

  def _classical(self):
    """The solvers of the table that nobody trains, by group."""
    config, groups = self._plan.evaluation, {}
    if self._config.evaluation.with_baselines:
      groups |= contenders.baselines(config.tasks.covariance_type)
    if self._config.evaluation.with_constructed:
      groups |= contenders.constructed(
        max(config.dims), config.tasks.padded_components
      )
    name = self._config.evaluation.with_pretrained
    if name:
      card, params = pretrained.load_params(name)
      groups[mixture_base.PRETRAINED] = contenders.network(
        mixture_base.PRETRAINED, factory.build(card.config), params
      )
    return groups

  def _evaluate(self, folder, groups, dims, stop, *, with_range=False):
    """Scores solvers in the cells with these dimensions, once."""
    settings = self._identity["evaluation"]
    table, kept = folder / RESULTS, folder / SETTINGS
    is_done = trainings.is_evaluated(table, kept, settings)
    if is_done or not dims or jax.process_index():
      return

    def on_group(name):
      # Under `jax.distributed` all processes must ask; only this one is here.
      if jax.process_count() == 1 and stop.is_requested():
        raise loop.StoppedError("stopped by a signal during the evaluation")
      label = figure_style.setting_label(
        mixture_evaluation.setting_of(law), cells
      )
      logging.info("evaluating %s at %s", name, label)

    rows = []
    config = self._plan.evaluation
    cells = [mixture_evaluation.setting_of(law) for law in config.laws()]
    for law in config.laws():
      if law.dim in dims:
        rows += mixture_evaluation.evaluate(
          groups,
          law,
          config.num_tasks,
          config.seed,
          max_points=config.padded_points(law.max_points),
          on_group=on_group,
        )
        if with_range:
          rows += mixture_evaluation.range_rows(
            config.tasks, law, config.num_tasks, config.seed
          )
    results.write_csv(table, rows)
    files.write_json(kept, settings)

  def _report(self):
    """Joins the runs' tables into one, draws it and writes the page."""
    names = [run.name for run in self._runs]
    folders = [
      self._workdir / name for name in (*names, mixture_base.BASELINES)
    ]
    tables = [path for path in (f / RESULTS for f in folders) if path.exists()]
    newest = max((path.stat().st_mtime_ns for path in tables), default=0)
    page = self._workdir / "report.html"
    if page.exists() and page.stat().st_mtime_ns > newest:
      logging.info("%s is up to date", page)
      return
    rows = results.join(tables)
    results.write_csv(self._workdir / RESULTS, rows)
    report.write_html(
      page,
      title=self._config.title,
      question=self._config.question,
      rows=rows,
      figures=self._draw(rows, self._read_curves()),
      expected=self._expected(),
      **self._about_trainings(),
    )
    console = rich.console.Console()
    if rows:
      console.print(report.terminal_table(rows))
    console.print(f"report: {page}")

  def _draw(self, rows, curves):
    """Draws what there is data for; by caption, the paths of the PNG files."""
    drawn = {}
    if rows:
      drawn |= dict(draw_tables(rows)) | self._draw_more(self._config, rows)
    if curves:
      drawn["Training"] = (
        "learning_curves",
        cell_figures.learning_curves(curves),
      )
    folder = self._workdir / "figures"
    folder.mkdir(exist_ok=True)
    return {
      caption: figure_style.save(figure, folder / name)[0]
      for caption, (name, figure) in drawn.items()
    }

  def _expected(self):
    """All planned cells: those without a row are shown as missing."""
    config = self._plan.evaluation
    dims = {}  # where each solver has cells
    for run in self._plan.runs:
      for name in contenders.network_names(run.solver, run.model):
        dims.setdefault(name, set()).update(run.tasks.dims)
    for name in mixture_base.classical_names(self._config):
      dims[name] = set(config.dims)
    metrics = METRICS
    if config.tasks.covariance_type != "unit":
      metrics += ("scale_error",)
    return [
      (name, mixture_evaluation.setting_of(law), num_components, metric)
      for name, served in dims.items()
      for law in config.laws()
      if law.dim in served
      for num_components in mixture_evaluation.counts_of(law)
      for metric in metrics
    ]


def draw_tables(rows):
  """Captions, names and figures of the settings that a table has."""
  kept = [row for row in rows if row.solver != mixture_evaluation.TASKS]
  # All of them, where every task of the table is shifted.
  plain = [row for row in kept if row.shift == 0] or kept
  sizes = sorted({row.num_points for row in plain})
  # The paper's N, or the largest there is.
  usual = 128 if 128 in sizes else sizes[-1]
  base_rows = [row for row in plain if row.num_points == usual]
  caption = "Error of the means against the number of components"
  if len(sizes) > 1:
    caption += f", N = {usual}"
  yield caption, ("error", cell_figures.error_against_components(base_rows))
  if len(sizes) > 1:
    figure = cell_figures.error_against(
      plain, "num_points", label="N", is_log_x=True
    )
    yield "Error of the means against N", ("num_points", figure)
  kinds = sorted({row.shift_kind for row in kept if row.shift})
  for kind in kinds:
    here = [row for row in kept if row.shift_kind == kind or not row.shift]
    figure = cell_figures.error_against(
      here, "shift", label=f"shift of {kind}", title=shifts.KINDS[kind]
    )
    yield f"Error of the means, shift of {kind}", (f"shift_{kind}", figure)
  released = [row for row in base_rows if row.metric == "l2_error_released"]
  if released and not kinds and len(sizes) == 1:
    yield (
      "The same under the published evaluation's alignment",
      ("alignment", cell_figures.alignment_contrast(base_rows)),
    )
    yield "The finding", ("front", cell_figures.front_picture(base_rows))
