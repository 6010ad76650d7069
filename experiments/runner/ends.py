"""How a start ends: with a status, and with one line if something is wrong."""

import sys
from collections.abc import Callable

import jax
from absl import logging

from experiments.runner import processes
from tgmm_jax.training import checkpoints, hosts, interrupts, loop, run_folder

# What is said in one line; anything else is an error of the code.
_ERRORS = (
  ValueError,
  OSError,
  ImportError,
  processes.ProcessError,
  hosts.HostError,
  run_folder.RunFolderError,
  checkpoints.CheckpointError,
  loop.NonFiniteError,
)


def status_of(do: Callable[[], None]) -> int:
  """The exit status of a piece of work: 0, 75 if stopped, or 1.

  Of several processes none ends before the others know how.

  Args:
    do: the work.
  """
  try:
    do()
    status = 0
  except hosts.StoppedError as stopped:
    logging.warning("%s; start again with the same command", stopped)
    status = interrupts.EXIT_STOPPED
  except _ERRORS as error:
    return _failed(error)
  except jax.errors.JaxRuntimeError as error:
    if hosts.is_several():  # a collective without the others
      return _failed(error)
    raise
  hosts.leave(status)
  return status


def _failed(error):
  line = " ".join(str(error).split())
  # A collective, or a save, in which another process is missing.
  if isinstance(error, jax.errors.JaxRuntimeError):
    line = hosts.first_failure() or f"another process is lost: {line}"
  elif isinstance(error, checkpoints.CheckpointError):
    line = hosts.first_failure() or line
  status = fail(line)
  hosts.leave(status, line)
  return status


def fail(line: str) -> int:
  """Shows the line of an error; returns the exit status."""
  print(f"error: {line}", file=sys.stderr)  # noqa: T201
  return 1
