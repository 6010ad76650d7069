"""Question 2a: other numbers of points than in training.

  python -m experiments.main --config=experiments/rq2_sample_size.py[:VARIANT]

Networks trained with N0 = 32, 64, 128 (N uniform between N0 / 2 and N0) are
evaluated at N = 16 ... 512, beyond what any of them was trained on, beside EM
and the spectral method on the same tasks.

No variant: `tgmm` at the paper's size at d = 2 and 8, and a `refiner` for all
d. An accelerator's work. `:quick`: small networks at d = 2, minutes on 2 CPU
cores. `:smoke`: seconds, for the tests.
"""

import ml_collections

from experiments import mixtures, results_pages
from experiments.runner import fields

VARIANTS = ("", "quick", "smoke")
LARGEST = (32, 64, 128)  # N0

experiment = mixtures.experiment
sweep = mixtures.sweep

CONCLUSION = (
  "With few points (N = 16) it hardly matters how many a refiner was trained"
  " on, from N = 128 on more is better or as good; from N = 128 to 512 the one"
  " of at most 128 still gains, that of at most 32 does not for K >= 3."
  " Alone all of them lose to ten restarts of EM for K = 5 from N = 128 on;"
  " with 8 views and 5 EM steps the one of at most 128 is as near as ten"
  " restarts or nearer at every N, while the small tgmm gains little from more"
  " points than 128."
)
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Squared error of the means at d = 2, {count} tasks in each cell, with"
      " its standard error; `-n32` is trained on at most 32 points.",
      results_pages.solvers(
        *("refiner-n32", "refiner-n64", "refiner-n128", "refiner-n128-x8+em5"),
        *("tgmm-n32", "tgmm-n128", "em/k-means++-x10", "em/oracle"),
      ),
      {
        f"K = {count}, N = {size}": {
          "num_components": count,
          "num_points": size,
        }
        for count in (3, 5)
        for size in (16, 32, 128, 512)
      },
      metric="l2_error",
    ),
    figures={"num_points": "Error of the means against N"},
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = mixtures.get_config()
  config.title = "RQ2: other numbers of points"
  config.question = (
    "How much do trained networks lose on numbers of points that they were not"
    " trained on, and how much does a larger sample help them?"
  )
  config.variant = variant
  config.evaluation.dims = (2, 8)
  config.evaluation.num_points = (16, 32, 64, 128, 256, 512)
  for largest in LARGEST:
    refiner = mixtures.refiner_run()
    refiner.batch_sizes = (80, 40, 40, 40, 32, 24)
    refiner.num_steps = 200_000
    _add(config, f"refiner-n{largest}", refiner, largest)
    for dim in (2, 8):
      _add(config, f"tgmm-n{largest}-d{dim}", mixtures.tgmm_run(dim), largest)
  if variant == "quick":
    _make_quick(config)
  elif variant == "smoke":
    mixtures.make_smoke(config)
    config.evaluation.num_points = (16, 32)
    for name in list(config.runs):
      if "-n32" not in name:
        del config.runs[name]
  return config


def _add(config, name, run, largest):
  run.solver = f"{run.network}-n{largest}"
  run.min_points, run.max_points = largest // 2, largest
  config.runs[name] = run


def _make_quick(config):
  config.evaluation.dims = (2,)
  config.evaluation.num_points = (16, 32, 128, 512)
  config.evaluation.num_tasks = 256
  for name in ("tgmm-n64-d2", *(f"tgmm-n{largest}-d8" for largest in LARGEST)):
    del config.runs[name]
  for run in config.runs.values():
    if run.network == "refiner":
      run.dims, run.batch_sizes = (2,), (32,)
      mixtures.make_small(run, num_steps=1_500)
    else:
      mixtures.make_small(run, num_steps=600)
