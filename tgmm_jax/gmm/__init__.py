"""What a Gaussian mixture is, and what can be read off one.

Covariance types, densities and sampling; marginals, conditionals and
regression; bounds of the entropy; components merged into clusters. All
functions are pure and take one mixture; `jax.vmap` makes the batch.
"""

from tgmm_jax.gmm.conditionals import (
  Moments,
  condition,
  index_of,
  marginal,
  moments,
  regress,
)
from tgmm_jax.gmm.densities import (
  COVARIANCE_TYPES,
  CovarianceType,
  component_energies,
  component_log_density,
  covariance_matrices,
  distances,
  in_blocks,
  inverse_factor,
  kind_of,
  log_density,
  log_joint,
  log_likelihood,
  log_weights,
  predict,
  responsibilities,
  rows_of_block,
  sample,
  standard_deviations,
)
from tgmm_jax.gmm.entropy import EntropyBounds, entropy_bounds
from tgmm_jax.gmm.merging import Merging, joined, merge

__all__ = [
  "COVARIANCE_TYPES",
  "CovarianceType",
  "EntropyBounds",
  "Merging",
  "Moments",
  "component_energies",
  "component_log_density",
  "condition",
  "covariance_matrices",
  "distances",
  "entropy_bounds",
  "in_blocks",
  "index_of",
  "inverse_factor",
  "joined",
  "kind_of",
  "log_density",
  "log_joint",
  "log_likelihood",
  "log_weights",
  "marginal",
  "merge",
  "moments",
  "predict",
  "regress",
  "responsibilities",
  "rows_of_block",
  "sample",
  "standard_deviations",
]
