"""`predict`: to which component of a saved fit each row of a file belongs."""

import argparse
import io
import sys
from typing import Any

from tgmm_jax.command_line import arguments as arguments_lib
from tgmm_jax.command_line import outputs, programs, streams


def add_to(commands: Any) -> None:
  """Adds the command; `commands` are sub-parsers of `argparse`."""
  parser = commands.add_parser(
    "predict",
    help="label the rows of a file by a fit",
    allow_abbrev=False,
  )
  parser.set_defaults(run=run)
  parser.add_argument("fit", help="what fit --output has written")
  arguments_lib.add_table_to(parser)
  parser.add_argument(
    "--output",
    metavar="LABELS.csv",
    help="write to a file (default: standard output)",
  )
  arguments_lib.add_force_to(parser)


def run(arguments: argparse.Namespace) -> None:
  """Writes the number of each row, its label and the probabilities of all.

  Raises:
    ValueError: what is given cannot be used; columns that are not the fit's.
    OSError: a file cannot be read or written.
  """
  outputs.check(
    "--output",
    arguments.output,
    inputs=[arguments.fit, arguments.points],
    is_forced=arguments.force,
  )
  from tgmm_jax import fitting

  found = fitting.load_fit(arguments.fit)
  if found.is_batch:
    raise ValueError(f"{arguments.fit} is of many problems, takes that of one")
  table = arguments_lib.read(arguments, like=found.columns)
  programs.keep()
  shares = found.predict_proba(table.points)
  text = _as_csv(table.rows, shares.argmax(axis=1), shares)
  if arguments.output is None:
    sys.stdout.write(text)
  else:
    outputs.write(arguments.output, text.encode())
    streams.say(f"labels: {arguments.output}")


def _as_csv(rows, labels, shares):
  stream = io.StringIO()
  names = [f"probability_{index}" for index in range(shares.shape[1])]
  stream.write(",".join(["row", "label", *names]) + "\n")
  for row, label, own in zip(rows, labels, shares, strict=True):
    cells = ",".join(f"{share:.9g}" for share in own)
    stream.write(f"{row},{label},{cells}\n")
  return stream.getvalue()
