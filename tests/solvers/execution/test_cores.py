"""Several calls at once: order, errors, precision, how far ahead."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.solvers.execution import cores


@pytest.fixture(params=[1, 3])
def num_cores(request, monkeypatch):
  monkeypatch.setattr(cores, "num_cores", lambda: request.param)
  return request.param


def test_results_come_in_the_order_of_the_items(num_cores):
  assert list(cores.map_ahead(lambda item: item**2, range(20))) == [
    item**2 for item in range(20)
  ]
  assert list(cores.map_ahead(lambda item: item, [])) == []


def test_one_more_is_taken_ahead_than_there_are_cores(num_cores):
  taken = []
  found = cores.map_ahead(
    lambda item: item, (taken.append(i) or i for i in range(9))
  )
  for item in found:
    assert len(taken) == min(item + 2 + num_cores, 9)


def test_within_a_call_there_are_no_more_threads(num_cores):
  """Or calls would wait for threads that wait for them."""

  def of_item(item):
    own = threading.get_ident()
    inner = list(cores.map_ahead(lambda _: threading.get_ident(), range(5)))
    return item if set(inner) == {own} else None

  assert list(cores.map_ahead(of_item, range(8))) == list(range(8))


def test_the_reader_goes_on_while_the_last_call_is_under_way(num_cores):
  """On an accelerator too, where one call is made at a time."""
  is_read = threading.Event()

  def items():
    yield 0
    is_read.set()
    yield 1

  found = cores.map_ahead(lambda item: (is_read.wait(30), item), items())
  assert list(found) == [(True, 0), (True, 1)]


def test_calls_are_at_once(monkeypatch):
  """Each waits for the other: one after the other they would wait for ever."""
  monkeypatch.setattr(cores, "num_cores", lambda: 2)
  both = threading.Barrier(2, timeout=30)
  assert sorted(cores.map_ahead(lambda _: both.wait(), range(2))) == [0, 1]


def test_an_error_comes_in_the_place_of_its_result(num_cores):
  def invert(item):
    return 1 // item

  found = cores.map_ahead(invert, [1, 1, 0, 1])
  assert [next(found), next(found)] == [1, 1]
  with pytest.raises(ZeroDivisionError):
    next(found)


def test_precision_is_that_of_the_caller(num_cores):
  def dtype_of(_):
    return jnp.zeros(1).dtype.itemsize

  for has_64_bits in (False, True):
    with jax.enable_x64(has_64_bits):
      found = set(cores.map_ahead(dtype_of, range(4)))
    assert found == {8 if has_64_bits else 4}


@pytest.mark.parametrize("num_items", [3, 4, 7, 8])
def test_a_batch_is_dealt_out_and_put_together(num_cores, num_items):
  sizes = []

  def function(batch):
    sizes.append(len(batch["values"]))
    assert len(batch["keys"]) == len(batch["values"])
    return {"doubled": 2 * jnp.asarray(batch["values"])}

  values = np.arange(2.0 * num_items, dtype=np.float32).reshape(num_items, 2)
  batch = {
    "values": jnp.asarray(values),
    "keys": jax.random.split(jax.random.key(0), num_items),
    "nothing": None,
  }
  found = cores.deal_out(function, batch, least=2)
  np.testing.assert_array_equal(found["doubled"], 2 * values)
  # Parts of one size, each with enough to do.
  assert len(set(sizes)) == 1
  assert len(sizes) == max(1, min(num_cores, num_items // 2))
