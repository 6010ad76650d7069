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
from tgmm_jax.gmm.observed import (
  Latent,
  Observation,
  impute,
  is_diagonal,
  latent,
  observe,
  observed_log_joint,
  seen_cells,
)

__all__ = [
  "COVARIANCE_TYPES",
  "CovarianceType",
  "Latent",
  "Observation",
  "component_energies",
  "component_log_density",
  "covariance_matrices",
  "distances",
  "impute",
  "in_blocks",
  "inverse_factor",
  "is_diagonal",
  "kind_of",
  "latent",
  "log_density",
  "log_joint",
  "log_likelihood",
  "log_weights",
  "observe",
  "observed_log_joint",
  "predict",
  "responsibilities",
  "rows_of_block",
  "sample",
  "seen_cells",
  "standard_deviations",
]
