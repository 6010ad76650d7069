"""The commands, and how they end: exit status and one line for an error."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from tgmm_jax.command_line import fit, networks, predict, programs, streams

_COMMANDS = (fit, predict, networks)
# Ended by Ctrl-C, as shells count.
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
  """Does what the arguments say.

  Args:
    argv: the arguments, None for those of the process.

  Returns:
    The exit status: 0 done, 1 what was given cannot be used (one line on
    standard error says why).
  """
  try:
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings():
      warnings.simplefilter("always", UserWarning)
      warnings.showwarning = _shower()
      arguments.run(arguments)
      sys.stdout.flush()
  except BrokenPipeError:
    # Whoever read the answer has had enough, as `head` has.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
  except (ValueError, OSError) as error:
    return _fail(str(error))
  except MemoryError as error:
    return _fail(f"there is not enough memory ({error})")
  except RuntimeError as error:
    # What XLA raises has no name that could be told without importing it.
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return _fail(f"there is not enough memory ({error})")
  except KeyboardInterrupt:
    streams.say("interrupted")
    return _INTERRUPTED
  return 0


class _Parser(argparse.ArgumentParser):
  """Says what is wrong in one line, as all else here does."""

  def error(self, message: str) -> NoReturn:
    """Raises what `main` shows."""
    message = re.sub(r"^argument ([^:]+): (is )?", r"\1 \2", message)
    raise ValueError(f"{message} (see {self.prog} --help)")


def _parser():
  parser = _Parser(
    prog="python -m tgmm_jax",
    description="Gaussian mixtures, fitted to files of points.",
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(
    required=True, metavar="COMMAND", dest="command"
  )
  for command in _COMMANDS:
    command.add_to(commands)
  return parser


def _fail(message):
  streams.say(f"error: {' '.join(message.split())}")
  return 1


def _shower():
  """Shows warnings as notes, those about the cache of programs once."""
  said = set()

  def show(message, *_args, **_kwargs):
    text = " ".join(str(message).split())
    of_cache = programs.of_warning(text)
    if of_cache is None:
      streams.say(f"note: {text}")
    elif not said:
      said.add(of_cache)
      streams.say(f"note: {of_cache}")

  return show
