"""Bounds of a mixture's entropy, which has no closed form."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types
from tgmm_jax.gmm import covariance_types, densities, distances, padding


class EntropyBounds(NamedTuple):
  """Between which numbers the differential entropy is, in nats.

  Attributes:
    lower: `[]`.
    upper: `[]`.
  """

  lower: jax.Array
  upper: jax.Array


def entropy_bounds(
  mixture: types.Mixture,
  *,
  covariance_type: str = "unit",
  alpha: jax.Array | float = 0.5,
) -> EntropyBounds:
  """Bounds from the distances between components, without drawing a point.

  Kolchinsky and Tracey 2017, Estimating mixture entropy with pairwise
  distances: below by Chernoff divergences, above by those of Kullback and
  Leibler. They meet where components are equal or far apart, and both lie
  between the mean entropy of the components and that plus the entropy of the
  weights.

  Args:
    mixture: the parameters; components of weight 0 count for nothing.
    covariance_type: one of `COVARIANCE_TYPES`.
    alpha: of Chernoff's divergence, between 0 and 1; at 0.5, Bhattacharyya's,
      the bound is the highest where all covariances are the same.
  """
  mixture = padding.harmless(mixture, covariance_type=covariance_type)
  is_present, means = mixture.weights > 0, mixture.means
  log_weights, dim = densities.log_weights(mixture), means.shape[-1]
  if covariance_types.kind_of(covariance_type).structure == "matrix":
    spreads = _Matrices(mixture)
  else:
    deviations = covariance_types.standard_deviations(
      mixture, covariance_type=covariance_type
    )
    spreads = _Axes(deviations**2)

  def of_one(own):
    """`log sum_j w_j exp(-D(own, j))` for both divergences, `[2]`."""
    differences = means[own] - means
    distance, ratio = spreads.of_mean(own, differences, alpha)
    chernoff = 0.5 * (alpha * (1.0 - alpha) * distance + ratio)
    kullback = 0.5 * spreads.kullback(own, differences)
    divergences = jnp.stack([chernoff, kullback])
    return jax.nn.logsumexp(
      jnp.where(is_present, log_weights - divergences, -jnp.inf), axis=-1
    )

  # One component after the other: K^2 d^2 numbers need not be held.
  logs = jax.lax.map(of_one, jnp.arange(means.shape[0]))
  own = 0.5 * (spreads.log_det + dim * (1.0 + math.log(2.0 * math.pi)))
  terms = own[:, None] - logs
  terms = jnp.where(is_present[:, None], mixture.weights[:, None] * terms, 0.0)
  return EntropyBounds(*jnp.sum(terms, axis=0))


class _Axes:
  """Components whose covariances are diagonal."""

  def __init__(self, variances):
    self._variances = variances
    self.log_det = jnp.sum(jnp.log(self._variances), axis=-1)

  def of_mean(self, own, differences, alpha):
    """Distances by `(1 - alpha) own + alpha other`, and log det's excess."""
    mixed = (1.0 - alpha) * self._variances[own] + alpha * self._variances
    squared = jnp.sum(differences**2 / mixed, axis=-1)
    log_det = jnp.sum(jnp.log(mixed), axis=-1)
    return squared, log_det - _between(self.log_det, own, alpha)

  def kullback(self, own, differences):
    """Twice the divergences of one component from all."""
    ratios = self._variances[own] / self._variances
    squared = jnp.sum(differences**2 / self._variances, axis=-1)
    return squared + jnp.sum(ratios - 1.0 - jnp.log(ratios), axis=-1)


class _Matrices:
  """Components whose covariances are matrices."""

  def __init__(self, mixture):
    shape = (*mixture.means.shape, mixture.means.shape[-1])
    self._matrices = jnp.broadcast_to(mixture.covariances, shape)
    self._factors = distances.inverse_factor(self._matrices)
    self.log_det = _log_det(self._factors)

  def of_mean(self, own, differences, alpha):
    """As of `_Axes`."""
    mixed = (1.0 - alpha) * self._matrices[own] + alpha * self._matrices
    factors = distances.inverse_factor(mixed)
    squared = _squared(factors, differences)
    return squared, _log_det(factors) - _between(self.log_det, own, alpha)

  def kullback(self, own, differences):
    """As of `_Axes`."""
    product = linalg.matmul(
      linalg.matmul(self._factors, self._matrices[own]),
      jnp.swapaxes(self._factors, -1, -2),
    )
    trace = jnp.trace(product, axis1=-2, axis2=-1)
    log_ratio = self.log_det - self.log_det[own]
    squared = _squared(self._factors, differences)
    return squared + trace - differences.shape[-1] + log_ratio


def _between(log_det, own, alpha):
  return (1.0 - alpha) * log_det[own] + alpha * log_det


def _log_det(factors):
  diagonal = jnp.diagonal(factors, axis1=-2, axis2=-1)
  return -2.0 * jnp.sum(jnp.log(diagonal), axis=-1)


def _squared(factors, differences):
  whitened = linalg.einsum("kij,kj->ki", factors, differences)
  return jnp.sum(whitened**2, axis=-1)
