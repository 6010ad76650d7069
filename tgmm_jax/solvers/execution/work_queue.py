"""Many problems on one device: in chunks, or through a queue.

A `while_loop` under `vmap` goes on until its slowest item stops, and all the
others wait. Here a fixed number of slots work in step, and a slot whose item
has stopped takes the next one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Slots are refilled when this share of them is free: refilling at each stop
# would touch the data of all slots every time.
_FREE_SHARE = 8


def map_in_chunks(
  function: Callable[[Any], Any], inputs: Any, chunk_size: int
) -> Any:
  """`jax.vmap(function)(inputs)`, some items at a time.

  Chunks that fit the caches are faster than the whole on a CPU. All have the
  same size (the last repeats its last item), so `function` is compiled once,
  where `jax.lax.map(..., batch_size=)` compiles it again for the remainder.

  Args:
    function: of one item.
    inputs: a pytree with a leading axis of items.
    chunk_size: static.
  """
  num_items = jax.tree.leaves(inputs)[0].shape[0]
  chunk_size = min(chunk_size, num_items)
  num_chunks = -(-num_items // chunk_size)
  index = jnp.arange(num_chunks * chunk_size).reshape(num_chunks, chunk_size)

  def run_chunk(index):
    chunk = jax.tree.map(
      lambda leaf: leaf[jnp.minimum(index, num_items - 1)], inputs
    )
    return jax.vmap(function)(chunk)

  outputs = jax.lax.map(run_chunk, index)
  return jax.tree.map(
    lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_items], outputs
  )


def run_all(
  load: Callable[[jax.Array], tuple[Any, Any]],
  step: Callable[[Any, Any], Any],
  is_done: Callable[[Any], jax.Array],
  keep: Callable[[Any], Any],
  *,
  num_items: int,
  num_slots: int,
) -> Any:
  """Iterates every item until it is done.

  All functions are of one item. An item's result depends on the item only:
  not on the slot, nor on the items beside it.

  Args:
    load: `index -> (data, state)`; data stay as they are.
    step: `(data, state) -> state`.
    is_done: `state -> []` bool; must become True for every item.
    keep: `state ->` what is returned of it.
    num_items: static.
    num_slots: static; how many items are iterated at a time.

  Returns:
    What `keep` gives for each item, with a leading axis of `num_items`.
  """
  queue = _Queue(load, step, is_done, keep, num_items)
  index = jnp.arange(min(num_slots, num_items))
  data, state = queue.load_all(index)
  kept = jax.tree.map(
    lambda leaf: jnp.zeros((num_items, *leaf.shape[1:]), leaf.dtype),
    jax.vmap(keep)(state),
  )
  carry = (jnp.asarray(index.size), index, data, state, kept)
  carry = jax.lax.while_loop(
    lambda carry: jnp.any(carry[1] < num_items), queue.serve, carry
  )
  return carry[4]


class _Queue(NamedTuple):
  """The arguments of `run_all`, and what is done with them.

  An index of `num_items` is that of a slot with nothing to do.
  """

  load: Callable[[jax.Array], tuple[Any, Any]]
  step: Callable[[Any, Any], Any]
  is_done: Callable[[Any], jax.Array]
  keep: Callable[[Any], Any]
  num_items: int

  def load_all(self, index):
    return jax.vmap(self.load)(jnp.minimum(index, self.num_items - 1))

  def is_running(self, index, state):
    return (index < self.num_items) & ~jax.vmap(self.is_done)(state)

  def iterate(self, next_item, index, data, state):
    """Steps in all slots until enough of them are free."""
    num_slots = index.size
    most_running = num_slots - max(1, num_slots // _FREE_SHARE)
    # With nothing left to take, work on until all have stopped.
    allowed = jnp.where(next_item < self.num_items, most_running, 0)

    def is_busy(state):
      return jnp.sum(self.is_running(index, state)) > allowed

    def step_all(state):
      stepped = jax.vmap(self.step)(data, state)
      return _select(self.is_running(index, state), stepped, state)

    return jax.lax.while_loop(is_busy, step_all, state)

  def serve(self, carry):
    """Iterates, keeps what is done and gives the free slots new items."""
    next_item, index, data, state, kept = carry
    state = self.iterate(next_item, index, data, state)
    is_free = ~self.is_running(index, state)
    # Where nothing has finished, the index is out of range and is dropped.
    target = jnp.where(is_free, index, self.num_items)
    kept = jax.tree.map(
      lambda all_kept, new: all_kept.at[target].set(new, mode="drop"),
      kept,
      jax.vmap(self.keep)(state),
    )
    taken = next_item + jnp.cumsum(is_free) - 1
    index = jnp.where(is_free, jnp.minimum(taken, self.num_items), index)
    data, state = _select(is_free, self.load_all(index), (data, state))
    return next_item + jnp.sum(is_free), index, data, state, kept


def _select(mask, chosen, other):
  """`chosen` in the slots where `mask [S]` holds, else `other`."""

  def pick(new, old):
    return jnp.where(mask.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

  return jax.tree.map(pick, chosen, other)
