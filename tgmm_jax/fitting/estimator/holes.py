"""What `GaussianMixture` does where cells of X are missing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.fitting import fitted, sizes
from tgmm_jax.solvers import em

# Of EM for the one normal distribution that fills holes.
_NUM_STEPS = 10


def filled(
  X: np.ndarray,
  given: types.Mixture,
  init_params: str,
  *,
  sample_weight: np.ndarray,
) -> np.ndarray:
  """X as `start.begin` needs it: without holes where it looks at X itself.

  Where it only names a start, `em.fit_each` fills the holes in the same way: by
  means under one normal distribution of all points.

  Args:
    X: `[N, d]`.
    given: of the start, from `start.given`.
    init_params: as in `GaussianMixture`.
    sample_weight: `[N]`.
  """
  is_named = init_params not in ("random", "network")
  is_named &= given.weights is None and given.covariances is None
  if given.means is not None or is_named or not np.any(np.isnan(X)):
    return X
  options = {"covariance_type": "full"}
  found = em.fit(
    jax.random.key(0),
    X,
    1,
    sample_weight=sample_weight,
    max_iter=_NUM_STEPS,
    missing="observed",
    **options,
  )
  return np.asarray(gmm.impute(found.mixture, jnp.asarray(X), **options))


def impute(
  X: np.ndarray, mixture: types.Mixture, *, covariance_type: str
) -> np.ndarray:
  """`gmm.impute` in the precision of X.

  Args:
    X: `[N, d]`.
    mixture: in the dtype of X.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  with jax.enable_x64(X.dtype == np.float64):
    found = _IMPUTE(mixture, sizes.padded(X), covariance_type=covariance_type)
  return np.asarray(found)[: len(X)]


def posterior(
  X: np.ndarray, mixture: types.Mixture, field: str, *, covariance_type: str
) -> np.ndarray:
  """What `fitted.of_batch` says, of what is seen of X.

  Args:
    X: `[N, d]`.
    mixture: in the dtype of X.
    field: "labels", "shares" or "log_density".
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  with jax.enable_x64(X.dtype == np.float64):
    found = _posterior(
      sizes.padded(X), mixture, covariance_type=covariance_type
    )
  return np.asarray(getattr(found, field))[: len(X)]


@functools.partial(jax.jit, static_argnames="covariance_type")
def _posterior(points, mixture, *, covariance_type):
  values = gmm.observed_log_joint(
    points, mixture, covariance_type=covariance_type
  )
  return fitted.of_log_joint(values, mixture)


_IMPUTE = jax.jit(gmm.impute, static_argnames="covariance_type")
