"""Experiments scored by curves: what is measured, when, and what is shown."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import pca_eigenvalues
from experiments.runner import trainings
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


def test_report_of_a_folder_that_is_not_there(tmp_path):
  with pytest.raises(ValueError, match="takes the folder of a run for --mode"):
    make(tmp_path / "nothing", []).run("report")
  assert not list(tmp_path.iterdir())
