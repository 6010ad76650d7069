"""A run as one page to look at, and as a table for the terminal.

The page has its pictures and its style within it, no script, and follows the
reader's choice of light or dark. The same input gives the same bytes.
"""

import base64
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import rich.box
import rich.table
import rich.text
from matplotlib import figure as mpl_figure

from tgmm_jax.evaluation import results
from tgmm_jax.figures import report_tables
from tgmm_jax.figures import style as figure_style
from tgmm_jax.training import files

_ERROR_NOTE = (
  "Squared error per component and coordinate after the best assignment of "
  "estimated to true components, ± its standard error. Bold: the lowest mean "
  "and those within its standard error, references (in italics) aside."
)
_RELEASED_NOTE = (
  "The published evaluation finds the right assignment of estimated to true "
  "components and then applies its inverse, so that for K > 2 right answers in "
  "another order score as wrong: these numbers are only here to be compared "
  "with the published ones."
)

_CSS = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6472;
  --line: #dfe3e8; --band: #f5f7f9; --page: #ffffff; --accent: #0072b2;
  --alarm: #b3400a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b4;
  --line: #343c48; --band: #1d232c; --page: #14181f; --accent: #62b5ea;
  --alarm: #f29a67; } }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem;
  background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { margin: 0 0 .3rem; font-size: 1.8rem; line-height: 1.2; }
h2 { margin: 2.6rem 0 .8rem; padding-bottom: .25rem; font-size: 1.25rem;
  border-bottom: 2px solid var(--line); }
.question { margin: 0; color: var(--soft); font-size: 1.1rem; }
nav { margin: 1rem 0 0; font-size: .9rem; }
nav a { margin-right: 1rem; color: var(--accent); text-decoration: none; }
.scroll { overflow-x: auto; margin: .9rem 0 1.4rem; }
table { border-collapse: collapse; font-size: .88rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .65rem; border-bottom: 1px solid var(--line);
  text-align: right; vertical-align: top; white-space: nowrap; }
th:first-child, .text { text-align: left; }
thead th { border-bottom: 2px solid var(--line); color: var(--soft); }
thead th:first-child { color: var(--ink); }
tbody th { font-weight: 500; }
tbody tr:hover { background: var(--band); }
tr.reference { color: var(--soft); font-style: italic; }
td small { display: block; color: var(--soft); font-size: .78rem; }
.missing { color: var(--alarm); }
figure { margin: 0 0 2rem; }
figure img { display: block; max-width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: 6px; }
figcaption { margin-top: .4rem; color: var(--soft); font-size: .9rem; }
details { margin: .4rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; padding: .9rem 1rem; border-radius: 6px;
  background: var(--band); font-size: .82rem; line-height: 1.4; }
"""


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
  metrics = dict.fromkeys(
    [row.metric for row in rows] + [cell[3] for cell in expected]
  )
  by_metric = {
    metric: report_tables.metric_tables(rows, expected, metric)
    for metric in metrics
  }
  errors = by_metric.pop("l2_error", "")
  released = by_metric.pop("l2_error_released", "")
  sections = {
    "Summary": report_tables.summary(rows, expected)
    if rows or expected
    else "",
    "Figures": "".join(_figure(*item) for item in figures.items()),
    **{
      head: report_tables.mapping_table(table)
      for head, table in (tables or {}).items()
    },
    "Error of the means": errors and f"<p>{_ERROR_NOTE}</p>{errors}",
    "Published alignment": released and f"<p>{_RELEASED_NOTE}</p>{released}",
    "Other metrics": "".join(_details(*item) for item in by_metric.items()),
    "Training": report_tables.mapping_table(training or {}),
    "Parameters": report_tables.mapping_table(parameters or {}),
    "Config": _pre(json.dumps(config, indent=2, default=str)),
    "Versions": report_tables.mapping_table(versions),
  }
  page = _page(title, question, sections)
  files.write(path, page.encode())


def _page(title, question, sections):
  escape = report_tables.escape
  sections = {head: body for head, body in sections.items() if body}
  anchors = {head: head.lower().replace(" ", "-") for head in sections}
  links = "".join(
    f'<a href="#{anchor}">{head}</a>' for head, anchor in anchors.items()
  )
  bodies = "\n".join(
    f'<section id="{anchors[head]}">\n<h2>{head}</h2>\n{body}\n</section>'
    for head, body in sections.items()
  )
  return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="question">{escape(question)}</p>
<nav>{links}</nav>
</header>
{bodies}
</body>
</html>
"""


def _figure(caption, figure):
  if isinstance(figure, mpl_figure.Figure):
    content = figure_style.render(figure, "png")
  else:
    content = pathlib.Path(figure).read_bytes()
  data = base64.b64encode(content).decode()
  text = report_tables.escape(caption)
  return (
    f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
    f"<figcaption>{text}</figcaption></figure>"
  )


def _details(metric, body):
  label = figure_style.METRIC_LABELS.get(metric, metric)
  escape = report_tables.escape
  return f"<details><summary>{escape(label)}</summary>{body}</details>"


def _pre(text):
  return f"<pre>{report_tables.escape(text)}</pre>"


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
