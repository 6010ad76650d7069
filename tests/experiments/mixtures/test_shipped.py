"""Shipped networks in a table."""

import dataclasses

import jax
import pytest

from experiments import mixtures, rq1
from experiments.mixtures import shipped
from tgmm_jax import pretrained
from tgmm_jax.evaluation import results
from tgmm_jax.models import factory, tgmm
from tgmm_jax.tasks import trained_range
from tgmm_jax.training import run_folder

RANGE = dict.fromkeys(trained_range.TrainedRange._fields, 1.0)


def save(folder, name, dim, seed=0):
  """A paper's network that was never trained; the path of its card."""
  config = tgmm.TGMMConfig(
    dim=dim, num_components=(2, 3), width=8, num_layers=1, num_heads=2
  )
  return str(
    pretrained.save(
      folder,
      factory.build(config).init(jax.random.key(seed)),
      name=name,
      title="for a test",
      network="tgmm",
      model=dataclasses.asdict(config),
      dims=(dim,),
      max_dim=dim,
      num_points=(16, 32),
      ranges={str(dim): RANGE},
      metrics=[],
      training={"num_steps": 1},
    )
  )


def config_of(*names):
  config = rq1.get_config("smoke")
  config.runs = {}
  config.evaluation.with_baselines = False
  config.evaluation.dims = (2, 3)
  config.evaluation.with_pretrained = ",".join(names)
  return config


def test_networks_for_one_d_each_are_one_solver(tmp_path):
  paths = [
    save(tmp_path, name, dim)
    for name, dim in (("tgmm-d2", 2), ("tgmm-d2-seed1", 2), ("tgmm-d3", 3))
  ]
  found = shipped.networks(config_of(*paths, "unit"))
  assert [(own.solver, own.dims) for own in found] == [
    ("tgmm", (2,)),
    ("tgmm-seed1", (2,)),
    ("tgmm", (3,)),
    ("pretrained", (2, 3)),
  ]


def test_each_is_scored_in_its_cells(tmp_path):
  paths = [save(tmp_path, "tgmm-d2", 2), save(tmp_path, "tgmm-d3", 3)]
  folder = tmp_path / "run"
  mixtures.experiment(config_of(*paths), folder).run("evaluate")
  rows = results.read_csv(folder / run_folder.RESULTS)
  cells = {(row.solver, row.dim) for row in rows if row.solver != "tasks"}
  assert len(rows) == len({row[:-4] for row in rows})
  assert cells == {
    (name, dim) for name in ("tgmm", "tgmm+em5") for dim in (2, 3)
  }


def test_what_cannot_be_scored_is_refused(tmp_path):
  path = save(tmp_path, "tgmm-d8", 8)
  with pytest.raises(ValueError, match=r"takes networks for a d of .*\(2, 3\)"):
    mixtures.make_plan(config_of(path))
  with pytest.raises(ValueError, match="takes networks for 'unit' covarian"):
    mixtures.make_plan(config_of("diag"))
  with pytest.raises(ValueError, match="name is 'nope', takes one of"):
    mixtures.make_plan(config_of("nope"))
  twice = save(tmp_path, "tgmm-d2", 2)
  with pytest.raises(ValueError, match="makes 'tgmm', takes a name that no"):
    mixtures.make_plan(config_of(twice, twice))
  few = config_of(twice)
  few.tasks.num_components = few.evaluation.num_components = (2, 3, 4)
  with pytest.raises(ValueError, match="num_components"):
    mixtures.make_plan(few)
