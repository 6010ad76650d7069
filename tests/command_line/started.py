"""Commands as users start them, in this process or in one of their own."""

import subprocess
import sys

import numpy as np

CENTRES = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])


def points():
  """40 points about each of the centres."""
  rng = np.random.default_rng(0)
  return CENTRES[np.repeat(np.arange(3), 40)] + rng.normal(size=(120, 2))


def write_csv(path, values=None, header="x,y"):
  """Writes a table and returns its path as a text."""
  values = points() if values is None else values
  np.savetxt(path, values, delimiter=",", header=header, comments="")
  return str(path)


def run(*arguments, **options):
  """Starts a process; `options` are of `subprocess.run`."""
  return subprocess.run(
    [sys.executable, "-m", "tgmm_jax", *arguments],
    capture_output=True,
    timeout=300,
    **{"text": True} | options,
  )
