import pytest

from experiments import mixtures, rq3_anisotropic
from tgmm_jax.evaluation import contenders, results

NETWORKS = {"tgmm", "tgmm+em5", "refiner", "refiner+em5", "refiner-x8+em5"}


def plan_of(variant):
  config = rq3_anisotropic.get_config(variant)
  assert config.variant == variant
  return config, mixtures.make_plan(config)


def dims_of(run):
  return run.tasks.dims


def solvers_of(plan):
  return {
    name
    for run in plan.runs
    for name in contenders.network_names(run.solver, run.model)
  }


@pytest.mark.parametrize("variant", rq3_anisotropic.VARIANTS)
def test_all_tasks_and_networks_have_scales(variant):
  _, plan = plan_of(variant)
  assert plan.evaluation.tasks.covariance_type == "diag"
  for run in plan.runs:
    assert {law.covariance_type for law in run.tasks.tasks} == {"diag"}
    assert run.model.covariance_type == "diag"


def test_papers_setting():
  _, plan = plan_of("")
  assert plan.evaluation.dims == (2, 8, 32, 128)
  assert plan.evaluation.num_components == (2, 3, 4, 5)
  assert plan.evaluation.num_tasks == 1280
  refiner, *tgmms = plan.runs
  assert refiner.name == "refiner"
  assert {2, 8} <= set(dims_of(refiner))
  assert max(dims_of(refiner)) == refiner.model.rank == 8
  assert sorted(dims_of(run) for run in tgmms) == [(2,), (8,), (32,), (128,)]
  for run in tgmms:
    assert (run.model.num_layers, run.model.width) == (12, 128)
    assert run.train.num_steps == 10**6
    assert run.tasks.batch_sizes == (64,)
  assert solvers_of(plan) == NETWORKS


def test_released_setting():
  _, plan = plan_of("released")
  assert plan.evaluation.tasks.has_scale_rule
  assert [dims_of(run) for run in plan.runs] == [(128,), (2,), (32,), (8,)]
  for run in plan.runs:
    assert run.tasks.loss == "sorted"
    assert run.batch_size == 256
    assert run.tasks.tasks[0].has_scale_rule
    assert run.model.pooling == "released"
    assert run.model.max_points == 4096
    assert run.model.is_causal
  assert solvers_of(plan) == {"tgmm-released", "tgmm-released+em5"}
  # The other variants are the paper's text.
  assert not plan_of("")[1].evaluation.tasks.has_scale_rule


def test_quick_setting():
  _, plan = plan_of("quick")
  assert plan.evaluation.dims == (2,)
  assert plan.evaluation.num_tasks == 1280
  assert [dims_of(run) for run in plan.runs] == [(2,), (2,)]
  assert solvers_of(plan) == NETWORKS


def test_smoke_setting_has_every_network():
  _, plan = plan_of("smoke")
  assert solvers_of(plan) == NETWORKS


def test_a_refiner_for_more_coordinates_than_it_has():
  config = rq3_anisotropic.get_config("smoke")
  config.runs.refiner.model.rank = 1
  with pytest.raises(ValueError, match="config.runs.refiner: dim is 2, takes"):
    mixtures.make_plan(config)


def test_covariances_that_are_not_sampled():
  config = rq3_anisotropic.get_config("smoke")
  config.tasks.covariance_type = "tied"
  with pytest.raises(ValueError, match="covariance_type is 'tied', takes"):
    mixtures.make_plan(config)


@pytest.mark.slow
def test_scales_are_in_the_table_and_on_the_page(tmp_path):
  config = rq3_anisotropic.get_config("smoke")
  del config.runs["refiner"]
  config.evaluation.with_baselines = False
  rq3_anisotropic.experiment(config, tmp_path).run("train_and_evaluate")
  rows = results.read_csv(tmp_path / "results.csv")
  found = {row.solver for row in rows if row.metric == "scale_error"}
  assert found == {"tgmm", "tgmm+em5"}
  page = (tmp_path / "report.html").read_text()
  assert "squared error of the standard deviations" in page.lower()
  assert "No planned cell is missing" in page
