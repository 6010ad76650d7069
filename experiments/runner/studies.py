"""Experiments that train nothing: studies, each with a table and a figure.

The work folder holds a folder for each study with the rows that it measured,
so that elements of a job array share nothing but files; the report joins what
is there.
"""

import inspect
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import ml_collections
from absl import logging
from matplotlib import figure as mpl_figure

from experiments.runner import derived, fields, modes, pages, parts, progress
from tgmm_jax.training import hosts, run_folder

# `on_step(done, total)`, after each part of the work.
OnStep = Callable[[int, int], None]


class Study(NamedTuple):
  """One question: how it is measured and how it is shown.

  Attributes:
    title: caption of its figure, or heading of its table.
    measure: `(settings, seed, on_step) -> rows`, curves or solvers in cells.
    draw: `rows -> Figure`, or None for no figure.
    tabulate: `rows -> {line: {column: value}}`, or None for no table.
  """

  title: str
  measure: Callable[[ml_collections.ConfigDict, int, OnStep], parts.Rows]
  draw: Callable[[parts.Rows], mpl_figure.Figure] | None = None
  tabulate: (
    Callable[[parts.Rows], Mapping[str, Mapping[str, object]]] | None
  ) = None


def get_config() -> ml_collections.ConfigDict:
  """The fields that all such experiments have; `studies` is still empty."""
  config = ml_collections.ConfigDict()
  config.title = ""  # of the report
  config.question = ""  # one paragraph, shown in the report
  config.variant = ""  # "", "quick", "smoke"
  config.seed = 0  # of all problems
  config.only = ""  # name of the one study to do; "" does all
  config.start = fields.start_config()
  config.studies = ml_collections.ConfigDict()  # name -> its settings
  return config


def sweep(config: ml_collections.ConfigDict) -> list[dict[str, str]]:
  """One element of a job array for each study."""
  return [{"only": name} for name in config.studies]


def experiment_of(
  studies: Mapping[str, Study]
  | Callable[[ml_collections.ConfigDict], Mapping[str, Study]],
  get_config: Callable[[str], ml_collections.ConfigDict],
) -> Callable[..., "StudyExperiment"]:
  """`experiment(config, workdir)` of a question that trains nothing.

  Args:
    studies: by the name of their settings in the config, or a function from
      the config to these.
    get_config: of the question's file.
  """

  def experiment(config, workdir):
    found = studies(config) if callable(studies) else studies
    return StudyExperiment(
      config,
      workdir,
      studies=found,
      template=get_config(config.variant),
      question=inspect.getfile(get_config),
    )

  return experiment


class StudyExperiment:
  """Studies in one work folder."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    studies: Mapping[str, Study],
    template: ml_collections.ConfigDict,
    question: str,
  ):
    """Checks the config whole; touches no disk.

    Args:
      config: to be run.
      workdir: its folder.
      studies: by the name of their settings in the config.
      template: the config as its file makes it, for the types of its values.
      question: path of that file: of its code the rows are.

    Raises:
      ValueError: a value is of another type, or `only` is no study.
    """
    fields.check_types("config", config, template)
    if config.only and config.only not in studies:
      raise ValueError(
        f"config.only is {config.only!r}, takes '' or one of {list(studies)}"
      )
    self._config = config
    self._studies = studies
    self._workdir = pathlib.Path(workdir)
    self._question = question
    self._identity = fields.identity(config)

  def run(self, mode: str) -> None:
    """Does what a mode says; the folder is locked meanwhile."""
    if mode == "report":
      fields.check_workdir(self._workdir)
    if mode == "train":
      return  # nothing is trained
    modes.run(
      mode,
      self._workdir,
      self._config,
      self._identity,
      work=self._measure_all,
      report=self._report,
    )

  def _measure_all(self, stop):
    """Each study by one process."""
    wanted = [own for own in self._studies if self._config.only in ("", own)]
    for name in hosts.my_share(wanted):
      folder = self._workdir / name
      with run_folder.lock(folder):
        self._measure(name, self._studies[name], folder, stop)

  def _measure(self, name, study, folder, stop):
    made_of = self._made_of(name)
    if parts.is_measured(folder, made_of):
      logging.info("%s is measured", name)
      return
    start = logged_at = time.monotonic()

    def on_step(done, total):
      nonlocal logged_at
      now = time.monotonic()
      if done < total and now - logged_at < progress.LOG_INTERVAL:
        return
      logged_at = now
      speed = done / max(now - start, 1e-9)
      left = progress.format_time_left(total - done, speed)
      logging.info("%s: %d of %d, %s left", name, done, total, left)

    settings = self._config.studies[name]
    with stop.at_once(name):
      rows = study.measure(settings, self._config.seed, on_step)
    parts.keep_rows(folder, rows, type(rows[0]), made_of)

  def _made_of(self, name):
    """What a study's rows follow from."""
    settings = {"seed": self._config.seed, **self._identity["studies"][name]}
    return {"settings": settings, "code": derived.code(self._question)}

  def _report(self):
    """Joins the tables, draws the figures and writes the page."""
    found = parts.find_parts(
      self._workdir, {name: self._made_of(name) for name in self._studies}
    )
    made_of = pages.page_made_of(
      self._workdir,
      self._identity,
      found,
      code=derived.code(self._question, is_shown=True),
    )
    if pages.is_written(self._workdir, made_of):
      return
    measured = {
      name: [row for path in paths for row in parts.read_rows(path)]
      for name, paths in found.tables.items()
    }
    joined = [row for rows in measured.values() for row in rows]
    figures, tables = {}, {}
    for name, study in self._studies.items():
      if not measured[name]:
        tables[f"{study.title}: missing"] = {name: found.lacking[name]}
        continue
      if study.draw is not None:
        figures[study.title] = (name, study.draw(measured[name]))
      if study.tabulate is not None:
        tables[study.title] = study.tabulate(measured[name])
    pages.write(
      self._workdir,
      self._config,
      joined,
      figures,
      made_of=made_of,
      tables=tables,
      # What is drawn or tabulated needs no table of its curves.
      has_curve_tables=False,
    )
