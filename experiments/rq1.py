"""Question 1: does a transformer fit mixtures better than EM and spectral?

  python -m experiments.main --config=experiments/rq1.py[:VARIANT]

No variant: `tgmm` for d = 2, 8, 32, 128 at the paper's size with the matched
loss, and one `refiner` for all d. An accelerator's work.
`:released`: the published recipe to the letter (causal, positions, sorted
loss). An accelerator's work.
`:pretrained`: the shipped network in all cells; nothing is trained.
`:quick`: one `refiner` for all d and, for the contrast, a small `tgmm` with
the published recipe at d = 2. Ten minutes on 2 CPU cores.
`:smoke`: goes through everything in seconds, for the tests.
"""

import ml_collections

from experiments import mixtures
from experiments.runner import fields

VARIANTS = ("", "released", "pretrained", "quick", "smoke")
DIMS = (2, 8, 32, 128)

experiment = mixtures.experiment
sweep = mixtures.sweep


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = mixtures.get_config()
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
  elif variant == "pretrained":
    config.evaluation.with_pretrained = "unit"
  else:
    _add_paper(config, is_released=variant == "released")
  return config


def _add_paper(config, *, is_released):
  for dim in DIMS:
    run = mixtures.tgmm_run(dim)
    if is_released:
      _as_released(run)
    config.runs[f"tgmm-d{dim}"] = run
  if not is_released:
    refiner = mixtures.refiner_run()
    refiner.batch_sizes = (80, 40, 40, 40, 32, 24)
    refiner.num_steps = 200_000
    config.runs.refiner = refiner


def _as_released(run):
  """The published recipe: GPT-2 as it comes, the order of weights as truth."""
  run.solver = "tgmm-released"
  run.loss = "sorted"
  run.model.is_causal = True


def _add_quick(config):
  refiner = mixtures.refiner_run()
  mixtures.make_small(refiner, num_steps=18_000)
  refiner.checkpoint_every = 2_000
  config.runs.refiner = refiner
  released = mixtures.tgmm_run(2)
  _as_released(released)
  mixtures.make_small(released, num_steps=1_500)
  released.checkpoint_every = 500
  config.runs["tgmm-released-d2"] = released


def _add_smoke(config):
  config.runs.refiner = mixtures.refiner_run()
  config.runs["tgmm-d2"] = mixtures.tgmm_run(2)
  mixtures.make_smoke(config)
