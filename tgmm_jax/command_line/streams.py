"""Standard input and standard error of a command."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any


def say(line: str) -> None:
  """Writes a line to standard error, so that answers stay alone."""
  sys.stderr.write(f"{line}\n")
  sys.stderr.flush()


def source(path: str) -> Any:
  """What "-" means: standard input; any other path is one."""
  return sys.stdin.buffer if path == "-" else path


@contextlib.contextmanager
def progress() -> Iterator[None]:
  """Shows the lines about a fit that takes long."""
  logger = logging.getLogger("tgmm_jax.fitting.progress")
  handler, level = logging.StreamHandler(sys.stderr), logger.level
  logger.addHandler(handler)
  logger.setLevel(logging.INFO)
  try:
    yield
  finally:
    logger.removeHandler(handler)
    logger.setLevel(level)
