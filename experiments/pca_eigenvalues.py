"""Do transformers compute the eigenvalues of a sample covariance?

  python -m experiments.main --config=experiments/pca_eigenvalues.py[:VARIANT]

The network reads N points and answers with the k largest eigenvalues of their
covariance (He et al. 2025, figure 2): the top 10 at d = 20 and N = 50, d
varied at N = 10, the number of layers varied, and the top 3 at d = 10, N = 50
with more steps. Beside it stand the power method after a few steps, the
spectrum of the law that the points were drawn from, and the mean spectrum of
all problems.

No variant: the paper's sizes and 100,000 steps each; an accelerator's work.
`:quick`: fewer steps and sizes, for 2 CPU cores.
`:smoke`: goes through everything in seconds, for the tests.
"""

import ml_collections

from experiments import results_pages, spectra
from experiments.runner import fields

VARIANTS = ("", "quick", "smoke")

experiment = spectra.experiment
sweep = spectra.sweep

CONCLUSION = (
  "Of the top three at d = 10, trained for the longest, the network has the"
  " first two eigenvalues as near as eight steps of the power method for each"
  " of them or nearer, and loses the third; everywhere else it stays behind"
  " eight steps."
  " Six layers are better than one, which is hardly better than the mean"
  " spectrum, and the ten at d = 20 are only a little better than that."
)
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Mean relative squared error of the eigenvalues, {count} problems in each"
      " cell, with its standard error.",
      results_pages.series(
        *("transformer", "power method, 2 steps", "power method, 4 steps"),
        *("power method, 8 steps", "population", "mean spectrum"),
      ),
      {
        "top 3, first": {"study": "top3", "x": 1.0},
        "top 3, third": {"study": "top3", "x": 3.0},
        "d = 5, N = 10": {"study": "over dim", "x": 5.0},
        "d = 20, N = 10": {"study": "over dim", "x": 20.0},
        "1 layer": {"study": "over num_layers", "x": 1.0},
        "6 layers": {"study": "over num_layers", "x": 6.0},
        "top 10, first": {"study": "top10", "x": 1.0},
        "top 10, tenth": {"study": "top10", "x": 10.0},
      },
    ),
    figures={
      "by_index": "Error of each eigenvalue",
      "over_num_layers": "Mean error against the number of layers",
    },
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = spectra.get_config()
  config.title = "PCA: eigenvalues"
  config.question = (
    "How near does a trained transformer come to the eigenvalues of a sample"
    " covariance, and what does the error depend on?"
  )
  config.variant = variant
  is_small = variant in ("quick", "smoke")
  _add(config, "top10", dim=20, num_points=50, num_targets=10)
  _add(config, "top3", dim=10, num_points=50, num_targets=3)
  config.runs.top3.model.update(attention="relu/N", has_norm=False)
  for dim in (5, 20) if is_small else (5, 10, 15, 20):
    _add(config, f"dim{dim}", "dim", dim=dim, num_points=10, num_targets=3)
  for depth in (1, 6) if is_small else (1, 3, 6, 9, 12):
    name = f"layers{depth}"
    _add(config, name, "num_layers", dim=20, num_points=50, num_targets=3)
    config.runs[name].model.num_layers = depth
  if variant == "quick":
    for name, run in config.runs.items():
      spectra.make_quick(run, 4_000 if name == "top3" else 1_000)
  elif variant == "smoke":
    for name in ("dim20", "layers6"):
      del config.runs[name]
    spectra.make_smoke(config)
  return config


def _add(config, name, varies="", **sizes):
  run = spectra.training_run()
  run.varies = varies
  run.update(sizes)
  config.runs[name] = run
