"""Algorithms learned by transformers for unsupervised problems, in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from tgmm_jax.fitting import Fit, GaussianMixture, fit, load

  __version__: str

__all__ = ["Fit", "GaussianMixture", "fit", "load"]


def __getattr__(name: str) -> Any:
  """The front door, imported at its first use: the package itself is light."""
  match name:
    case "Fit" | "GaussianMixture" | "fit" | "load":
      from tgmm_jax import fitting

      return getattr(fitting, name)
    case "__version__":
      import importlib.metadata

      return importlib.metadata.version("tgmm_jax")
  raise AttributeError(f"module 'tgmm_jax' has no attribute {name!r}")
