import json

import ml_collections
import pytest

from experiments import mixtures, rq1
from experiments.mixtures import config as mixture_config
from experiments.runner import fields, trainings

# Whatever they say, nothing is read from them.
FREE_TEXT = ("title", "question")


def leaves(tree, path=()):
  for name, value in tree.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from leaves(value, (*path, name))
    else:
      yield (*path, name), value


def changed(path, value):
  config = rq1.get_config("smoke")
  with config.unlocked(), config.ignore_type():
    group = config
    for name in path[:-1]:
      group = group[name]
    group[path[-1]] = value
  return config


def wrong_types(value):
  if isinstance(value, tuple):
    return [("a",) * len(value), (None,), value[0]]
  return ["x" if not isinstance(value, str) else 3, None, (value,)]


def out_of_range(value):
  if isinstance(value, bool):
    return []
  if isinstance(value, int):
    return [-1, -(2**40)]
  if isinstance(value, float):
    return [float("nan"), float("inf"), -1.0]
  if isinstance(value, str):
    return ["../x", "-"]
  return [(), (-1,), (-1,) * len(value), value * 2]


# A cell or a batch has one of what the field has many.
IN_MESSAGES = {"dims": "dim", "num_points": "points", "shifts": "shift"}

# No cosine is above 1, so above 1 no means are drawn again.
EXCEPTIONS = [(("tasks", "max_cosine"), float("inf"))]
# Programs may be kept in any folder.
EXCEPTIONS += [(("start", "programs"), name) for name in ("../x", "-")]

CASES = [
  (path, value)
  for path, default in leaves(rq1.get_config("smoke"))
  for value in (
    *wrong_types(default),
    *(() if path[-1] in FREE_TEXT else out_of_range(default)),
  )
  if (path, value) not in EXCEPTIONS
]


@pytest.mark.parametrize(
  ("path", "value"), CASES, ids=[f"{'.'.join(p)}={v}" for p, v in CASES]
)
def test_every_field_refuses_what_it_cannot_be(
  path, value, tmp_path, monkeypatch
):
  def do_runs(self, mode, stop):
    pytest.fail("the value was taken")

  monkeypatch.setattr(trainings.TrainingExperiment, "_do_runs", do_runs)
  workdir = tmp_path / "run"
  with pytest.raises(ValueError) as info:  # noqa: PT011 checked below
    mixtures.experiment(changed(path, value), workdir).run("train")
  message = str(info.value)
  assert IN_MESSAGES.get(path[-1], path[-1]) in message
  assert "\n" not in message
  assert not workdir.exists()


@pytest.mark.parametrize("variant", rq1.VARIANTS)
def test_the_default_of_every_field_is_taken(variant, tmp_path):
  config = rq1.get_config(variant)
  mixtures.experiment(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_identity_is_what_json_gives_back():
  config = rq1.get_config("smoke")
  config.runs.refiner.optimizer.learning_rate = 0.25
  config.tasks.num_components = (2,)
  stored = json.loads(json.dumps(fields.identity(config)))
  assert stored["runs"]["refiner"]["optimizer"]["learning_rate"] == 0.25
  assert stored["tasks"]["num_components"] == [2]
  paths = [".".join(path) for path, _ in leaves(config)]
  flat = ml_collections.ConfigDict(stored)
  assert paths == [".".join(path) for path, _ in leaves(flat)]


def test_plan_has_what_the_config_says():
  config = rq1.get_config("smoke")
  config.seed = 5
  config.tasks.max_cosine = 0.7
  config.runs.refiner.model.rank = 3
  config.runs.refiner.optimizer.b2 = 0.9
  config.evaluation.shifts = (0.0, 1.0)
  plan = mixtures.make_plan(config)
  refiner, tgmm = plan.runs
  assert [refiner.name, tgmm.name] == sorted(config.runs)
  assert refiner.tasks.dims == (2, 3)
  assert {tasks.max_cosine for tasks in refiner.tasks.tasks} == {0.7}
  assert refiner.train.seed == tgmm.train.seed == 5
  assert refiner.model.rank == 3
  assert refiner.train.optimizer.b2 == 0.9
  assert tgmm.train.optimizer.b2 == 0.999
  assert tgmm.model.dim == 2
  assert tgmm.model.max_points == 32
  assert refiner.model.num_components == (2, 3)
  assert plan.evaluation.shifts == (0.0, 1.0)
  assert plan.evaluation.tasks.max_cosine == 0.7


def test_two_solvers_of_one_name_in_one_cell():
  config = rq1.get_config("smoke")
  config.runs.refiner.solver = "tgmm"
  with pytest.raises(ValueError, match="a name that no other solver has"):
    mixtures.make_plan(config)
  config.runs.refiner.solver = "spectral"
  with pytest.raises(ValueError, match="solver makes 'spectral'"):
    mixtures.make_plan(config)


def test_a_run_may_not_be_named_as_another_folder():
  config = rq1.get_config("smoke")
  for name in ("baselines", "figures", "a/b", "-x", ""):
    bad = config.copy_and_resolve_references()
    bad.runs[name] = bad.runs.refiner
    with pytest.raises(ValueError, match="takes letters, digits"):
      mixtures.make_plan(bad)


def test_constructed_networks_stand_in_any_table_of_isotropic_tasks():
  config = rq1.get_config("smoke")
  names = {name for name, *_ in mixture_config.solvers_at(config, ())}
  config.evaluation.with_constructed = True
  mixtures.make_plan(config)
  more = {name for name, *_ in mixture_config.solvers_at(config, ())}
  assert more - names == {
    *("constructed/em", "constructed/spectral", "constructed/two-classes"),
  }
  config.runs.refiner.solver = "tgmm"
  config.tasks.covariance_type = "diag"
  with pytest.raises(ValueError, match="with_constructed is True, takes False"):
    mixtures.make_plan(config)
