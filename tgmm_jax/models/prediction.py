"""What a network reads and what it answers, the same for all of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, types


class NetworkInput(NamedTuple):
  """One problem as a network reads it; its shapes need not know d.

  Attributes:
    points: `[N, r]`, in the coordinates of `models.frame` or the data's own.
    sample_weight: `[N]`.
    num_components: `[]` int32.
    dim: `[]`, d of the data.
    variances: `[r]`, of the frame (`models.frame`); None where the network
      reads the data as they are, and so are the next three.
    rest: `[]`, of the frame.
    origin: `[r]`, the data's origin, around which the prior is centred.
    knows_origin: `[]`, 1 where `origin` may be used, else 0.
  """

  points: jax.Array
  sample_weight: jax.Array
  num_components: jax.Array
  dim: jax.Array
  variances: jax.Array | None = None
  rest: jax.Array | None = None
  origin: jax.Array | None = None
  knows_origin: jax.Array | None = None


class Prediction(NamedTuple):
  """A mixture as a network predicts it, in the coordinates of its input.

  A leading axis holds one prediction for each stage of the network; the last
  is its answer, the others take part in the loss.

  Attributes:
    log_weights: `[..., K]`, of weights on the simplex; very low, but finite,
      for padded components.
    means: `[..., K, r]`; 0 for padded components.
    scales: `[..., K, r]` standard deviations along the coordinates, or None
      where they are known; 1 for padding.
    correlations: `[..., K, r, r]` of the coordinates within each component, or
      None where there are none; the identity for padding.
  """

  log_weights: jax.Array
  means: jax.Array
  scales: jax.Array | None = None
  correlations: jax.Array | None = None


def to_mixture(
  prediction: Prediction,
  num_components: jax.Array,
  *,
  covariance_type: str = "unit",
) -> types.Mixture:
  """The mixture that a prediction of one stage says.

  Args:
    prediction: `[K, ...]`.
    num_components: `[]`.
    covariance_type: of the network: "unit", "tied_spherical" (all scales are
      the same), "diag" or "full".
  """
  is_component = jnp.arange(prediction.log_weights.shape[-1]) < num_components
  weights = jnp.where(is_component, jnp.exp(prediction.log_weights), 0.0)
  return types.Mixture(
    weights / jnp.sum(weights),
    jnp.where(is_component[:, None], prediction.means, 0.0),
    _covariances(prediction, is_component, covariance_type=covariance_type),
  )


def _covariances(
  prediction,
  is_component,
  *,
  covariance_type,
):
  scales = prediction.scales
  match gmm.kind_of(covariance_type).structure:
    case "ball":
      return scales[0, 0] ** 2
    case "axes":
      return jnp.where(is_component[:, None], scales**2, 1.0)
    case "matrix":
      products = scales[:, :, None] * scales[:, None, :]
      return jnp.where(
        is_component[:, None, None],
        products * prediction.correlations,
        jnp.eye(scales.shape[-1]),
      )
  return None
