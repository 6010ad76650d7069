"""Cubic tensor power iteration as a ReLU transformer.

Theorem 2 (D.8) of arXiv 2505.11918: 2L layers perform L steps
`v <- T(I, v, v)`, `T = sum_i t_i (x) t_i (x) t_i` over the tokens, and nothing
is approximated. `T(I, v, v)` has three factors t_i, and one attention has two:
layer A multiplies `<t_i, v> t_i` within each token (a mask lets it attend to
itself alone), layer B adds up over the tokens, and a head of it takes off the
old v.

A step is not normalised. From a unit vector `|v_t|` is about
`growth^(2^t - 1)`, growth the norm of T(I, v, v) at a unit v: with growth 2
float32 holds 7 steps, with 12, as of standard normal points in 8 dimensions,
5 (`num_steps_in_range`); then all is NaN. The relative error doubles with a
step, as that of any square. The normalised network takes a third layer, which
multiplies by a piecewise-linear `1 / |v|^2`: the direction stays exact, and
the length stays within 9% of `|T(I, v, v)|`.

Cubes are odd, so a token of either sign adds or takes off a rank-one term: the
noise's part of a third moment and deflation are further tokens, and no weights.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import types
from tgmm_jax.constructed import piecewise_linear, primitives

# Squared lengths between which the normalised network keeps the length.
LEAST_SQUARE, MOST_SQUARE = 1e-8, 1e8
_NUM_SEGMENTS = 64


class Iterates(NamedTuple):
  """What the network's steps gave; finite.

  Attributes:
    vectors: `[L + 1, d]`, the start and what each step made of it; from the
      first that is not within range on, the last that was.
    num_steps: `[]` int32, how many steps are within range.
    status: `[]` int32. CONVERGED: all steps are within range; DEGENERATE: a
      vector left the range of the dtype, or of the normalised network (its
      squared length outside 1e-8 ... 1e8); INVALID_INPUT: NaN or inf in the
      tokens or the start, or a start of 0.
  """

  vectors: jax.Array
  num_steps: jax.Array
  status: jax.Array


def build(
  max_dim: int,
  max_tokens: int,
  *,
  is_normalised: bool = False,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> primitives.ConstructedTransformer:
  """The network: 2 layers a step, or 3 if normalised.

  The weights depend on neither N nor d. Slots: `x` the token t_i, `v` the
  vector, `y` its product with the token, `c` the token's number in binary, by
  which it knows itself; if normalised also `u` the sum, `nn` the square of
  the length, `r` about its inverse.

  Args:
    max_dim: d0, the largest d.
    max_tokens: the largest T; only its logarithm adds rows.
    is_normalised: whether a third layer keeps the length.
    dtype: of the weights.

  Raises:
    ValueError: for a dimension or number of tokens below 1.
  """
  for name, value in (("max_dim", max_dim), ("max_tokens", max_tokens)):
    if value < 1:
      raise ValueError(f"{name} is {value}, takes an integer >= 1")
  extra = {"u": max_dim, "nn": 1, "r": 1} if is_normalised else {}
  slots = primitives.Slots.of(
    **dict.fromkeys("xvy", max_dim),
    c=max((max_tokens - 1).bit_length(), 1),
    one=1,
    **extra,
  )
  # No finite score passes it unless its square has left the range before.
  barrier = 2.0 ** (jnp.finfo(dtype).maxexp - 8)
  layers = [_products(slots, barrier), _sum_up(slots, barrier, is_normalised)]
  if is_normalised:
    _measure(layers[0], slots, barrier)
    layers.append(_rescale(slots, barrier))
  return primitives.build(slots, layers, activation="relu", dtype=dtype)


def _self_mask(slots, barrier):
  """Keys and queries whose product is 0 for the own token, below it else."""
  code = slots.select("c")
  others = slots.select("one") - code
  return [code, others], [-barrier * others, -barrier * code]


def _products(slots, barrier):
  layer = primitives.LayerBuilder(slots)
  layer.signed_heads(
    "A.product",
    keys=["x"],
    queries=["v"],
    reads="x",
    writes="y",
    masks=_self_mask(slots, barrier),
  )
  return layer


def _measure(layer, slots, barrier):
  """Adds `|v|^2` and, in place of it, about its inverse."""
  keys, queries = _self_mask(slots, barrier)
  length, inverse, one = (slots.select(name) for name in ("nn", "r", "one"))
  layer.head(
    "A.length",
    keys=["v", *keys],
    queries=["v", *queries],
    reads=one,
    writes=length,
  )
  curve, constant = piecewise_linear.power_geometric(
    -1.0, LEAST_SQUARE, MOST_SQUARE, _NUM_SEGMENTS
  )
  layer.curve("A.inverse", length, curve, inverse)
  layer.units("A.inverse", one, constant * inverse)
  layer.clear("A.clear", "nn", is_positive=True)


def _sum_up(slots, barrier, is_normalised):
  layer = primitives.LayerBuilder(slots)
  if not is_normalised:
    _forget(layer, "B.forget", slots, barrier)
  layer.signed_heads(
    "B.sum",
    keys=["x"],
    queries=["v"],
    reads="y",
    writes="u" if is_normalised else "v",
  )
  layer.clear("B.clear", "y")
  return layer


def _forget(layer, name, slots, barrier):
  """Takes v off itself, before anything is added in its place.

  An MLP would add `u - v`, which is rounded to the size of v: where a step
  makes vectors shorter, every one would lose digits.
  """
  keys, queries = _self_mask(slots, barrier)
  layer.head(
    name,
    keys=["one", *keys],
    queries=["one", *queries],
    reads=-slots.select("v"),
    writes="v",
  )


def _rescale(slots, barrier):
  layer = primitives.LayerBuilder(slots)
  _forget(layer, "C.forget", slots, barrier)
  keys, queries = _self_mask(slots, barrier)
  layer.head(
    "C.rescale",
    keys=["one", *keys],
    queries=["r", *queries],
    reads="u",
    writes="v",
  )
  layer.clear("C.clear", "u")
  layer.clear("C.clear", "r", is_positive=True)
  return layer


def num_steps_in_range(
  growth: float, dtype: jax.typing.DTypeLike, *, start_norm: float = 1.0
) -> int | float:
  """How many steps of the network without normalisation a dtype holds.

  `|v_t| = start_norm^(2^t) growth^(2^t - 1)` has to be a normal number.

  Args:
    growth: `|T(I, v, v)|` at a unit v. Near an eigenvector it is the
      eigenvalue; whatever the start, and with all terms of all sums, the
      steps up to the number of `sum_i |t_i|^3` do not overflow.
    dtype: of the network.
    start_norm: length of the start.

  Returns:
    The number of steps; inf if the length stays the same.

  Raises:
    ValueError: if growth or the length is not a number above 0.
  """
  for name, value in (("growth", growth), ("start_norm", start_norm)):
    if not 0 < value < math.inf:
      raise ValueError(f"{name} is {value}, takes a number > 0")
  limits = jnp.finfo(dtype)
  offset = math.log2(growth)
  slope = offset + math.log2(start_norm)
  if slope == 0:
    return math.inf
  room = limits.maxexp + offset if slope > 0 else -limits.minexp - offset
  return max(math.floor(math.log2(max(room / abs(slope), 1.0))), 0)


def weighted_tokens(
  points: jax.Array,
  *,
  sample_weight: jax.Array,
) -> jax.Array:
  """Tokens whose tensor is the third moment, `[N, d]`.

  Args:
    points: `[N, d]`; finite where the weight is 0.
    sample_weight: `[N]`, of any total.
  """
  share = sample_weight / jnp.sum(sample_weight)
  return jnp.cbrt(share)[:, None] * points


def noise_tokens(mean: jax.Array, scales: jax.Array) -> jax.Array:
  """Tokens that take off what noise adds to a third moment, `[2 d + 1, d]`.

  Noise of standard deviation s_j along axis j adds `s_j^2` times
  `m (x) e_j (x) e_j` and its permutations, which is half of
  `(m + s_j e_j)^(x)3 + (m - s_j e_j)^(x)3`, less the cube of m.

  Args:
    mean: `[d]`, m.
    scales: `[d]`, s; coordinates of scale 0 have no noise.
  """
  offsets = jnp.diag(scales)
  half = 0.5 ** (1.0 / 3.0)
  count = jnp.cbrt(jnp.asarray(mean.size, mean.dtype))
  return jnp.concatenate(
    [-half * (mean + offsets), -half * (mean - offsets), count * mean[None]]
  )


def encode(
  network: primitives.ConstructedTransformer,
  tokens: jax.Array,
  start: jax.Array,
) -> jax.Array:
  """The first state, `[D, T]`: every token holds the start.

  Args:
    network: from `build`.
    tokens: `[T, d]`; tokens of 0 add nothing.
    start: `[d]`.

  Raises:
    ValueError: for more dimensions or tokens than the network was built for.
  """
  slots = network.slots
  num_tokens, dim = tokens.shape
  max_dim, num_bits = slots.size("x"), slots.size("c")
  if dim > max_dim:
    raise ValueError(f"tokens have d = {dim}, takes d <= max_dim = {max_dim}")
  if num_tokens > 2**num_bits:
    raise ValueError(f"tokens have T = {num_tokens}, takes T <= {2**num_bits}")
  if start.shape != (dim,):
    raise ValueError(f"start has shape {start.shape}, takes {(dim,)}")
  code = (np.arange(num_tokens) >> np.arange(num_bits)[:, None]) & 1
  state = jnp.zeros((slots.width, num_tokens), tokens.dtype)
  state = state.at[slots["x"]].set(
    jnp.pad(tokens.T, ((0, max_dim - dim), (0, 0)))
  )
  state = state.at[slots["v"]].set(jnp.pad(start, (0, max_dim - dim))[:, None])
  state = state.at[slots["c"]].set(code.astype(tokens.dtype))
  return state.at[slots["one"]].set(1.0)


def schedule(
  network: primitives.ConstructedTransformer, num_steps: int
) -> tuple[primitives.Run, ...]:
  """All layers of the network, `num_steps` times."""
  return (primitives.Run(tuple(range(len(network.layers))), num_steps),)


def iterate(
  network: primitives.ConstructedTransformer,
  tokens: jax.Array,
  start: jax.Array,
  num_steps: int,
) -> Iterates:
  """Runs the network for L steps.

  Args:
    network: from `build`.
    tokens: `[T, d]`, of which `T = sum_i t_i (x) t_i (x) t_i`.
    start: `[d]`, not 0.
    num_steps: L, static.

  Raises:
    ValueError: as `encode`.
  """
  slots, period = network.slots, len(network.layers)
  is_valid = jnp.all(jnp.isfinite(tokens)) & jnp.all(jnp.isfinite(start))
  is_valid &= jnp.any(start != 0)
  states = primitives.apply(
    network,
    encode(network, tokens, start),
    schedule(network, num_steps),
    return_states=True,
  )
  vectors = slots.read(states[::period], "v")[:, : start.size, 0]
  largest = jnp.max(jnp.abs(vectors), axis=1)
  limits = jnp.finfo(vectors.dtype)
  # Of NaN no comparison holds.
  is_good = (largest >= limits.tiny) & (largest < jnp.inf)
  if period == 3:
    squares = jnp.sum(vectors**2, axis=1)
    is_good &= (squares >= LEAST_SQUARE) & (squares <= MOST_SQUARE)
  is_good = is_good.at[0].set(True)
  num_good = jnp.sum(jnp.cumprod(is_good.astype(jnp.int32))) - 1
  status = jnp.where(
    num_good == num_steps, types.Status.CONVERGED, types.Status.DEGENERATE
  )
  status = jnp.where(is_valid, status, types.Status.INVALID_INPUT)
  kept = vectors[jnp.minimum(jnp.arange(num_steps + 1), num_good)]
  return Iterates(
    vectors=jnp.where(is_valid, kept, 0.0),
    num_steps=jnp.where(is_valid, num_good, 0).astype(jnp.int32),
    status=status.astype(jnp.int32),
  )
