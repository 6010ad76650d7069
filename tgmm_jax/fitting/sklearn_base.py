"""What an estimator takes from scikit-learn, and what stands in without it.

With scikit-learn at hand estimators are its own kind: pipelines, grid search
and `clone` know them. Without it they keep the same parameters, checks and
errors. Nothing else in the library imports scikit-learn.
"""

import inspect

import numpy as np

try:
  from sklearn.base import BaseEstimator, DensityMixin
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:

  class ConvergenceWarning(UserWarning):
    """The result is not what was asked for."""

  class NotFittedError(ValueError, AttributeError):
    """An estimator is used before `fit`."""

  class DensityMixin:
    """Stands in for scikit-learn's."""

  class BaseEstimator:
    """Parameters are the constructor's arguments, stored as they came."""

    @classmethod
    def _defaults(cls):
      parameters = inspect.signature(cls.__init__).parameters.values()
      return {one.name: one.default for one in parameters if one.name != "self"}

    def get_params(self, deep: bool = True) -> dict:
      """The constructor's arguments by name; `deep` makes no difference."""
      del deep
      return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **params):
      """Sets some of them, and returns the estimator."""
      for name, value in params.items():
        if name not in self._defaults():
          raise ValueError(
            f"set_params got {name!r}, takes {sorted(self._defaults())}"
          )
        setattr(self, name, value)
      return self

    def __repr__(self) -> str:
      """The constructor's call, without what is at its default."""
      defaults = self._defaults()
      changed = ", ".join(
        f"{name}={value!r}"
        for name, value in self.get_params().items()
        if repr(value) != repr(defaults[name])
      )
      return f"{type(self).__name__}({changed})"

  def check_is_fitted(estimator, attribute) -> None:
    """Refuses an estimator before `fit`, which sets the attribute."""
    if not hasattr(estimator, attribute):
      raise NotFittedError(
        f"{type(estimator).__name__} is not fitted, takes a call of fit first"
      )

  def validate_data(
    estimator, X, *, reset=True, dtype="numeric", ensure_min_samples=1
  ):
    """Finite numbers `[N, d]`; sets or compares `n_features_in_`."""
    takes = "takes finite real numbers of shape [N, d]"
    if hasattr(X, "tocsr"):
      raise TypeError(f"X is a sparse {type(X).__name__}, {takes}")
    X = np.asarray(X)
    if X.ndim != 2 or 0 in X.shape:
      raise ValueError(f"X has shape {X.shape}, {takes}")
    if np.iscomplexobj(X):
      raise ValueError(f"X has dtype {X.dtype}, {takes}")
    if dtype != "numeric" and X.dtype not in dtype:
      X = X.astype(dtype[0])
    if not np.all(np.isfinite(X)):
      row, column = np.argwhere(~np.isfinite(X))[0]
      raise ValueError(
        f"X contains {X[row, column]} (first at [{row}, {column}]), {takes}"
      )
    if len(X) < ensure_min_samples:
      raise ValueError(
        f"X has shape {X.shape}, takes at least {ensure_min_samples} samples"
      )
    if reset:
      estimator.n_features_in_ = X.shape[1]
    elif X.shape[1] != estimator.n_features_in_:
      raise ValueError(
        f"X has {X.shape[1]} features, takes {estimator.n_features_in_}"
      )
    return X


def check_points(estimator, X, **options) -> np.ndarray:
  """`X [N, d]`, finite, float32 or else float64.

  Args:
    estimator: gets `n_features_in_`, or has it compared.
    X: what NumPy can make an array of.
    **options: `reset` (False compares) and `ensure_min_samples`.
  """
  if isinstance(X, np.ma.MaskedArray) and np.any(X.mask):
    raise ValueError(
      f"X is a masked array with {int(np.sum(X.mask))} masked values, takes"
      " sample_weight 0 for what is missing"
    )
  return validate_data(estimator, X, dtype=(np.float64, np.float32), **options)


def check_sample_weight(sample_weight, X: np.ndarray) -> np.ndarray:
  """As `[N]` in the dtype of X: ones for None, a number for all."""
  if sample_weight is None:
    return np.ones(len(X), X.dtype)
  sample_weight = np.asarray(sample_weight, X.dtype)
  if sample_weight.ndim == 0:
    sample_weight = np.full(len(X), sample_weight)
  if sample_weight.shape != X.shape[:1]:
    raise ValueError(
      f"sample_weight has shape {sample_weight.shape}, takes {X.shape[:1]}"
    )
  is_weight = (sample_weight >= 0) & (sample_weight < np.inf)
  if not np.all(is_weight):
    index = int(np.argmin(is_weight))
    raise ValueError(
      f"sample_weight is {sample_weight[index]} at {index}, takes finite"
      " numbers >= 0"
    )
  if not np.any(sample_weight > 0):
    raise ValueError(
      f"sample_weight is zero for all of {len(X)} samples, takes some above"
    )
  return sample_weight


__all__ = [
  "BaseEstimator",
  "ConvergenceWarning",
  "DensityMixin",
  "check_is_fitted",
  "check_points",
  "check_sample_weight",
]
