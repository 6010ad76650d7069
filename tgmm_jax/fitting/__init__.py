"""For people with data: nothing to train, nothing to choose but K."""

from typing import Any

from tgmm_jax.fitting.fits import fit
from tgmm_jax.fitting.fitted import Fit, load, load_fit
from tgmm_jax.fitting.networks import networks_for
from tgmm_jax.fitting.saved import SavedFitError

__all__ = [
  "Fit",
  "GaussianMixture",
  "SavedFitError",
  "fit",
  "load",
  "load_fit",
  "networks_for",
]


def __getattr__(name: str) -> Any:
  """The estimator, at its first use: scikit-learn and pandas take a second."""
  if name == "GaussianMixture":
    from tgmm_jax.fitting.estimator import gaussian_mixture

    return gaussian_mixture.GaussianMixture
  raise AttributeError(f"module 'tgmm_jax.fitting' has no attribute {name!r}")
