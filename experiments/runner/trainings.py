"""Experiments that train: runs in folders of their own, then their scores.

The work folder holds one folder for each training, and one for what nobody
trains; elements of a job array share nothing but files. What is trained, how
it is scored and what the page shows is up to the kind of experiment.
"""

import functools
import math
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import ml_collections
import numpy as np
from absl import logging

from experiments.runner import derived, fields, modes, pages, parts, progress
from tgmm_jax.evaluation import results
from tgmm_jax.figures import cells as cell_figures
from tgmm_jax.models import parameters
from tgmm_jax.training import (
  checkpoints,
  files,
  hosts,
  loop,
  metric_writer,
  run_folder,
  sharding,
  tree_digest,
)
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import learner as learner_lib

# Fields of a run that its parameters do not follow from.
_NOT_TRAINED_BY = ("checkpoint_every", "steps_per_call", "solver")

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
  measure: Callable[[Any, Any, OnContender], parts.Rows]
  draw: Callable[[parts.Rows], pages.Figures]
  measure_rest: Callable[[OnContender], parts.Rows] | None = None
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
    fields.named("config", sharding.check_all_take_part, self._mesh)
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
    modes.run(
      mode,
      self._workdir,
      self._config,
      self._identity,
      work=functools.partial(self._do_runs, mode),
      report=self._report,
    )

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
      run_folder.check_local(self._config.restore_dir, "config.restore_dir")
      parent = pathlib.Path(self._config.restore_dir)
      if not parent.is_dir():
        raise ValueError(
          f"config.restore_dir is {str(parent)!r}, takes the folder of an"
          " earlier run"
        )
    else:
      return
    for run in self._runs:
      is_read = mode == "evaluate" or not self._newest(run.name)
      if is_read and self._config.only in ("", run.name):
        restored = self._restore(parent, run)
        if mode != "evaluate":
          self._check_restored(restored, run)

  def _check_restored(self, restored, run):
    """Raises where the scores would be those of a training that is not ours."""
    num_steps, step = run.train.num_steps, restored.step
    said = f"config.restore_dir holds step {step:,} of {run.name}"
    if step > num_steps:
      raise ValueError(
        f"{said}, takes at most config.runs.{run.name}.num_steps ="
        f" {num_steps:,}, which counts those steps too"
      )
    if step < num_steps:
      return
    difference = {
      key: values
      for key, values in run_folder.config_difference(
        restored.config, self._identity
      ).items()
      if key.startswith((f"runs.{run.name}.", "tasks.", "seed"))
      and not key.endswith(_NOT_TRAINED_BY)
    }
    if difference:
      raise ValueError(
        f"{said}, so that no step is left, trained otherwise:"
        f" {run_folder.format_difference(difference)}; takes more num_steps"
      )

  def _restore(self, parent, run):
    """Parameters of the newest checkpoint of a training, and their step."""
    learner = self._kind.learner_of(run)
    abstract = train_step.abstract_state(learner, run.train)
    return checkpoints.restore(
      parent / run.name / run_folder.CHECKPOINTS,
      abstract.params,
      subtree="params",
      config=self._identity,
    )

  def _do_runs(self, mode, stop):
    for run in self._runs:
      if self._config.only in ("", run.name):
        folder = self._workdir / run.name
        with run_folder.lock(folder):
          self._do_run(run, folder, mode, stop)
    is_rest = self._config.only in ("", fields.BASELINES)
    if mode != "train" and is_rest and self._kind.measure_rest:
      folder = self._workdir / fields.BASELINES
      with run_folder.lock(folder):
        made_of = self._made_of(fields.BASELINES)
        self._evaluate(folder, self._kind.measure_rest, made_of, stop)

  def _do_run(self, run, folder, mode, stop):
    if mode == "evaluate":
      params, step, _ = self._restore(self._workdir, run)
    else:
      params, step = self._train(run, folder, stop), run.train.num_steps
    if mode != "train":
      made_of = self._made_of(run.name, (step, tree_digest.of_tree(params)))
      # Params may be spread over a mesh; evaluation is for one device.
      params = sharding.to_host(params)

      def measure(on_contender):
        return self._kind.measure(run, params, on_contender)

      self._evaluate(folder, measure, made_of, stop)

  def _made_of(self, name, trained=None):
    """What the scores of a part follow from.

    Args:
      name: of the part.
      trained: step and digest of the parameters, of a training.
    """
    settings = fields.settings(self._config)
    if name == fields.BASELINES:
      settings["sources"] = dict(self._kind.sources)
    made_of = {"settings": settings, "code": derived.code()}
    if trained is None:
      return made_of
    step, digest = trained
    return {"step": step, "params": digest, **made_of}

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
        save_interval=60 * self._config.start.save_minutes or math.inf,
        on_progress=progress.Reporter(run.name, shown),
      )
    table = folder / run_folder.PARAMETERS
    if hosts.is_first() and not table.exists():
      files.write_json(table, parameters.count(params)._asdict())
    return params

  def _evaluate(self, folder, measure, made_of, stop):
    """Scores into a folder, where it has not these very scores.

    The contenders are dealt out to the processes; the first one writes.
    """
    is_measured = hosts.is_first() and parts.is_measured(folder, made_of)
    if hosts.gather(is_measured)[0]:
      return

    def on_contender(place, name):
      logging.info("evaluating %s at %s", name, place)

    with stop.at_once(f"the evaluation of {folder.name}"):
      rows = measure(on_contender)
    if hosts.is_first():
      parts.keep_rows(folder, rows, self._kind.row_type, made_of)

  def _report(self):
    """Joins the tables of the folders, draws them and writes the page."""
    found = parts.find_parts(self._workdir, self._parts_now())
    folders = {run.name: self._workdir / run.name for run in self._runs}
    made_of = pages.page_made_of(
      self._workdir,
      self._identity,
      found,
      [
        folder / name
        for folder in folders.values()
        for name in (
          run_folder.METRICS,
          run_folder.TIMING,
          run_folder.PARAMETERS,
        )
      ],
      code=derived.code(is_shown=True),
    )
    if pages.is_written(self._workdir, made_of):
      return
    tables = [path for paths in found.tables.values() for path in paths]
    rows = results.join(tables, self._kind.row_type)
    drawn = dict(self._kind.draw(rows)) if rows else {}
    logged = self._read_metrics()
    if logged:
      figure = cell_figures.learning_curves(logged)
      drawn["Training"] = ("learning_curves", figure)
    pages.write(
      self._workdir,
      self._config,
      rows,
      drawn,
      made_of=made_of,
      tables={"Missing": found.lacking},
      expected=self._kind.expected,
      parameters={
        own: files.read_json(folder / run_folder.PARAMETERS)
        for own, folder in folders.items()
      },
      training={run.name: self._training(run) for run in self._runs},
    )

  def _newest(self, name):
    """Step and digest of the parameters in a training's newest checkpoint."""
    folder = self._workdir / name / run_folder.CHECKPOINTS
    return checkpoints.newest(folder, "params")

  def _parts_now(self):
    """By part what its scores would follow from if it were measured now."""
    return {
      # Where there is no checkpoint, nothing is known of parameters.
      name: self._made_of(
        name,
        self._newest(name),
      )
      for name in self.only_names
    }

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
      newest = self._newest(run.name)
      return f"restored at step {newest[0]:,}" if newest else "missing"
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
