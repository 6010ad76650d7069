"""Question 1: does a transformer fit mixtures better than EM and spectral?

  python -m experiments.main --config=experiments/rq1.py[:VARIANT]

No variant: `tgmm` for d = 2, 8, 32, 128 at the paper's size with the matched
loss, and one `refiner` for all d. An accelerator's work.
`:released`: the published recipe to the letter (causal, positions, sorted
loss). An accelerator's work.
`:quick`: one `refiner` for all d and, for the contrast, a small `tgmm` with
the published recipe at d = 2. Ten minutes on 2 CPU cores.
`:smoke`: goes through everything in seconds, for the tests.
"""

import ml_collections

from experiments import base

VARIANTS = ("", "released", "quick", "smoke")
DIMS = (2, 8, 32, 128)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(
      f"variant is {variant!r}, takes one of {', '.join(VARIANTS[1:])} or none"
    )
  config = base.get_config()
  config.title = "RQ1: effectiveness"
  config.question = (
    "Does one transformer, trained on synthetic tasks, solve Gaussian"
    " mixtures better than EM and the spectral method?"
  )
  config.variant = variant
  if variant == "quick":
    _add_quick(config)
  elif variant == "smoke":
    _add_smoke(config)
  else:
    _add_paper(config, is_released=variant == "released")
  return config


def sweep(config: ml_collections.ConfigDict) -> list[dict[str, str]]:
  """One element of a job array for each training, one for the baselines."""
  names = [*sorted(config.runs), base.BASELINES]
  return [{"only": name} for name in names]


def _add_paper(config, *, is_released):
  for dim in DIMS:
    run = base.tgmm_run(dim)
    if is_released:
      _as_released(run)
    config.runs[f"tgmm-d{dim}"] = run
  if not is_released:
    refiner = base.refiner_run()
    refiner.batch_sizes = (80, 40, 40, 40, 32, 24)
    refiner.num_steps = 200_000
    config.runs.refiner = refiner


def _as_released(run):
  """The published recipe: GPT-2 as it comes, the order of weights as truth."""
  run.solver = "tgmm-released"
  run.loss = "sorted"
  run.model.is_causal = True


def _add_quick(config):
  refiner = base.refiner_run()
  refiner.num_steps = 18_000
  refiner.steps_per_call = 50
  refiner.checkpoint_every = 2_000
  config.runs.refiner = refiner

  released = base.tgmm_run(2)
  _as_released(released)
  released.batch_sizes = (32,)
  released.model.width = 32
  released.model.num_layers = 3
  released.optimizer.learning_rate = 2e-3
  released.optimizer.schedule = "cosine"
  released.optimizer.num_warmup_steps = 100
  released.optimizer.max_grad_norm = 1.0
  released.num_steps = 1_500
  released.steps_per_call = 50
  released.checkpoint_every = 500
  config.runs["tgmm-released-d2"] = released


def _add_smoke(config):
  config.tasks.min_points = 16
  config.tasks.max_points = 32
  config.tasks.num_components = (2, 3)
  config.evaluation.dims = (2,)
  config.evaluation.num_components = (2, 3)
  config.evaluation.num_points = (32,)
  config.evaluation.num_tasks = 16

  refiner = base.refiner_run()
  refiner.dims = (2, 3)
  refiner.batch_sizes = (8, 8)
  refiner.model.width = 8
  refiner.model.num_layers = 2
  config.runs.refiner = refiner
  tgmm = base.tgmm_run(2)
  tgmm.batch_sizes = (8,)
  tgmm.model.width = 8
  tgmm.model.num_layers = 1
  tgmm.model.num_heads = 2
  config.runs["tgmm-d2"] = tgmm
  for run in config.runs.values():
    run.num_steps = 40
    run.steps_per_call = 5
    run.checkpoint_every = 10
