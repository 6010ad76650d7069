"""Arguments that commands share, and the table that they ask for."""

import argparse
from typing import Any

from tgmm_jax.command_line import streams, values


def add_table_to(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments that say which points of which file."""
  parser.add_argument(
    "points",
    help="a table: .csv, .tsv, .txt, .parquet, .npy or .npz; - for standard"
    " input",
  )
  parser.add_argument(
    "--columns",
    type=values.columns,
    metavar="A,B",
    help="the coordinates, by names or by numbers from 1 on (default: all"
    " columns of numbers)",
  )
  parser.add_argument(
    "--missing",
    default="error",
    choices=("error", "drop"),
    help="what happens to rows with missing cells (default: %(default)s)",
  )


def add_force_to(parser: argparse.ArgumentParser) -> None:
  """Adds the argument that lets files be replaced."""
  parser.add_argument(
    "--force", action="store_true", help="replace files that exist"
  )


def read(arguments: argparse.Namespace, **options: Any) -> Any:
  """The table that `add_table_to` asks for; says what was read.

  Args:
    arguments: of the command.
    **options: of `fitting.read_table`, such as `like`.
  """
  from tgmm_jax import fitting

  table = fitting.read_table(
    streams.source(arguments.points),
    columns=arguments.columns,
    missing=arguments.missing,
    **options,
  )
  for line in fitting.described(table):
    streams.say(line)
  return table
