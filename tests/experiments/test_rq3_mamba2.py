import pytest

from experiments import mixtures, rq3_mamba2

SOLVERS = {"tgmm", "tgmm-mamba2"}


def plan_of(variant):
  config = rq3_mamba2.get_config(variant)
  assert config.variant == variant
  return config, mixtures.make_plan(config)


def dim_of(run):
  (tasks,) = run.tasks.tasks
  return tasks.dim


def without_backbone(run):
  return run.train, run.model.width, run.model.num_layers, run.model.is_causal


def test_papers_setting():
  config, plan = plan_of("")
  assert plan.evaluation.dims == (2, 8, 32, 128)
  assert plan.evaluation.num_tasks == 1280
  assert config.evaluation.with_baselines
  cells = sorted((run.solver, dim_of(run)) for run in plan.runs)
  assert cells == sorted((s, d) for s in SOLVERS for d in (2, 8, 32, 128))
  for run in plan.runs:
    assert run.tasks.loss == "matched"
    assert run.train.num_steps == 10**6
    assert run.tasks.batch_sizes == (64,)
    assert (run.model.num_layers, run.model.width) == (12, 128)
    if run.solver == "tgmm":
      assert (run.model.backbone, run.model.num_heads) == ("transformer", 4)
      continue
    assert (run.model.backbone, run.model.num_heads) == ("mamba2", 8)
    assert (run.model.head_dim, run.model.expansion) == (64, 4)
    assert (run.model.state_size, run.model.num_groups) == (16, 2)


@pytest.mark.parametrize("variant", ["quick", "smoke"])
def test_both_train_alike(variant):
  config, plan = plan_of(variant)
  assert {run.solver for run in plan.runs} == SOLVERS
  assert {run.model.backbone for run in plan.runs} == {"transformer", "mamba2"}
  assert plan.evaluation.dims == (2,)
  one, other = plan.runs
  assert without_backbone(one) == without_backbone(other)
  assert config.evaluation.with_baselines


def test_quick_evaluates_all_of_the_tasks():
  _, plan = plan_of("quick")
  assert plan.evaluation.num_tasks == 1280
  assert plan.evaluation.num_components == (2, 3, 4, 5)


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("backbone", "rnn", "model: backbone is 'rnn', takes one of"),
    ("num_groups", 3, "model: num_heads is 8, takes a multiple of num_groups"),
    ("head_dim", 32, "model: num_heads is 8 and head_dim 32, takes a product"),
  ],
)
def test_sizes_that_cannot_be_built(field, value, message):
  config = rq3_mamba2.get_config("")
  config.runs["tgmm-mamba2-d2"].model[field] = value
  with pytest.raises(ValueError, match=message):
    mixtures.make_plan(config)


@pytest.mark.slow
def test_smoke_goes_through_everything(start, tmp_path):
  # The baselines are those of the other experiments, and tested there.
  ended = start(
    "--config=experiments/rq3_mamba2.py:smoke",
    "--config.evaluation.with_baselines=False",
    f"--workdir={tmp_path / 'run'}",
  )
  assert ended.returncode == 0, ended.stderr[-3000:]
  table = (tmp_path / "run" / "results.csv").read_text()
  assert all(f"\n{solver}," in table for solver in SOLVERS)
  page = (tmp_path / "run" / "report.html").read_text()
  assert "steps per second, median" in page
