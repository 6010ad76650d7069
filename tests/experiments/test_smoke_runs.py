"""Experiments from the command to the page, in seconds each."""

import importlib

import pytest

from experiments import mixtures
from tgmm_jax.evaluation import contenders, results
from tgmm_jax.evaluation import mixtures as mixture_evaluation

pytestmark = pytest.mark.slow

FIGURES = {
  "rq2_sample_size": {"error", "num_points", "learning_curves"},
  "rq2_shift": {
    *("error", "learning_curves", "shift_means", "shift_outliers"),
    "shift_stated_components",
  },
  "ablation_num_points": {"error", "num_points", "learning_curves"},
  "ablation_backbone": {
    *("error", "alignment", "front", "learning_curves", "sizes"),
  },
  "metrics_all": {
    *("error", "alignment", "front", "learning_curves", "accuracy"),
    *("log_likelihood", "log_likelihood_fresh", "weight_error"),
  },
}


@pytest.fixture(scope="module", params=FIGURES)
def run(request, start, tmp_path_factory):
  """Name, work folder and module of an experiment that was run."""
  name = request.param
  workdir = tmp_path_factory.mktemp(name) / "run"
  ended = start(
    f"--config=experiments/{name}.py:smoke",
    f"--workdir={workdir}",
    # One run is enough to see that the classical solvers are scored too.
    f"--config.evaluation.with_baselines={name == 'rq2_shift'}",
  )
  assert ended.returncode == 0, ended.stderr[-3000:]
  return name, workdir, importlib.import_module(f"experiments.{name}")


def test_table_page_and_figures_are_whole(run):
  name, workdir, module = run
  plan = mixtures.make_plan(module.get_config("smoke"))
  rows = results.read_csv(workdir / "results.csv")
  networks = {
    solver
    for own in plan.runs
    for solver in contenders.network_names(own.solver, own.model)
  }
  if name == "rq2_shift":
    networks |= {*contenders.baseline_names(), "tasks"}
  assert {row.solver for row in rows} == networks
  cells = {(results.setting_of(row), row.num_components) for row in rows}
  laws = list(plan.evaluation.laws())
  assert len(cells) == sum(
    len(mixture_evaluation.counts_of(law)) for law in laws
  )
  drawn = {path.stem for path in (workdir / "figures").glob("*.png")}
  assert drawn == FIGURES[name]
  page = (workdir / "report.html").read_text()
  assert "No planned cell is missing." in page
  if name == "rq2_shift":
    _check_shifts(rows)


def _check_shifts(rows):
  """Far tasks are flagged, and nothing is NaN anywhere."""
  for row in rows:
    assert row.mean == row.mean, row
    if row.metric == "outside_range" and row.shift_kind == "means":
      assert row.mean >= 0.75 if row.shift == 10.0 else row.mean <= 0.25
  # References are told the true K, and the others are not.
  counts = {
    row.num_components for row in rows if row.shift_kind == "stated_components"
  }
  assert counts == {2}


def test_parameters_are_those_of_the_formula(start, tmp_path):
  ended = start(
    "--config=experiments/parameter_efficiency.py:smoke",
    f"--workdir={tmp_path / 'run'}",
  )
  assert ended.returncode == 0, ended.stderr[-3000:]
  rows = results.read_csv(tmp_path / "run" / "curves.csv", results.CurveRow)
  per_task = {
    (row.series.removesuffix(" (predicted)"), row.x): set() for row in rows
  }
  for row in rows:
    if row.metric == "parameters per task":
      key = (row.series.removesuffix(" (predicted)"), row.x)
      per_task[key].add(row.value)
  assert len(per_task) == 2
  assert all(len(values) == 1 for values in per_task.values())
