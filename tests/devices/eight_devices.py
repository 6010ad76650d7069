"""Runs a script of this folder where a CPU counts as eight devices."""

import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
# The repository, and what tests of solvers share.
PATHS = (HERE.parents[1], HERE.parent / "solvers")


def run(script):
  """What the script prints, as JSON."""
  ended = subprocess.run(
    [sys.executable, HERE / script],
    env=os.environ
    | {
      "JAX_PLATFORMS": "cpu",
      "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
      "JAX_NUM_CPU_DEVICES": "8",
    },
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert ended.returncode == 0, ended.stderr
  return json.loads(ended.stdout)
