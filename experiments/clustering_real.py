"""Do transformers tell two kinds of images apart without being told which?

  python -m experiments.main --config=experiments/clustering_real.py[:VARIANT]

The network reads N images of two classes, projected on principal components of
the training split, and says of each to which of the two it belongs (He et al.
2025, section 4). It is trained on random pairs of classes of the training
split and scored on pairs of the test split: images that it has not seen, of
classes that it has. Solvers that see nothing but the N images stand beside it,
and the limit of who knows the moments of either class.

No variant: Fashion-MNIST and MNIST, 100,000 steps each; an accelerator's work.
`:quick`: the same with fewer steps, for 2 CPU cores.
`:smoke`: scikit-learn's digits, goes through everything in seconds, for the
tests.
"""

import ml_collections

from experiments import labels, results_pages, spectra
from experiments.runner import fields

VARIANTS = ("", "quick", "smoke")

experiment = labels.experiment
sweep = labels.sweep

_SOURCES = {"fashion": "idx", "mnist": "mnist-5000"}
_SMOKE_SOURCES = {"digits": "digits"}

CONCLUSION = (
  "On pairs of classes of the test split the network is ahead of everything"
  " that sees the N images alone, and on Fashion-MNIST even of the Gaussian"
  " rule that knows the moments of the classes, to which it loses a little on"
  " MNIST."
  " It was trained on other images of the same classes, which the solvers"
  " beside it have not seen: this is recognition as much as clustering."
)
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Share of the images that are put with their kind, N = 50, {count}"
      " problems in each cell, with its standard error.",
      results_pages.series(
        *("transformer", "constructed", "k-means", "em/full-x10"),
        *("em/diag-x10", "em/tied-x10", "random labels"),
        "class moments (fit)",
      ),
      {
        "Fashion-MNIST": {"study": "fashion"},
        "MNIST": {"study": "mnist"},
      },
      metric="accuracy",
      x=50.0,
    ),
    figures={"by_pair": "Each pair of classes"},
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = labels.get_config()
  config.title = "Clustering: pairs of classes of images"
  config.question = (
    "Of N images of two classes, how many does a trained transformer put with"
    " their kind, and does it gain by what it has seen of other images?"
  )
  config.variant = variant
  sources = _SMOKE_SOURCES if variant == "smoke" else _SOURCES
  for name, source in sources.items():
    run = labels.training_run()
    run.source = source
    config.runs[name] = run
  if variant == "quick":
    config.evaluation.num_instances = 1_440
    for run in config.runs.values():
      spectra.make_quick(run, 2_000)
  elif variant == "smoke":
    labels.make_smoke(config)
  return config
