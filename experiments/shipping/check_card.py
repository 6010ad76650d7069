"""Are the numbers on a shipped network's card what an evaluation gives?

  python -m experiments.main --config=experiments/pretrained_unit.py:shipped
  python -m experiments.shipping.check_card --name=unit \
    --workdir=runs/pretrained_unit-shipped

Every number on the card is held against the table in the folder: the
difference in standard errors of the two together. With another
`--config.evaluation.seed` of the first command the tasks are others.
"""

import math
import pathlib

import rich.console
import rich.table
from absl import app, flags

from tgmm_jax import pretrained
from tgmm_jax.evaluation import results
from tgmm_jax.training import run_folder

_NAME = flags.DEFINE_string("name", None, "Of the network.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the evaluation.")
flags.mark_flags_as_required(["name", "workdir"])

# Standard errors by which a number may differ.
_MOST_ERRORS = 3.0
_CELL = ("solver", "dim", "num_components", "num_points", "metric")


def compare(
  card: pretrained.Card, rows: list[results.Row]
) -> list[tuple[tuple, float, float, float]]:
  """Cells with the card's mean, the table's, and their distance.

  Args:
    card: of the network.
    rows: of the evaluation.

  Returns:
    The farthest apart first, in standard errors; infinitely far where the
    table lacks a cell.
  """
  table = {tuple(getattr(row, name) for name in _CELL): row for row in rows}
  found = []
  for own in card.metrics:
    cell = tuple(own[name] for name in _CELL)
    row = table.get(cell)
    if row is None:
      found.append((cell, own["mean"], math.nan, math.inf))
      continue
    difference = abs(row.mean - own["mean"])
    error = math.hypot(row.standard_error, own["standard_error"])
    distance = (
      difference / error if error else (math.inf if difference else 0.0)
    )
    found.append((cell, own["mean"], row.mean, distance))
  return sorted(found, key=lambda entry: -entry[-1])


def main(argv):
  """Prints the cells that are farthest apart; fails if one is too far."""
  if len(argv) > 1:
    raise app.UsageError(f"arguments are {argv[1:]}, takes flags only")
  rows = results.read_csv(pathlib.Path(_WORKDIR.value) / run_folder.RESULTS)
  found = compare(pretrained.read_card(_NAME.value), rows)
  table = rich.table.Table(*_CELL, "card", "now", "standard errors")
  for cell, mean, now, distance in found[:10]:
    table.add_row(
      *map(str, cell), f"{mean:.4f}", f"{now:.4f}", f"{distance:.1f}"
    )
  console = rich.console.Console()
  console.print(table)
  num_far = sum(entry[-1] > _MOST_ERRORS for entry in found)
  console.print(
    f"{len(found)} numbers, {num_far} farther apart than {_MOST_ERRORS:g}"
    " standard errors"
  )
  if num_far or not found:
    raise SystemExit(1)


if __name__ == "__main__":
  app.run(main)
