"""RQ1's cells under all metrics: accuracy, likelihood, weights.

  python -m experiments.main --config=experiments/metrics_all.py[:VARIANT]

The paper's appendix has clustering accuracy and log-likelihood beside the error
of the means. Here are both, the likelihood of the points that were solved and
of fresh ones, with a figure for each.

No variant: the networks and cells of `rq1.py`; with
`--config.restore_dir=runs/rq1-full` those that were trained there go on.
`:quick`: a `refiner` trained for two minutes. `:smoke`: seconds, for the tests.
"""

import functools

import ml_collections

from experiments import mixtures, results_pages, rq1
from experiments.runner import fields
from tgmm_jax.evaluation import results
from tgmm_jax.figures import cells as cell_figures

VARIANTS = ("", "quick", "smoke")
METRICS = {
  "accuracy": "Clustering accuracy",
  "log_likelihood": "Log-likelihood of the points that were solved",
  "log_likelihood_fresh": "Log-likelihood of fresh points",
  "weight_error": "Error of the weights",
}

sweep = mixtures.sweep

CONCLUSION = (
  "With 8 views and 5 EM steps the refiner labels as many points right as EM"
  " started at the truth, and makes fresh points as likely, in every cell to"
  " within two standard errors; ten restarts of EM do so too."
  " One forward pass is behind ten restarts for K = 5 in both, and one start of"
  " EM from N(0, I) loses most where there are many dimensions."
)
_ACCURACY, _FRESH = "accuracy", "log_likelihood_fresh"
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Share of the points in the right cluster, and mean log density of fresh"
      " points, at N = 128, {count} tasks in each cell, with its standard"
      " error.",
      results_pages.solvers(
        *("refiner", "refiner-x8+em5", "em/normal", "em/k-means++-x10"),
        *("em/oracle", "labels"),
      ),
      {
        f"{kind}, d = {dim}, K = {count}": {
          "metric": metric,
          "dim": dim,
          "num_components": count,
        }
        for kind, metric in (("right", _ACCURACY), ("fresh", _FRESH))
        for dim, count in ((2, 3), (2, 5), (8, 5), (128, 5))
      },
    ),
    figures={
      _ACCURACY: "Share of the points in the right cluster against K",
      _FRESH: "Log density of fresh points against K",
    },
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = rq1.get_config("smoke" if variant == "smoke" else "")
  config.title = "RQ1's cells under all metrics"
  config.question = (
    "Do trained networks also cluster as well as the classical solvers, and"
    " are their mixtures as likely?"
  )
  config.variant = variant
  if variant == "quick":
    config.evaluation.num_tasks = 512
    for dim in rq1.DIMS:
      del config.runs[f"tgmm-d{dim}"]
    refiner = mixtures.refiner_run()
    mixtures.make_small(refiner, num_steps=7_000)
    config.runs.refiner = refiner
  return config


def _draw(config, rows):
  """A figure for each metric."""
  del config
  kept = [row for row in rows if row.solver != results.TASKS]
  return {
    caption: (
      metric,
      cell_figures.error_against_components(kept, metric=metric),
    )
    for metric, caption in METRICS.items()
  }


experiment = functools.partial(mixtures.experiment, draw_more=_draw)
