"""`networks`: what is shipped."""

import argparse
from typing import Any


def add_to(commands: Any) -> None:
  """Adds the command; `commands` are sub-parsers of `argparse`."""
  parser = commands.add_parser("networks", help="list the shipped networks")
  parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
  """Writes a table of the shipped networks."""
  del arguments
  import rich.box
  import rich.console
  import rich.table

  from tgmm_jax import pretrained

  table = rich.table.Table(
    "name", "for", "d", "K", "trained on N", "steps", box=rich.box.SIMPLE_HEAD
  )
  for name, card in pretrained.available().items():
    table.add_row(
      name,
      card.title,
      _dims_of(card),
      f"{min(card.num_components)} to {max(card.num_components)}",
      f"{card.num_points[0]} to {card.num_points[1]}",
      f"{card.training['num_steps']:,}",
    )
  rich.console.Console().print(table)


def _dims_of(card):
  """The d that a network answers."""
  if card.max_dim is None:
    return "any"
  if card.min_dim == card.max_dim:
    return f"{card.max_dim}"
  return f"{card.min_dim} to {card.max_dim}"
