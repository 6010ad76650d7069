"""Several calls of a program at once, one for each core.

XLA runs a loop on one core of a CPU, whatever is in it. Called from several
threads it runs as many loops; an accelerator has enough to do with one.
"""

import collections
import concurrent.futures
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def num_cores() -> int:
  """How many calls are worth being made at once."""
  if jax.default_backend() != "cpu":
    return 1
  return len(os.sched_getaffinity(0)) if _HAS_AFFINITY else os.cpu_count() or 1


_HAS_AFFINITY = hasattr(os, "sched_getaffinity")


def deal_out(function: Callable[[Any], Any], batch: Any, *, least: int) -> Any:
  """A function of a batch, its items dealt out over the cores.

  Args:
    function: of a pytree with a leading axis, to another; what it says of an
      item must not depend on the others.
    batch: arrays with the leading axis B, not traced.
    least: items that are worth a call.
  """
  num_items, size = jax.tree.leaves(batch)[0].shape[0], num_cores()
  size = min(size, num_items // least)
  if size < 2:
    return function(batch)
  # Parts of one size share a program: the last item fills up.
  length = -(-num_items // size)
  index = np.minimum(np.arange(size * length), num_items - 1)
  parts = [
    jax.tree.map(lambda leaf: _taken(leaf, own), batch)  # noqa: B023
    for own in index.reshape(size, length)
  ]
  found = list(map_ahead(function, parts))
  return jax.tree.map(
    lambda *leaves: jnp.concatenate(leaves)[:num_items], *found
  )


def _taken(leaf, index):
  """Rows of an array, without a program for it where it is not of keys."""
  is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  return leaf[index] if is_key else np.asarray(leaf)[index]


def map_ahead(
  function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
  """`map`, some items ahead of what is asked for; in the order of the items.

  Args:
    function: is called in threads, with JAX's precision as it is here.
    items: taken one by one in the thread of the caller, as many ahead as there
      are cores.

  Yields:
    The results. An error of the function is raised in the place of its result.
  """
  size = num_cores()
  if size == 1:
    yield from map(function, items)
    return
  has_64_bits = jax.config.jax_enable_x64

  def call(item):
    # This setting of JAX belongs to a thread, and so does what waits.
    with jax.enable_x64(has_64_bits):
      return jax.block_until_ready(function(item))

  pool, pending, items = _pool(size), collections.deque(), iter(items)
  try:
    for item in itertools.islice(items, size):
      pending.append(pool.submit(call, item))
    while pending:
      found = pending.popleft().result()
      for item in itertools.islice(items, 1):
        pending.append(pool.submit(call, item))
      yield found
  finally:
    for future in pending:
      future.cancel()


@functools.cache
def _pool(size):
  """Threads that wait for work; a pass may take a few milliseconds."""
  return concurrent.futures.ThreadPoolExecutor(size, "tgmm_jax")
