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


def num_cores() -> int:
  """How many calls are worth being made at once."""
  if jax.default_backend() != "cpu":
    return 1
  return len(os.sched_getaffinity(0)) if _HAS_AFFINITY else os.cpu_count() or 1


_HAS_AFFINITY = hasattr(os, "sched_getaffinity")


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
