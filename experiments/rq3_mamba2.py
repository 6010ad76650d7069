"""Question 3: does Mamba2 do as well as a transformer in the same network?

  python -m experiments.main --config=experiments/rq3_mamba2.py[:VARIANT]

No variant: `tgmm` and `tgmm-mamba2` for d = 2, 8, 32, 128 at the paper's sizes
with the matched loss. An accelerator's work.
`:quick`: both small, at d = 2 and for equally many steps. Minutes on 2 CPU
cores.
`:smoke`: goes through everything in seconds, for the tests.
"""

import ml_collections

from experiments import base, jobs

VARIANTS = ("", "quick", "smoke")
DIMS = (2, 8, 32, 128)

experiment = jobs.Experiment


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(
      f"variant is {variant!r}, takes one of {', '.join(VARIANTS[1:])} or none"
    )
  config = base.get_config()
  config.title = "RQ3: Mamba2 as the backbone"
  config.question = (
    "Does a state-space model in the place of the transformer solve Gaussian"
    " mixtures as well, at equally many steps?"
  )
  config.variant = variant
  for dim in (2,) if variant else DIMS:
    config.runs[f"tgmm-d{dim}"] = base.tgmm_run(dim)
    config.runs[f"tgmm-mamba2-d{dim}"] = _mamba2_run(dim)
  if variant == "quick":
    _make_quick(config)
  elif variant == "smoke":
    _make_smoke(config)
  return config


def sweep(config: ml_collections.ConfigDict) -> list[dict[str, str]]:
  """One element of a job array for each training, one for the baselines."""
  names = [*sorted(config.runs), base.BASELINES]
  return [{"only": name} for name in names]


def _mamba2_run(dim):
  run = base.tgmm_run(dim)
  run.solver = "tgmm-mamba2"
  run.model.backbone = "mamba2"
  run.model.num_heads = 8
  return run


def _make_quick(config):
  config.evaluation.dims = (2,)
  for run in config.runs.values():
    run.batch_sizes = (32,)
    run.num_steps = 3_000
    run.steps_per_call = 50
    run.checkpoint_every = 1_000
    run.model.width = 32
    run.model.num_layers = 3
    run.optimizer.learning_rate = 2e-3
    run.optimizer.schedule = "cosine"
    run.optimizer.num_warmup_steps = 100
    run.optimizer.max_grad_norm = 1.0
  mamba2 = config.runs["tgmm-mamba2-d2"].model
  mamba2.num_heads = 2
  mamba2.head_dim = 32
  mamba2.expansion = 2


def _make_smoke(config):
  config.tasks.min_points = 16
  config.tasks.max_points = 32
  config.tasks.num_components = (2, 3)
  config.evaluation.dims = (2,)
  config.evaluation.num_components = (2, 3)
  config.evaluation.num_points = (32,)
  config.evaluation.num_tasks = 16
  for run in config.runs.values():
    run.batch_sizes = (8,)
    run.num_steps = 20
    run.steps_per_call = 5
    run.checkpoint_every = 10
    run.model.width = 8
    run.model.num_layers = 1
    run.model.num_heads = 2
    run.model.head_dim = 8
    run.model.expansion = 2
