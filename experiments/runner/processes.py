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

Process 0 listens at the address that is named, and nowhere else, unless
`--coordinator_bind` or `JAX_COORDINATOR_BIND_ADDRESS` says where. Where a
cluster names it, that is JAX's own choice: the port on every interface.
"""

import os
import pathlib
import re
import secrets
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from absl import flags

from experiments.runner import fields
from tgmm_jax.training import hosts, run_folder

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
_BIND = flags.DEFINE_string(
  "coordinator_bind",
  None,
  "ADDRESS:PORT where process 0 listens, [::]:PORT on every interface; by"
  " default JAX_COORDINATOR_BIND_ADDRESS, or the address of --coordinator.",
)
_VARIABLES = {
  "coordinator_bind": "JAX_COORDINATOR_BIND_ADDRESS",
  "coordinator": "JAX_COORDINATOR_ADDRESS",
  "num_processes": "JAX_NUM_PROCESSES",
  "process_id": "JAX_PROCESS_ID",
}
_ADDRESS = re.compile(r".+:[0-9]+")
# Seconds in which a network disk shows what another host has written.
_MOST_SECONDS_UNSEEN = 10.0


class ProcessError(RuntimeError):
  """The processes cannot work together; the message is one line."""


class _Named(NamedTuple):
  """What flags and variables say; None for what neither does."""

  coordinator: str | None
  num_processes: int | None
  process_id: int | None


def start(*, is_array_element: bool, timeouts: fields.Timeouts) -> None:
  """Joins the other processes of the run, if it has any.

  Must come before JAX computes anything.

  Args:
    is_array_element: whether `--sweep_index` is given.
    timeouts: when the others are given up.

  Raises:
    ValueError: a flag or variable cannot be used, or something is missing.
    ProcessError: the others are not reached.
  """
  named = _named()
  is_named = any(value is not None for value in named)
  if named.num_processes == 1 or (is_array_element and not is_named):
    return
  bind, source = _flag_or_variable(_BIND)
  if bind is not None and not _ADDRESS.fullmatch(bind):
    raise ValueError(f"{source} is {bind!r}, takes ADDRESS:PORT")
  # Its handler would take the signals from ours.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(
      *named,
      coordinator_bind_address=bind or named.coordinator,
      initialization_timeout=timeouts.start,
      heartbeat_timeout_seconds=timeouts.heartbeat,
      shutdown_timeout_seconds=timeouts.shutdown,
    )
  except ValueError as error:  # there is no cluster that says the rest
    if is_named:
      missing = [key for key in named._fields if getattr(named, key) is None]
      raise ValueError(_missing(missing[0]) if missing else error) from error
  except RuntimeError as error:
    text = " ".join(str(error).split())
    raise ProcessError(
      f"the other processes cannot be reached: {text}"
    ) from error
  hosts.watch()
  if hosts.is_several():
    sys.excepthook = _leave_after_traceback


def check_same(settings: Mapping[str, Any]) -> None:
  """Makes sure that all processes of the run were started alike.

  Every process calls it, before anything else is done together.

  Args:
    settings: of this process, what JSON can hold.

  Raises:
    ProcessError: in every process, if one has other settings.
  """
  found = hosts.gather(dict(settings))
  for other, theirs in enumerate(found):
    if difference := run_folder.config_difference(theirs, dict(settings)):
      raise ProcessError(
        f"process {other} was started otherwise than this one, process"
        f" {jax.process_index()}: {run_folder.format_difference(difference)}"
      )


def check_one_folder(workdir: pathlib.Path) -> None:
  """Makes sure that all processes have the folder that the first one has.

  Every process calls it; the first must be able to write there.

  Args:
    workdir: of the run; the first process has made it.

  Raises:
    ProcessError: in every process, if one does not see what the first writes.
  """
  if not hosts.is_several():
    return
  name = hosts.gather(f".seen-{secrets.token_hex(8)}")[0]
  if hosts.is_first():
    (workdir / name).touch()
  hosts.gather(None)
  sees = hosts.gather(_is_seen(workdir / name))
  if hosts.is_first():
    (workdir / name).unlink()
  if not all(sees):
    raise ProcessError(
      f"process {sees.index(False)} does not see what process 0 writes in"
      f" {workdir}, takes one folder for all hosts, as on a network disk"
    )


def _is_seen(path):
  deadline = time.monotonic() + _MOST_SECONDS_UNSEEN
  while not path.exists():
    if time.monotonic() > deadline:
      return False
    time.sleep(0.1)
  return True


def _leave_after_traceback(kind, error, traceback):
  sys.__excepthook__(kind, error, traceback)
  hosts.leave(1, f"{kind.__name__}: {error}")


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
