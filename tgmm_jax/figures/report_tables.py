"""The tables of a report, as HTML: solvers by K, with what is missing."""

import html
import math
from collections.abc import Mapping, Sequence

from tgmm_jax.evaluation import results
from tgmm_jax.figures import style as figure_style

# The sign of a metric of which less (1) or more (-1) is better.
_SIGNS = {
  "l2_error": 1,
  "weight_error": 1,
  "scale_error": 1,
  "accuracy": -1,
  "log_likelihood": -1,
  "log_likelihood_fresh": -1,
}
_TEXT_HEADS = ("kind", "solver")
# In the order of the summary.
_KINDS = ("trained", "constructed", "classical", "reference")


def format_mean(mean: float, standard_error: float) -> str:
  """`0.0210 ± 0.0016`: both to as many digits as the error is worth."""
  if not math.isfinite(mean):
    return "not finite"
  if not (math.isfinite(standard_error) and standard_error > 0):
    return f"{mean:.4g}"
  if abs(mean) >= 1e5:
    return f"{mean:.2e} ± {standard_error:.0e}"
  digits = worthy_digits(standard_error)
  return f"{mean:.{digits}f} ± {standard_error:.{digits}f}"


def worthy_digits(standard_error: float) -> int:
  """Decimals by which a positive error becomes a number from 4 to 35."""
  return min(max(math.ceil(math.log10(3.55 / standard_error)), 0), 8)


def format_failures(row: results.Row) -> str:
  """`12 (0.9%)` of the tasks."""
  share = row.failures / row.count if row.count else math.nan
  return f"{row.failures} ({share:.1%})"


def escape(value: object) -> str:
  """Text for HTML."""
  return html.escape(str(value))


def settings_with(
  rows: Sequence[results.Row], expected: Sequence[results.Cell]
) -> list[results.Setting]:
  """The settings of rows and of planned cells, ascending."""
  planned = {setting for _, setting, _, _ in expected}
  return sorted(planned.union(results.settings_of(rows)))


def metric_tables(
  rows: Sequence[results.Row], expected: Sequence[results.Cell], metric: str
) -> str:
  """A table for each setting: solvers by K, `mean ± standard error`.

  Failures are in the table of `l2_error` only: they are the same for every
  metric. The best mean of a column is bold, and so are those within its
  standard error, references aside.

  Args:
    rows: of any metrics.
    expected: planned cells; those without a row read "missing".
    metric: which one.

  Returns:
    HTML, empty if the metric is neither in rows nor planned.
  """
  settings = settings_with(rows, expected)
  tables = []
  for setting in settings:
    here = {
      (row.solver, row.num_components): row
      for row in rows
      if results.setting_of(row) == setting and row.metric == metric
    }
    planned = {
      (solver, num_components)
      for solver, other, num_components, name in expected
      if other == setting and name == metric
    }
    if here or planned:
      label = figure_style.setting_label(setting, settings)
      tables.append(_metric_table(here, planned, metric, label))
  return "".join(tables)


def _metric_table(here, planned, metric, label):
  keys = here.keys() | planned
  columns = sorted({num_components for _, num_components in keys})
  solvers = sorted({name for name, _ in keys}, key=figure_style.solver_order)
  best = {column: _best(here, column, metric) for column in columns}
  lines = []
  for solver in solvers:
    cells = []
    for column in columns:
      row = here.get((solver, column))
      if row is None:
        is_planned = (solver, column) in planned
        text = "missing" if is_planned else "–"
        cells.append(
          f'<td class="{"missing" if is_planned else ""}">{text}</td>'
        )
      else:
        cells.append(_mean_cell(row, row in best[column], metric))
    kind = "reference" if solver in results.REFERENCES else ""
    lines.append(
      f'<tr class="{kind}"><th scope="row">{escape(solver)}</th>'
      f"{''.join(cells)}</tr>"
    )
  heads = [f"K = {column}" for column in columns]
  return _table([label, *heads], lines)


def _mean_cell(row, is_best, metric):
  text = escape(format_mean(row.mean, row.standard_error))
  text = f"<b>{text}</b>" if is_best else text
  if metric == "l2_error" and row.failures:
    text += f"<small>{format_failures(row)} failed</small>"
  kind = "" if math.isfinite(row.mean) else "missing"
  return f'<td class="{kind}">{text}</td>'


def _best(here, column, metric):
  found = [
    row
    for (solver, num_components), row in here.items()
    if num_components == column
    and solver not in results.REFERENCES
    and math.isfinite(row.mean)
  ]
  if metric not in _SIGNS or not found:
    return []
  sign = _SIGNS[metric]
  best = min(found, key=lambda row: sign * row.mean)
  margin = best.standard_error if best.standard_error > 0 else 0.0
  return [row for row in found if sign * (row.mean - best.mean) <= margin]


def summary(
  rows: Sequence[results.Row], expected: Sequence[results.Cell]
) -> str:
  """Headline numbers: the best of each kind for each d, and what is missing.

  Args:
    rows: of any metrics.
    expected: planned cells.

  Returns:
    HTML.
  """
  settings = results.settings_of(rows)
  lines, all_columns = [], sorted({row.num_components for row in rows})
  for setting in settings:
    here = [
      row
      for row in rows
      if results.setting_of(row) == setting and row.metric == "l2_error"
    ]
    label = figure_style.setting_label(setting, settings)
    for kind, solver, means in _best_of_kinds(here):
      cells = "".join(
        f"<td>{format_mean(*means[column]) if column in means else '–'}</td>"
        for column in all_columns
      )
      lines.append(
        f'<tr class="{kind}"><th scope="row">{escape(label)}</th>'
        f'<td class="text">{kind}</td><td class="text">{escape(solver)}</td>'
        f"{cells}</tr>"
      )
      label = ""
  heads = ["", "kind", "solver", *(f"K = {column}" for column in all_columns)]
  text = "Squared error of the means per coordinate, ± its standard error, of "
  text += "the best solver of each kind (lowest geometric mean over K)."
  parts = [f"<p>{text}</p>", _table(heads, lines)] if lines else []
  return "".join([*parts, _counts(rows), _missing(rows, expected)])


def _best_of_kinds(rows):
  """Yields (kind, solver, {K: (mean, standard error)})."""
  by_solver = {}
  for row in rows:
    by_solver.setdefault(row.solver, {})[row.num_components] = (
      row.mean,
      row.standard_error,
    )
  kinds = {kind: [] for kind in _KINDS}
  for solver, means in by_solver.items():
    kind = results.kind_of(solver)
    values = [mean for mean, _ in means.values()]
    # A solver with fewer cells than another would compare other problems.
    if all(math.isfinite(mean) and mean > 0 for mean in values):
      logs = sum(map(math.log, values)) / len(values)
      kinds[kind].append((-len(values), logs, solver))
  for kind, found in kinds.items():
    if kind == "reference":
      found = [item for item in found if item[2] == "em/oracle"] or found
    if found:
      solver = min(found)[2]
      yield kind, solver, by_solver[solver]


def _counts(rows):
  cells = {
    (*results.setting_of(row), row.num_components, row.solver): row
    for row in rows
  }
  counts = sorted({row.count for row in cells.values()})
  if not counts:
    return "<p>There are no results.</p>"
  tasks = " to ".join(
    f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1]))
  )
  failures = sum(row.failures for row in cells.values())
  solved = sum(row.count for row in cells.values())
  solvers = len({row.solver for row in rows})
  return (
    f"<p>{solvers} solvers, {len(cells)} cells, {tasks} tasks in each. "
    f"{failures:,} of {solved:,} solutions failed (squared error above 0.5, no "
    "finite answer, or a problem that the solver cannot take); they are part "
    "of every mean.</p>"
  )


def _missing(rows, expected):
  cells = results.missing(rows, expected)
  if not cells:
    return "<p>No planned cell is missing.</p>" if expected else ""
  groups = {}
  for solver, setting, num_components, metric in cells:
    group = groups.setdefault((solver, setting), ({}, {}))
    group[0][num_components] = group[1][metric] = None
  settings = settings_with(rows, expected)
  items = "".join(
    f"<li>{escape(solver)}, {figure_style.setting_label(setting, settings)},"
    f" K = {', '.join(map(str, columns))}: {escape(', '.join(metrics))}</li>"
    for (solver, setting), (columns, metrics) in groups.items()
  )
  total = len(dict.fromkeys(expected))
  return (
    f'<p class="missing">{len(cells)} of {total} planned results are missing:'
    f"</p><ul>{items}</ul>"
  )


def mapping_table(mapping: Mapping[str, object]) -> str:
  """A mapping as a table; one of mappings has their keys as columns."""
  nested = [value for value in mapping.values() if isinstance(value, Mapping)]
  columns = list(dict.fromkeys(name for value in nested for name in value))
  lines = []
  for name, value in mapping.items():
    if isinstance(value, Mapping):
      values = [value.get(column, "–") for column in columns]
    else:
      values = [value]
    cells = "".join(f"<td>{escape(_format(item))}</td>" for item in values)
    lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
  return _table(["", *columns] if columns else [], lines) if lines else ""


def _format(value):
  if isinstance(value, int) and not isinstance(value, bool):
    return f"{value:,}"
  return f"{value:.6g}" if isinstance(value, float) else value


def _table(heads, lines):
  head = "".join(
    f'<th scope="col" class="{"text" if text in _TEXT_HEADS else ""}">'
    f"{escape(text)}</th>"
    for text in heads
  )
  head = f"<thead><tr>{head}</tr></thead>" if heads else ""
  body = "".join(lines)
  return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'
