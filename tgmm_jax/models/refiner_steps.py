"""What the refiner's layers read of a mixture so far: EM's view of it.

Pure functions with any leading axes. Nothing here is learned but the E-step's
temperature. Coordinates are those of the frame, divided by the standard
deviation along the widest of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg
from tgmm_jax.models import layers

# Of the logarithm of a standard deviation in units of the points' spread: from
# a component on one point to one wider than all the points.
_LOWEST_LOG_SCALE, _HIGHEST_LOG_SCALE = -3.5, 1.5


class Shared(NamedTuple):
  """What all layers read, in scaled coordinates (divided by `scale`)."""

  points: jax.Array  # [..., N, r]
  features: jax.Array  # [..., N, D]
  sample_weight: jax.Array  # [..., N], sums to 1
  total_weight: jax.Array  # [..., 1, 1], of the weights as given
  log_weight: jax.Array  # [..., N], of the weights as given; MASKED for 0
  is_component: jax.Array  # [..., K]
  scale: jax.Array  # [..., 1, 1]; the unit noise's is 1 / scale
  is_coordinate: jax.Array  # [..., 1, r]; the others hold nothing
  dim: jax.Array  # [..., 1, 1], d
  rest: jax.Array  # [..., 1, 1], variance outside the coordinates


class Estimate(NamedTuple):
  """The mixture so far, and where the points lie in it."""

  means: jax.Array  # [..., K, r]
  log_scales: jax.Array | None  # [..., K, r]; None where they are known
  correlations: jax.Array | None  # [..., K, r, r]; None where there are none
  log_weights: jax.Array  # [..., K]
  distances: jax.Array  # [..., K, N], squared, in standard deviations
  energies: jax.Array  # [..., K, N], -2 log densities but for a constant


class Step(NamedTuple):
  """What one EM step would answer, and what it tells each query."""

  means: jax.Array  # [..., K, r]
  log_scales: jax.Array | None  # [..., K, r], [..., K, 1] where all are one
  correlations: jax.Array | None  # [..., K, r, r]
  features: jax.Array  # [..., K, F]


def num_features(structure: str, rank: int) -> int:
  """F, the number of features of a step.

  Args:
    structure: of the covariances, as in `gmm.CovarianceType`.
    rank: r.
  """
  by_coordinate = {"identity": 3, "ball": 3, "axes": 4, "matrix": 4}
  scalars = {"identity": 1, "ball": 3, "axes": 1, "matrix": 2}
  return by_coordinate[structure] * rank + scalars[structure]


def step(
  estimate: Estimate,
  shared: Shared,
  inverse_temperature: jax.Array,
  structure: str,
) -> Step:
  """One EM step from the estimate, its E-step tempered."""
  posterior = _responsibilities(
    estimate.log_weights, inverse_temperature * estimate.energies, shared
  )
  mass = jnp.sum(posterior, axis=-1, keepdims=True)
  share = posterior / (mass + 1e-6)
  means = share @ shared.points
  spread = share @ shared.points**2 - means**2
  features = [
    estimate.means,
    means - estimate.means,
    jnp.log(mass + 1e-3),
  ]
  log_scales = correlations = None
  match structure:
    case "identity":
      spread = jnp.maximum(spread * shared.scale**2, 0.0)
      features += [jnp.log1p(spread)]
    case "ball":
      log_scales = _common_log_scale(mass, spread, shared)
      own = estimate.log_scales[..., :1]
      spread = jnp.maximum(spread * jnp.exp(-2.0 * own), 0.0)
      log_scales = jnp.broadcast_to(log_scales, own.shape)
      features += [jnp.log1p(spread), own, log_scales - own]
    case _:
      lowest = jnp.exp(2.0 * _LOWEST_LOG_SCALE)
      log_scales = 0.5 * jnp.log(jnp.maximum(spread, lowest))
      features += [estimate.log_scales, log_scales - estimate.log_scales]
  if structure == "matrix":
    correlations, log_det = _correlations(share, mass, means, spread, shared)
    features += [log_det]
  features = jnp.concatenate(features, axis=-1)
  return Step(means, log_scales, correlations, features)


def _common_log_scale(mass, spread, shared):
  """One scale for all components and directions of the data, `[..., 1, 1]`."""
  within = jnp.sum(mass * spread, axis=(-2, -1), keepdims=True)
  variance = (within + shared.rest) / shared.dim
  return 0.5 * jnp.log(jnp.maximum(variance, jnp.exp(2.0 * _LOWEST_LOG_SCALE)))


def _correlations(share, mass, means, spread, shared):
  """Within each component, shrunk, and their log determinants `[..., K, 1]`.

  Not learned: no gradient goes through the elimination that follows.
  """
  share, mass, means, spread = jax.lax.stop_gradient(
    (share, mass, means, spread)
  )
  rank = means.shape[-1]
  products = shared.points[..., :, None] * shared.points[..., None, :]
  products = products.reshape(*products.shape[:-2], rank * rank)
  moments = (share @ products).reshape(*means.shape, rank)
  moments = moments - means[..., :, None] * means[..., None, :]
  lowest = jnp.exp(2.0 * _LOWEST_LOG_SCALE)
  inverse = jax.lax.rsqrt(jnp.maximum(spread, lowest))
  correlations = moments * inverse[..., :, None] * inverse[..., None, :]
  # As if d + 2 more points had no correlation.
  prior = shared.dim + 2.0
  trust = mass * shared.total_weight / (mass * shared.total_weight + prior)
  identity = jnp.eye(rank)
  correlations = jnp.where(identity > 0, 1.0, trust[..., None] * correlations)
  return correlations, _log_det(linalg.inverse_cholesky(correlations))


def _log_det(factors):
  diagonal = jnp.diagonal(factors, axis1=-2, axis2=-1)
  return -2.0 * jnp.sum(jnp.log(diagonal), axis=-1, keepdims=True)


def clip(log_scales: jax.Array) -> jax.Array:
  """Log scales as far as components can be told from points and from all."""
  return jnp.clip(log_scales, _LOWEST_LOG_SCALE, _HIGHEST_LOG_SCALE)


def _responsibilities(log_weights, energies, shared):
  """Posterior of each component times the points' weights, `[..., K, N]`."""
  logits = log_weights[..., None] - 0.5 * energies
  logits = jnp.where(shared.is_component[..., None], logits, layers.MASKED)
  posterior = jax.nn.softmax(logits, axis=-2)
  return posterior * shared.sample_weight[..., None, :]


def complete(
  means: jax.Array,
  log_scales: jax.Array | None,
  correlations: jax.Array | None,
  log_weights: jax.Array,
  shared: Shared,
) -> Estimate:
  """Makes means and scales an estimate: weights by one E-step."""
  difference = means[..., :, None, :] - shared.points[..., None, :, :]
  log_det = 0.0
  if log_scales is None:
    difference = difference * shared.scale[..., None]
  else:
    # What holds nothing has no scale.
    difference = difference * jnp.exp(-log_scales)[..., :, None, :]
    log_det = 2.0 * jnp.sum(log_scales, axis=-1)[..., None]
  if correlations is not None:
    factors = linalg.inverse_cholesky(correlations)
    difference = difference @ jnp.swapaxes(factors, -1, -2)
    log_det = log_det + _log_det(factors)
  distances = jnp.sum(difference**2, axis=-1)
  energies = distances + log_det
  mass = jnp.sum(_responsibilities(log_weights, energies, shared), axis=-1)
  log_weights = jnp.log(mass + 1e-6)
  log_weights = jnp.where(shared.is_component, log_weights, layers.MASKED)
  return Estimate(
    means,
    log_scales,
    correlations,
    jax.nn.log_softmax(log_weights),
    distances,
    energies,
  )
