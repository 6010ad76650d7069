"""For people with data: nothing to train, nothing to choose but K."""

from tgmm_jax.fitting.fits import fit, networks_for
from tgmm_jax.fitting.gaussian_mixture import GaussianMixture
from tgmm_jax.fitting.result import Fit

__all__ = ["Fit", "GaussianMixture", "fit", "networks_for"]
