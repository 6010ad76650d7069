"""For people with data: nothing to train, nothing to choose but K."""

import importlib
from typing import Any

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
