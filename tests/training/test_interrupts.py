import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tgmm_jax.training import hosts, interrupts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_only_set_a_flag_and_handlers_come_back(number):
  before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  with interrupts.StopRequest() as stop:
    assert not stop.is_requested()
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.is_requested()
    assert stop.is_requested()
  after = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  assert before == after


def test_handlers_come_back_after_an_error():
  before = signal.getsignal(signal.SIGINT)
  with pytest.raises(ZeroDivisionError), interrupts.StopRequest():
    raise ZeroDivisionError
  assert signal.getsignal(signal.SIGINT) is before


def report(stop, *signals):
  """What has no state: it is at work for ever, unless a signal comes."""
  with stop.at_once("the report"):
    for number in signals:
      os.kill(os.getpid(), number)
    time.sleep(60)


@pytest.fixture(name="heard")
def interrupt_is_heard():
  """SIGINT as at a terminal: a process in the background ignores it."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_has_no_state_is_left_at_once(number):
  with interrupts.StopRequest() as stop:
    with pytest.raises(hosts.StoppedError, match="during the report"):
      report(stop, number)
    # What comes while it is on its way out changes nothing.
    os.kill(os.getpid(), number)
    assert stop.is_requested()
    with pytest.raises(hosts.StoppedError, match="during the report"):
      report(stop)


def test_signal_that_a_library_swallows_is_not_lost():
  def swallow(stop):
    with stop.at_once("the report"), contextlib.suppress(Exception):
      os.kill(os.getpid(), signal.SIGTERM)

  with interrupts.StopRequest() as stop, pytest.raises(hosts.StoppedError):
    swallow(stop)


def test_ignored_signal_stays_ignored():
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    with interrupts.StopRequest() as stop:
      os.kill(os.getpid(), signal.SIGINT)
      assert not stop.is_requested()
  finally:
    signal.signal(signal.SIGINT, before)


_DISTRIBUTED = """
  import os, signal, socket, sys, time
  import jax
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  jax.distributed.initialize(
    address, num_processes=1, process_id=0, coordinator_bind_address=address,
    cluster_detection_method="deactivate",
  )
  import jax.numpy as jnp
  from tgmm_jax.training import checkpoints, interrupts
  with (
    interrupts.StopRequest() as stop,
    checkpoints.Checkpointer(sys.argv[1], config={}) as checkpointer,
  ):
    start = time.monotonic()
    for step in range(0, 10**6, 20):
      if stop.is_requested():
        break
      assert time.monotonic() < start + 30, "never told to stop"
      if step == 100:
        checkpointer.save(step, {"x": jnp.asarray(step)})
        os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(0.01)
    assert step > 100, "told to stop before the signal"
    assert stop.is_requested()
    checkpointer.save(step, {"x": jnp.asarray(step)})
  print("saved", checkpointer.latest_step() == step)
  jax.distributed.shutdown()
"""


@pytest.mark.slow
def test_signal_under_jax_distributed_is_ours(tmp_path):
  child = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(_DISTRIBUTED), str(tmp_path)],
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=90,
  )
  assert child.returncode == 0, child.stderr
  assert child.stdout == "saved True\n"
