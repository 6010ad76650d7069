"""Transformers whose weights are written down: layers, schedules, sizes.

The layers are those of the theorems (arXiv 2505.11918, 2501.01312). A state
`H` is `[D, T]`: a column is a token, as in the papers and unlike the trained
models of this library. All layers are residual, without norms or biases; a
constant is a slot that holds 1 in every token.

Besides the dimension letters of `types`: T tokens, R rows of a query and key
product, S rows that a head reads, F units of an MLP.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import linalg
from tgmm_jax.constructed import blueprint

ACTIVATIONS = ("softmax", "relu")

Slots = blueprint.Slots
LayerBuilder = blueprint.LayerBuilder


class Head(NamedTuple):
  """One attention head; `V = writes @ reads`, only `keys^T queries` counts.

  Attributes:
    keys: `[R, D]`.
    queries: `[R, D]`.
    reads: `[S, D]`, what of each key token is summed up.
    writes: `[D, S]`, where it goes in the query token.
  """

  keys: jax.Array
  queries: jax.Array
  reads: jax.Array
  writes: jax.Array


class Layer(NamedTuple):
  """Attention, then an MLP; a layer without MLP has 0 hidden units.

  Attributes:
    heads: any number, each with its own R and S.
    hidden: `[F, D]`, W1.
    output: `[D, F]`, W2.
  """

  heads: tuple[Head, ...]
  hidden: jax.Array
  output: jax.Array


class Block(NamedTuple):
  """A named part of the weights: one head, or some units of one MLP."""

  layer: int
  part: str  # "head" or "mlp"
  start: int
  stop: int


class Run(NamedTuple):
  """Part of a schedule: these layers in this order, so many times over.

  In the place of a layer may stand a run of its own.
  """

  layers: "tuple[int | Run, ...]"
  repeats: int = 1


@dataclasses.dataclass(frozen=True)
class ConstructedTransformer:
  """A network with named slots and blocks; a pytree of its weights.

  Attributes:
    layers: each once, however often a schedule runs it.
    activations: of each layer's attention, of `ACTIVATIONS`; static.
    slots: of the residual stream; static.
    blocks: names and places of all heads and groups of units; static.
  """

  layers: tuple[Layer, ...]
  activations: tuple[str, ...]
  slots: Slots
  blocks: tuple[tuple[str, Block], ...]

  @property
  def block_names(self) -> tuple[str, ...]:
    """All that `zero_block` takes."""
    return tuple(name for name, _ in self.blocks)


jax.tree_util.register_dataclass(
  ConstructedTransformer,
  data_fields=["layers"],
  meta_fields=["activations", "slots", "blocks"],
)


class Sizes(NamedTuple):
  """How large a network is, unrolled over its schedule.

  Attributes:
    num_layers: layers that a state passes.
    num_heads: of the layer that has most.
    width: D.
    mlp_width: hidden units of the layer that has most.
    num_parameters: numbers stored, factored heads as they are.
    num_dense: with keys, queries and values as `[D, D]` matrices.
    num_distinct: stored, layers that are run again counted once.
    nonzero_share: of `num_parameters`.
  """

  num_layers: int
  num_heads: int
  width: int
  mlp_width: int
  num_parameters: int
  num_dense: int
  num_distinct: int
  nonzero_share: float


def build(
  slots: Slots,
  layers: Sequence[LayerBuilder],
  *,
  activation: str | Sequence[str],
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> ConstructedTransformer:
  """Puts layers together.

  Args:
    slots: of the residual stream.
    layers: filled in.
    activation: of the attention, one of `ACTIVATIONS`, or one for each layer.
    dtype: of the weights, which are worked out in float64.

  Raises:
    ValueError: for another activation, or a name that occurs twice.
  """
  activations = activation
  if isinstance(activation, str):
    activations = (activation,) * len(layers)
  for each in activations:
    if each not in ACTIVATIONS:
      raise ValueError(f"activation is {each!r}, takes {ACTIVATIONS}")
  blocks, built = {}, []

  def add(name, block):
    if name in blocks:
      raise ValueError(f"block {name!r} is there twice, takes each name once")
    blocks[name] = block

  for index, layer in enumerate(layers):
    hidden = [np.zeros((0, slots.width))]
    output = [np.zeros((0, slots.width))]
    for number, name in enumerate(layer.heads):
      add(name, Block(index, "head", number, number + 1))
    start = 0
    for name, pairs in layer.groups.items():
      hidden += [inputs for inputs, _ in pairs]
      output += [outputs for _, outputs in pairs]
      stop = start + sum(len(inputs) for inputs, _ in pairs)
      add(name, Block(index, "mlp", start, stop))
      start = stop
    built.append(
      Layer(
        tuple(Head(*rows) for rows in layer.heads.values()),
        np.concatenate(hidden),
        np.concatenate(output).T,
      )
    )
  layers = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tuple(built))
  return ConstructedTransformer(
    layers, tuple(activations), slots, tuple(blocks.items())
  )


def attend(layer: Layer, state: jax.Array, activation: str) -> jax.Array:
  """`H + sum_m V_m H activation((K_m H)^T Q_m H)`.

  Softmax is over the keys, for each query; ReLU is not normalised.

  Args:
    layer: its heads are used.
    state: `[D, T]`.
    activation: one of `ACTIVATIONS`.
  """
  total = state
  # In full precision: logits of 1e3 lose everything in bfloat16 or TF32.
  for head in layer.heads:
    scores = linalg.matmul(
      linalg.matmul(head.keys, state).T, linalg.matmul(head.queries, state)
    )
    if activation == "softmax":
      shares = jax.nn.softmax(scores, axis=0)
    else:
      shares = jax.nn.relu(scores)
    read = linalg.matmul(linalg.matmul(head.reads, state), shares)
    total = total + linalg.matmul(head.writes, read)
  return total


def feed_forward(layer: Layer, state: jax.Array) -> jax.Array:
  """`H + W2 relu(W1 H)`.

  Args:
    layer: its MLP is used.
    state: `[D, T]`.
  """
  if not layer.hidden.shape[0]:
    return state
  hidden = jax.nn.relu(linalg.matmul(layer.hidden, state))
  return state + linalg.matmul(layer.output, hidden)


def apply(
  network: ConstructedTransformer,
  state: jax.Array,
  schedule: Iterable[Run],
  *,
  return_states: bool = False,
) -> jax.Array:
  """Runs the layers of a schedule; repeats are scanned over.

  Args:
    network: the weights.
    state: `[D, T]`, cast to the dtype of the weights.
    schedule: which layers, how often; static.
    return_states: whether all states are returned and not only the last.

  Returns:
    `[D, T]`, or `[L + 1, D, T]`: the given state and that after each of the L
    layers passed.
  """
  state = state.astype(network.layers[0].hidden.dtype)
  states = [state[None]]
  for run in schedule:
    state, passed = _repeat(network, state, run, return_states)
    if return_states:
      states.append(passed)
  return jnp.concatenate(states) if return_states else state


def _repeat(network, state, run, return_states):
  """The state after a run, and all those after its layers if they are asked."""

  def advance(state, _):
    passed = []
    for part in run.layers:
      if isinstance(part, Run):
        state, states = _repeat(network, state, part, return_states)
      else:
        layer = network.layers[part]
        state = attend(layer, state, network.activations[part])
        state = feed_forward(layer, state)
        states = state[None]
      passed.append(states)
    return state, jnp.concatenate(passed) if return_states else None

  state, passed = jax.lax.scan(advance, state, length=run.repeats)
  if return_states:
    passed = passed.reshape(-1, *state.shape)
  return state, passed


def zero_block(
  network: ConstructedTransformer, name: str
) -> ConstructedTransformer:
  """The network without what one named block writes.

  Args:
    network: the weights.
    name: one of `network.block_names`.
  """
  block = dict(network.blocks)[name]
  layer = network.layers[block.layer]
  if block.part == "head":
    head = layer.heads[block.start]
    head = head._replace(writes=jnp.zeros_like(head.writes))
    heads = (
      *layer.heads[: block.start],
      head,
      *layer.heads[block.stop :],
    )
    layer = layer._replace(heads=heads)
  else:
    output = layer.output.at[:, block.start : block.stop].set(0.0)
    layer = layer._replace(output=output)
  layers = list(network.layers)
  layers[block.layer] = layer
  return dataclasses.replace(network, layers=tuple(layers))


def count_parameters(tree: ConstructedTransformer | Layer) -> int:
  """Numbers stored, each layer once."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def count_nonzero(tree: ConstructedTransformer | Layer) -> int:
  """Of these, how many are not 0."""
  leaves = jax.tree.leaves(tree)
  return sum(int(np.count_nonzero(np.asarray(leaf))) for leaf in leaves)


def sizes(network: ConstructedTransformer, schedule: Iterable[Run]) -> Sizes:
  """How large the network is that a schedule makes of these layers.

  Args:
    network: the weights.
    schedule: as in `apply`.
  """
  times = collections.Counter(_flatten(schedule))
  used = [(n, network.layers[i]) for i, n in times.items()]
  width = network.slots.width
  stored = sum(n * count_parameters(layer) for n, layer in used)
  nonzero = sum(n * count_nonzero(layer) for n, layer in used)
  return Sizes(
    num_layers=times.total(),
    num_heads=max(len(layer.heads) for _, layer in used),
    width=width,
    mlp_width=max(layer.hidden.shape[0] for _, layer in used),
    num_parameters=stored,
    num_dense=sum(
      n * (3 * width**2 * len(layer.heads) + 2 * layer.hidden.size)
      for n, layer in used
    ),
    num_distinct=sum(count_parameters(layer) for _, layer in used),
    nonzero_share=nonzero / max(stored, 1),
  )


def _flatten(schedule):
  """The layers that a state passes, one after the other."""
  for run in schedule:
    for _ in range(run.repeats):
      for part in run.layers:
        if isinstance(part, Run):
          yield from _flatten([part])
        else:
          yield part
