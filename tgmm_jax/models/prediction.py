"""What a network reads and what it answers, the same for all of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import types


class Problem(NamedTuple):
  """One problem as a network reads it; its shapes need not know d.

  Attributes:
    points: `[N, r]`, in coordinates isometric to the data's (`models.frame`),
      or the data's own.
    sample_weight: `[N]`.
    num_components: `[]` int32.
    dim: `[]`, d of the data.
    variances: `[r]`, of the frame (`models.frame`); None where the network
      reads the data as they are, and so are the next two.
    origin: `[r]`, the data's origin, around which the prior is centred.
    knows_origin: `[]`, 1 where `origin` may be used, else 0.
  """

  points: jax.Array
  sample_weight: jax.Array
  num_components: jax.Array
  dim: jax.Array
  variances: jax.Array | None = None
  origin: jax.Array | None = None
  knows_origin: jax.Array | None = None


class Prediction(NamedTuple):
  """A mixture as a network predicts it, in the coordinates of its `Problem`.

  A leading axis holds one prediction for each stage of the network; the last
  is its answer, the others take part in the loss.

  Attributes:
    log_weights: `[..., K]`, of weights on the simplex; very low, but finite,
      for padded components.
    means: `[..., K, r]`; 0 for padded components.
    scales: `[..., K, r]` standard deviations of anisotropic mixtures, or None.
  """

  log_weights: jax.Array
  means: jax.Array
  scales: jax.Array | None = None


def to_mixture(
  prediction: Prediction, num_components: jax.Array
) -> types.Mixture:
  """The mixture that a prediction of one stage says."""
  is_component = jnp.arange(prediction.log_weights.shape[-1]) < num_components
  weights = jnp.where(is_component, jnp.exp(prediction.log_weights), 0.0)
  covariances = None
  if prediction.scales is not None:
    variances = prediction.scales**2
    covariances = jnp.where(is_component[:, None], variances, 1.0)
  return types.Mixture(
    weights / jnp.sum(weights),
    jnp.where(is_component[:, None], prediction.means, 0.0),
    covariances,
  )
