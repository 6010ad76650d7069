"""How far points are from the components of a mixture, in its own units."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types
from tgmm_jax.gmm import covariance_types

# Errors of a covariance, in units of the dtype's resolution.
_NUM_ROUNDINGS = 10.0


class Metric(NamedTuple):
  """How distances from the components are measured: done once for all points.

  Attributes:
    whitening: makes differences those of unit covariance: of a "matrix" the
      inverse of its Cholesky factor, of "axes" and "ball" one over the
      variances; `[K, d, d]`, `[K, d, 1]` or `[K, 1, 1]`, K = 1 where all
      components have one; None for the identity.
    log_det: of the covariances, `[K]`, or `[]` where all have one.
  """

  whitening: jax.Array | None
  log_det: jax.Array


def metric(mixture: types.Mixture, *, covariance_type: str) -> Metric:
  """The metric of a mixture.

  Args:
    mixture: its covariances are used.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  covariances, dim = mixture.covariances, mixture.means.shape[-1]
  match covariance_types.kind_of(covariance_type).structure:
    case "identity":
      return Metric(None, jnp.zeros((), jnp.asarray(mixture.means).dtype))
    case "ball":
      precision = jnp.reshape(1.0 / covariances, (-1, 1, 1))
      return Metric(precision, dim * jnp.log(covariances))
    case "axes":
      log_det = jnp.sum(jnp.log(covariances), axis=-1)
      return Metric((1.0 / covariances)[:, :, None], log_det)
  factors = inverse_factor(covariances)
  log_diagonal = jnp.log(jnp.diagonal(factors, axis1=-2, axis2=-1))
  log_det = -2.0 * jnp.sum(log_diagonal, axis=-1)
  return Metric(jnp.reshape(factors, (-1, dim, dim)), log_det)


def squared_distances(
  differences: jax.Array, measured: Metric, *, covariance_type: str
) -> jax.Array:
  """Squared Mahalanobis distances, `[K, N]`.

  N is the last axis, as everywhere inside EM: under `vmap` that costs little
  more than the arithmetic.

  Args:
    differences: `[K, d, N]`, points less means.
    measured: from `metric`.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  whitening = measured.whitening
  match covariance_types.kind_of(covariance_type).structure:
    case "identity":
      return jnp.sum(differences**2, axis=1)
    case "ball":
      return jnp.sum(differences**2, axis=1) * whitening[:, 0]
    case "axes":
      return jnp.sum(differences**2 * whitening, axis=1)
  # Broadcast where tied: under vmap, XLA on CPU first copies what a product
  # contracts or keeps over two axes (8.7 against 5.0 us for K = 4, d = 8).
  whitening = jnp.broadcast_to(
    whitening, (len(differences), *whitening.shape[1:])
  )
  return jnp.sum(linalg.matmul(whitening, differences) ** 2, axis=1)


def inverse_factor(covariances: jax.Array) -> jax.Array:
  """The inverse of the Cholesky factor, `[..., d, d]`.

  There is always one: what a coordinate varies, those before it given, is at
  least some roundings of its own variance, and of less nothing is known.
  """
  covariances = jnp.asarray(covariances)
  variances = jnp.diagonal(covariances, axis1=-2, axis2=-1)
  return linalg.inverse_cholesky(
    covariances, floor=roundings(covariances.dtype) * variances
  )


def roundings(dtype: jnp.dtype) -> float:
  """The share of a variance that rounding may add or take away."""
  return _NUM_ROUNDINGS * float(jnp.finfo(dtype).eps)


def component_energies(
  columns: jax.Array, mixture: types.Mixture, *, covariance_type: str = "unit"
) -> tuple[jax.Array, jax.Array]:
  """Squared distances of points `[d, N]`, and log determinants.

  Args:
    columns: `[d, N]`.
    mixture: its means and covariances are used.
    covariance_type: one of `COVARIANCE_TYPES`.

  Returns:
    Distances `[K, N]` and log determinants, `[K]` or `[]` where all components
    have one covariance.
  """
  measured = metric(mixture, covariance_type=covariance_type)
  differences = columns[None] - mixture.means[:, :, None]
  squared = squared_distances(
    differences, measured, covariance_type=covariance_type
  )
  return squared, measured.log_det
