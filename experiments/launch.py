r"""Starts one run in several processes of this machine, on loopback.

  python -m experiments.launch --processes=2 --retries=5 -- \
    --config=experiments/rq1.py:quick

What stands behind `--` is for `experiments.main`. Each process has a log of its
own. Where one fails all are ended. With `--retries` the run is started again,
so many times, if it was stopped by a signal with its state saved (status 75) or
if a process was killed; an error is not tried again. A signal to the launcher
is passed on, and then nothing is started again; a second one kills. Exit
status as of `experiments.main`.

Several hosts are started by their scheduler, see `runner/processes.py`.
"""

import contextlib
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from absl import app, flags, logging

from experiments.runner import command_line
from tgmm_jax.training import interrupts

_PROCESSES = flags.DEFINE_integer(
  "processes", 2, "How many; the devices of each are in the run's mesh.", 1
)
_RETRIES = flags.DEFINE_integer(
  "retries", 0, "How often a run is started again that was stopped.", 0
)
_LOGS = flags.DEFINE_string(
  "logs", "runs/logs", "Folder of the logs, RANK.log, which are appended to."
)
_HOST = "127.0.0.1"
_INTERVAL = 0.1  # seconds between two looks
# Seconds in which the others end by themselves after one has failed.
_GRACE = 60.0


class Launched:
  """Processes of one run, started together."""

  def __init__(self, command: Sequence[str], logs: pathlib.Path):
    """Sets what is started.

    Args:
      command: of `experiments.main`, without the flags that name processes.
      logs: folder; it is made if it does not exist.
    """
    self._command = list(command)
    self._logs = logs
    self._children = []
    self._is_stopped = False

  def run(self, num_processes: int, num_retries: int) -> int:
    """Starts them, and again where they were stopped; returns the status.

    Args:
      num_processes: of the run.
      num_retries: how often they are started again.
    """
    for left in range(num_retries, -1, -1):
      statuses = self._run_once(num_processes)
      if not any(statuses):
        return 0
      was_stopped = any(
        own == interrupts.EXIT_STOPPED or own < 0 for own in statuses
      )
      if self._is_stopped or not was_stopped or not left:
        break
      logging.warning("ended with %s, started again", statuses)
    is_saved = set(statuses) <= {0, interrupts.EXIT_STOPPED}
    return interrupts.EXIT_STOPPED if is_saved else 1

  def stop(self, number: int, frame) -> None:
    """Passes a signal on, a second one as one that kills; its handler."""
    del number, frame
    passed_on = signal.SIGKILL if self._is_stopped else signal.SIGTERM
    self._is_stopped = True
    for child in self._children:
      if child.poll() is None:
        child.send_signal(passed_on)

  def _run_once(self, num_processes):
    """The statuses of those that ended by themselves, or by others' signals."""
    self._logs.mkdir(parents=True, exist_ok=True)
    address = f"{_HOST}:{free_port()}"
    with contextlib.ExitStack() as stack:
      self._children = []
      for rank in range(num_processes):
        log = stack.enter_context(open(self._logs / f"{rank}.log", "ab"))
        self._children.append(
          subprocess.Popen(
            [
              *self._command,
              f"--coordinator={address}",
              f"--num_processes={num_processes}",
              f"--process_id={rank}",
            ],
            stdout=log,
            stderr=log,
            # Ctrl-C is for the launcher, which passes it on once.
            start_new_session=True,
          )
        )
      if self._is_stopped:  # while they were started
        for child in self._children:
          child.send_signal(signal.SIGTERM)
      try:
        return self._wait()
      finally:
        for child in self._children:
          child.kill()
          child.wait()

  def _wait(self):
    deadline = float("inf")
    while any(child.poll() is None for child in self._children):
      ended = [child.poll() for child in self._children]
      if any(own not in (None, 0) for own in ended):
        deadline = min(deadline, time.monotonic() + _GRACE)
      if time.monotonic() > deadline:
        logging.warning("ended with %s, the others are killed", ended)
        return [own for own in ended if own is not None]
      time.sleep(_INTERVAL)
    return [child.returncode for child in self._children]


def free_port() -> int:
  """A port of this machine's loopback at which nobody listens now."""
  with socket.socket() as free:
    free.bind((_HOST, 0))
    return free.getsockname()[1]


def main(argv):
  """Starts the run and returns its status."""
  command_line.log_own_lines()
  command = [sys.executable, "-m", "experiments.main", *argv[1:]]
  launched = Launched(command, pathlib.Path(_LOGS.value))
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, launched.stop)
  status = launched.run(_PROCESSES.value, _RETRIES.value)
  if status:
    for log in sorted(pathlib.Path(_LOGS.value).glob("*.log")):
      *_, last = ["", *log.read_text(errors="replace").splitlines()]
      logging.warning("%s: %s", log, last)
  return status


if __name__ == "__main__":
  app.run(main)
