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

from experiments import mixtures, rq1
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
