"""A run of two processes, stopped and killed, against one that never was.

The launcher starts real processes on loopback. Waits are long, for a machine
may be busy; what is asked is that everything ends by itself.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
RUN = "tiny"
STEPS_PER_CALL = 10  # as in tiny_config.py
FLAGS = (
  "--config=tests/reliability/tiny_config.py",
  f"--config.runs.{RUN}.num_steps=300",
  "--config.state_sharding=sharded",
)


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
  """Starts a program of this project; none outlives the tests."""
  cache = tmp_path_factory.mktemp("cache")
  started = []

  def begin(*command, num_devices=1):
    started.append(
      subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        env=os.environ
        | {
          "JAX_PLATFORMS": "cpu",
          "JAX_NUM_CPU_DEVICES": str(num_devices),
          "JAX_COMPILATION_CACHE_DIR": str(cache),
          "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
      )
    )
    return started[-1]

  yield begin
  for child in started:
    if child.poll() is None:
      for number in children_of(child):
        os.kill(number, signal.SIGKILL)
      child.kill()
      child.communicate()


def children_of(process):
  """The numbers of the processes that one has started, in their order."""
  listed = subprocess.run(
    ["ps", "-o", "pid=", "--ppid", str(process.pid)],
    capture_output=True,
    text=True,
  )
  return sorted(int(number) for number in listed.stdout.split())


def num_lines(workdir):
  path = workdir / RUN / "metrics.jsonl"
  return len(path.read_bytes().splitlines()) if path.exists() else 0


def steps(workdir):
  found = (workdir / RUN / "checkpoints").glob("*/commit_success.txt")
  return sorted(int(path.parent.name) for path in found)


def wait_for_lines(process, workdir, count):
  deadline = time.monotonic() + 300
  while num_lines(workdir) < count:
    assert process.poll() is None, process.communicate()[1]
    assert time.monotonic() < deadline
    time.sleep(0.02)


def what_came_out(workdir):
  """Digests of the last state, metrics and table."""
  newest = workdir / RUN / "checkpoints" / str(steps(workdir)[-1])
  leaves = json.loads((newest / "meta" / "metadata").read_text())["leaves"]
  return {
    "leaves": {name: leaf["digest"] for name, leaf in leaves.items()},
    "metrics": (workdir / RUN / "metrics.jsonl").read_bytes(),
    "table": (workdir / "results.csv").read_text(),
  }


def test_stopped_killed_and_started_again_it_ends_as_one_never_stopped(
  begin, tmp_path
):
  alone = begin(
    "experiments.main", *FLAGS, f"--workdir={tmp_path / 'a'}", num_devices=2
  )
  assert alone.wait(timeout=400) == 0, alone.communicate()[1]

  workdir, logs = tmp_path / "b", tmp_path / "logs"
  launcher = begin(
    "experiments.launch",
    *("--processes=2", "--retries=2", f"--logs={logs}", "--"),
    *(*FLAGS, f"--workdir={workdir}"),
  )
  # A signal to one of them: both save the same step.
  wait_for_lines(launcher, workdir, 5)
  first = children_of(launcher)
  os.kill(first[1], signal.SIGTERM)
  wait_for_lines(launcher, workdir, num_lines(workdir) + 4)
  # By then it was started again; now one is killed, and the other ends, too.
  second = children_of(launcher)
  assert not set(first) & set(second)
  os.kill(second[1], signal.SIGKILL)
  _, said = launcher.communicate(timeout=400)
  texts = [path.read_text() for path in sorted(logs.glob("*.log"))]
  assert launcher.returncode == 0, f"{said}{texts}"
  assert "ended with [75, 75], started again" in said
  assert re.search(r"ended with \[(1|-6), -9\], started again", said)
  for text in texts:
    stopped_at = re.findall(r"stopped by a signal at step (\d+)", text)
    assert len(stopped_at) == 1
    assert "evaluating tgmm at d = 2" in texts[0]
  assert what_came_out(workdir) == what_came_out(tmp_path / "a")
  assert not list(workdir.rglob("*tmp*"))
