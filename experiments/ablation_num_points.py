"""Ablation: error against N at inference, networks trained at one N0.

  python -m experiments.main --config=experiments/ablation_num_points.py:quick

One law of training, N between 64 and 128, and N = 16 ... 512 at inference: does
a trained network go on improving as EM does?

No variant: `tgmm` at the paper's size for d = 2, 8, 32, 128 and one `refiner`.
An accelerator's work. `:quick`: a `refiner` for d = 2 and 8 and a small `tgmm`,
minutes on 2 CPU cores. `:smoke`: seconds, for the tests.
"""

import ml_collections

from experiments import mixtures, results_pages
from experiments.runner import fields

VARIANTS = ("", "quick", "smoke")
DIMS = (2, 8, 32, 128)

experiment = mixtures.experiment
sweep = mixtures.sweep

CONCLUSION = (
  "Alone the refiner uses more points than it was trained on for K = 2 and 3,"
  " but not for K = 5, where it is no nearer at N = 512 than at 128; with 8"
  " views and 5 EM steps it is at EM started at the truth for d = 8 from"
  " N = 128 on, and at d = 2 as near as ten restarts or nearer at every N."
  " It stays above EM started at the truth for K = 5 at d = 2, and for K >= 3"
  " where there are 16 points; the small tgmm gains little or nothing from more"
  " points than 128."
)
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Squared error of the means at d = 2, {count} tasks in each cell, with"
      " its standard error.",
      results_pages.solvers(
        *("refiner", "refiner-x8+em5", "tgmm", "tgmm+em5"),
        *("em/normal", "em/k-means++-x10", "em/oracle"),
      ),
      {
        f"K = {count}, N = {size}": {
          "num_components": count,
          "num_points": size,
        }
        for count in (3, 5)
        for size in (16, 32, 128, 512)
      },
      dim=2,
      metric="l2_error",
    ),
    figures={"num_points": "Error of the means against N"},
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = mixtures.get_config()
  config.title = "Ablation: number of points at inference"
  config.question = (
    "Does a trained network use more points than it was trained on, and what"
    " is left of it with fewer?"
  )
  config.variant = variant
  config.evaluation.num_points = (16, 32, 64, 128, 256, 512)
  for dim in DIMS:
    config.runs[f"tgmm-d{dim}"] = mixtures.tgmm_run(dim)
  refiner = mixtures.refiner_run()
  refiner.batch_sizes = (80, 40, 40, 40, 32, 24)
  refiner.num_steps = 200_000
  config.runs.refiner = refiner
  if variant == "quick":
    _make_quick(config)
  elif variant == "smoke":
    mixtures.make_smoke(config)
    config.evaluation.num_points = (16, 32)
  return config


def _make_quick(config):
  config.evaluation.dims = (2, 8)
  config.evaluation.num_points = (16, 32, 128, 512)
  config.evaluation.num_tasks = 256
  for dim in (8, 32, 128):
    del config.runs[f"tgmm-d{dim}"]
  mixtures.make_small(config.runs["tgmm-d2"], num_steps=800)
  refiner = config.runs.refiner
  refiner.dims, refiner.batch_sizes = (2, 8), (16, 16)
  mixtures.make_small(refiner, num_steps=4_000)
