"""How good is the paper's own network, trained for hours on two CPU cores?

  python -m experiments.main --config=experiments/tgmm_networks.py[:VARIANT]

`tgmm` with the matched loss at d = 2 (three seeds), 8, 32 and 128; at d = 2
also Mamba2 as the backbone, and the recipe of the paper's code with its sorted
loss. Three layers of width 64 instead of twelve of 128: a step takes 50
milliseconds of one core.

No variant: 80,000 steps each, an hour and more. Resumable; one core each with
`--config.only=NAME`.
`:shipped`: trains nothing; gives the numbers on the cards of those that are
shipped, beside the classical solvers, in minutes.
`:anisotropic`: the same at d = 2, with scales.
`:large`: the paper's twelve layers of width 128 at d = 2, 8,000 steps.
`:quick`: 3,000 steps at d = 2.
`:smoke`: goes through everything in seconds, for the tests.
"""

import ml_collections

from experiments import mixtures, results_pages
from experiments.runner import fields

VARIANTS = ("", "shipped", "anisotropic", "large", "quick", "smoke")
DIMS = (2, 8, 32, 128)
_NUM_STEPS, _NUM_QUICK_STEPS = 80_000, 3_000

experiment = mixtures.experiment
sweep = mixtures.sweep

CONCLUSION = (
  "One pass of the paper's own network, trained with the matched loss on"
  " 80,000 batches of 32 tasks, is far nearer than EM from one N(0, I) start"
  " for K = 3, 4 and 5 at d = 2, with a third of its failures or fewer. With 5"
  " EM steps it is nearer than the best of ten k-means++ starts for these K,"
  " with fewer failures, and little behind EM started at the truth up to K = 4."
  " For K = 2, where one start of EM never fails, one pass is behind it. This"
  " is one seed."
)
PAGES = {
  "shipped": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Squared error of the means at d = 2, N = 128, {count} tasks in each"
      " cell, with its standard error.",
      results_pages.solvers(
        *("tgmm", "tgmm+em5", "em/normal", "em/k-means++-x10", "em/oracle"),
        "labels",
      ),
      results_pages.across("num_components", (2, 3, 4, 5), "K = {}"),
      metric="l2_error",
    ),
    figures={"front": "Error of the means against K: EM, and the network"},
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = mixtures.get_config()
  config.title = "The paper's network, trained"
  config.question = (
    "Does the paper's own network, trained with the matched loss, beat EM from"
    " one start and from ten, and how far is it from the limits?"
  )
  config.variant = variant
  add = {
    "": _add_all,
    "shipped": _add_shipped,
    "anisotropic": _add_anisotropic,
    "large": _add_large,
    "quick": _add_quick,
    "smoke": _add_smoke,
  }
  add[variant](config)
  return config


def _add_shipped(config):
  config.evaluation.dims = (2,)
  config.evaluation.with_pretrained = "tgmm-d2"


def _small(dim, num_steps=_NUM_STEPS):
  """A training of the paper's network at a size for one core."""
  run = mixtures.tgmm_run(dim)
  mixtures.make_small(run, num_steps=num_steps)
  run.checkpoint_every = min(2_000, num_steps // 2)
  run.model.width = 64
  run.optimizer.learning_rate = 1e-3
  run.optimizer.num_warmup_steps = min(1_000, num_steps // 10)
  run.optimizer.b2 = 0.98
  return run


def _add_all(config):
  for dim in DIMS:
    config.runs[f"tgmm-d{dim}"] = _small(dim)
  for seed in (1, 2):
    run = _small(2)
    run.seed = seed
    run.solver = f"tgmm-seed{seed}"
    config.runs[f"tgmm-d2-seed{seed}"] = run
  _add_others(config)


def _add_others(config, num_steps=_NUM_STEPS):
  mamba2 = _small(2, num_steps)
  mamba2.solver = "tgmm-mamba2"
  mamba2.model.backbone = "mamba2"
  # Of Mamba2 width x expansion = num_heads x head_dim.
  mamba2.model.num_heads, mamba2.model.head_dim = 4, 32
  mamba2.model.expansion = 2
  config.runs["tgmm-mamba2-d2"] = mamba2
  released = _small(2, num_steps)
  mixtures.make_released(released)
  # Of each K, so that there are as many in all as in the others.
  released.batch_sizes = (8,)
  config.runs["tgmm-released-d2"] = released


def _add_anisotropic(config):
  config.tasks.covariance_type = "diag"
  config.evaluation.dims = (2,)
  config.runs["tgmm-diag-d2"] = _small(2)


def _add_large(config):
  config.evaluation.dims = (2,)
  run = mixtures.tgmm_run(2)
  run.num_steps, run.steps_per_call = 8_000, 10
  run.checkpoint_every = 200
  run.optimizer.learning_rate = 3e-4
  run.optimizer.schedule = "cosine"
  run.optimizer.num_warmup_steps = 500
  run.optimizer.b2 = 0.98
  run.optimizer.max_grad_norm = 1.0
  config.runs["tgmm-large-d2"] = run


def _add_quick(config):
  config.evaluation.dims = (2,)
  config.runs["tgmm-d2"] = _small(2, _NUM_QUICK_STEPS)
  _add_others(config, _NUM_QUICK_STEPS)


def _add_smoke(config):
  config.runs["tgmm-d2"] = mixtures.tgmm_run(2)
  released = mixtures.tgmm_run(2)
  mixtures.make_released(released)
  config.runs["tgmm-released-d2"] = released
  mixtures.make_smoke(config)
