"""What every experiment's file has in common."""

import importlib
import pathlib

import pytest

from experiments import mixtures
from experiments.mixtures import figures as mixture_figures
from experiments.runner import fields
from tgmm_jax.evaluation import mixtures as mixture_evaluation
from tgmm_jax.evaluation import results

ROOT = pathlib.Path(__file__).parents[2]
NAMES = sorted(
  path.stem
  for path in (ROOT / "experiments").glob("*.py")
  if path.name not in ("main.py", "launch.py")
)
MODULES = {
  name: importlib.import_module(f"experiments.{name}") for name in NAMES
}
CASES = [
  (name, variant)
  for name, module in MODULES.items()
  for variant in module.VARIANTS
]


def test_there_is_one_file_for_each_question():
  assert set(NAMES) >= {
    *("rq1", "rq2_sample_size", "rq2_shift", "rq3_mamba2", "rq3_anisotropic"),
    *("ablation_num_points", "ablation_backbone", "metrics_all"),
    *("parameter_efficiency", "constructed", "pca_eigenvalues"),
    *("pca_eigenvectors", "pca_subspace", "pca_real", "clustering"),
    *("clustering_real", "pretrained_unit", "pretrained_diag"),
  }


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_config_is_whole_and_its_sweep_does_everything_once(
  name, variant, tmp_path
):
  module = MODULES[name]
  config = module.get_config(variant)
  assert config.variant == variant
  assert config.title
  assert config.question
  experiment = module.experiment(config, tmp_path / "run")
  elements = module.sweep(config)
  for overrides in elements:
    element = module.get_config(variant)
    element.update_from_flattened_dict(overrides)
    module.experiment(element, tmp_path / "run")
  done = sorted(overrides["only"] for overrides in elements)
  if hasattr(config, "studies"):
    assert done == sorted(config.studies)
  else:
    assert set(experiment.only_names) <= set(done)
    # Only tables of mixtures have solvers that nobody trains.
    assert set(done) <= {*config.runs, fields.BASELINES}
  # To make an experiment touches no disk.
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_variants_that_do_not_exist_are_refused(name):
  assert {"", "quick", "smoke"} <= set(MODULES[name].VARIANTS)
  with pytest.raises(ValueError, match="variant is 'fast', takes one of"):
    MODULES[name].get_config("fast")
  with pytest.raises(ValueError, match="variant is 'x', takes one of a, b or"):
    fields.check_variant("x", ("", "a", "b"))


@pytest.mark.parametrize("name", NAMES)
def test_documentation_starts_with_a_question_and_the_command(name):
  text = MODULES[name].__doc__
  assert f"--config=experiments/{name}.py" in text


def test_sample_size_trains_between_half_and_all_of_its_largest():
  plan = mixtures.make_plan(MODULES["rq2_sample_size"].get_config())
  for run in plan.runs:
    largest = int(run.solver.rpartition("-n")[2])
    for tasks in run.tasks.tasks:
      assert (tasks.min_points, tasks.max_points) == (largest // 2, largest)
  assert {run.solver for run in plan.runs} == {
    f"{network}-n{largest}"
    for network in ("refiner", "tgmm")
    for largest in (32, 64, 128)
  }
  assert plan.evaluation.num_points == (16, 32, 64, 128, 256, 512)


def test_shift_has_the_papers_and_those_of_users():
  plan = mixtures.make_plan(MODULES["rq2_shift"].get_config())
  assert plan.evaluation.shifts == (0.0, 1.0, 2.0, 5.0, 10.0)
  kinds = {kind for kind, _ in plan.evaluation.other_shifts}
  assert kinds == {
    *("weights", "stated_components", "student_t", "outliers"),
    *("scale", "standardised"),
  }
  # A K that is stated wrong must still be one that the networks serve.
  for law in plan.evaluation.laws():
    if law.shift_kind == "stated_components":
      counts = mixture_evaluation.counts_of(law)
      assert len(counts) == 3
      assert {count + law.shift for count in counts} <= {2, 3, 4, 5}


def test_backbones_cost_as_much_with_fewer_steps():
  module = MODULES["ablation_backbone"]
  config = module.get_config()
  runs = {run.name: run for run in mixtures.make_plan(config).runs}
  usual = runs["tgmm-w128-l12"]
  assert usual.train.num_steps == 10**6
  assert {run.model.width for run in runs.values()} == {64, 128, 256, 512}
  assert {run.model.num_layers for run in runs.values()} == {3, 6, 12, 24}
  for depth in (3, 6, 24):
    equal = runs[f"tgmm-w128-l{depth}-equal"]
    assert equal.train.num_steps * depth == 12 * 10**6
  # Four times the products, and half the attention to one.
  wide = runs["tgmm-w256-l12-equal"].train.num_steps
  assert 10**6 / 4 < wide < 10**6 / 3


def test_a_table_of_shifted_tasks_alone_is_drawn_too():
  rows = [
    results.Row(
      *("em/oracle", 2, count, 128, shift, "means", "l2_error"),
      *(0.1 * shift, 0.01, 64, 0),
    )
    for count in (2, 3)
    for shift in (2.0, 5.0)
  ]
  drawn = {name for _, (name, _) in mixture_figures.draw(rows)}
  assert drawn == {"error", "shift_means"}
