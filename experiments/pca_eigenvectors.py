"""Do transformers compute the leading eigenvectors, and as the power method?

  python -m experiments.main --config=experiments/pca_eigenvectors.py[:VARIANT]

The network reads N points and answers with the k leading eigenvectors of their
covariance (He et al. 2025, figure 3): the first with d varied and with the
number of layers varied, and k varied. Loss and score are `1 - |cos|`: an
eigenvector has no sign. Then the layers of one network are looked into: do
the states of the points turn to the leading eigenvector as the iterates of the
power method do?

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
  "One, two and four layers are nearer to the first eigenvector than as many"
  " steps of the power method, but four eigenvectors at once are hardly"
  " learned: the network lies between one and two steps there."
  " Inside, the points' states turn to the eigenvector layer by layer, more"
  " slowly than the iterates of the power method, so the network does not"
  " simply repeat them."
)
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "|cos| of the angle with the eigenvectors at N = 10, {count} problems in"
      " each cell, with its standard error; d = 10 and three layers where"
      " nothing else is said.",
      results_pages.series(
        *("transformer", "power method, 1 step", "power method, 2 steps"),
        *("power method, 4 steps", "power method, 8 steps", "random direction"),
      ),
      {
        **results_pages.across("x", (5.0, 20.0), "d = {:g}", study="over dim"),
        **results_pages.across(
          "x", (1.0, 2.0, 4.0), "layers: {:g}", study="over num_layers"
        ),
        **results_pages.across(
          "x", (2.0, 4.0), "eigenvectors: {:g}", study="over num_targets"
        ),
      },
    ),
    figures={
      "probe": "What the states of the points know, layer by layer, and the"
      " error of the answer against depth",
      "over_num_targets": "Mean over k eigenvectors",
    },
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = spectra.get_config()
  config.title = "PCA: eigenvectors"
  config.question = (
    "How near does a trained transformer come to the leading eigenvectors of a"
    " sample covariance, and does it do what the power method does?"
  )
  config.variant = variant
  config.evaluation.probed = "top1"
  is_small = variant in ("quick", "smoke")
  _add(config, "top1", dim=5, num_points=20)
  config.runs.top1.model.num_layers = 4
  for dim in (5, 20) if is_small else (5, 10, 15, 20):
    _add(config, f"dim{dim}", "dim", dim=dim)
  for depth in (1, 2, 4) if is_small else (1, 2, 3, 4, 6, 9, 12):
    _add(config, f"layers{depth}", "num_layers")
    config.runs[f"layers{depth}"].model.num_layers = depth
  for count in (2, 4) if is_small else (1, 2, 3, 4, 6):
    _add(config, f"k{count}", "num_targets", num_targets=count)
  if variant == "quick":
    for name, run in config.runs.items():
      spectra.make_quick(run, 5_000 if name == "top1" else 2_000)
  elif variant == "smoke":
    for name in ("dim20", "layers4", "k4"):
      del config.runs[name]
    spectra.make_smoke(config)
  return config


def _add(config, name, varies="", **sizes):
  run = spectra.training_run()
  run.loss = "eigenvectors"
  run.varies = varies
  run.update({"dim": 10, "num_points": 10, "num_targets": 1} | sizes)
  config.runs[name] = run
