"""`fit`: from a file of points to a table, a file and a picture."""

import argparse
import os
import pathlib
from typing import Any

from tgmm_jax.command_line import arguments as arguments_lib
from tgmm_jax.command_line import outputs, programs, streams, values

# Of `gmm`, which takes its time to import.
COVARIANCE_TYPES = ("unit", "tied_spherical", "spherical", "diag", "tied")
COVARIANCE_TYPES += ("full",)
# Options that are arguments of `fitting.fit`, by the names that they have
# there; those that are not given are left to it.
_OPTIONS = ("covariance_type", "max_components", "num_restarts", "seed")
_OPTIONS += ("max_iter", "tol", "min_variance")


def add_to(commands: Any) -> None:
  """Adds the command; `commands` are sub-parsers of `argparse`."""
  parser = commands.add_parser(
    "fit", help="fit a mixture to a file of points", allow_abbrev=False
  )
  parser.set_defaults(run=run)
  arguments_lib.add_table_to(parser)
  parser.add_argument(
    "--components",
    default="auto",
    type=values.components,
    metavar="K",
    help="a number, or auto (default: %(default)s)",
  )
  parser.add_argument(
    "--covariance",
    default="full",
    choices=COVARIANCE_TYPES,
    dest="covariance_type",
    help="type of the covariances; unit is the known identity"
    " (default: %(default)s)",
  )
  _add_numbers_to(parser)
  parser.add_argument(
    "--output", metavar="FIT.json", help="write the fit (.json or .safetensors)"
  )
  parser.add_argument(
    "--plot", metavar="FIT.png", help="draw points and ellipses (.png or .pdf)"
  )
  arguments_lib.add_force_to(parser)


def _add_numbers_to(parser):
  """Options of how K is found and mixtures are fitted."""
  parser.add_argument(
    "--max-components",
    type=values.integer(1),
    metavar="K",
    help="the largest number that auto tries",
  )
  parser.add_argument(
    "--restarts",
    type=values.integer(1),
    dest="num_restarts",
    metavar="R",
    help="k-means++ starts besides the network's proposals",
  )
  parser.add_argument(
    "--max-iter",
    type=values.integer(0),
    metavar="N",
    help="steps of EM at most",
  )
  parser.add_argument(
    "--tol",
    type=values.number(0.0),
    metavar="T",
    help="EM ends when the mean log-likelihood changes by less",
  )
  parser.add_argument(
    "--min-variance",
    type=values.number(0.0),
    metavar="V",
    help="floor of the variances, in squared units of the points",
  )
  parser.add_argument(
    "--seed", type=values.integer(0, 2**32 - 1), help="of all that is random"
  )


def run(arguments: argparse.Namespace) -> None:
  """Fits, shows and writes.

  Raises:
    ValueError: what is given cannot be used, or the fit is invalid.
    OSError: a file cannot be read or written.
  """
  _check(arguments)
  table = arguments_lib.read(arguments)
  programs.keep()
  from tgmm_jax import fitting
  from tgmm_jax.command_line import shown

  given = {name: getattr(arguments, name) for name in _OPTIONS}
  given = {name: own for name, own in given.items() if own is not None}
  with streams.progress():
    found = fitting.fit(table.points, arguments.components, **given)
  shown.refuse_invalid(found, table)
  found = found._replace(columns=shown.names_of(table))
  shown.write_tables(found, table)
  if arguments.output:
    path = os.path.realpath(arguments.output)
    shown.of_all_rows(found, table).save(path, overwrite=arguments.force)
    streams.say(f"fit: {arguments.output}")
  if arguments.plot:
    suffix = pathlib.PurePath(arguments.plot).suffix.lower()
    outputs.write(arguments.plot, shown.picture(found, table, suffix))
    streams.say(f"plot: {arguments.plot}")


def _check(arguments):
  """Refuses what would fail at the end."""
  inputs, is_forced = [arguments.points], arguments.force
  outputs.check(
    "--output",
    arguments.output,
    inputs=inputs,
    is_forced=is_forced,
    suffixes=outputs.FITS,
  )
  if arguments.output:
    inputs = [*inputs, arguments.output]
  outputs.check(
    "--plot",
    arguments.plot,
    inputs=inputs,
    is_forced=is_forced,
    suffixes=outputs.PICTURES,
  )
