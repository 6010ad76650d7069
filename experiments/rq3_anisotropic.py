"""Question 3: mixtures whose components have scales of their own.

  python -m experiments.main --config=experiments/rq3_anisotropic.py[:VARIANT]

Every component has a standard deviation in each coordinate, and the networks
answer with them too. Beside them stand EM with diagonal covariances, with and
without a floor of the variances, EM started at the truth, and the true
clusters. The spectral method, which needs one variance for all, is not here.

No variant: `tgmm` for d = 2, 8, 32, 128 at the paper's size, and a `refiner`
for d <= 8. An accelerator's work.
`:pretrained`: the shipped network at d = 2 and 8; nothing is trained.
`:quick`: a `refiner` at d = 2 and, for the contrast, a small `tgmm`. Four
minutes on 2 CPU cores.
`:smoke`: goes through everything in seconds, for the tests.
"""

import ml_collections

from experiments import mixtures
from experiments.runner import fields

VARIANTS = ("", "pretrained", "quick", "smoke")
DIMS = (2, 8, 32, 128)

experiment = mixtures.experiment
sweep = mixtures.sweep


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = mixtures.get_config()
  config.title = "RQ3: anisotropic mixtures"
  config.question = (
    "Does a transformer that also estimates scales solve mixtures of"
    " anisotropic components better than EM with diagonal covariances?"
  )
  config.variant = variant
  config.tasks.covariance_type = "diag"
  add = {
    "": _add_paper,
    "pretrained": _add_pretrained,
    "quick": _add_quick,
    "smoke": _add_smoke,
  }
  add[variant](config)
  return config


def _add_paper(config):
  for dim in DIMS:
    config.runs[f"tgmm-d{dim}"] = mixtures.tgmm_run(dim)
  refiner = mixtures.refiner_run()
  refiner.dims = (2, 3, 5, 8)
  refiner.batch_sizes = (80, 40, 40, 80)
  refiner.model.rank = 8
  refiner.num_steps = 200_000
  config.runs.refiner = refiner


def _add_pretrained(config):
  config.evaluation.dims = (2, 8)
  config.evaluation.with_pretrained = "diag"


def _add_quick(config):
  config.evaluation.dims = (2,)
  refiner = mixtures.refiner_run()
  refiner.dims, refiner.batch_sizes = (2,), (32,)
  refiner.model.rank = 2
  mixtures.make_small(refiner, num_steps=8_000)
  config.runs["refiner-d2"] = refiner
  config.runs["tgmm-d2"] = mixtures.tgmm_run(2)
  mixtures.make_small(config.runs["tgmm-d2"], num_steps=3_000)


def _add_smoke(config):
  config.runs.refiner = mixtures.refiner_run()
  config.runs.refiner.model.rank = 3
  config.runs["tgmm-d2"] = mixtures.tgmm_run(2)
  mixtures.make_smoke(config)
