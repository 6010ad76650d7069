"""What `GaussianMixture` is given, checked on the host and kept in NumPy."""

import numpy as np
from sklearn.utils import validation

from tgmm_jax.solvers import checks


def check_points(estimator, X, **options) -> np.ndarray:
  """`X [N, d]`, finite, float32 or else float64.

  Args:
    estimator: gets `n_features_in_`, or has it compared.
    X: what NumPy can make an array of.
    **options: `reset` (False compares) and `ensure_min_samples`.
  """
  if isinstance(X, np.ma.MaskedArray):
    X = checks.numbers_of("X", X, ("N", "d"))
  return validation.validate_data(
    estimator, X, dtype=(np.float64, np.float32), **options
  )


def check_sample_weight(sample_weight, X: np.ndarray) -> np.ndarray:
  """As `[N]` in the dtype of X: ones for None, a number for all."""
  if sample_weight is None:
    return np.ones(len(X), X.dtype)
  sample_weight = checks.numbers_of("sample_weight", sample_weight, ("N",))
  sample_weight = np.asarray(sample_weight, X.dtype)
  if sample_weight.ndim == 0:
    sample_weight = np.full(len(X), sample_weight)
  if sample_weight.shape != X.shape[:1]:
    raise ValueError(
      f"sample_weight has shape {sample_weight.shape}, takes {X.shape[:1]}"
    )
  checks.problem(X, sample_weight)
  return sample_weight
