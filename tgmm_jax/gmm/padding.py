"""Components of weight 0, which may have any covariance, 0 too."""

import jax
import jax.numpy as jnp

from tgmm_jax import types
from tgmm_jax.gmm import covariance_types


def harmless(mixture: types.Mixture, *, covariance_type: str) -> types.Mixture:
  """The same with mean 0 and covariance one where the weight is 0.

  Neither values nor gradients of what is computed with it, and then left out,
  can be NaN.

  Args:
    mixture: of NumPy or JAX.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  weights, means, covariances = jax.tree.map(jnp.asarray, mixture)
  is_present = weights > 0
  kind = covariance_types.kind_of(covariance_type)
  if kind.is_per_component:
    one = 1.0
    if kind.structure == "matrix":
      one = jnp.eye(means.shape[-1], dtype=covariances.dtype)
    shape = (-1,) + (1,) * (covariances.ndim - 1)
    covariances = jnp.where(is_present.reshape(shape), covariances, one)
  means = jnp.where(is_present[:, None], means, 0.0)
  return types.Mixture(weights, means, covariances)
