import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def start():
  """Runs the command in a process of its own, to its end."""

  def start(*flags):
    return subprocess.run(
      [sys.executable, "-m", "experiments.main", *map(str, flags)],
      cwd=ROOT,
      # The cache of programs is that of the whole run of the tests.
      env=os.environ | {"JAX_PLATFORMS": "cpu"},
      capture_output=True,
      text=True,
      timeout=600,
    )

  return start


@pytest.fixture(scope="session")
def smoke(start, tmp_path_factory):
  """The work folder of rq1.py:smoke, and how its process ended."""
  workdir = tmp_path_factory.mktemp("smoke") / "run"
  ended = start("--config=experiments/rq1.py:smoke", f"--workdir={workdir}")
  assert ended.returncode == 0, ended.stderr[-3000:]
  return workdir, ended
