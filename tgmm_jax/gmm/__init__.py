"""What a mixture is: covariance types, densities, sampling, missing cells.

All functions take one problem, `points [N, d]`, and vmap. `covariance_type`
says how `mixture.covariances` is to be read; shapes alone cannot tell diag
from tied when K = d. `COVARIANCE_TYPES` is the table of what each type has.
"""

from tgmm_jax.gmm.mixture import (
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

__all__ = [
  "COVARIANCE_TYPES",
  "CovarianceType",
  "component_energies",
  "component_log_density",
  "covariance_matrices",
  "distances",
  "in_blocks",
  "inverse_factor",
  "kind_of",
  "log_density",
  "log_joint",
  "log_likelihood",
  "log_weights",
  "predict",
  "responsibilities",
  "rows_of_block",
  "sample",
  "standard_deviations",
]
