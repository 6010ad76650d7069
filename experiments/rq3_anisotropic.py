"""Question 3: mixtures whose components have scales of their own.

  python -m experiments.main --config=experiments/rq3_anisotropic.py[:VARIANT]

Every component has a standard deviation in each coordinate, and the networks
answer with them too. Beside them stand EM with diagonal covariances, with and
without a floor of the variances, EM started at the truth, and the true
clusters. The spectral method, which needs one variance for all, is not here.

No variant: `tgmm` for d = 2, 8, 32, 128 at the paper's size, and a `refiner`
for d <= 8. An accelerator's work.
`:quick`: a `refiner` at d = 2 and, for the contrast, a small `tgmm`. Six
minutes on 2 CPU cores.
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
  config.title = "RQ3: anisotropic mixtures"
  config.question = (
    "Does a transformer that also estimates scales solve mixtures of"
    " anisotropic components better than EM with diagonal covariances?"
  )
  config.variant = variant
  config.tasks.covariance_type = "diag"
  {"": _add_paper, "quick": _add_quick, "smoke": _add_smoke}[variant](config)
  return config


def sweep(config: ml_collections.ConfigDict) -> list[dict[str, str]]:
  """One element of a job array for each training, one for the baselines."""
  names = [*sorted(config.runs), base.BASELINES]
  return [{"only": name} for name in names]


def _add_paper(config):
  for dim in DIMS:
    config.runs[f"tgmm-d{dim}"] = base.tgmm_run(dim)
  refiner = base.refiner_run()
  refiner.dims = (2, 3, 5, 8)
  refiner.batch_sizes = (80, 40, 40, 80)
  refiner.model.rank = 8
  refiner.num_steps = 200_000
  config.runs.refiner = refiner


def _add_quick(config):
  config.evaluation.dims = (2,)
  refiner = base.refiner_run()
  refiner.dims = (2,)
  refiner.batch_sizes = (32,)
  refiner.model.rank = 2
  refiner.num_steps = 8_000
  refiner.steps_per_call = 50
  refiner.checkpoint_every = 1_000
  config.runs["refiner-d2"] = refiner

  tgmm = base.tgmm_run(2)
  tgmm.batch_sizes = (32,)
  tgmm.model.width = 32
  tgmm.model.num_layers = 3
  tgmm.optimizer.learning_rate = 2e-3
  tgmm.optimizer.schedule = "cosine"
  tgmm.optimizer.num_warmup_steps = 100
  tgmm.optimizer.max_grad_norm = 1.0
  tgmm.num_steps = 3_000
  tgmm.steps_per_call = 50
  tgmm.checkpoint_every = 500
  config.runs["tgmm-d2"] = tgmm


def _add_smoke(config):
  config.tasks.min_points = 16
  config.tasks.max_points = 32
  config.tasks.num_components = (2, 3)
  config.evaluation.dims = (2,)
  config.evaluation.num_components = (2, 3)
  config.evaluation.num_points = (32,)
  config.evaluation.num_tasks = 16

  refiner = base.refiner_run()
  refiner.dims = (2,)
  refiner.batch_sizes = (8,)
  refiner.model.rank = 2
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
