"""What experiments that train have in common: runs, each in its own folder.

The work folder holds one folder for each training; elements of a job array
share nothing but files. What a run's parameters are scored by, and what the
report shows, is up to the experiment.
"""

import abc
import contextlib
import json
import pathlib
from typing import Any, Protocol

import jax
import ml_collections
import numpy as np
from absl import logging

from experiments import base, progress
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

PARAMETERS = "parameters.json"
VERSIONS = "versions.json"
# A training that would take longer than this on a CPU is likely a mistake.
_LONG_HOURS = 2.0


class Run(Protocol):
  """One training: its folder's name, how it is trained, tasks in a batch."""

  name: str
  train: train_step.TrainConfig
  batch_size: int


class Trainings(abc.ABC):
  """Trainings in one work folder, then what a subclass makes of them."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    runs: tuple[Run, ...],
  ):
    """Touches neither disk nor devices' memory.

    Args:
      config: to be run, already checked.
      workdir: its folder.
      runs: the trainings of the config.

    Raises:
      ValueError: more devices are wanted than there are, or as many as do
        not divide a batch.
    """
    self._config = config
    self._runs = runs
    self._mesh = base.named("config", sharding.make_mesh, config.num_devices)
    for run in runs:
      base.named(
        f"config.runs.{run.name}",
        sharding.check_divisible,
        run.batch_size,
        self._mesh,
      )
    self._workdir = pathlib.Path(workdir)
    self._identity = base.identity(config)

  @abc.abstractmethod
  def _learner(self, run: Run) -> learner_lib.Learner:
    """What a run trains."""

  @abc.abstractmethod
  def _evaluate_run(
    self, run: Run, params: Any, folder: pathlib.Path, stop: Any
  ) -> None:
    """Scores trained parameters and writes rows to the run's folder."""

  @abc.abstractmethod
  def _report(self) -> None:
    """Joins what the runs wrote and shows it."""

  def _evaluate_rest(self, stop: interrupts.StopRequest) -> None:
    """Scores what nobody trains; by default there is no such thing."""
    del stop

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
      # The report is one process's.
      is_whole = mode == "report" or (mode != "train" and not self._config.only)
      if is_whole and not jax.process_index():
        self._report()

  def _check_sources(self, mode):
    """Raises, before a folder is made, where what is to be read is not there.

    That is a network's data and, for some modes, its checkpoint.

    A checkpoint must also be of the network that the config describes.
    """
    if mode == "report" and not self._workdir.is_dir():
      raise ValueError(
        f"--workdir is {str(self._workdir)!r}, takes the folder of a run for"
        " --mode=report"
      )
    for run in self._runs if mode != "report" else ():
      if self._config.only in ("", run.name):
        self._learner(run)  # reads its data, if it has any
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
    for run in self._runs:
      own = self._workdir / run.name / run_folder.CHECKPOINTS
      is_read = mode == "evaluate" or not own.exists()
      if is_read and self._config.only in ("", run.name):
        self._read_params(parent, run)

  def _read_params(self, parent, run):
    """Parameters of the newest checkpoint of a training."""
    abstract = train_step.abstract_state(self._learner(run), run.train)
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
      if mode != "train":
        self._evaluate_rest(stop)

  def _do_run(self, run, folder, mode, stop):
    if mode == "evaluate":
      params = self._read_params(self._workdir, run)
    else:
      params = self._train(run, folder, stop)
    if mode != "train":
      # Params may be spread over a mesh; evaluation is for one device.
      self._evaluate_run(run, jax.device_get(params), folder, stop)

  def _train(self, run, folder, stop):
    restore_dir = self._config.restore_dir
    with progress.Progress() as shown:
      params = loop.run(
        folder,
        self._learner(run),
        run.train,
        self._mesh,
        identity=self._identity,
        stop=stop,
        restore_dir=restore_dir and pathlib.Path(restore_dir) / run.name,
        max_to_keep=self._config.max_to_keep,
        on_progress=_Reporter(run.name, shown),
      )
    table = folder / PARAMETERS
    if not table.exists() and jax.process_index() == 0:
      files.write_json(table, parameters.count(params)._asdict())
    return params

  def _read_curves(self):
    """What was logged during the trainings, by run."""
    paths = {
      run.name: self._workdir / run.name / run_folder.METRICS
      for run in self._runs
    }
    return {
      name: metric_writer.read_metrics(path)
      for name, path in paths.items()
      if path.exists()
    }

  def _about_trainings(self):
    """What reports say of the runs, as arguments of `report.write_html`."""
    folders = {run.name: self._workdir / run.name for run in self._runs}
    return {
      "config": self._identity,
      "versions": read_json(self._workdir / VERSIONS),
      "parameters": {
        name: read_json(folder / PARAMETERS) for name, folder in folders.items()
      },
      "training": {run.name: self._training(run) for run in self._runs},
    }

  def _training(self, run):
    folder = self._workdir / run.name
    path = folder / run_folder.METRICS
    if not path.exists():
      return "missing"
    scalars = metric_writer.read_metrics(path)
    said = {
      "steps": f"{scalars['step'][-1]:,} of {run.train.num_steps:,}",
      "loss of the last call": f"{scalars['loss'][-1]:.4g}",
      "skipped updates": int(scalars["num_skipped"][-1]),
    }
    timing = folder / run_folder.TIMING
    if timing.exists():
      speeds = metric_writer.read_metrics(timing)["steps_per_second"]
      speed = float(np.median(speeds))
      said["steps per second, median"] = f"{speed:.3g}"
      said["time of all steps"] = progress.format_time_left(
        run.train.num_steps, speed
      )
    return said


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """What a JSON file holds; nothing if there is none."""
  return json.loads(path.read_text()) if path.exists() else {}


def is_evaluated(
  table: pathlib.Path, path: pathlib.Path, settings: dict[str, Any]
) -> bool:
  """Whether a table is there and is of these settings, kept in `path`."""
  is_there = path.exists() and table.exists()
  return is_there and read_json(path) == json.loads(json.dumps(settings))


class _Reporter:
  """Passes progress on; warns once where a CPU would take hours."""

  def __init__(self, name, shown):
    self._name = name
    self._shown = shown
    self._is_first = True

  def __call__(self, update: loop.Progress) -> None:
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
