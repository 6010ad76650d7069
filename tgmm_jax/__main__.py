"""Fits a mixture to a file of points, from the command line.

  python -m tgmm_jax fit points.csv --components 3 --output fit.json
  python -m tgmm_jax networks

Exit status: 0 done, 1 what was given cannot be used (one line says why).
"""

import argparse
import importlib.metadata
import json
import pathlib
import sys
import warnings

import numpy as np
import rich.box
import rich.console
import rich.table

from tgmm_jax import fitting, gmm, pretrained, types
from tgmm_jax.training import files


def main(argv: list[str] | None = None) -> int:
  """Does what the arguments say and returns the exit status."""
  arguments = _parser().parse_args(argv)
  console = rich.console.Console()
  try:
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter("always", pretrained.OutsideRangeWarning)
      arguments.run(arguments, console)
    for message in caught:
      console.print(f"note: {message.message}")
  except (ValueError, OSError) as error:
    sys.stderr.write(f"error: {error}\n")
    return 1
  return 0


def _parser():
  parser = argparse.ArgumentParser(prog="python -m tgmm_jax")
  commands = parser.add_subparsers(required=True)
  fit = commands.add_parser("fit", help="fit a mixture to a file of points")
  fit.set_defaults(run=_fit)
  fit.add_argument("points", help=".csv (a header is skipped) or .npy, [N, d]")
  fit.add_argument(
    "--components", default="auto", help="K, or auto (default: %(default)s)"
  )
  fit.add_argument(
    "--covariance",
    default="full",
    choices=gmm.COVARIANCE_TYPES,
    help="type of the covariances; unit is the known identity"
    " (default: %(default)s)",
  )
  fit.add_argument(
    "--restarts",
    type=int,
    default=0,
    metavar="R",
    help="EM from R k-means++ starts as well; the likelier is kept",
  )
  fit.add_argument("--seed", type=int, default=0)
  fit.add_argument("--output", metavar="FIT.json", help="write the fit")
  fit.add_argument("--plot", metavar="FIT.png", help="draw points and ellipses")
  networks = commands.add_parser("networks", help="list the shipped networks")
  networks.set_defaults(run=_networks)
  return parser


def _fit(arguments, console):
  points = read_points(arguments.points)
  count = arguments.components
  if count != "auto":
    if not count.isdecimal():
      raise ValueError(f"--components is {count!r}, takes an integer or auto")
    count = int(count)
  found = fitting.fit(
    points,
    count,
    covariance_type=arguments.covariance,
    num_restarts=arguments.restarts,
    seed=arguments.seed,
  )
  console.print(_table(found, points))
  if found.probabilities is not None:
    shares = zip(found.candidates, found.probabilities, strict=True)
    texts = [f"K = {size}: {share:.3f}" for size, share in shares]
    console.print("probabilities of K: " + ", ".join(texts))
  if arguments.output:
    text = json.dumps(
      _as_json(found, covariance_type=arguments.covariance), indent=1
    )
    files.write(arguments.output, f"{text}\n".encode())
    console.print(f"fit: {arguments.output}")
  if arguments.plot:
    # Only here: matplotlib takes its time.
    from tgmm_jax.figures import fit as fit_figure

    path = fit_figure.save(
      points,
      found.mixture,
      np.asarray(found.labels),
      arguments.plot,
      covariance_type=arguments.covariance,
    )
    console.print(f"plot: {path}")


def read_points(path: str) -> np.ndarray:
  """Points `[N, d]` of a `.csv` or `.npy` file.

  Args:
    path: of the file. The first line of a `.csv` is skipped where it has no
      numbers; columns are separated by commas.

  Raises:
    ValueError: another kind of file, or one without a table of numbers.
    OSError: the file cannot be read.
  """
  suffix = pathlib.Path(path).suffix
  if suffix == ".npy":
    try:
      points = np.load(path, allow_pickle=False)
    except ValueError as error:
      raise ValueError(f"{path} is no .npy file of numbers: {error}") from error
  elif suffix == ".csv":
    points = _read_csv(path)
  else:
    raise ValueError(f"{path} has the suffix {suffix!r}, takes .csv or .npy")
  if points.ndim == 1:
    points = points[:, None]
  return points


def _read_csv(path):
  lines = pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines()
  lines = [line for line in lines if line.strip()]
  if lines and not _are_numbers(lines[0]):
    lines = lines[1:]
  if not lines:
    raise ValueError(f"{path} has no lines of numbers")
  num_columns = lines[0].count(",") + 1
  for index, line in enumerate(lines):
    if line.count(",") + 1 != num_columns or not _are_numbers(line):
      raise ValueError(
        f"{path}: {line[:40]!r}, the point {index + 1}, takes {num_columns}"
        " numbers separated by commas"
      )
  return np.array([[float(x) for x in line.split(",")] for line in lines])


def _are_numbers(line):
  try:
    [float(cell) for cell in line.split(",")]
  except ValueError:
    return False
  return True


def _table(found, points):
  status = types.Status(int(found.status)).name.lower()
  table = rich.table.Table(
    title=(
      f"{len(points)} points in {points.shape[1]} dimensions,"
      f" K = {int(found.num_components)}, by {found.method}; mean"
      f" log-likelihood {float(found.log_likelihood):.4f}, {status}"
    ),
    box=rich.box.SIMPLE_HEAD,
    show_edge=False,
  )
  table.add_column("component", justify="right")
  table.add_column("weight", justify="right")
  table.add_column("points", justify="right")
  table.add_column("mean")
  labels = np.asarray(found.labels)
  rows = zip(found.mixture.weights, found.mixture.means, strict=True)
  for index, (weight, mean) in enumerate(rows):
    shown = ", ".join(f"{value:.4g}" for value in np.asarray(mean)[:8])
    more = ", ..." if len(mean) > 8 else ""
    table.add_row(
      str(index),
      f"{float(weight):.4f}",
      str(int(np.sum(labels == index))),
      shown + more,
    )
  return table


def _as_json(
  found,
  *,
  covariance_type,
):
  def listed(array):
    return None if array is None else np.asarray(array).tolist()

  return {
    "num_components": int(found.num_components),
    "covariance_type": covariance_type,
    "weights": listed(found.mixture.weights),
    "means": listed(found.mixture.means),
    "covariances": listed(found.mixture.covariances),
    "labels": listed(found.labels),
    "log_likelihood": float(found.log_likelihood),
    "status": types.Status(int(found.status)).name,
    "method": str(found.method),
    "is_outside_range": bool(found.is_outside_range),
    "candidates": listed(found.candidates),
    "probabilities": listed(found.probabilities),
    "version": importlib.metadata.version("tgmm_jax"),
  }


def _networks(arguments, console):
  del arguments
  table = rich.table.Table(
    "name", "for", "d", "K", "trained on N", "steps", box=rich.box.SIMPLE_HEAD
  )
  for name, card in pretrained.available().items():
    table.add_row(
      name,
      card.title,
      "any" if card.max_dim is None else f"1 to {card.max_dim}",
      f"{min(card.num_components)} to {max(card.num_components)}",
      f"{card.num_points[0]} to {card.num_points[1]}",
      f"{card.training['num_steps']:,}",
    )
  console.print(table)


if __name__ == "__main__":
  sys.exit(main())
