"""Experiments scored by curves: what is measured, when, and what is shown."""

import dataclasses
import os
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import pca_eigenvalues
from experiments.runner import derived, trainings
from experiments.spectra import config as spectrum_config
from tgmm_jax.evaluation import results
from tgmm_jax.figures import curves as curve_figures
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import learner as learner_lib

METRIC = "error"


class Run(NamedTuple):
  name: str
  train: train_step.TrainConfig
  batch_size: int = 2


def slope(run):
  """One number, which is to become the mean of standard normal ones."""
  del run
  return learner_lib.Learner(
    init=lambda key: {"slope": jax.random.normal(key, ())},
    sample=lambda key, data: jax.random.normal(key, (2,)),
    loss=lambda params, batch: (jnp.mean((params["slope"] - batch) ** 2), {}),
    batch_size=2,
  )


def make(workdir, measured, **changes):
  """An experiment of two such trainings, which notes what it measures."""
  config = pca_eigenvalues.get_config("smoke")
  for name in set(config.runs) - {"dim5", "top3"}:
    del config.runs[name]
  config.update(changes)
  (train, *_) = (run.train for run in spectrum_config.make_runs(config))

  def measure(run, params, on_contender):
    on_contender(run.name, "network")
    measured.append(run.name)
    values = np.array([1.0, 3.0]) + np.asarray(params["slope"])
    return [results.mean_point(run.name, METRIC, "network", 2, values)]

  def draw(rows):
    panels = [
      curve_figures.Panel(row.study, METRIC, "", "", "") for row in rows
    ]
    return {"Of each <run>": ("by_run", curve_figures.draw(rows, panels))}

  kind = trainings.Kind(
    results.CurveRow, learner_of=slope, measure=measure, draw=draw
  )
  runs = [Run(name, train) for name in ("dim5", "top3")]
  return trainings.TrainingExperiment(config, workdir, runs, kind)


@pytest.mark.slow
def test_each_run_is_measured_once_and_again_where_settings_change(
  tmp_path, capsys
):
  workdir, measured = tmp_path / "run", []
  # One training alone says nothing of the others and makes no page.
  make(workdir, measured, only="top3").run("train_and_evaluate")
  assert measured == ["top3"]
  assert not (workdir / "report.html").exists()
  make(workdir, measured).run("report")
  page = (workdir / "report.html").read_text()
  assert "not measured yet" in page
  assert "Of each &lt;run&gt;" in page

  make(workdir, measured).run("train_and_evaluate")
  assert measured == ["top3", "dim5"]
  rows = results.read_csv(workdir / "curves.csv", results.CurveRow)
  assert [row.study for row in rows] == ["dim5", "top3"]
  for row in rows:
    assert row.standard_error == pytest.approx(1.0)
    assert (row.count, row.failures) == (2, 0)
  page = (workdir / "report.html").read_text()
  assert "not measured yet" not in page
  shown = capsys.readouterr().out
  assert "dim5: error" in shown
  assert f"{rows[0].value:.4g}" in shown
  drawn = {path.stem for path in (workdir / "figures").glob("*.png")}
  assert drawn == {"by_run", "learning_curves"}

  before = (workdir / "curves.csv").read_bytes()
  make(workdir, measured).run("train_and_evaluate")
  assert measured == ["top3", "dim5"]
  assert (workdir / "curves.csv").read_bytes() == before
  other = {"evaluation": {"num_instances": 64}}
  make(workdir, measured, **other).run("evaluate")
  assert measured == ["top3", "dim5", "dim5", "top3"]
  # The same parameters: they were read, and not trained again.
  assert (workdir / "curves.csv").read_bytes() == before


def step_back(folder):
  """Takes a training back to the checkpoint before its last."""
  steps = sorted(int(path.name) for path in folder.iterdir())
  shutil.rmtree(folder / str(steps[-1]))
  return steps[-2]


@pytest.mark.slow
def test_rows_and_page_are_those_of_the_parameters(tmp_path, caplog):
  caplog.set_level("INFO", logger="absl")
  workdir, measured = tmp_path / "run", []
  table, page = workdir / "curves.csv", workdir / "report.html"
  make(workdir, measured).run("train_and_evaluate")
  finished = table.read_bytes(), page.read_bytes()
  step = step_back(workdir / "dim5" / "checkpoints")
  # A report measures nothing, but says that there is something else.
  make(workdir, measured).run("report")
  assert f"there and {step} here" in page.read_text()
  assert table.read_bytes() == finished[0]

  make(workdir, measured).run("evaluate")
  assert measured == ["dim5", "top3", "dim5"]
  (line,) = (text for text in caplog.messages if "measured again" in text)
  assert f"there and {step} here" in line
  assert table.read_bytes() != finished[0]
  assert "since then" not in page.read_text()

  # Whoever was here last has a clock that goes ahead.
  os.utime(page, (2**32, 2**32))
  make(workdir, measured).run("train_and_evaluate")
  assert measured == ["dim5", "top3", "dim5", "dim5"]
  assert table.read_bytes() == finished[0]
  # Of the first training there are timings of its own.
  assert "since then" not in page.read_text()

  shown = page.read_bytes()
  page.write_bytes(b"another")
  make(workdir, measured).run("report")
  assert page.read_bytes() == shown


@pytest.mark.slow
def test_rows_of_other_settings_or_other_code_are_not_joined(
  tmp_path, monkeypatch
):
  workdir, measured = tmp_path / "run", []
  other = {"evaluation": {"num_instances": 64}}
  make(workdir, measured).run("train_and_evaluate")
  before = (workdir / "report.html").read_bytes()
  with pytest.raises(ValueError, match="num_instances is .* there and 64 here"):
    make(workdir, measured, **other).run("report")
  assert (workdir / "report.html").read_bytes() == before

  make(workdir, measured, only="top3", **other).run("evaluate")
  make(workdir, measured).run("report")
  assert measured == ["dim5", "top3", "top3"]
  rows = results.read_csv(workdir / "curves.csv", results.CurveRow)
  assert [row.study for row in rows] == ["dim5"]
  page = (workdir / "report.html").read_text()
  assert "num_instances is 64 there" in page
  assert "--mode=evaluate measures it again" in page

  monkeypatch.setattr(derived, "code", lambda *names, is_shown=False: "new")
  make(workdir, measured).run("evaluate")
  assert measured == ["dim5", "top3", "top3", "dim5", "top3"]


@pytest.mark.slow
def test_what_is_restored_is_not_taken_for_trained_here(tmp_path):
  source, measured = tmp_path / "source", []
  make(source, measured).run("train")
  goes_on = {"restore_dir": str(source)}
  # The same training: there is nothing left to do but to score it.
  make(tmp_path / "same", measured, **goes_on).run("train_and_evaluate")
  assert measured == ["dim5", "top3"]
  assert "restored at step" in (tmp_path / "same" / "report.html").read_text()
  with pytest.raises(ValueError, match="trained otherwise: seed is 0 there"):
    make(tmp_path / "new", measured, seed=1, **goes_on).run("train")
  shorter = make(tmp_path / "new", measured, **goes_on)
  shorter._runs = tuple(
    run._replace(train=dataclasses.replace(run.train, num_steps=10))
    for run in shorter._runs
  )
  with pytest.raises(
    ValueError, match="restore_dir holds step 20 of dim5, takes at most"
  ):
    shorter.run("train_and_evaluate")
  assert not (tmp_path / "new").exists()


def test_report_of_a_folder_that_is_not_there(tmp_path):
  with pytest.raises(ValueError, match="takes the folder of a run for --mode"):
    make(tmp_path / "nothing", []).run("report")
  assert not list(tmp_path.iterdir())
