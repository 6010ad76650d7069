"""Algorithms learned by transformers for unsupervised problems, in JAX."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["fit"]


def __getattr__(name: str) -> Any:
  """`tgmm_jax.fit`, imported at its first use: the package itself is light."""
  if name == "fit":
    from tgmm_jax import fitting

    return fitting.fit
  raise AttributeError(f"module 'tgmm_jax' has no attribute {name!r}")
