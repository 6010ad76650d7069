"""What this machine does at best, to measure a program against."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.benchmarks import timing


class Ceilings(NamedTuple):
  """What this machine does at best.

  Attributes:
    product: FLOP/s of a large matrix product.
    fused: FLOP/s of multiply-adds on what fits the caches.
    exponentials: exponentials a second.
    memory: bytes/s read and written by a copy of 256 MiB.
  """

  product: float
  fused: float
  exponentials: float
  memory: float


def measure() -> Ceilings:
  """Best of several runs of four small programs."""
  small = jnp.linspace(0.5, 1.0, 2**16, dtype=jnp.float32)
  large = jnp.ones(2**26, jnp.float32)
  times = 200

  def repeat(step):
    return jax.jit(
      lambda values: jax.lax.fori_loop(
        0, times, lambda _, value: step(value), values
      )
    )

  def horner(values):
    total = values
    for _ in range(32):
      total = total * values + 0.1
    return total

  copy = jax.jit(lambda values: values + 1.0)
  return Ceilings(
    product=timing.matmul_rate("float32"),
    fused=64 * times * small.size / _best_seconds(repeat(horner), small),
    exponentials=times
    * small.size
    / _best_seconds(repeat(lambda values: jnp.exp(-values)), small),
    memory=2 * large.nbytes / _best_seconds(copy, large),
  )


def _best_seconds(function, *arguments):
  seconds = []
  for _ in range(8):
    begin = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    seconds.append(time.perf_counter() - begin)
  return min(seconds)
