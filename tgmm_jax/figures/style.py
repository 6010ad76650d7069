"""The one place for colours, names, fonts and file formats of figures.

Matplotlib's global settings are only changed within `style()`.
"""

import contextlib
import io
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import matplotlib
from matplotlib import figure as mpl_figure

from tgmm_jax.evaluation import results
from tgmm_jax.training import files

_STYLE = {
  "axes.axisbelow": True,
  "axes.edgecolor": "#888888",
  "axes.grid": True,
  "axes.grid.axis": "y",
  "axes.labelcolor": "#333333",
  "axes.labelsize": 10,
  "axes.spines.right": False,
  "axes.spines.top": False,
  "axes.titlesize": 10.5,
  "axes.titleweight": "bold",
  "figure.dpi": 150,
  "figure.titlesize": 12,
  "font.size": 10,
  "grid.color": "#e4e4e4",
  "grid.linewidth": 0.8,
  "legend.fontsize": 9,
  "legend.frameon": False,
  "lines.linewidth": 1.6,
  "lines.markersize": 5.5,
  "pdf.fonttype": 42,
  "savefig.dpi": 150,
  "xtick.color": "#555555",
  "ytick.color": "#555555",
  "xtick.labelsize": 9,
  "ytick.labelsize": 9,
}


METRIC_LABELS = {
  "l2_error": "squared error of the means",
  "l2_error_released": "squared error of the means, published alignment",
  "l2_error_as_released": "squared error of the means, published averages",
  "sorted_error": "squared error of the means in the order of the weights",
  "weight_error": "squared error of the weights",
  "scale_error": "squared error of the standard deviations",
  "accuracy": "clustering accuracy",
  "log_likelihood": "log-likelihood per point",
  "log_likelihood_fresh": "log-likelihood per fresh point",
  "num_iters": "iterations",
  "degenerate": "share of problems that the solver called degenerate",
  "outside_range": "share of tasks outside the range of training",
  "milliseconds": "milliseconds per task",
}


class SolverStyle(NamedTuple):
  """How a solver is drawn, in every figure alike."""

  color: str
  marker: str
  linestyle: str


# Hues by family from the palette of Okabe and Ito, which the colour-blind can
# tell apart; within a family darker means more work, and markers differ. The
# order is that of tables and legends.
SOLVER_STYLES = {
  "refiner": SolverStyle("#4BA3DB", "o", "-"),
  "refiner+em5": SolverStyle("#0072B2", "s", "-"),
  "refiner-x8+em5": SolverStyle("#003B63", "D", "-"),
  "pretrained": SolverStyle("#7C93DE", "o", "-"),
  "pretrained+em5": SolverStyle("#3F5BBF", "s", "-"),
  "pretrained-x8+em5": SolverStyle("#1D2C70", "D", "-"),
  "tgmm": SolverStyle("#F0803C", "^", "-"),
  "tgmm+em5": SolverStyle("#B04A00", "v", "-"),
  "tgmm-released": SolverStyle("#E69F00", "P", "-"),
  "tgmm-released+em5": SolverStyle("#9C6B00", "X", "-"),
  "tgmm-mamba2": SolverStyle("#B06BD6", "^", "-"),
  "tgmm-mamba2+em5": SolverStyle("#6A2C91", "v", "-"),
  "refiner-n32": SolverStyle("#8CC6EA", "o", "-."),
  "refiner-n64": SolverStyle("#4BA3DB", "s", "-."),
  "refiner-n128": SolverStyle("#0072B2", "D", "-"),
  "tgmm-n32": SolverStyle("#F6B58C", "^", "-."),
  "tgmm-n64": SolverStyle("#F0803C", "v", "-."),
  "tgmm-n128": SolverStyle("#B04A00", "P", "-"),
  "em/normal": SolverStyle("#5CC4A0", "<", "-"),
  "em/normal-identity": SolverStyle("#8FD6BD", "1", "-"),
  "em/random_points": SolverStyle("#2FAE86", ">", "-"),
  "em/ward": SolverStyle("#7A9A01", "X", "-"),
  "em/k-means++": SolverStyle("#009E73", "p", "-"),
  "em/k-means++-x10": SolverStyle("#00664A", "h", "-"),
  "em/k-means++-x10-floor": SolverStyle("#1F4D3F", "8", "-"),
  "em/k-means++-x10-projected": SolverStyle("#003D2C", "H", "-"),
  "spectral": SolverStyle("#CC79A7", "*", "-"),
  "spectral+em": SolverStyle("#8A3F68", "d", "-"),
  "spectral/estimated": SolverStyle("#E3AECB", "2", "-"),
  "em/oracle": SolverStyle("#6E6E6E", "_", "--"),
  "labels": SolverStyle("#A6A6A6", "_", "--"),
  "sorted-loss/optimum": SolverStyle("#E69F00", "_", ":"),
}
_FAMILY_COLORS = {
  "refiner": "#0072B2",
  "pretrained": "#3F5BBF",
  "tgmm": "#D55E00",
  "em": "#009E73",
  "spectral": "#CC79A7",
}


def solver_style(solver: str) -> SolverStyle:
  """The fixed style of a solver; one that is not listed takes its family's."""
  if solver in SOLVER_STYLES:
    return SOLVER_STYLES[solver]
  family = solver.replace("+", "/").replace("-", "/").split("/")[0]
  markers = "osD^vPX<>ph*d"
  marker = markers[zlib.crc32(solver.encode()) % len(markers)]
  return SolverStyle(_FAMILY_COLORS.get(family, "#6A51A3"), marker, "-.")


def solver_order(solver: str) -> tuple[float, str]:
  """Sorts solvers: listed ones, then others by name, references last."""
  names = list(SOLVER_STYLES)
  if solver in names:
    return names.index(solver), solver
  return names.index(results.REFERENCES[0]) - 0.5, solver


def solvers_of(rows: Iterable[results.Row]) -> list[str]:
  """The solvers in rows, in the order of tables and legends."""
  return sorted({row.solver for row in rows}, key=solver_order)


def setting_label(
  setting: results.Setting, settings: Sequence[results.Setting]
) -> str:
  """`d = 2`, with N and shift where the settings differ in them."""
  label = f"d = {setting.dim}"
  if len({other.num_points for other in settings}) > 1:
    label += f", N = {setting.num_points}"
  if any(other.shift for other in settings):
    label += f", shift {setting.shift:g}"
    if len({other.shift_kind for other in settings}) > 1:
      label += f" of {setting.shift_kind}"
  return label


def curve_styles(
  curves: Sequence[tuple[str, str]],
) -> dict[tuple[str, str], tuple[str, str]]:
  """Colours and line styles of curves, each given as (run, column).

  Args:
    curves: of one panel.

  Returns:
    By curve: a colour for each run and a line style for each of its columns,
    or, with one run only, a colour for each column.
  """
  colors = [*_FAMILY_COLORS.values(), "#E69F00", "#56B4E9", "#000000"]
  linestyles = ("-", "--", "-.", ":")
  runs = list(dict.fromkeys(run for run, _ in curves))
  columns = list(dict.fromkeys(column for _, column in curves))
  styles = {}
  for run, column in curves:
    first, second = runs.index(run), columns.index(column)
    if len(runs) == 1:
      first, second = second, second // len(colors)
    styles[run, column] = (
      colors[first % len(colors)],
      linestyles[second % len(linestyles)],
    )
  return styles


def save(
  figure: mpl_figure.Figure, path: str | os.PathLike
) -> list[pathlib.Path]:
  """Writes a figure as PNG and as PDF, without dates or versions in them.

  Args:
    figure: what to write.
    path: of the files, without a suffix.

  Returns:
    The paths of the PNG and of the PDF.
  """
  paths = []
  for suffix in ("png", "pdf"):
    paths.append(pathlib.Path(f"{os.fspath(path)}.{suffix}"))
    files.write(paths[-1], render(figure, suffix))
  return paths


def render(figure: mpl_figure.Figure, suffix: str) -> bytes:
  """The bytes of a figure as `png` or `pdf`."""
  metadata = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
  }
  buffer = io.BytesIO()
  with style():
    figure.savefig(buffer, format=suffix, metadata=metadata[suffix])
  return buffer.getvalue()


@contextlib.contextmanager
def style() -> Iterator[None]:
  """Matplotlib's defaults and `_STYLE`, whatever the user's settings are."""
  with matplotlib.rc_context():
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(_STYLE)
    yield
