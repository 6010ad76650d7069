"""Many points, block by block: what is worked on stays in the caches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# What fits the caches of a core with the K d differences of each point.
_SIZE = 512


def default_size(num_points: int) -> int:
  """Points at a time: all, or what fits the caches of a core.

  Args:
    num_points: N.
  """
  return num_points if num_points <= most_at_once() else _SIZE


def most_at_once() -> int:
  """The most points that are not taken in blocks: few, or all of a device."""
  return 4096 if jax.default_backend() == "cpu" else 2**17


def sum_over(
  function: Callable[[jax.Array, jax.Array], tuple[Any, jax.Array]],
  columns: jax.Array,
  *,
  sample_weight: jax.Array,
  block_size: int | None = None,
) -> tuple[Any, jax.Array]:
  """A function of columns and weights, block by block.

  Args:
    function: of `[d, n]` and `[n]`, to what is added up and numbers of the
      points, `[n]`.
    columns: `[d, N]`.
    sample_weight: `[N]`; what the last block has in common with the one before
      has weight 0 there.
    block_size: n, static, or None for `default_size`.

  Returns:
    The sums of the first results, and the others as `[N]`.
  """
  num_points = columns.shape[1]
  block_size = block_size or default_size(num_points)
  if num_points <= block_size:
    return function(columns, sample_weight)
  # A slice beyond the end begins so early that it is full: no copy is made.
  last = num_points - block_size

  def of_block(start):
    first = jnp.minimum(start, last)
    is_new = first + jnp.arange(block_size) >= start
    weight = jax.lax.dynamic_slice_in_dim(sample_weight, first, block_size)
    return function(
      jax.lax.dynamic_slice_in_dim(columns, first, block_size, axis=1),
      jnp.where(is_new, weight, 0.0),
    )

  starts = jnp.arange(0, num_points, block_size)
  found, values = jax.lax.map(of_block, starts)
  num_before = (starts.size - 1) * block_size
  rest = values[-1, block_size - (num_points - num_before) :]
  values = jnp.concatenate([values[:-1].reshape(-1), rest])
  return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), found), values


def map_each(
  function: Callable[[Any], Any], items: Any, *, num_points: int
) -> Any:
  """`jax.vmap` of runs; one after the other where each is taken in blocks.

  Together they would not fit the caches, and `vmap` computes both sides of a
  choice that is made for each.

  Args:
    function: of one item.
    items: with a leading axis.
    num_points: N of each.
  """
  if num_points <= most_at_once():
    return jax.vmap(function)(items)
  return jax.lax.map(function, items)
