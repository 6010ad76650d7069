"""Do transformers label points as well as anyone can who reads their law?

  python -m experiments.main --config=experiments/clustering.py[:VARIANT]

The network reads N points and says of each to which class it belongs (He et
al. 2025, section 4). Two classes around mu and -mu, d and N varied, over the
separation |mu|; three classes and more of the TGMM paper's mixtures, over the
range of their means. Beside it stand the constructed network of two classes,
the leading directions of the sample, k-means, EM, and the limits: labels by
the true parameters and, for two classes, Phi(|mu|).

No variant: 100,000 steps each; an accelerator's work.
`:quick`: fewer steps and sizes, for 2 CPU cores.
`:smoke`: goes through everything in seconds, for the tests.
"""

import ml_collections

from experiments import labels, results_pages, spectra
from experiments.runner import fields

VARIANTS = ("", "quick", "smoke")

experiment = labels.experiment
sweep = labels.sweep

# d and N of two classes; K, d and N of mixtures.
_TWO_CLASSES = ((2, 50), (5, 50), (10, 50), (20, 50), (10, 20), (10, 200))
_MIXTURES = ((3, 2, 128), (4, 2, 128), (3, 8, 128), (4, 8, 128))
_QUICK_TWO_CLASSES = ((2, 50), (10, 50), (10, 20))
_QUICK_MIXTURES = ((3, 2, 50), (4, 8, 50))
# Of the quick ones, those that the tests go through.
_SMOKE = ("d10-n50", "k3-d2-n50")

CONCLUSION = (
  "At d = 2 the network labels two classes as well as k-means at every"
  " separation, and better than EM where they overlap most; at d = 10 it"
  " falls behind k-means at middling separations."
  " Of three classes at d = 2 it is ahead where their means are nearest and"
  " behind ten starts of EM where they are farthest; of four at d = 8 it loses"
  " to k-means and to ten starts at every range."
)
_PLACES = {
  "d = 2, |mu| = 0.5": ("d2-n50", 0.5),
  "d = 2, |mu| = 1.5": ("d2-n50", 1.5),
  "d = 10, |mu| = 0.5": ("d10-n50", 0.5),
  "d = 10, |mu| = 1.5": ("d10-n50", 1.5),
  "K = 3, range 1": ("k3-d2-n50", 1.0),
  "K = 3, range 5": ("k3-d2-n50", 5.0),
  "K = 4, range 1": ("k4-d8-n50", 1.0),
  "K = 4, range 5": ("k4-d8-n50", 5.0),
}
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Share of the points that are labelled right, N = 50, {count} problems in"
      " each cell, with its standard error: two classes by d and separation"
      " |mu|, then mixtures of three classes (d = 2) and four (d = 8) by the"
      " range of their means.",
      results_pages.series(
        *("transformer", "constructed", "k-means", "em/k-means++"),
        *("em/k-means++-x10", "random labels", "true parameters (Bayes)"),
      ),
      {
        head: {"study": study, "x": place}
        for head, (study, place) in _PLACES.items()
      },
      metric="accuracy",
    ),
    figures={
      "two_class": "Two classes, over their separation",
      "mixtures": "Mixtures, over the range of their means",
    },
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = labels.get_config()
  config.title = "Clustering: labels of points"
  config.question = (
    "How near do the labels of a trained transformer come to those of who"
    " knows the mixture, and how do solvers that know nothing compare?"
  )
  config.variant = variant
  is_small = variant in ("quick", "smoke")
  for dim, num_points in _QUICK_TWO_CLASSES if is_small else _TWO_CLASSES:
    run = labels.training_run()
    run.dim, run.num_points = dim, num_points
    config.runs[f"d{dim}-n{num_points}"] = run
  for count, dim, num_points in _QUICK_MIXTURES if is_small else _MIXTURES:
    run = labels.training_run()
    run.source = labels.MIXTURES
    run.num_classes, run.dim, run.num_points = count, dim, num_points
    config.runs[f"k{count}-d{dim}-n{num_points}"] = run
  if variant == "quick":
    config.evaluation.num_instances = 256
    for run in config.runs.values():
      spectra.make_quick(run, 1_000)
    # More classes take longer to learn.
    for name in ("k3-d2-n50", "k4-d8-n50"):
      run = config.runs[name]
      run.model.num_heads = 4
      run.optimizer.learning_rate = 2e-3
    spectra.make_quick(config.runs["k4-d8-n50"], 2_000)
  elif variant == "smoke":
    config.runs = {name: config.runs[name] for name in _SMOKE}
    labels.make_smoke(config)
  return config
