import fcntl
import itertools
import json
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
def start(tmp_path_factory):
  """Runs the command in a process of its own, to its end."""
  logs = tmp_path_factory.mktemp("logs")
  server = subprocess.Popen(
    [sys.executable, "-m", "tests.experiments.forked"],
    cwd=ROOT,
    # The cache of programs is that of the whole run of the tests.
    env=os.environ | {"JAX_PLATFORMS": "cpu", "MY_TOKEN": SECRET},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  numbers = itertools.count()

  def start(*flags):
    paths = [logs / f"{next(numbers)}" for _ in range(2)]
    call = dict(zip(("stdout", "stderr"), map(str, paths), strict=True))
    server.stdin.write(json.dumps({"flags": [*map(str, flags)], **call}) + "\n")
    server.stdin.flush()
    status = int(server.stdout.readline())
    texts = [path.read_text() for path in paths]
    return subprocess.CompletedProcess(flags, status, *texts)

  yield start
  server.communicate()


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
