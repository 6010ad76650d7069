"""A fit as an estimator of scikit-learn.

It is scikit-learn's own class: what is pickled of it needs scikit-learn alone.
"""

from collections.abc import Sequence

import jax
import numpy as np
from sklearn import mixture as sklearn_mixture

from tgmm_jax import gmm, types

# Types that scikit-learn does not have, by the type that holds them.
_TYPES = {"unit": "spherical", "tied_spherical": "tied"}


def estimator(
  mixture: types.Mixture,
  *,
  covariance_type: str,
  is_converged: bool,
  num_iters: int,
  log_likelihood: float,
  columns: Sequence[str] | None = None,
) -> sklearn_mixture.GaussianMixture:
  """A fitted estimator of a mixture that is known, in float64.

  Args:
    mixture: the parameters of one problem, without padding.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    is_converged: for `converged_`.
    num_iters: for `n_iter_`.
    log_likelihood: for `lower_bound_`.
    columns: for `feature_names_in_`, or None.
  """
  mixture = jax.tree.map(lambda leaf: np.array(leaf, np.float64), mixture)
  num_components, dim = mixture.means.shape
  found = sklearn_mixture.GaussianMixture(
    num_components,
    covariance_type=_TYPES.get(covariance_type, covariance_type),
  )
  # The parts of a float32 fit sum to 1 but for its rounding.
  found.weights_ = mixture.weights / np.sum(mixture.weights)
  found.means_ = mixture.means
  found.covariances_ = _covariances(mixture, covariance_type)
  if gmm.kind_of(found.covariance_type).structure == "matrix":
    with jax.enable_x64(True):
      inverse = np.array(jax.jit(gmm.inverse_factor)(found.covariances_))
    found.precisions_cholesky_ = np.swapaxes(inverse, -1, -2)
    found.precisions_ = np.swapaxes(inverse, -1, -2) @ inverse
  else:
    found.precisions_ = 1.0 / found.covariances_
    found.precisions_cholesky_ = np.sqrt(found.precisions_)
  found.converged_ = is_converged
  found.n_iter_ = num_iters
  found.lower_bound_ = log_likelihood
  found.lower_bounds_ = [log_likelihood]
  found.n_features_in_ = dim
  if columns is not None:
    found.feature_names_in_ = np.array(columns, object)
  return found


def _covariances(mixture, covariance_type):
  match covariance_type:
    case "unit":
      return np.ones(len(mixture.weights))
    case "tied_spherical":
      return mixture.covariances * np.eye(mixture.means.shape[1])
    case _:
      return mixture.covariances
