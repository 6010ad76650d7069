"""Several calls of a program at once, one for each core.

XLA runs a loop on one core of a CPU, whatever is in it. Called from several
threads it runs as many loops; an accelerator has enough to do with one.
"""

import collections
import concurrent.futures
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import joblib
import numpy as np


@functools.cache
def num_cores() -> int:
  """How many calls are worth being made at once.

  What a scheduler, a container or `LOKY_MAX_CPU_COUNT` leaves of the machine
  counts; it is looked at once.
  """
  return joblib.cpu_count() if jax.default_backend() == "cpu" else 1


def deal_out(function: Callable[[Any], Any], batch: Any, *, least: int) -> Any:
  """A function of a batch, its items dealt out over the cores.

  Args:
    function: of a pytree with a leading axis, to another; what it says of an
      item must not depend on the others.
    batch: arrays with the leading axis B; traced it stays together.
    least: items that are worth a call.
  """
  leaves = jax.tree.leaves(batch)
  num_items = leaves[0].shape[0]
  size = min(num_cores(), num_items // least)
  if size < 2 or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
    return function(batch)
  # Parts of one size share a program: the last item fills the last one up.
  length = -(-num_items // size)
  parts = (
    jax.tree.map(
      lambda leaf: _rows(leaf, first, length),  # noqa: B023
      batch,
    )
    for first in range(0, num_items, length)
  )
  found = list(map_ahead(function, parts))
  return jax.tree.map(
    lambda *leaves: jnp.concatenate(leaves)[:num_items], *found
  )


def _rows(leaf, first, length):
  """Some of an array; without a program for it where it is not of keys."""
  if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = np.asarray(leaf)
  part = leaf[first : first + length]
  missing = length - part.shape[0]
  if not missing:
    return part
  return leaf[np.minimum(np.arange(first, first + length), len(leaf) - 1)]


def map_ahead(
  function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
  """`map`, some items ahead of what is asked for; in the order of the items.

  Args:
    function: is called in threads, with JAX's precision as it is here. Within
      such a call it is `map`: all cores have something to do.
    items: taken one by one in the thread of the caller, one more than there are
      cores, so that the next is there when a call ends.

  Yields:
    The results. An error of the function is raised in the place of its result.
  """
  if getattr(_THREAD, "is_worker", False):
    yield from map(function, items)
    return
  size, has_64_bits = num_cores(), jax.config.jax_enable_x64

  def call(item):
    _THREAD.is_worker = True
    # This setting of JAX belongs to a thread, and so does what waits.
    with jax.enable_x64(has_64_bits):
      return jax.block_until_ready(function(item))

  pool, pending, items = _pool(size), collections.deque(), iter(items)
  try:
    for item in itertools.islice(items, size + 1):
      pending.append(pool.submit(call, item))
    while pending:
      found = pending.popleft().result()
      for item in itertools.islice(items, 1):
        pending.append(pool.submit(call, item))
      yield found
  finally:
    for future in pending:
      future.cancel()


# Whether a thread is one of the pool's.
_THREAD = threading.local()


@functools.cache
def _pool(size):
  """Threads that wait for work; a pass may take a few milliseconds."""
  return concurrent.futures.ThreadPoolExecutor(size, "tgmm_jax")
