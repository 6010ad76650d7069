"""Mamba2 as a backbone: blocks of a selective state-space model.

The mixer of Dao and Gu (arXiv 2405.21060) on the kernel of `mamba2_jax`. It
reads a sequence in one direction, where points are a set: by default every
second block reads it backwards, which costs nothing, and from two blocks on
each point sees all others. `is_causal=True` is Mamba2 as it comes, and what
the TGMM paper trains.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mamba2_jax
from flax import nnx

from tgmm_jax.models import layers

_CONVOLUTION_WIDTH = 4
# Points in one chunk of the kernel, which is quadratic within a chunk and in
# the number of chunks.
_CHUNK_SIZE = 128
# Of the initialisation, as published: step sizes are log-uniform, rates of
# decay uniform.
_MIN_STEP, _MAX_STEP = 1e-3, 1e-1
_MIN_RATE, _MAX_RATE = 1.0, 16.0


class Sizes(NamedTuple):
  """Sizes of a mixer.

  Attributes:
    num_heads: H, each with a state of its own.
    head_dim: P, channels of a head; H P are the channels within the mixer.
    state_size: S, numbers of state for each channel.
    num_groups: G, divides H; heads of a group share B and C.
  """

  num_heads: int
  head_dim: int
  state_size: int
  num_groups: int


class RMSNorm(nnx.Module):
  """Divides each group of channels by its root mean square, in float32."""

  def __init__(self, width: int, num_groups: int = 1):
    """Starts with scales of 1; `num_groups` divides `width`."""
    self.num_groups = num_groups
    self.scale = nnx.Param(jnp.ones(width))

  def __call__(self, inputs: jax.Array) -> jax.Array:
    """Maps `[..., width]` to `[..., width]` float32."""
    groups = inputs.astype(jnp.float32).reshape(
      *inputs.shape[:-1], self.num_groups, -1
    )
    mean_square = jnp.mean(groups**2, axis=-1, keepdims=True)
    normed = groups * jax.lax.rsqrt(mean_square + 1e-5)
    return normed.reshape(inputs.shape) * self.scale[...]


class Mixer(nnx.Module):
  """Mixes each point with those before it, by a convolution and a state."""

  def __init__(
    self,
    width: int,
    sizes: Sizes,
    *,
    output_init: nnx.Initializer,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    """Initialises the parameters; `output_init` is that of the output map."""
    self.sizes = sizes
    num_heads, head_dim, state_size, num_groups = sizes
    inner = num_heads * head_dim
    channels = inner + 2 * num_groups * state_size
    self.input = layers.Linear(
      width,
      inner + channels + num_heads,
      use_bias=False,
      kernel_init=_uniform(width),
      dtype=dtype,
      rngs=rngs,
    )
    init = _uniform(_CONVOLUTION_WIDTH)
    self.kernel = nnx.Param(init(rngs.params(), (_CONVOLUTION_WIDTH, channels)))
    self.bias = nnx.Param(init(rngs.params(), (channels,)))
    log_step = jax.random.uniform(
      rngs.params(),
      (num_heads,),
      minval=math.log(_MIN_STEP),
      maxval=math.log(_MAX_STEP),
    )
    # Steps are a softplus of their logits: this is its inverse.
    self.step_bias = nnx.Param(jnp.log(jnp.expm1(jnp.exp(log_step))))
    rate = jax.random.uniform(
      rngs.params(), (num_heads,), minval=_MIN_RATE, maxval=_MAX_RATE
    )
    self.log_rate = nnx.Param(jnp.log(rate))
    self.skip = nnx.Param(jnp.ones(num_heads))
    self.norm = RMSNorm(inner, num_groups)
    self.output = layers.Linear(
      inner,
      width,
      use_bias=False,
      kernel_init=output_init,
      dtype=dtype,
      rngs=rngs,
    )

  def __call__(self, hidden: jax.Array, is_point: jax.Array) -> jax.Array:
    """Takes `[B, N, D]`, zeros for padding, and `[B, N]`.

    Padding stands before or after the points and is skipped: to the
    convolution it is the zeros that stand before the first point anyway, and a
    step of exactly 0 leaves the state as it is. Its gate is 0, so that it
    stays zeros.
    """
    num_heads, head_dim, state_size, num_groups = self.sizes
    inner = num_heads * head_dim
    projected = self.input(hidden).astype(jnp.float32)
    gate, channels, steps = jnp.split(
      projected, [inner, projected.shape[-1] - num_heads], axis=-1
    )
    channels = _convolve(channels, self.kernel[...]) + self.bias[...]
    values, write, read = jnp.split(
      jax.nn.silu(channels), [inner, inner + num_groups * state_size], axis=-1
    )

    def of_heads(grouped):
      grouped = grouped.reshape(*is_point.shape, num_groups, state_size)
      return jnp.repeat(grouped, num_heads // num_groups, axis=2)

    mixed, _ = mamba2_jax.ssd_forward(
      values.reshape(*is_point.shape, num_heads, head_dim),
      jnp.where(is_point[..., None], steps, layers.MASKED),
      -jnp.exp(self.log_rate[...]),
      of_heads(write),
      of_heads(read),
      _CHUNK_SIZE,
      self.skip[...],
      self.step_bias[...],
      0.0,
      math.inf,
    )
    mixed = mixed.reshape(values.shape)
    return self.output(self.norm(mixed * jax.nn.silu(gate)))


class Block(nnx.Module):
  """A mixer after a norm, added to its input."""

  def __init__(
    self,
    width: int,
    sizes: Sizes,
    *,
    output_init: nnx.Initializer,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    """Initialises the parameters; `output_init` is that of the output map."""
    self.norm = RMSNorm(width)
    self.mixer = Mixer(
      width, sizes, output_init=output_init, dtype=dtype, rngs=rngs
    )

  def __call__(self, hidden: jax.Array, is_point: jax.Array) -> jax.Array:
    """Takes what a mixer takes."""
    return hidden + self.mixer(self.norm(hidden), is_point)


class Mamba2(nnx.Module):
  """Blocks of Mamba2 and a last norm, for any number of points."""

  def __init__(
    self,
    width: int,
    num_layers: int,
    sizes: Sizes,
    *,
    is_causal: bool,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
  ):
    """Initialises the parameters as published.

    Args:
      width: D.
      num_layers: L.
      sizes: of each mixer.
      is_causal: whether a point sees only those before it.
      dtype: of the products with weights; parameters, residual stream, norms,
        convolution and state are float32.
      rngs: of the stream `params`.
    """
    self.is_causal = is_causal
    # One map in each layer writes to the residual stream: scaled so that its
    # variance does not grow with the depth.
    inner = sizes.num_heads * sizes.head_dim
    output_init = _uniform(inner * num_layers)
    self.blocks = nnx.List(
      [
        Block(
          width,
          sizes,
          output_init=output_init,
          dtype=dtype,
          rngs=rngs,
        )
        for _ in range(num_layers)
      ]
    )
    self.final_norm = RMSNorm(width)

  def __call__(self, hidden: jax.Array, is_point: jax.Array) -> jax.Array:
    """Computes the hidden states of the points, which are read in this order.

    Padding is skipped wherever it stands: the points are moved together
    before the first block, and back after the last.

    Args:
      hidden: `[..., N, D]`.
      is_point: `[..., N]` bool; the others have no effect.

    Returns:
      `[..., N, D]` float32, zeros for padding.
    """
    shape = hidden.shape
    is_point = is_point.reshape(-1, shape[-2])
    hidden = hidden.reshape(-1, *shape[-2:])
    hidden = jnp.where(is_point[..., None], hidden, 0.0)
    order = jnp.argsort(~is_point, axis=-1, stable=True)
    hidden = _pick(hidden, order)
    num_points = jnp.sum(is_point, axis=-1, keepdims=True)
    is_point = jnp.arange(shape[-2]) < num_points
    for index, block in enumerate(self.blocks):
      if index % 2 and not self.is_causal:
        hidden = block(hidden[:, ::-1], is_point[:, ::-1])[:, ::-1]
      else:
        hidden = block(hidden, is_point)
    hidden = _pick(self.final_norm(hidden), jnp.argsort(order, axis=-1))
    return hidden.reshape(shape)


def _pick(sequence, order):
  """Rows of `[B, N, D]` in the order `[B, N]`."""
  return jnp.take_along_axis(sequence, order[..., None], axis=1, mode="clip")


def _convolve(sequence, kernel):
  """Each channel of `[B, N, *]` with its own kernel `[4, *]`, causally."""
  num_points = sequence.shape[1]
  before = [(0, 0)] * sequence.ndim
  before[1] = (len(kernel) - 1, 0)
  padded = jnp.pad(sequence, before)
  return sum(
    taps * padded[:, index : index + num_points]
    for index, taps in enumerate(kernel)
  )


def _uniform(fan_in):
  """Uniform between plus and minus 1 / sqrt(fan_in)."""

  def init(key, shape, dtype=jnp.float32, out_sharding=None):
    del out_sharding
    limit = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, minval=-limit, maxval=limit)

  return init
