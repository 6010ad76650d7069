"""How the rows of a run are kept and shown: tables, page, terminal."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import rich.box
import rich.console
import rich.table
import rich.text
from matplotlib import figure as mpl_figure

from tgmm_jax.evaluation import results
from tgmm_jax.figures import report
from tgmm_jax.figures import style as figure_style
from tgmm_jax.training import files, run_folder

Rows = list[results.Row] | list[results.CurveRow]
# By caption, the name of the file and the figure.
Figures = Mapping[str, tuple[str, mpl_figure.Figure]]

# Of a table that fits into a terminal.
_MOST_COLUMNS = 5
_FILES = {results.Row: run_folder.RESULTS, results.CurveRow: run_folder.CURVES}


def file_of(row_type: type) -> str:
  """The name of the table that holds rows of a type."""
  return _FILES[row_type]


def save_figures(
  workdir: pathlib.Path, drawn: Figures
) -> dict[str, pathlib.Path]:
  """Writes figures; by caption the paths of their PNG files."""
  folder = workdir / run_folder.FIGURES
  return {
    caption: figure_style.save(figure, folder / name)[0]
    for caption, (name, figure) in drawn.items()
  }


def write(
  workdir: pathlib.Path,
  config,
  rows: Rows,
  drawn: Figures,
  *,
  identity: Mapping[str, object],
  tables: Mapping[str, Mapping[str, object]],
  **options,
) -> None:
  """Writes the page of a run and says in the terminal what came out.

  Args:
    workdir: folder of the run.
    config: its title and question stand at the head of the page.
    rows: solvers in cells, or points of curves.
    drawn: the figures.
    identity: the resolved config as it is kept in the folder.
    tables: further ones, by heading; after them stand those of the curves.
    **options: of `report.write_html`.
  """
  cells = [row for row in rows if isinstance(row, results.Row)]
  curves = [row for row in rows if isinstance(row, results.CurveRow)]
  page = workdir / run_folder.REPORT
  report.write_html(
    page,
    title=config.title,
    question=config.question,
    rows=cells,
    figures=save_figures(workdir, drawn),
    config=identity,
    tables={**tables, **curve_tables(curves)},
    versions=files.read_json(workdir / run_folder.VERSIONS),
    **options,
  )
  console = rich.console.Console()
  if cells:
    console.print(report.terminal_table(cells))
  for title, lines in curve_tables(curves).items():
    console.print(_terminal_table(title, lines))
  console.print(f"report: {page}")


def curve_tables(
  rows: Sequence[results.CurveRow],
) -> dict[str, dict[str, dict[str, str]]]:
  """By study and metric, a line for each series, abscissas across."""
  tables = {}
  for row in sorted(rows, key=lambda row: row.key):
    lines = tables.setdefault(f"{row.study}: {row.metric}", {})
    text = f"{row.value:.4g}"
    if row.standard_error > 0:
      text += f" ± {row.standard_error:.1g}"
    lines.setdefault(row.series, {})[f"{row.x:g}"] = text
  return tables


def _terminal_table(title, lines):
  table = rich.table.Table(
    title=title, box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False
  )
  columns = list(dict.fromkeys(x for cells in lines.values() for x in cells))
  if len(columns) > _MOST_COLUMNS:
    # Evenly, the first and the last among them: the page has them all.
    places = np.linspace(0, len(columns) - 1, _MOST_COLUMNS).round()
    columns = [columns[int(place)] for place in places]
  table.add_column("", no_wrap=True)
  for column in columns:
    table.add_column(column, justify="right", no_wrap=True)
  for series, cells in lines.items():
    # Without the standard error: a line has to fit.
    texts = [cells.get(x, "–").split(" ")[0] for x in columns]
    table.add_row(*map(rich.text.Text, (series, *texts)))
  return table
