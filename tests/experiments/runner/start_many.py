"""Starts `experiments.main` once for each command line of a JSON list.

Each start is a fork of a process that has done the imports, which take
seconds, so it is a process with its own exit status. Prints a JSON list of
`status`, `stderr`, `num_compiled` (programs that XLA compiled) and `left`
(what is new in the current folder).
"""

import json
import os
import sys
import tempfile

import jax
from absl import app

# `mixtures` as well, or each start would import it, in half a second.
from experiments import main, mixtures  # noqa: F401


def start(arguments):
  before = set(os.listdir())
  with tempfile.TemporaryFile("w+") as stderr, tempfile.TemporaryFile() as out:
    child = os.fork()
    if not child:
      os.dup2(stderr.fileno(), 2)
      os.dup2(out.fileno(), 1)
      os._exit(_run(arguments, out))
    _, status = os.waitpid(child, 0)
    stderr.seek(0)
    out.seek(0)
    return {
      "status": os.waitstatus_to_exitcode(status),
      "stderr": stderr.read(),
      "num_compiled": len(out.read()),
      "left": sorted(set(os.listdir()) - before),
    }


def _run(arguments, out):
  def count(event, *args, **kwargs):
    if event == "/jax/core/compile/backend_compile_duration":
      out.write(b".")
      out.flush()

  jax.monitoring.register_event_duration_secs_listener(count)
  sys.argv = ["experiments/main.py", *arguments]
  try:
    app.run(main.main, flags_parser=main._parse)
  except SystemExit as stop:
    return stop.code or 0
  except BaseException as error:
    sys.stderr.write(f"Traceback: {error!r}\n")
  return 99


if __name__ == "__main__":
  results = [start(arguments) for arguments in json.load(sys.stdin)]
  json.dump(results, sys.stdout)
