"""What a fit looks like: a table, JSON and a picture."""

import numpy as np
import rich.box
import rich.console
import rich.table
import rich.text

from tgmm_jax import fitting, types

# Coordinates of a mean in the table.
_MOST_SHOWN = 8


def refuse_invalid(found: "fitting.Fit", table: "fitting.Table") -> None:
  """Raises where there is no mixture that could be used.

  Args:
    found: the fit.
    table: what was fitted.

  Raises:
    ValueError: its status says so, or not all of it is finite.
  """
  own = [found.log_likelihood, *found.mixture]
  is_finite = all(np.all(np.isfinite(x)) for x in own if x is not None)
  is_valid = int(found.status) != types.Status.INVALID_INPUT
  if not is_valid or not is_finite:
    lowest, highest = np.min(table.points), np.max(table.points)
    raise ValueError(
      f"{table.source} cannot be fitted: its values go from {lowest:g} to"
      f" {highest:g}, takes values whose squares are in float32 (no fill"
      " values)"
    )


def write_tables(found: "fitting.Fit", table: "fitting.Table") -> None:
  """Writes what was found to standard output.

  Args:
    found: the fit.
    table: what was fitted.
  """
  console = rich.console.Console()
  console.print(_components(found, table))
  if found.probabilities is not None:
    shares = zip(found.candidates, found.probabilities, strict=True)
    texts = [f"K = {size}: {share:.3f}" for size, share in shares]
    console.print("probabilities of K: " + ", ".join(texts))


def names_of(table: "fitting.Table") -> tuple[str, ...] | None:
  """The names of the coordinates, where the file has them and all differ."""
  is_told = table.has_names and len(set(table.columns)) == len(table.columns)
  return table.columns if is_told else None


def of_all_rows(found: "fitting.Fit", table: "fitting.Table") -> "fitting.Fit":
  """The fit with a label for each row of the file.

  Args:
    found: the fit.
    table: what was fitted; rows that were left out have the label -1.
  """
  labels = np.full(table.num_rows, -1, np.int32)
  labels[table.rows - 1] = found.labels
  return found._replace(labels=labels)


def picture(found: "fitting.Fit", table: "fitting.Table", suffix: str) -> bytes:
  """The bytes of a picture of a fit.

  Args:
    found: the fit.
    table: what was fitted.
    suffix: one of `outputs.PICTURES`, for the format.
  """
  # Only here: matplotlib takes its time.
  from tgmm_jax.figures import fit as fit_figure
  from tgmm_jax.figures import style

  # Between two of them stands a formula.
  names = [own.replace("$", r"\$") for own in found.columns or ()]
  figure = fit_figure.draw(
    table.points,
    found.mixture,
    np.asarray(found.labels),
    covariance_type=found.covariance_type,
    columns=names or None,
  )
  return style.render(figure, suffix.removeprefix("."))


def _components(found, table):
  status = types.Status(int(found.status)).name.lower()
  num_points, dim = table.points.shape
  rows = rich.table.Table(
    title=(
      f"{num_points} points in {dim} dimensions,"
      f" K = {int(found.num_components)}, by {found.method}; mean"
      f" log-likelihood {float(found.log_likelihood):.4f}, {status}"
    ),
    box=rich.box.SIMPLE_HEAD,
    show_edge=False,
  )
  names = ""
  if table.has_names:
    names = " of " + ", ".join(table.columns[:_MOST_SHOWN])
  rows.add_column("component", justify="right")
  rows.add_column("weight", justify="right")
  rows.add_column("points", justify="right")
  # What users call their columns is no markup.
  rows.add_column(rich.text.Text(f"mean{names}"))
  labels = np.asarray(found.labels)
  pairs = zip(found.mixture.weights, found.mixture.means, strict=True)
  for index, (weight, mean) in enumerate(pairs):
    texts = [f"{value:.4g}" for value in np.asarray(mean)[:_MOST_SHOWN]]
    more = ", ..." if len(mean) > _MOST_SHOWN else ""
    count = int(np.sum(labels == index))
    shown = ", ".join(texts) + more
    rows.add_row(str(index), f"{float(weight):.4f}", str(count), shown)
  return rows
