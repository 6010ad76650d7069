"""What a Gaussian mixture is, and what can be read off one.

Covariance types, densities and sampling; marginals, conditionals and
regression; bounds of the entropy; components merged into clusters; points with
holes. All
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
from tgmm_jax.gmm.covariance_types import (
  COVARIANCE_TYPES,
  CovarianceType,
  covariance_matrices,
  kind_of,
  standard_deviations,
)
from tgmm_jax.gmm.densities import (
  component_log_density,
  in_blocks,
  log_density,
  log_joint,
  log_likelihood,
  log_weights,
  predict,
  responsibilities,
  rows_of_block,
  sample,
)
from tgmm_jax.gmm.distances import (
  Metric,
  component_energies,
  inverse_factor,
  metric,
  roundings,
  squared_distances,
)
from tgmm_jax.gmm.entropy import EntropyBounds, entropy_bounds
from tgmm_jax.gmm.merging import Merging, joined, merge
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
  "EntropyBounds",
  "Latent",
  "Merging",
  "Metric",
  "Moments",
  "Observation",
  "component_energies",
  "component_log_density",
  "condition",
  "covariance_matrices",
  "entropy_bounds",
  "impute",
  "in_blocks",
  "index_of",
  "inverse_factor",
  "is_diagonal",
  "joined",
  "kind_of",
  "latent",
  "log_density",
  "log_joint",
  "log_likelihood",
  "log_weights",
  "marginal",
  "merge",
  "metric",
  "moments",
  "observe",
  "observed_log_joint",
  "predict",
  "regress",
  "responsibilities",
  "roundings",
  "rows_of_block",
  "sample",
  "seen_cells",
  "squared_distances",
  "standard_deviations",
]
