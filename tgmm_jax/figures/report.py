"""A run as one page to look at, and as a table for the terminal.

The page is laid out by `templates/report.html`. It has its pictures and its
style within it, no script, and follows the reader's choice of light or dark.
The same input gives the same bytes.
"""

import base64
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2
import rich.box
import rich.table
import rich.text
from matplotlib import figure as mpl_figure

from tgmm_jax.evaluation import results
from tgmm_jax.figures import report_tables
from tgmm_jax.figures import style as figure_style
from tgmm_jax.training import files


class _Section(NamedTuple):
  """A section of the page; one without content is left out."""

  title: str
  layout: str  # the macro of `layouts.html` that takes the content
  content: object


def write_html(
  path: str | os.PathLike,
  *,
  title: str,
  question: str,
  rows: Sequence[results.Row],
  figures: Mapping[str, str | os.PathLike | mpl_figure.Figure],
  config: Mapping[str, object],
  versions: Mapping[str, object],
  parameters: Mapping[str, object] | None = None,
  expected: Sequence[results.Cell] = (),
  training: Mapping[str, object] | None = None,
  tables: Mapping[str, Mapping[str, object]] | None = None,
) -> None:
  """Writes the report of a run as one self-contained page.

  Args:
    path: of the page; an old one is replaced.
    title: of the page.
    question: what the run is to answer.
    rows: its table.
    figures: by caption, PNG files or figures.
    config: the resolved config, nested.
    versions: of the packages, and whatever names the machine.
    parameters: numbers of parameters, by name or by network and name.
    expected: the planned cells; those without a row are shown as missing.
    training: by run, what there is to say: steps, time, ...
    tables: further ones, by heading; a mapping of mappings has the keys of
      these as columns.
  """
  pictures = {caption: _png(figure) for caption, figure in figures.items()}
  sections = [
    _Section("Summary", "summary", report_tables.summary(rows, expected)),
    _Section("Figures", "figures", pictures),
    *(_mapping(head, table) for head, table in (tables or {}).items()),
    *_metric_sections(rows, expected),
    _mapping("Training", training or {}),
    _mapping("Parameters", parameters or {}),
    _Section("Config", "listing", json.dumps(config, indent=2, default=str)),
    _mapping("Versions", versions),
  ]
  sections = [section for section in sections if section.content]
  page = _template().render(title=title, question=question, sections=sections)
  files.write(path, page.encode())


def _metric_sections(rows, expected):
  metrics = dict.fromkeys(
    [row.metric for row in rows] + [cell[3] for cell in expected]
  )
  by_metric = {
    metric: report_tables.metric_tables(rows, expected, metric)
    for metric in metrics
  }
  errors = by_metric.pop("l2_error", [])
  released = by_metric.pop("l2_error_released", [])
  others = [
    (figure_style.METRIC_LABELS.get(metric, metric), found)
    for metric, found in by_metric.items()
  ]
  return [
    _Section("Error of the means", "errors", errors),
    _Section("Published alignment", "published", released),
    _Section("Other metrics", "metrics", others),
  ]


def _template():
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("tgmm_jax.figures"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  return environment.get_template("report.html")


def _mapping(title, mapping):
  return _Section(title, "table", report_tables.mapping_table(mapping))


def _png(figure):
  """The picture in base64."""
  if isinstance(figure, mpl_figure.Figure):
    content = figure_style.render(figure, "png")
  else:
    content = pathlib.Path(figure).read_bytes()
  return base64.b64encode(content).decode()


def terminal_table(
  rows: Sequence[results.Row], *, metric: str = "l2_error"
) -> rich.table.Table:
  """A metric as a table for the terminal: a block for each d, K across.

  Fits into 80 columns: 0.021(2) is 0.021 ± 0.002.

  Args:
    rows: of any metrics.
    metric: which one.

  Returns:
    The table; the last column has the share of failed tasks of all K.
  """
  rows = [row for row in rows if row.metric == metric]
  settings = results.settings_of(rows)
  columns = sorted({row.num_components for row in rows})
  label = figure_style.METRIC_LABELS.get(metric, metric)
  table = rich.table.Table(
    title=f"{label}; 0.021(2) is 0.021 ± 0.002",
    box=rich.box.SIMPLE_HEAD,
    show_edge=False,
    pad_edge=False,
    collapse_padding=True,
  )
  table.add_column("solver", no_wrap=True)
  for column in columns:
    table.add_column(f"K = {column}", justify="right", no_wrap=True)
  table.add_column("failed", justify="right", no_wrap=True)
  for setting in settings:
    here = [row for row in rows if results.setting_of(row) == setting]
    cells = {(row.solver, row.num_components): row for row in here}
    head = figure_style.setting_label(setting, settings)
    table.add_row(rich.text.Text(head, style="bold"))
    for solver in figure_style.solvers_of(here):
      found = [cells.get((solver, column)) for column in columns]
      texts = [
        _format_short(row.mean, row.standard_error) if row else "–"
        for row in found
      ]
      count = sum(row.count for row in found if row)
      failures = sum(row.failures for row in found if row)
      share = f"{failures / count:.1%}" if count else "–"
      # As Text, since names may have what rich takes for markup.
      table.add_row(*map(rich.text.Text, (solver, *texts, share)))
    table.add_section()
  return table


def _format_short(mean, standard_error):
  """`0.021(2)`: one digit of the error, in units of the mean's last one."""
  if not math.isfinite(mean):
    return "nan"
  if abs(mean) >= 1e5 or not standard_error > 0:
    return f"{mean:.3g}"
  digits = math.ceil(math.log10(0.95 / standard_error))
  digits = min(max(digits, 0), 6)
  return f"{mean:.{digits}f}({standard_error * 10**digits:.0f})"
