"""Programs that several threads ask for at once."""

import concurrent.futures
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.solvers.execution import programs


@pytest.mark.parametrize("num_threads", [2, 4])
def test_one_of_several_threads_compiles(num_threads):
  traced, together = [], threading.Barrier(num_threads, timeout=30)

  def function(values):
    traced.append(values.shape)
    time.sleep(0.2)  # as compilation would take
    return 2.0 * values

  program = programs.quick(function)

  def call(index):
    together.wait()
    return program(jnp.full(3, float(index)))

  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    found = list(pool.map(call, range(num_threads)))
  for index, values in enumerate(found):
    np.testing.assert_array_equal(values, np.full(3, 2.0 * index))
  assert traced == [(3,)]
  assert program.size() == 1


def test_threads_with_other_shapes_do_not_wait_for_each_other():
  both = threading.Barrier(2, timeout=30)

  def function(values):
    both.wait()  # of two that are traced one after the other none goes on
    return values + 1.0

  program = programs.quick(function)
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    found = list(pool.map(program, (jnp.zeros(2), jnp.zeros(5))))
  assert [values.shape for values in found] == [(2,), (5,)]
