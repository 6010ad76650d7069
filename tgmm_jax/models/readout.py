"""Attentive pooling: a mixture from the hidden states of its points."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from tgmm_jax import linalg
from tgmm_jax.models import layers
from tgmm_jax.models import prediction as prediction_lib

POOLINGS = ("scaled", "released")


class AttentiveReadout(nnx.Module):
  """A readout for each number of components served, chosen by K.

  Learned queries, one for each component, pool the hidden states by softmax
  attention over the points. Each gives logits of the weights, which are
  averaged over the queries, the mean of its component and, for anisotropic
  mixtures, its scales. The modules are stacked along a leading axis, so that
  K may be traced and differ within a batch.

  With Q numbers for each query, which attends to the states h of width D:

    "scaled": softmax(q h / sqrt(D)) of queries `[D]`, then a linear map
      `[D, Q]` with a bias.
    "released", as the paper's code has it: softmax(q A h) of queries `[Q]` with
      a map A of the keys, then a map of the values, both `[D, Q]` and without
      a bias. Nothing is divided by a root.
  """

  def __init__(
    self,
    width: int,
    dim: int,
    num_components: tuple[int, ...],
    *,
    has_scales: bool,
    pooling: str = "scaled",
    rngs: nnx.Rngs,
  ):
    """Initialises the parameters.

    Args:
      width: D.
      dim: d.
      num_components: the K served, a module for each.
      has_scales: whether standard deviations are predicted too.
      pooling: one of `POOLINGS`.
      rngs: of the stream `params`.
    """
    self.dim = dim
    self.num_components = tuple(num_components)
    self.has_scales = has_scales
    self.pooling = pooling
    num_modules, max_components = len(num_components), max(num_components)
    num_outputs = max_components + dim * (2 if has_scales else 1)
    is_released = pooling == "released"
    query_width = num_outputs if is_released else width
    # Logits of order 1: components must start from different averages of the
    # points, or they would all learn the same.
    self.queries = nnx.Param(
      nnx.initializers.normal(query_width**-0.5 if is_released else 1.0)(
        rngs.params(), (num_modules, max_components, query_width)
      )
    )
    init = nnx.initializers.normal(width**-0.5)
    shape = (num_modules, width, num_outputs)
    self.kernel = nnx.Param(init(rngs.params(), shape))
    if is_released:
      self.key_kernel = nnx.Param(init(rngs.params(), shape))
    else:
      self.bias = nnx.Param(jnp.zeros((num_modules, num_outputs)))

  def __call__(
    self,
    hidden: jax.Array,
    is_point: jax.Array,
    num_components: jax.Array,
  ) -> prediction_lib.Prediction:
    """Reads a mixture out, in float32.

    Args:
      hidden: `[..., N, D]`.
      is_point: `[..., N]` bool; the others get no weight in the average, and
        all the same where there is none.
      num_components: `[...]` int; for K that is not served means and logits
        are 0.

    Returns:
      A `Prediction`, `[..., K]` and `[..., K, d]`, without an axis of stages.
    """
    count = jnp.asarray(num_components)[..., None]
    served = jnp.asarray(self.num_components)
    choice = count == served
    queries = _select(choice, self.queries[...])
    if self.pooling == "released":
      # q (A h) is (q A) h: a few queries are mapped in the place of N points.
      keys = _select(choice, self.key_kernel[...])
      queries = queries @ jnp.swapaxes(keys, -1, -2)
      queries *= math.sqrt(queries.shape[-1])  # by which `attend` divides
    pooled = layers.attend(
      queries[..., None, :, :],
      hidden[..., None, :, :],
      hidden[..., None, :, :],
      jnp.where(is_point, 0.0, layers.MASKED)[..., None, None, :],
    )[..., 0, :, :]
    outputs = pooled @ _select(choice, self.kernel[...])
    if self.pooling == "scaled":
      outputs = outputs + _select(choice, self.bias[...])[..., None, :]

    max_components = queries.shape[-2]
    is_component = jnp.arange(max_components) < count
    logits = jnp.mean(outputs[..., :max_components], axis=-2)
    log_weights = jax.nn.log_softmax(
      jnp.where(is_component, logits, layers.MASKED)
    )
    means = outputs[..., max_components : max_components + self.dim]
    scales = None
    if self.has_scales:
      scales = jax.nn.softplus(outputs[..., max_components + self.dim :])
    return prediction_lib.Prediction(
      log_weights=log_weights,
      means=jnp.where(is_component[..., None], means, 0.0),
      scales=scales,
    )


def _select(choice, stacked):
  """The chosen module's parameters `[..., *]` from `[S, *]`.

  A product with the one-hot choice: its gradient is a product too, where a
  look-up's is a scatter, whose sums come in any order on a GPU.
  """
  return jnp.tensordot(
    choice.astype(stacked.dtype),
    stacked,
    axes=1,
    precision=linalg.PRECISION,
  )
