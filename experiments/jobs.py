"""What a mode of `experiments.main` does, run by run.

The work folder holds one folder for each training and one for the baselines;
each keeps its own `results.csv`, so that job arrays share nothing but files.
The report joins what is there.
"""

import contextlib
import json
import pathlib

import jax
import numpy as np
import rich.console
from absl import logging

from experiments import base, progress
from tgmm_jax import (
  checkpoints,
  evaluate,
  figure_style,
  figures,
  interrupts,
  metric_writer,
  report,
  results,
  run_folder,
  sharding,
  solver_groups,
  train,
  train_step,
)
from tgmm_jax.models import factory, parameters
from tgmm_jax.tasks import shifts

RESULTS = "results.csv"
PARAMETERS = "parameters.json"
SETTINGS = "evaluation.json"
VERSIONS = "versions.json"
METRICS = (
  "l2_error",
  "l2_error_released",
  "weight_error",
  "accuracy",
  "log_likelihood",
  "log_likelihood_fresh",
)
# A training that would take longer than this on a CPU is likely a mistake.
_LONG_HOURS = 2.0


class Experiment:
  """One experiment in one work folder."""

  def __init__(self, config, workdir, *, draw_more=lambda config, rows: {}):
    """Checks the config whole; touches neither disk nor devices' memory.

    Args:
      config: to be run.
      workdir: its folder.
      draw_more: `(config, rows) -> {caption: (name, Figure)}`, figures that
        this experiment alone has.
    """
    self._config = config
    self._draw_more = draw_more
    self._plan = base.make_plan(config)
    self._mesh = base.named("config", sharding.make_mesh, config.num_devices)
    for run in self._plan.runs:
      base.named(
        f"config.runs.{run.name}",
        sharding.check_divisible,
        sum(run.train.batch_sizes),
        self._mesh,
      )
    self._workdir = pathlib.Path(workdir)
    self._identity = base.identity(config)

  def run(self, mode: str) -> None:
    """Does what a mode says; the folder is locked meanwhile."""
    self._check_sources(mode)
    with contextlib.ExitStack() as stack:
      if not self._config.only:
        stack.enter_context(run_folder.lock(self._workdir))
      run_folder.check_identity(
        self._workdir, self._identity, free_keys=base.FREE_KEYS
      )
      if mode != "report":
        if not (self._workdir / VERSIONS).exists():
          run_folder.write_versions(self._workdir)
        self._do_runs(mode)
      if mode == "report" or (mode != "train" and not self._config.only):
        self._report()

  def _check_sources(self, mode):
    """Raises, before a folder is made, where what is to be read is not there.

    A checkpoint must also be of the network that the config describes.
    """
    if mode == "report" and not self._workdir.is_dir():
      raise ValueError(
        f"--workdir is {str(self._workdir)!r}, takes the folder of a run for"
        " --mode=report"
      )
    if mode == "evaluate":
      parent = self._workdir
    elif mode != "report" and self._config.restore_dir:
      parent = pathlib.Path(self._config.restore_dir)
      if not parent.is_dir():
        raise ValueError(
          f"config.restore_dir is {str(parent)!r}, takes the folder of an"
          " earlier run"
        )
    else:
      return
    for run in self._plan.runs:
      own = self._workdir / run.name / train.CHECKPOINTS
      is_read = mode == "evaluate" or not own.exists()
      if is_read and self._config.only in ("", run.name):
        self._read_params(parent, run, factory.build(run.model))

  def _read_params(self, parent, run, model):
    """Parameters of the newest checkpoint of a training."""
    abstract = train_step.abstract_state(model, run.train).params
    return checkpoints.restore(
      parent / run.name / train.CHECKPOINTS,
      abstract,
      subtree="params",
      config=self._identity,
    ).state

  def _do_runs(self, mode):
    only = self._config.only
    with interrupts.StopRequest() as stop:
      for run in self._plan.runs:
        if only in ("", run.name):
          folder = self._workdir / run.name
          with run_folder.lock(folder):
            self._do_run(run, folder, mode, stop)
      if mode == "train" or only not in ("", base.BASELINES):
        return
      groups = self._classical()
      if groups:
        folder = self._workdir / base.BASELINES
        with run_folder.lock(folder):
          dims = self._plan.evaluation.dims
          self._evaluate(folder, groups, dims, stop, with_range=True)

  def _classical(self):
    """The solvers of the table that nobody trains, by group."""
    config, groups = self._plan.evaluation, {}
    if self._config.evaluation.with_baselines:
      groups |= solver_groups.baselines(config.tasks.covariance_type)
    if self._config.evaluation.with_constructed:
      groups |= solver_groups.constructed(
        max(config.dims), config.tasks.padded_components
      )
    return groups

  def _do_run(self, run, folder, mode, stop):
    model = factory.build(run.model)
    if mode == "evaluate":
      params = self._read_params(self._workdir, run, model)
    else:
      with progress.Progress() as shown:
        params = train.run(
          folder,
          model,
          run.train,
          self._mesh,
          identity=self._identity,
          stop=stop,
          restore_dir=self._restore_dir(run),
          max_to_keep=self._config.max_to_keep,
          on_progress=_Reporter(run.name, shown),
        )
      table = folder / PARAMETERS
      if not table.exists() and jax.process_index() == 0:
        run_folder.write_json(table, parameters.count(params)._asdict())
    if mode != "train":
      dims = [d for d in self._plan.evaluation.dims if d in _dims(run)]
      # Params may be spread over a mesh; evaluation is for one device.
      group = solver_groups.network(run.solver, model, jax.device_get(params))
      self._evaluate(folder, {run.solver: group}, dims, stop)

  def _restore_dir(self, run):
    if not self._config.restore_dir:
      return ""
    return pathlib.Path(self._config.restore_dir) / run.name

  def _evaluate(self, folder, groups, dims, stop, *, with_range=False):
    """Scores solvers in the cells with these dimensions, once."""
    settings = self._identity["evaluation"]
    if _is_evaluated(folder, settings) or not dims or jax.process_index():
      return

    def on_group(name):
      # Under `jax.distributed` all processes must ask; only this one is here.
      if jax.process_count() == 1 and stop.is_requested():
        raise train.StoppedError("stopped by a signal during the evaluation")
      label = figure_style.setting_label(evaluate.setting_of(law), cells)
      logging.info("evaluating %s at %s", name, label)

    rows = []
    config = self._plan.evaluation
    cells = [evaluate.setting_of(law) for law in config.laws()]
    for law in config.laws():
      if law.dim in dims:
        rows += evaluate.evaluate(
          groups,
          law,
          config.num_tasks,
          config.seed,
          max_points=config.padded_points(law.max_points),
          on_group=on_group,
        )
        if with_range:
          rows += evaluate.range_rows(
            config.tasks, law, config.num_tasks, config.seed
          )
    results.write_csv(folder / RESULTS, rows)
    run_folder.write_json(folder / SETTINGS, settings)

  def _report(self):
    """Joins the runs' tables into one, draws it and writes the page."""
    if jax.process_index():
      return
    runs = {run.name: run for run in self._plan.runs}
    folders = [self._workdir / name for name in (*runs, base.BASELINES)]
    tables = [path for path in (f / RESULTS for f in folders) if path.exists()]
    newest = max((path.stat().st_mtime_ns for path in tables), default=0)
    page = self._workdir / "report.html"
    if page.exists() and page.stat().st_mtime_ns > newest:
      logging.info("%s is up to date", page)
      return
    rows = results.join(tables)
    results.write_csv(self._workdir / RESULTS, rows)
    curves = {
      name: metric_writer.read_metrics(path)
      for name in runs
      if (path := self._workdir / name / metric_writer.METRICS_FILE).exists()
    }
    report.write_html(
      page,
      title=self._config.title,
      question=self._config.question,
      rows=rows,
      figures=self._draw(rows, curves),
      config=self._identity,
      versions=_read_json(self._workdir / VERSIONS),
      parameters={
        name: _read_json(self._workdir / name / PARAMETERS) for name in runs
      },
      expected=self._expected(),
      training={name: self._training(run) for name, run in runs.items()},
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
      drawn["Training"] = ("learning_curves", figures.learning_curves(curves))
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
      for name in solver_groups.network_names(run.solver, run.model):
        dims.setdefault(name, set()).update(_dims(run))
    for name in base.classical_names(self._config):
      dims[name] = set(config.dims)
    metrics = METRICS
    if config.tasks.covariance_type == "diag":
      metrics += ("scale_error",)
    return [
      (name, evaluate.setting_of(law), num_components, metric)
      for name, served in dims.items()
      for law in config.laws()
      if law.dim in served
      for num_components in evaluate.counts_of(law)
      for metric in metrics
    ]

  def _training(self, run):
    """What the report says of one training."""
    folder = self._workdir / run.name
    path = folder / metric_writer.METRICS_FILE
    if not path.exists():
      return "missing"
    scalars = metric_writer.read_metrics(path)
    said = {
      "steps": f"{scalars['step'][-1]:,} of {run.train.num_steps:,}",
      "loss of the last call": f"{scalars['loss'][-1]:.4g}",
      "skipped updates": int(scalars["num_skipped"][-1]),
    }
    timing = folder / metric_writer.TIMING_FILE
    if timing.exists():
      speeds = metric_writer.read_metrics(timing)["steps_per_second"]
      speed = float(np.median(speeds))
      said["steps per second, median"] = f"{speed:.3g}"
      said["time of all steps"] = progress.format_time_left(
        run.train.num_steps, speed
      )
    return said


class _Reporter:
  """Passes progress on; warns once where a CPU would take hours."""

  def __init__(self, name, shown):
    self._name = name
    self._shown = shown
    self._is_first = True

  def __call__(self, update: train.Progress) -> None:
    self._shown(
      self._name,
      update.step,
      update.num_steps,
      update.scalars,
      update.steps_per_second,
    )
    num_left = update.num_steps - update.step
    hours = num_left / update.steps_per_second / 3600
    is_cpu = jax.default_backend() == "cpu"
    if self._is_first and is_cpu and hours > _LONG_HOURS:
      logging.warning(
        "%s will take %s on this CPU; the config's variant :quick is made for"
        " CPUs and takes minutes",
        self._name,
        progress.format_time_left(num_left, update.steps_per_second),
      )
    self._is_first = False


def _is_evaluated(folder, settings):
  path = folder / SETTINGS
  has_results = path.exists() and (folder / RESULTS).exists()
  return has_results and _read_json(path) == json.loads(json.dumps(settings))


def draw_tables(rows):
  """Captions, names and figures of the settings that a table has."""
  kept = [row for row in rows if row.solver != evaluate.TASKS]
  # All of them, where every task of the table is shifted.
  plain = [row for row in kept if row.shift == 0] or kept
  sizes = sorted({row.num_points for row in plain})
  # The paper's N, or the largest there is.
  usual = 128 if 128 in sizes else sizes[-1]
  base_rows = [row for row in plain if row.num_points == usual]
  caption = "Error of the means against the number of components"
  if len(sizes) > 1:
    caption += f", N = {usual}"
  yield caption, ("error", figures.error_against_components(base_rows))
  if len(sizes) > 1:
    figure = figures.error_against(
      plain, "num_points", label="N", is_log_x=True
    )
    yield "Error of the means against N", ("num_points", figure)
  kinds = sorted({row.shift_kind for row in kept if row.shift})
  for kind in kinds:
    here = [row for row in kept if row.shift_kind == kind or not row.shift]
    figure = figures.error_against(
      here, "shift", label=f"shift of {kind}", title=shifts.KINDS[kind]
    )
    yield f"Error of the means, shift of {kind}", (f"shift_{kind}", figure)
  released = [row for row in base_rows if row.metric == "l2_error_released"]
  if released and not kinds and len(sizes) == 1:
    yield (
      "The same under the published evaluation's alignment",
      ("alignment", figures.alignment_contrast(base_rows)),
    )
    yield "The finding", ("front", figures.front_picture(base_rows))


def _read_json(path):
  return json.loads(path.read_text()) if path.exists() else {}


def _dims(run):
  return [tasks.dim for tasks in run.train.tasks]
