"""Starts `experiments.main` as a launcher does: several processes at once.

Reads a JSON list of groups, each a list of `[arguments, variables]`; all are
started before any is waited for. Each start is a fork of a
process that has done the imports, which take seconds. Prints, for each start,
`status` and `stderr`.
"""

import json
import os
import signal
import sys
import tempfile

from absl import app

from experiments import main

# One that waits for another that never comes dies by a signal.
_MOST_SECONDS = 300


def start(arguments, variables):
  """The number of the process, and its log; returns in the parent alone."""
  stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed by the end
  number = os.fork()
  if number:
    return number, stderr
  signal.alarm(_MOST_SECONDS)
  os.dup2(stderr.fileno(), 2)
  os.dup2(stderr.fileno(), 1)
  os.environ |= variables
  sys.argv = ["experiments/main.py", *arguments]
  return app.run(main.main, flags_parser=main._parse)  # it exits


def wait(number, stderr):
  _, status = os.waitpid(number, 0)
  stderr.seek(0)
  return {
    "status": os.waitstatus_to_exitcode(status),
    "stderr": stderr.read(),
  }


if __name__ == "__main__":
  # What they do is mostly to wait for each other.
  started = [[start(*own) for own in group] for group in json.load(sys.stdin)]
  json.dump([[wait(*own) for own in group] for group in started], sys.stdout)
