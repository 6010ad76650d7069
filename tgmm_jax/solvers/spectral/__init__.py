"""The spectral method for spherical mixtures, from points or from moments."""

from tgmm_jax.solvers.spectral.method import (
  MomentFit,
  fit,
  fit_moments,
  recover,
)

__all__ = ["ABOUT", "MomentFit", "fit", "fit_moments", "recover"]
