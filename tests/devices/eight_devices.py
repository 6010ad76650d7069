"""Runs a module of this folder where a CPU counts as eight devices."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def run(name):
  """What the module prints, as JSON."""
  ended = subprocess.run(
    [sys.executable, "-m", f"tests.devices.{name}"],
    cwd=ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert ended.returncode == 0, ended.stderr
  return json.loads(ended.stdout)
