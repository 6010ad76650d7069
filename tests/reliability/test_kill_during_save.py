"""Processes killed while a save is under way, or told to stop twice."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

pytestmark = pytest.mark.slow

# Each start goes on from what the one before it left. A step's data follows
# from its number, so that what comes back can be compared bit by bit.
_CHILD = """
  import sys, time
  import jax
  import jax.numpy as jnp
  from tgmm_jax.training import checkpoints, interrupts

  def make(step):
    key = jax.random.fold_in(jax.random.key(0), step)
    bits = jax.random.bits(key, (2, 4 * 2**20), jnp.uint32)
    return {"step": jnp.asarray(step), "a": bits[0], "b": bits[1]}

  with (
    interrupts.StopRequest() as stop,
    # Nothing stays beside the newest: an old step must not go too early.
    checkpoints.Checkpointer(
      sys.argv[1], config={}, max_to_keep=1
    ) as checkpointer,
  ):
    restored = checkpointer.restore_latest(jax.eval_shape(lambda: make(0)))
    step = 0
    if restored is not None:
      step = restored.step
      same = jax.tree.map(jnp.array_equal, restored.state, make(step))
      assert jax.tree.all(same), f"step {step} came back changed"
    print("start", step, flush=True)
    checkpointer.save(step + 1, make(step + 1))
    print("saving", step + 1, flush=True)
    while not stop.is_requested():
      time.sleep(0.001)
    checkpointer.save(step + 2, make(step + 2))
  sys.exit(interrupts.EXIT_STOPPED)
"""


@pytest.fixture
def start():
  """Starts the child on a folder; none outlives the test."""
  children = []

  def start(folder):
    child = subprocess.Popen(
      [sys.executable, "-c", textwrap.dedent(_CHILD), str(folder)],
      cwd=pathlib.Path(__file__).parents[2],
      env=os.environ | {"JAX_PLATFORMS": "cpu"},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    children.append(child)
    return child

  yield start
  for child in children:
    child.kill()
    child.wait()


def _read(child, word):
  line = child.stdout.readline()
  if not line.startswith(word):
    child.kill()
    pytest.fail(f"{line}{child.communicate()[1]}")
  return int(line.split()[1])


def _stop_twice(child):
  child.send_signal(signal.SIGTERM)
  time.sleep(0.02)
  child.send_signal(signal.SIGINT)
  _, stderr = child.communicate(timeout=60)
  assert child.returncode == 75, stderr


def test_killed_saves_lose_nothing_and_need_no_cleaning(start, tmp_path):
  child = start(tmp_path)
  assert _read(child, "start") == 0
  assert _read(child, "saving") == 1
  _stop_twice(child)
  committed, num_unfinished = 2, 0

  for delay in (0.0, 0.01, 0.05, 0.1, 0.2, 0.4):
    child = start(tmp_path)
    assert _read(child, "start") == committed
    step = _read(child, "saving")
    time.sleep(delay)
    child.kill()
    child.communicate()
    is_committed = (tmp_path / str(step) / "commit_success.txt").exists()
    num_unfinished += not is_committed
    committed = step if is_committed else committed
  assert num_unfinished >= 1, "every save was over before the kill"

  child = start(tmp_path)
  assert _read(child, "start") == committed
  step = _read(child, "saving")
  _stop_twice(child)
  assert [path.name for path in tmp_path.iterdir()] == [str(step + 1)]
