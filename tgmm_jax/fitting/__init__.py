"""For people with data: nothing to train, nothing to choose but K."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from tgmm_jax.fitting.estimator.gaussian_mixture import GaussianMixture
  from tgmm_jax.fitting.fits import fit
  from tgmm_jax.fitting.fitted import Fit, load, load_fit
  from tgmm_jax.fitting.networks import network_for
  from tgmm_jax.fitting.saved import SavedFitError
  from tgmm_jax.fitting.tables import Table, described
  from tgmm_jax.fitting.tables import read as read_table

__all__ = [
  "Fit",
  "GaussianMixture",
  "SavedFitError",
  "Table",
  "described",
  "fit",
  "load",
  "load_fit",
  "network_for",
  "read_table",
]

# Where each stands. They are imported at their first use: the networks,
# scikit-learn and pandas take a second each, and few need all.
_PLACES = {
  "Fit": ("fitted", "Fit"),
  "GaussianMixture": ("estimator.gaussian_mixture", "GaussianMixture"),
  "SavedFitError": ("saved", "SavedFitError"),
  "Table": ("tables", "Table"),
  "described": ("tables", "described"),
  "fit": ("fits", "fit"),
  "load": ("fitted", "load"),
  "load_fit": ("fitted", "load_fit"),
  "network_for": ("networks", "network_for"),
  "read_table": ("tables", "read"),
}


def __getattr__(name: str) -> Any:
  """What the package offers, at its first use."""
  if name not in _PLACES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module, own = _PLACES[name]
  return getattr(importlib.import_module(f"{__name__}.{module}"), own)
