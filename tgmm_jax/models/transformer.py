"""The backbone of the paper's network: a pre-LN transformer of GPT-2 blocks."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from tgmm_jax.models import layers


class Block(nnx.Module):
  """Attention among the points, then an MLP, each after a layer norm."""

  def __init__(
    self,
    width: int,
    num_heads: int,
    *,
    output_init: nnx.Initializer,
    attention: str,
    has_norm: bool,
    init_scale: float,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    """Initialises the parameters; `output_init` is of both output maps."""
    self.attention_norm = _norm(width, has_norm, rngs)
    self.attention = layers.SelfAttention(
      width,
      num_heads,
      output_init=output_init,
      kind=attention,
      init_scale=init_scale,
      dtype=dtype,
      rngs=rngs,
    )
    self.mlp_norm = _norm(width, has_norm, rngs)
    self.mlp = layers.MLP(
      width,
      output_init=output_init,
      init_scale=init_scale,
      dtype=dtype,
      rngs=rngs,
    )

  def __call__(self, hidden: jax.Array, bias: jax.Array) -> jax.Array:
    """Takes `[..., N, D]` and the logits' bias `[..., 1, 1 or N, N]`."""
    hidden = hidden + self.attention(self.attention_norm(hidden), bias)
    return hidden + self.mlp(self.mlp_norm(hidden))


class Transformer(nnx.Module):
  """GPT-2 blocks without dropout, and a last layer norm.

  Bidirectional and without positions it is equivariant to the order of the
  points. Causal with learned positions it is GPT-2 as it comes, which is what
  the paper's released code trains. The blocks are unrolled: a scan over
  stacked parameters compiles in 1 s instead of 2 s, but a step takes 1.35
  times as long on CPU.
  """

  def __init__(
    self,
    width: int,
    num_layers: int,
    num_heads: int,
    *,
    max_positions: int | None,
    attention: str = "softmax",
    has_norm: bool = True,
    init_scale: float = layers.INIT_SCALE,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    """Initialises the parameters as GPT-2 does.

    Args:
      width: D.
      num_layers: L.
      num_heads: H.
      max_positions: the largest N of the causal variant with learned
        positions; None is bidirectional, without positions and for any N.
      attention: one of `layers.ATTENTION`.
      has_norm: whether there are layer norms.
      init_scale: standard deviation of the initial weights.
      dtype: of the products with weights; parameters, residual stream, layer
        norms and softmax are float32.
      rngs: of the stream `params`.
    """
    # Two maps in each layer write to the residual stream: scaled so that its
    # variance does not grow with the depth.
    output_init = nnx.initializers.normal(
      init_scale / math.sqrt(2 * num_layers)
    )
    self.blocks = nnx.List(
      [
        Block(
          width,
          num_heads,
          output_init=output_init,
          attention=attention,
          has_norm=has_norm,
          init_scale=init_scale,
          dtype=dtype,
          rngs=rngs,
        )
        for _ in range(num_layers)
      ]
    )
    self.final_norm = _norm(width, has_norm, rngs)
    self.is_causal = max_positions is not None
    if self.is_causal:
      self.positions = nnx.Embed(
        max_positions,
        width,
        embedding_init=nnx.initializers.normal(0.02),
        rngs=rngs,
      )

  def __call__(self, hidden: jax.Array, is_point: jax.Array) -> jax.Array:
    """Computes the hidden states of the points.

    Args:
      hidden: `[..., N, D]`.
      is_point: `[..., N]` bool; nothing attends to the others. Their own
        hidden states come out finite and mean nothing.

    Returns:
      `[..., N, D]` float32.
    """
    return self.states(hidden, is_point)[-1]

  def states(
    self, hidden: jax.Array, is_point: jax.Array
  ) -> tuple[jax.Array, ...]:
    """The residual stream before each block, and what is returned.

    Args:
      hidden: `[..., N, D]`.
      is_point: `[..., N]` bool.

    Returns:
      L + 1 arrays `[..., N, D]`; the last is after the final norm.
    """
    num_points = hidden.shape[-2]
    is_seen = is_point[..., None, None, :]
    if self.is_causal:
      max_positions = self.positions.num_embeddings
      if num_points > max_positions:
        raise ValueError(
          f"points has {num_points} rows, takes at most max_points ="
          f" {max_positions} with learned positions"
        )
      hidden = hidden + self.positions.embedding[...][:num_points]
      is_seen = is_seen & jnp.tri(num_points, dtype=bool)
    bias = jnp.where(is_seen, 0.0, layers.MASKED)
    states = []
    for block in self.blocks:
      states.append(hidden)
      hidden = block(hidden, bias)
    return (*states, self.final_norm(hidden))


def _norm(width, has_norm, rngs):
  return layers.layer_norm(width, rngs=rngs) if has_norm else layers.NoNorm()
