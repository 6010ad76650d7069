"""The queue and the chunks against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.solvers.execution import work_queue


def collatz_steps(number):
  count = 0
  while number != 1:
    number = number // 2 if number % 2 == 0 else 3 * number + 1
    count += 1
  return count


@pytest.mark.parametrize(
  ("num_items", "num_slots"), [(1, 1), (1, 9), (7, 7), (50, 1), (50, 16)]
)
def test_every_item_takes_its_own_number_of_steps(num_items, num_slots):
  def load(index):
    return index + 1, (index + 1, 0)

  def step(first, state):
    number, count = state
    del first
    halved = jnp.where(number % 2 == 0, number // 2, 3 * number + 1)
    return halved, count + 1

  counts = work_queue.run_all(
    load,
    step,
    lambda state: state[0] == 1,
    lambda state: state[1],
    num_items=num_items,
    num_slots=num_slots,
  )
  expected = [collatz_steps(i + 1) for i in range(num_items)]
  np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("chunk_size", [1, 4, 10, 64])
def test_chunks_are_vmap(chunk_size):
  inputs = {"a": jnp.arange(10.0), "b": jnp.arange(20.0).reshape(10, 2)}

  def function(one):
    return one["a"] * one["b"], one["a"] + 1

  found = work_queue.map_in_chunks(function, inputs, chunk_size)
  expected = jax.vmap(function)(inputs)
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_array_equal(one, other)
