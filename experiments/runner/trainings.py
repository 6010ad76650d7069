"""Experiments that train: runs in folders of their own, then their scores.

The work folder holds one folder for each training, and one for what nobody
trains; elements of a job array share nothing but files. What is trained, how
it is scored and what the page shows is up to the kind of experiment.
"""

import contextlib
import json
import math
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import ml_collections
import numpy as np
from absl import logging

from experiments.runner import fields, pages, progress
from tgmm_jax.evaluation import results
from tgmm_jax.figures import cells as cell_figures
from tgmm_jax.models import parameters
from tgmm_jax.training import (
  checkpoints,
  files,
  interrupts,
  loop,
  metric_writer,
  run_folder,
  sharding,
)
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import learner as learner_lib

# A training that would take longer than this on a CPU is likely a mistake.
_LONG_HOURS = 2.0

# `(place, name)`, before each contender: where it is scored, and who it is.
OnContender = Callable[[str, str], None]


class TrainingRun(Protocol):
  """One training: its folder's name, how it is trained, tasks in a batch."""

  name: str
  train: train_step.TrainConfig
  batch_size: int


class Kind(NamedTuple):
  """What a kind of experiment makes of its trainings.

  Attributes:
    row_type: of the rows, `results.Row` or `results.CurveRow`.
    learner_of: `run -> Learner`, what a run trains; it may read data.
    measure: `(run, params, on_contender) -> rows`, the scores of trained
      parameters.
    draw: `rows -> figures`.
    measure_rest: `on_contender -> rows`, the scores of what nobody trains;
      None where there is no such thing.
    expected: the planned cells; those without a row are shown as missing.
    sources: what else the scores of the rest follow from, as JSON: with other
      sources they are measured anew.
  """

  row_type: type
  learner_of: Callable[[Any], learner_lib.Learner]
  measure: Callable[[Any, Any, OnContender], pages.Rows]
  draw: Callable[[pages.Rows], pages.Figures]
  measure_rest: Callable[[OnContender], pages.Rows] | None = None
  expected: Sequence[results.Cell] = ()
  sources: Mapping[str, Any] = types.MappingProxyType({})


class TrainingExperiment:
  """Trainings in one work folder, and what a kind makes of them."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    runs: Sequence[TrainingRun],
    kind: Kind,
  ):
    """Touches neither disk nor devices' memory.

    Args:
      config: to be run, already checked.
      workdir: its folder.
      runs: the trainings of the config.
      kind: what is made of them.

    Raises:
      ValueError: more devices are wanted than there are, or as many as do
        not divide a batch.
    """
    self._config = config
    self._runs = tuple(runs)
    self._kind = kind
    self._mesh = fields.named("config", sharding.make_mesh, config.num_devices)
    for run in self._runs:
      fields.named(
        f"config.runs.{run.name}",
        sharding.check_divisible,
        run.batch_size,
        self._mesh,
      )
    self._workdir = pathlib.Path(workdir)
    self._identity = fields.identity(config)

  @property
  def only_names(self) -> tuple[str, ...]:
    """What `config.only` may name: the elements of a job array."""
    rest = (fields.BASELINES,) if self._kind.measure_rest else ()
    return (*(run.name for run in self._runs), *rest)

  def run(self, mode: str) -> None:
    """Does what a mode says; the folder is locked meanwhile."""
    self._check_sources(mode)
    with contextlib.ExitStack() as stack:
      if not self._config.only:
        stack.enter_context(run_folder.lock(self._workdir))
      run_folder.check_identity(
        self._workdir, self._identity, free_keys=fields.FREE_KEYS
      )
      if mode != "report":
        run_folder.note_versions(self._workdir)
        if not self._config.only:
          stack.enter_context(run_folder.timed(self._workdir))
        self._do_runs(mode)
      # The report is one process's.
      is_whole = mode == "report" or (mode != "train" and not self._config.only)
      if is_whole and not jax.process_index():
        self._report()

  def _check_sources(self, mode):
    """Raises, before a folder is made, where what is to be read is not there.

    That is a network's data and, for some modes, its checkpoint.

    A checkpoint must also be of the network that the config describes.
    """
    if mode == "report":
      fields.check_workdir(self._workdir)
      return
    for run in self._runs:
      if self._config.only in ("", run.name):
        self._kind.learner_of(run)  # reads its data, if it has any
    if mode == "evaluate":
      parent = self._workdir
    elif self._config.restore_dir:
      parent = pathlib.Path(self._config.restore_dir)
      if not parent.is_dir():
        raise ValueError(
          f"config.restore_dir is {str(parent)!r}, takes the folder of an"
          " earlier run"
        )
    else:
      return
    for run in self._runs:
      own = self._workdir / run.name / run_folder.CHECKPOINTS
      is_read = mode == "evaluate" or not own.exists()
      if is_read and self._config.only in ("", run.name):
        self._read_params(parent, run)

  def _read_params(self, parent, run):
    """Parameters of the newest checkpoint of a training."""
    learner = self._kind.learner_of(run)
    abstract = train_step.abstract_state(learner, run.train)
    return checkpoints.restore(
      parent / run.name / run_folder.CHECKPOINTS,
      abstract.params,
      subtree="params",
      config=self._identity,
    ).state

  def _do_runs(self, mode):
    with interrupts.StopRequest() as stop:
      for run in self._runs:
        if self._config.only in ("", run.name):
          folder = self._workdir / run.name
          with run_folder.lock(folder):
            self._do_run(run, folder, mode, stop)
      is_rest = self._config.only in ("", fields.BASELINES)
      if mode != "train" and is_rest and self._kind.measure_rest:
        folder = self._workdir / fields.BASELINES
        with run_folder.lock(folder):
          self._evaluate(
            folder, self._kind.measure_rest, stop, self._kind.sources
          )

  def _do_run(self, run, folder, mode, stop):
    if mode == "evaluate":
      params = self._read_params(self._workdir, run)
    else:
      params = self._train(run, folder, stop)
    if mode != "train":
      # Params may be spread over a mesh; evaluation is for one device.
      params = jax.device_get(params)

      def measure(on_contender):
        return self._kind.measure(run, params, on_contender)

      self._evaluate(folder, measure, stop)

  def _train(self, run, folder, stop):
    restore_dir = self._config.restore_dir
    with progress.ProgressDisplay() as shown:
      params = loop.run(
        folder,
        self._kind.learner_of(run),
        run.train,
        self._mesh,
        identity=self._identity,
        stop=stop,
        restore_dir=restore_dir and pathlib.Path(restore_dir) / run.name,
        max_to_keep=self._config.max_to_keep,
        on_progress=_Reporter(run.name, shown),
      )
    table = folder / run_folder.PARAMETERS
    if not table.exists() and jax.process_index() == 0:
      files.write_json(table, parameters.count(params)._asdict())
    return params

  def _evaluate(self, folder, measure, stop, sources=None):
    """Scores, once for settings and sources, into a folder."""
    settings = self._identity["evaluation"] | dict(sources or {})
    table = folder / pages.file_of(self._kind.row_type)
    kept = folder / run_folder.SETTINGS
    if is_evaluated(table, kept, settings) or jax.process_index():
      return

    def on_contender(place, name):
      # Under `jax.distributed` all processes must ask; only this one is here.
      if jax.process_count() == 1 and stop.is_requested():
        raise loop.StoppedError("stopped by a signal during the evaluation")
      logging.info("evaluating %s at %s", name, place)

    rows = measure(on_contender)
    if rows:
      results.write_csv(table, rows, self._kind.row_type)
      files.write_json(kept, settings)

  def _report(self):
    """Joins the tables of the folders, draws them and writes the page."""
    name = pages.file_of(self._kind.row_type)
    found = {own: self._workdir / own / name for own in self.only_names}
    parts = [path for path in found.values() if path.exists()]
    newest = max((path.stat().st_mtime_ns for path in parts), default=0)
    page = self._workdir / run_folder.REPORT
    if page.exists() and page.stat().st_mtime_ns > newest:
      logging.info("%s is up to date", page)
      return
    rows = results.join(parts, self._kind.row_type)
    results.write_csv(self._workdir / name, rows, self._kind.row_type)
    drawn = dict(self._kind.draw(rows)) if rows else {}
    logged = self._read_metrics()
    if logged:
      figure = cell_figures.learning_curves(logged)
      drawn["Training"] = ("learning_curves", figure)
    missing = [own for own, path in found.items() if not path.exists()]
    tables = {}
    if missing and not self._kind.expected:
      tables["Missing"] = dict.fromkeys(missing, "not measured yet")
    folders = {run.name: self._workdir / run.name for run in self._runs}
    pages.write(
      self._workdir,
      self._config,
      rows,
      drawn,
      tables=tables,
      expected=self._kind.expected,
      identity=self._identity,
      parameters={
        own: files.read_json(folder / run_folder.PARAMETERS)
        for own, folder in folders.items()
      },
      training={run.name: self._training(run) for run in self._runs},
    )

  def _read_metrics(self):
    """What was logged during the trainings, by run."""
    paths = {
      run.name: self._workdir / run.name / run_folder.METRICS
      for run in self._runs
    }
    found = {
      name: metric_writer.read_metrics(path)
      for name, path in paths.items()
      if path.exists()
    }
    return {name: own for name, own in found.items() if len(own["step"])}

  def _training(self, run):
    """What the page says of a training."""
    folder = self._workdir / run.name
    path = folder / run_folder.METRICS
    if not path.exists():
      return "missing"
    scalars = metric_writer.read_metrics(path, needs=("loss", "num_skipped"))
    if not len(scalars["step"]):
      return "missing"
    said = {
      "steps": f"{scalars['step'][-1]:,} of {run.train.num_steps:,}",
      "loss of the last call": f"{scalars['loss'][-1]:.4g}",
      "skipped updates": int(scalars["num_skipped"][-1]),
    }
    timing = folder / run_folder.TIMING
    if timing.exists():
      name = "steps_per_second"
      speeds = metric_writer.read_metrics(timing, needs=(name,)).get(name, ())
      speed = float(np.median(speeds)) if len(speeds) else math.nan
      said["steps per second, median"] = f"{speed:.3g}"
      said["time of all steps"] = progress.format_time_left(
        run.train.num_steps, speed
      )
    return said


def is_evaluated(
  table: pathlib.Path, path: pathlib.Path, settings: dict[str, Any]
) -> bool:
  """Whether a table is there and is of these settings, kept in `path`."""
  is_there = path.exists() and table.exists()
  return is_there and files.read_json(path) == json.loads(json.dumps(settings))


class _Reporter:
  """Passes progress on; warns once where a CPU would take hours."""

  def __init__(self, name, shown):
    self._name = name
    self._shown = shown
    self._is_first = True

  def __call__(self, update: loop.StepReport) -> None:
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
