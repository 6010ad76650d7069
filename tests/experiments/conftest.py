import fcntl
import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SECRET = "of-nobodys-business-7d1f"  # in the environment of the command


@pytest.fixture(scope="session")
def start():
  """Runs the command in a process of its own, to its end."""

  def start(*flags):
    return subprocess.run(
      [sys.executable, "-m", "experiments.main", *map(str, flags)],
      cwd=ROOT,
      # The cache of programs is that of the whole run of the tests.
      env=os.environ | {"JAX_PLATFORMS": "cpu", "MY_TOKEN": SECRET},
      capture_output=True,
      text=True,
      timeout=600,
    )

  return start


@pytest.fixture(scope="session")
def smoke(start, tmp_path_factory):
  """The work folder of rq1.py:smoke, and how its process ended.

  It is run once: whichever worker comes second waits and takes a copy.
  """
  base = tmp_path_factory.getbasetemp()
  shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
  source, said = shared / "rq1-smoke", shared / "rq1-smoke.pickle"
  with open(shared / "rq1-smoke.lock", "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    if not said.exists():
      ended = start("--config=experiments/rq1.py:smoke", f"--workdir={source}")
      assert ended.returncode == 0, ended.stderr[-3000:]
      said.write_bytes(pickle.dumps(ended))
  workdir = tmp_path_factory.mktemp("smoke") / "run"
  shutil.copytree(source, workdir)
  return workdir, pickle.loads(said.read_bytes())
