"""How the rows of a run are shown: joined tables, page, terminal."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.box
import rich.console
import rich.table
import rich.text
from absl import logging
from matplotlib import figure as mpl_figure

from experiments.runner import derived, fields
from experiments.runner import parts as run_parts
from tgmm_jax.evaluation import results
from tgmm_jax.figures import report
from tgmm_jax.figures import style as figure_style
from tgmm_jax.training import files, run_folder

# By caption, the name of the file and the figure.
Figures = Mapping[str, tuple[str, mpl_figure.Figure]]

# Of a table that fits into a terminal.
_MOST_COLUMNS = 5
_MEASURED = "What was measured"


def is_written(workdir: pathlib.Path, made_of: Mapping[str, Any]) -> bool:
  """Whether the page of a run is that of `made_of`, and all its files.

  Args:
    workdir: of the run.
    made_of: as `page_made_of` has it.
  """
  if derived.difference(workdir / run_folder.SHOWN, made_of):
    return False
  logging.info("%s is up to date", workdir / run_folder.REPORT)
  return True


def page_made_of(
  workdir: pathlib.Path,
  identity: Mapping[str, Any],
  parts: run_parts.Parts,
  more: Sequence[pathlib.Path] = (),
  *,
  code: str,
) -> dict[str, Any]:
  """All that a page follows from.

  Args:
    workdir: of the run.
    identity: the resolved config.
    parts: whose rows it shows.
    more: further files that it reads, in the work folder.
    code: the version of what draws it.
  """
  read = [path for found in parts.tables.values() for path in found]
  read += [workdir / run_folder.VERSIONS, *more]
  return {
    "config": identity,
    "code": code,
    "lacking": dict(parts.lacking),
    "measured": dict(parts.measured),
    "files": {
      path.relative_to(workdir).as_posix(): derived.sha256(path)
      for path in read
    },
  }


def _save_figures(workdir, drawn):
  """Writes figures; by caption the paths of the PNG and of the PDF."""
  folder = workdir / run_folder.FIGURES
  return {
    caption: figure_style.save(figure, folder / name)
    for caption, (name, figure) in drawn.items()
  }


def _save_tables(workdir, rows):
  """Writes the joined tables and removes one that has no rows any more."""
  made = []
  for row_type, name in run_parts.FILES.items():
    own = [row for row in rows if isinstance(row, row_type)]
    if own:
      results.write_csv(workdir / name, own, row_type)
      made.append(workdir / name)
    else:
      (workdir / name).unlink(missing_ok=True)
  return made


def write(
  workdir: pathlib.Path,
  config,
  rows: run_parts.Rows,
  drawn: Figures,
  *,
  made_of: Mapping[str, Any],
  tables: Mapping[str, Mapping[str, object]],
  has_curve_tables: bool = True,
  **options,
) -> None:
  """Writes tables, figures and page of a run and says what came out.

  What an earlier page had and this one has not is removed.

  Args:
    workdir: folder of the run.
    config: its title and question stand at the head of the page.
    rows: solvers in cells, or points of curves.
    drawn: the figures.
    made_of: as `page_made_of` has it.
    tables: further ones, by heading; after them stand those of the curves.
    has_curve_tables: whether curves are shown as tables too.
    **options: of `report.write_html`.
  """
  cells = [row for row in rows if isinstance(row, results.Row)]
  curves = [row for row in rows if isinstance(row, results.CurveRow)]
  shown = curve_tables(curves) if has_curve_tables else {}
  page, record = workdir / run_folder.REPORT, workdir / run_folder.SHOWN
  figures = _save_figures(workdir, drawn)
  report.write_html(
    page,
    title=config.title,
    question=config.question,
    rows=cells,
    figures={caption: png for caption, (png, _) in figures.items()},
    config=made_of["config"],
    tables={**tables, **shown, _MEASURED: made_of["measured"]},
    versions=files.read_json(workdir / run_folder.VERSIONS),
    **options,
  )
  made = [page, *_save_tables(workdir, rows)]
  made += [path for paths in figures.values() for path in paths]
  for name in derived.read(record).get("files", {}):
    if workdir / name not in made:
      (workdir / name).unlink(missing_ok=True)
  run_folder.update_config(workdir, made_of["config"], fields.PAGE_KEYS)
  derived.write(record, made_of, made)
  console = rich.console.Console()
  if cells:
    console.print(report.terminal_table(cells))
  for title, lines in shown.items():
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
