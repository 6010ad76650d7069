"""Makes the files of a shipped network from a finished run.

  python -m experiments.shipping.release --name=unit \
    --config=experiments/pretrained_unit.py --workdir=runs/pretrained_unit-full

The run must be trained. With `--evaluation=FOLDER`, of a finished
`pretrained_unit.py:shipped` for example, the errors in that folder's table
stand on the card, with the config that gives them; they are of the shipped
network, so it is released once without them and then again.
"""

import dataclasses
import pathlib

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import mixtures
from experiments.runner import fields
from tgmm_jax import pretrained
from tgmm_jax.evaluation import contenders, results
from tgmm_jax.models import factory
from tgmm_jax.tasks import trained_range
from tgmm_jax.training import checkpoints, files, metric_writer, run_folder
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import mixtures as mixture_learner

_CONFIG = config_flags.DEFINE_config_file("config", None, "Of the run.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_RUN = flags.DEFINE_string(
  "run", None, "Of the config's runs; by default the only one."
)
_NAME = flags.DEFINE_string("name", None, "Of the network, and of its files.")
_EVALUATION = flags.DEFINE_string(
  "evaluation", None, "Folder of a run that scored the network."
)
_OUTPUT = flags.DEFINE_string(
  "output", "tgmm_jax/pretrained/weights", "Folder to write."
)
flags.mark_flags_as_required(["config", "workdir", "name"])

_TITLES = {
  "unit": "isotropic mixtures with known variance",
  "tied_spherical": "isotropic mixtures with one unknown variance",
  "diag": "mixtures with diagonal covariances",
  "full": "mixtures with full covariances",
}
# Of the table, what stands on the card.
_METRICS = ("l2_error", "scale_error")
_RANGE_SEED = 20_000


def main(argv):
  """Reads the run and writes two files."""
  if len(argv) > 1:
    raise app.UsageError(f"arguments are {argv[1:]}, takes flags only")
  config, workdir = _CONFIG.value, pathlib.Path(_WORKDIR.value)
  run = _run_of(config)
  model = factory.build(run.model)
  learner = mixture_learner.make(model, run.tasks)
  restored = checkpoints.restore(
    workdir / run.name / run_folder.CHECKPOINTS,
    train_step.abstract_state(learner, run.train).params,
    subtree="params",
    config=fields.identity(config),
  )
  laws = run.tasks.tasks
  path = pretrained.save(
    _OUTPUT.value,
    jax.device_get(restored.state),
    name=_NAME.value,
    title=_title(run.model),
    network=_network_of(run.model),
    model=dataclasses.asdict(run.model),
    dims=tuple(sorted(run.tasks.dims)),
    max_dim=run.model.max_dim,
    num_points=(laws[0].min_points, laws[0].max_points),
    ranges={str(law.dim): _range(law, run.model) for law in laws},
    metrics=_metrics(run),
    training=_training(workdir, run, restored.step),
  )
  logging.info("wrote %s", path)


def _run_of(config):
  runs = {run.name: run for run in mixtures.make_plan(config).runs}
  name = _RUN.value
  if name is None and len(runs) == 1:
    (name,) = runs
  if name not in runs:
    raise app.UsageError(f"--run is {name!r}, takes one of {sorted(runs)}")
  return runs[name]


def _network_of(model):
  """The name of a model's kind, as cards and configs have it."""
  (name,) = (
    name for name, kind in factory.CONFIGS.items() if isinstance(model, kind)
  )
  return name


def _title(model):
  title = _TITLES[model.covariance_type]
  if _network_of(model) == "tgmm":
    title += f" by the paper's network, d = {model.dim}"
  return title


def _range(law, model):
  key = jax.random.fold_in(jax.random.key(_RANGE_SEED), law.dim)
  about = pretrained.about(model)
  found = trained_range.measure(key, law, about=about)._asdict()
  return {name: round(float(value), 4) for name, value in found.items()}


def _metrics(run):
  """Rows of the network from the table of an evaluation."""
  solver = mixtures.solver_of(_NAME.value, tuple(run.tasks.dims))
  names = contenders.network_names(solver, run.model)
  if not _EVALUATION.value:
    return []
  table = pathlib.Path(_EVALUATION.value) / run_folder.RESULTS
  kept = ("solver", "dim", "num_components", "num_points", "metric")
  kept += ("mean", "standard_error", "count", "failures")
  return [
    {name: getattr(row, name) for name in kept}
    for row in results.read_csv(table)
    if row.metric in _METRICS and row.solver in names
  ]


def _training(workdir, run, step):
  """How long it took, on what, and by which code."""
  timing = metric_writer.read_metrics(
    workdir / run.name / run_folder.TIMING, needs=("steps_per_second",)
  )
  speeds = np.asarray(timing["steps_per_second"])
  seconds = float(np.sum(run.train.steps_per_call / speeds))
  versions = files.read_json(workdir / run_folder.VERSIONS)
  return {
    "config": config_flags.get_config_filename(flags.FLAGS["config"]),
    "run": run.name,
    "commit": versions.pop("git_commit", None),
    "num_steps": step,
    "seconds": round(seconds),
    "seed": run.train.seed,
    "evaluation": _evaluated_by(),
    **versions,
  }


def _evaluated_by():
  """The config whose run gives the numbers on the card."""
  if not _EVALUATION.value:
    return None
  config = files.read_json(pathlib.Path(_EVALUATION.value) / run_folder.CONFIG)
  return f"{config['title']}, variant {config['variant'] or 'none'}"


if __name__ == "__main__":
  app.run(main)
