"""The spectral method for spherical mixtures, from points or from moments."""

from tgmm_jax.solvers.spectral.method import (
  ABOUT,
  MomentFit,
  fit,
  fit_moments,
  recover,
)
from tgmm_jax.solvers.spectral.moments import (
  noise_edge,
  noise_variance,
  whitened_moments,
)
from tgmm_jax.solvers.spectral.tensor_power import draw_starts

__all__ = [
  "ABOUT",
  "MomentFit",
  "draw_starts",
  "fit",
  "fit_moments",
  "noise_edge",
  "noise_variance",
  "recover",
  "whitened_moments",
]
