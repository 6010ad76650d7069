"""Standard input and standard error of a command."""

import sys
from typing import Any


def say(line: str) -> None:
  """Writes a line to standard error, so that answers stay alone."""
  sys.stderr.write(f"{line}\n")
  sys.stderr.flush()


def source(path: str) -> Any:
  """What "-" means: standard input; any other path is one."""
  return sys.stdin.buffer if path == "-" else path
