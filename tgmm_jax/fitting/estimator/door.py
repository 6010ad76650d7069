"""What `GaussianMixture` is given, checked on the host and kept in NumPy."""

import numpy as np
from sklearn.utils import validation

from tgmm_jax.fitting import fitted
from tgmm_jax.solvers import checks

# scikit-learn's checks of an estimator look for these words, by what X is.
_RESHAPE = "Reshape your data: X[:, None] for one column, X[None] for one point"
_WORDS = {
  "c": ". Complex data not supported",
  "O": ": argument must be numbers, no strings of numbers",
}


class _InputError(ValueError, TypeError):
  """What this library raises, and what scikit-learn does for some of it."""


def check_points(
  estimator,
  X,
  *,
  reset: bool = True,
  ensure_min_samples: int = 1,
  takes_holes: bool = False,
) -> np.ndarray:
  """`X [N, d]`, finite, float32 or else float64.

  Args:
    estimator: gets `n_features_in_` and, from a frame, `feature_names_in_`, or
      has them compared.
    X: what `checks.numbers_of` takes.
    reset: False compares.
    ensure_min_samples: the least N.
    takes_holes: whether NaN is a missing cell.
  """
  try:
    found = np.asarray(checks.numbers_of("X", X, ("N", "d")))
  except ValueError as error:
    kind = getattr(getattr(X, "dtype", None), "kind", None)
    raise _InputError(f"{error}{_WORDS.get(kind, '')}") from None
  if found.ndim != 2:
    raise ValueError(f"X has shape {found.shape}, takes [N, d]. {_RESHAPE}")
  names = getattr(X, "columns", None) if hasattr(X, "shape") else None
  is_frame = names is not None and getattr(names, "is_unique", True)
  validation.validate_data(
    estimator, X if is_frame else found, reset=reset, skip_check_array=True
  )
  return validation.check_array(
    found,
    dtype=(np.float64, np.float32),
    ensure_min_samples=ensure_min_samples,
    ensure_all_finite="allow-nan" if takes_holes else True,
    input_name="X",
  )


def check_sample_weight(sample_weight, X: np.ndarray) -> np.ndarray:
  """As `[N]` in the dtype of X: ones for None, a number for all.

  NaN in X has been refused where it is not a missing cell.
  """
  if sample_weight is None:
    return np.ones(len(X), X.dtype)
  found = checks.numbers_of("sample_weight", sample_weight, ("N",))
  found = np.asarray(found, X.dtype)
  if found.ndim == 0:
    found = np.full(len(X), found)
  if found.ndim != 1:
    checks.shape("sample_weight", found, ("N",), given=sample_weight)
  if found.shape != X.shape[:1]:
    raise ValueError(
      f"sample_weight has shape {found.shape}, takes {X.shape[:1]}"
    )
  checks.problem(checks.without_holes(X), found)
  return found


def check_fitted(estimator) -> None:
  """Refuses an estimator without a mixture, in scikit-learn's words."""
  validation.check_is_fitted(estimator, "weights_")


def check_given(
  estimator, X_given, given
) -> tuple[np.ndarray, tuple[int, ...]]:
  """Some of the coordinates of points, and which they are.

  Args:
    estimator: that is fitted.
    X_given: `[N, g]`, finite, as in `check_points`; a frame is read by name
      where the estimator knows names.
    given: g indices, or names where the estimator knows them.

  Returns:
    float32 or else float64, and the indices.
  """
  check_fitted(estimator)
  columns = getattr(estimator, "feature_names_in_", None)
  index = fitted.derived.indices_of(given, estimator.n_features_in_, columns)
  if columns is not None and hasattr(X_given, "iloc"):
    names = [columns[own] for own in index]
    missing = [own for own in names if own not in X_given.columns]
    if missing:
      raise ValueError(
        f"X_given has no column {missing[0]!r}, takes {', '.join(names)}"
      )
    X_given = X_given[names]
  found = np.asarray(checks.numbers_of("X_given", X_given, ("N", "g")))
  checks.shape("X_given", found, ("N", "g"), given=X_given)
  if found.shape[1] != len(index):
    raise ValueError(
      f"X_given has {found.shape[1]} columns, takes {len(index)} as given"
    )
  found = found.astype(np.result_type(found, np.float32), copy=False)
  if not np.all(np.isfinite(found)):
    raise ValueError("X_given contains NaN or inf, takes finite numbers")
  return found, index
