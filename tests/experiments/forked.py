"""Starts `experiments.main` again and again, without its imports.

Each start is a fork of a process that has done them, which take seconds, so it
is a process with its own exit status. Reads a line of JSON for each, `flags`
and the files for `stdout` and `stderr`; answers with a line, the status.
"""

import json
import os
import signal
import sys

from absl import app

# `mixtures` as well, or each start would import it.
from experiments import main, mixtures  # noqa: F401

_MOST_SECONDS = 600


def start(flags, stdout, stderr):
  """The exit status of a command; the fork never returns."""
  number = os.fork()
  if number:
    _, status = os.waitpid(number, 0)
    return os.waitstatus_to_exitcode(status)
  signal.alarm(_MOST_SECONDS)
  sys.stdin.close()
  for descriptor, path in ((1, stdout), (2, stderr)):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
  sys.argv = ["experiments/main.py", *flags]
  return app.run(main.main, flags_parser=main._parse)  # it exits


if __name__ == "__main__":
  for line in sys.stdin:
    print(start(**json.loads(line)), flush=True)  # noqa: T201
