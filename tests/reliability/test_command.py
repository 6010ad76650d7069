"""The command killed, stopped, started again and started twice."""

import hashlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

_ROOT = pathlib.Path(__file__).parents[2]
_RUN = "tiny"
_NUM_STEPS, _STEPS_PER_CALL = 3000, 10  # as in tiny_config.py


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  """Compiled programs, so that only the first start has to compile."""
  return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def start(cache):
  """Starts the training of tiny_config.py in a process."""
  children = []

  def start(workdir, *flags, num_devices=1, most_bytes=resource.RLIM_INFINITY):
    child = subprocess.Popen(
      [
        *(sys.executable, "-m", "experiments.main"),
        "--config=tests/reliability/tiny_config.py",
        f"--workdir={workdir}",
        "--mode=train",
        *flags,
      ],
      cwd=_ROOT,
      env=os.environ
      | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(num_devices),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      },
      stdout=subprocess.DEVNULL,
      stderr=open(cache / f"{len(children)}.log", "w"),
      # Of one file; it stands for a full disk.
      preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (most_bytes, most_bytes)
      ),
    )
    child.log = cache / f"{len(children)}.log"
    children.append(child)
    return child

  yield start
  for child in children:
    child.kill()
    child.wait()


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory):
  """The work folder of a run that was never stopped."""
  workdir = tmp_path_factory.mktemp("unbroken")
  _expect(start(workdir), 0)
  return workdir


def _expect(child, status):
  """Waits for the end; returns what was logged."""
  assert child.wait(timeout=300) == status, child.log.read_text()[-3000:]
  return child.log.read_text()


def _num_lines(workdir):
  path = workdir / _RUN / "metrics.jsonl"
  return len(path.read_bytes().splitlines()) if path.exists() else 0


def _wait_for(child, condition):
  """Waits, while the process works, until something has happened."""
  deadline = time.monotonic() + 300
  while not condition():
    assert child.poll() is None, child.log.read_text()[-3000:]
    assert time.monotonic() < deadline, child.log.read_text()[-3000:]
    time.sleep(0.002)


def _steps(workdir):
  folder = workdir / _RUN / "checkpoints"
  return sorted(
    int(path.parent.name) for path in folder.glob("*/commit_success.txt")
  )


def _digests(workdir):
  """Of all leaves of the newest state: parameters, optimiser, counters."""
  newest = workdir / _RUN / "checkpoints" / str(_steps(workdir)[-1])
  leaves = json.loads((newest / "meta" / "metadata").read_text())["leaves"]
  return {name: leaf["digest"] for name, leaf in leaves.items()}


def _metrics(workdir):
  return (workdir / _RUN / "metrics.jsonl").read_bytes()


def _contents(workdir):
  return {
    path.relative_to(workdir): hashlib.sha256(path.read_bytes()).digest()
    for path in workdir.rglob("*")
    if path.is_file()
  }


def test_finished_run_started_again_changes_nothing(start, unbroken):
  before = _contents(unbroken)
  assert _steps(unbroken)[-1] == _NUM_STEPS
  _expect(start(unbroken), 0)
  assert _contents(unbroken) == before


def test_killed_and_stopped_run_ends_with_the_same_bits(
  start, unbroken, tmp_path
):
  # Stopped by a signal: this very step is saved, further signals change
  # nothing, and another start of the command finds the folder taken.
  child = start(tmp_path)
  _wait_for(child, lambda: _num_lines(tmp_path) >= 5)
  child.send_signal(signal.SIGSTOP)
  log = _expect(start(tmp_path), 1)
  assert f"in use by pid {child.pid} on host" in log
  child.send_signal(signal.SIGCONT)
  child.send_signal(signal.SIGTERM)
  child.send_signal(signal.SIGINT)
  _expect(child, 75)
  stopped_at = _steps(tmp_path)[-1]
  assert stopped_at == _num_lines(tmp_path) * _STEPS_PER_CALL < _NUM_STEPS

  # Killed: the next start goes on from the last save.
  for num_lines in (
    stopped_at // _STEPS_PER_CALL + 3,
    stopped_at // _STEPS_PER_CALL + 37,
  ):
    child = start(tmp_path)
    _wait_for(child, lambda: _num_lines(tmp_path) >= num_lines)  # noqa: B023
    child.kill()
    child.wait()
  saved = _steps(tmp_path)[-1]

  log = _expect(start(tmp_path), 0)
  assert f"restored step {saved} from" in log
  assert _digests(tmp_path) == _digests(unbroken)
  assert _metrics(tmp_path) == _metrics(unbroken)
  assert not list(tmp_path.rglob("*tmp*"))
  assert _steps(tmp_path) == _steps(unbroken)


def test_same_bits_on_eight_devices(start, tmp_path):
  straight, stopped = tmp_path / "straight", tmp_path / "stopped"
  flags = (f"--config.runs.{_RUN}.num_steps=300",)
  _expect(start(straight, *flags, num_devices=8), 0)
  child = start(stopped, *flags, num_devices=8)
  _wait_for(child, lambda: _num_lines(stopped) >= 5)
  child.send_signal(signal.SIGTERM)
  _expect(child, 75)
  assert _steps(stopped)[-1] < 300
  _expect(start(stopped, *flags, num_devices=8), 0)
  assert _digests(stopped) == _digests(straight)
  assert _metrics(stopped) == _metrics(straight)


def test_stopped_before_the_first_step(start, tmp_path):
  child = start(tmp_path)
  _wait_for(child, (tmp_path / _RUN / "checkpoints").exists)
  child.send_signal(signal.SIGTERM)
  log = _expect(child, 75)
  assert "Traceback" not in log
  assert all(step <= 2 * _STEPS_PER_CALL for step in _steps(tmp_path))


def test_updates_that_stay_bad_end_the_run(start, tmp_path):
  # The first update is finite but so large that no later loss is.
  flags = (
    f"--config.runs.{_RUN}.optimizer.learning_rate=1e37",
    "--config.max_skipped_in_row=12",
  )
  log = _expect(start(tmp_path, *flags), 1)
  (line,) = [line for line in log.splitlines() if line.startswith("error:")]
  assert "step 13: 12 updates in a row" in line
  assert "Traceback" not in log


def test_a_full_disk_ends_the_process_with_one_line(start, tmp_path):
  flags = (f"--config.runs.{_RUN}.checkpoint_every={_NUM_STEPS}",)
  log = _expect(start(tmp_path, *flags, most_bytes=12_000), 1)
  *_, last = log.splitlines()
  assert last.startswith("error: [Errno 27] File too large: ")
  assert f"{tmp_path / _RUN}/" in last
  assert "Traceback" not in log
