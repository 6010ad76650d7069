import pytest

from experiments import mixtures, rq1
from tgmm_jax.evaluation import contenders, results

SOLVERS = {"tgmm", "tgmm+em5", "refiner", "refiner+em5", "refiner-x8+em5"}


def plan_of(variant):
  config = rq1.get_config(variant)
  assert config.variant == variant
  return config, mixtures.make_plan(config)


def solvers_of(plan):
  return {
    name
    for run in plan.runs
    for name in contenders.network_names(run.solver, run.model)
  }


def dims_of(run):
  return run.tasks.dims


@pytest.mark.parametrize("variant", ["", "released", "released_mask"])
def test_papers_setting(variant):
  config, plan = plan_of(variant)
  assert plan.evaluation.dims == (2, 8, 32, 128)
  assert plan.evaluation.num_components == (2, 3, 4, 5)
  assert plan.evaluation.num_tasks == 1280
  tgmms = [run for run in plan.runs if run.name.startswith("tgmm")]
  assert sorted(dims_of(run) for run in tgmms) == [(2,), (8,), (32,), (128,)]
  is_released = variant != ""
  for run in tgmms:
    assert (run.model.num_layers, run.model.width) == (12, 128)
    assert run.train.num_steps == 10**6
    assert run.tasks.batch_sizes == (64,)
    assert run.train.optimizer.learning_rate == 1e-4
    assert run.train.optimizer.weight_decay == 1e-4
    assert run.tasks.loss == ("sorted" if is_released else "matched")
    assert run.model.is_causal == is_released
    assert run.model.pooling == ("released" if is_released else "scaled")
    assert run.model.max_points == (4096 if is_released else 128)
    assert run.batch_size == (256 if is_released else 64)
    assert run.tasks.has_inverted_pooling == (variant == "released_mask")
    # What is evaluated attends to the points.
    assert not run.model.has_inverted_pooling
    (tasks,) = run.tasks.tasks
    assert (tasks.min_points, tasks.max_points) == (64, 128)
    assert (tasks.mean_range, tasks.max_cosine) == (5.0, 0.8)
    assert (tasks.min_weight, tasks.max_weight) == (0.2, 0.8)
  others = [run for run in plan.runs if run not in tgmms]
  if is_released:
    assert not others
  else:
    (refiner,) = others
    assert refiner.name == "refiner"
    assert set(dims_of(refiner)) >= {2, 8, 32, 128}
    assert solvers_of(plan) == SOLVERS
  assert config.evaluation.with_baselines


def test_quick_setting():
  _, plan = plan_of("quick")
  assert plan.evaluation.dims == (2, 8, 32, 128)
  assert plan.evaluation.num_tasks == 1280
  refiner, released = plan.runs
  assert set(dims_of(refiner)) >= {2, 8, 32, 128}
  assert dims_of(released) == (2,)
  assert released.tasks.loss == "sorted"
  assert released.model.is_causal
  assert solvers_of(plan) == {
    *("refiner", "refiner+em5", "refiner-x8+em5"),
    *("tgmm-released", "tgmm-released+em5"),
  }


def test_smoke_setting_has_every_solver():
  _, plan = plan_of("smoke")
  assert solvers_of(plan) == SOLVERS


def test_more_points_than_learned_positions():
  config = rq1.get_config("released")
  config.evaluation.num_points = (64, 4096)
  mixtures.make_plan(config)
  config.evaluation.num_points = (64, 4097)
  with pytest.raises(ValueError, match=r"4097\), takes N <= 4096, the learned"):
    mixtures.make_plan(config)
  # As many positions as tasks have points, where nothing else is said.
  for run in config.runs.values():
    run.model.max_points = 0
  with pytest.raises(ValueError, match="takes N <= 128, the learned positions"):
    mixtures.make_plan(config)


def test_fewer_positions_than_points_in_training():
  config = rq1.get_config("released")
  config.runs["tgmm-d8"].model.max_points = 127
  with pytest.raises(ValueError, match="-d8: max_points of the tasks is 128"):
    mixtures.make_plan(config)


@pytest.mark.slow
def test_released_recipe_answers_more_points_than_it_was_trained_on(tmp_path):
  config = rq1.get_config("released_mask")
  mixtures.make_smoke(config)
  config.evaluation.num_points = (32, 64)
  config.evaluation.with_baselines = False
  rq1.experiment(config, tmp_path).run("train_and_evaluate")
  rows = results.read_csv(tmp_path / "results.csv")
  errors = [row for row in rows if row.metric == "l2_error"]
  assert {row.num_points for row in errors} == {32, 64}
  assert {row.solver for row in errors} == {
    *("tgmm-released", "tgmm-released+em5"),
  }
  assert all(0 < row.mean < 100 for row in errors)
