"""Do transformers compute the leading principal space?

  python -m experiments.main --config=experiments/pca_subspace.py[:VARIANT]

The network reads N points and answers with k vectors whose span is to be that
of the k leading eigenvectors (He et al. 2025, figure 5). The loss is the
distance of the projectors: within the space any basis is right.

No variant: the paper's large network and 100,000 steps each; an accelerator's
work.
`:quick`: a small network and fewer steps, for 2 CPU cores.
`:smoke`: goes through everything in seconds, for the tests.
"""

import ml_collections

from experiments import results_pages, spectra
from experiments.runner import fields

VARIANTS = ("", "quick", "smoke")

experiment = spectra.experiment
sweep = spectra.sweep

CONCLUSION = (
  "One direction is found as well as by eight steps of the power method."
  " Every further one is harder for the network and no harder for the power"
  " method: at k = 4 it is as far as a single step."
)
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Sum of the squared sines of the angles between the spaces, at d = 10,"
      " N = 10, {count} problems in each cell, with its standard error.",
      results_pages.series(
        *("transformer", "power method, 1 step", "power method, 2 steps"),
        *("power method, 4 steps", "power method, 8 steps"),
        *("population", "random direction"),
      ),
      results_pages.across(
        "x", (1.0, 2.0, 3.0, 4.0), "k = {:g}", study="over num_targets"
      ),
    ),
    figures={"over_num_targets": "Distance of the spaces against k"},
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = spectra.get_config()
  config.title = "PCA: principal spaces"
  config.question = (
    "How near does a trained transformer come to the space of the k leading"
    " eigenvectors?"
  )
  config.variant = variant
  for count in (1, 2, 3, 4):
    run = spectra.training_run()
    run.loss = "subspace"
    run.varies = "num_targets"
    run.dim, run.num_points, run.num_targets = 10, 10, count
    if variant == "quick":
      spectra.make_quick(run, 4_000)
    else:
      spectra.make_large(run)
    config.runs[f"k{count}"] = run
  if variant == "smoke":
    for name in ("k3", "k4"):
      del config.runs[name]
    spectra.make_smoke(config)
  return config
