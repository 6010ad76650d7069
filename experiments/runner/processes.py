"""The processes of one run: how many there are, and that all do the same.

How many is said by, each before the next:

1. flags: `--coordinator=HOST:PORT` (of process 0), `--num_processes` and
   `--process_id`;
2. for what they leave out, the variables `JAX_COORDINATOR_ADDRESS`,
   `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`;
3. for what these leave out, the cluster that `jax.distributed` detects (Slurm,
   Open MPI, Kubernetes, TPU pods).

Where neither flags nor variables name anything and `--sweep_index` is given,
no cluster is asked and every process is alone: the tasks of a scheduler are
then elements of a job array. `--num_processes=1` says so everywhere.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from tgmm_jax.training import run_folder

_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  None,
  "HOST:PORT of process 0; by default JAX_COORDINATOR_ADDRESS, or the cluster's"
  " (Slurm, TPU pods, ...).",
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes",
  None,
  "Processes of the run, 1 for one alone; by default JAX_NUM_PROCESSES, or the"
  " cluster's; with --sweep_index and without all these 1.",
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id",
  None,
  "Rank of this process, from 0; by default JAX_PROCESS_ID, or the cluster's.",
)
_VARIABLES = {
  "coordinator": "JAX_COORDINATOR_ADDRESS",
  "num_processes": "JAX_NUM_PROCESSES",
  "process_id": "JAX_PROCESS_ID",
}
_ADDRESS = re.compile(r".+:[0-9]+")


class ProcessError(RuntimeError):
  """The processes cannot work together; the message is one line."""


class _Named(NamedTuple):
  """What flags and variables say; None for what neither does."""

  coordinator: str | None
  num_processes: int | None
  process_id: int | None


def start(*, is_array_element: bool) -> None:
  """Joins the other processes of the run, if it has any.

  Must come before JAX computes anything.

  Args:
    is_array_element: whether `--sweep_index` is given.

  Raises:
    ValueError: a flag or variable cannot be used, or something is missing.
    ProcessError: the others are not reached.
  """
  named = _named()
  is_named = any(value is not None for value in named)
  if named.num_processes == 1 or (is_array_element and not is_named):
    return
  try:
    jax.distributed.initialize(*named)
  except ValueError as error:  # there is no cluster that says the rest
    if is_named:
      missing = [key for key in named._fields if getattr(named, key) is None]
      raise ValueError(_missing(missing[0]) if missing else error) from error
  except RuntimeError as error:
    text = " ".join(str(error).split())
    raise ProcessError(
      f"the other processes cannot be reached: {text}"
    ) from error


def check_same(settings: Mapping[str, Any]) -> None:
  """Makes sure that all processes of the run were started alike.

  Every process calls it, before anything else is done together.

  Args:
    settings: of this process, what JSON can hold.

  Raises:
    ProcessError: in every process, if one has other settings.
  """
  if not jax.distributed.is_initialized():
    return
  own = json.dumps(settings, sort_keys=True).encode()
  sizes = multihost_utils.process_allgather(np.int32(len(own)))
  padded = np.frombuffer(own.ljust(int(np.max(sizes))), np.uint8)
  rows = multihost_utils.process_allgather(padded)
  # One process gathers without an axis.
  texts = [row.tobytes().strip() for row in np.atleast_2d(rows)]
  for other, text in enumerate(texts):
    if text != own:
      difference = run_folder.config_difference(
        json.loads(text), dict(settings)
      )
      raise ProcessError(
        f"process {other} was started otherwise than this one, process"
        f" {jax.process_index()}: {run_folder.format_difference(difference)}"
      )


def _named():
  """Flags, and variables for what they leave out."""
  coordinator, source = _flag_or_variable(_COORDINATOR)
  if coordinator is not None and not _ADDRESS.fullmatch(coordinator):
    raise ValueError(f"{source} is {coordinator!r}, takes HOST:PORT")
  num_processes = _integer(_NUM_PROCESSES, least=1)
  process_id = _integer(_PROCESS_ID, least=0)
  # One alone has no rank, whatever a launcher says.
  is_checked = process_id is not None and num_processes not in (None, 1)
  if is_checked and process_id >= num_processes:
    _, source = _flag_or_variable(_PROCESS_ID)
    raise ValueError(
      f"{source} is {process_id}, takes 0 to {num_processes - 1} with"
      f" {num_processes} processes"
    )
  return _Named(coordinator, num_processes, process_id)


def _flag_or_variable(flag):
  """A value, None if there is none, and the name of where it is from."""
  if flag.value is not None:
    return flag.value, f"--{flag.name}"
  variable = _VARIABLES[flag.name]
  return os.environ.get(variable) or None, variable


def _integer(flag, *, least):
  value, source = _flag_or_variable(flag)
  if value is None:
    return None
  try:
    number = int(value)
  except ValueError:
    number = least - 1
  if number < least:
    raise ValueError(f"{source} is {value!r}, takes an integer >= {least}")
  return number


def _missing(name):
  return (
    f"--{name} is missing: other processes are named, but neither"
    f" {_VARIABLES[name]} nor a cluster says it"
  )
