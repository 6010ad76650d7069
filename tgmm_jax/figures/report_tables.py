"""What the tables of a report say: solvers by K, and what is missing.

Records of plain text and numbers; `templates/report.html` lays them out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
# In the order of the summary.
_KINDS = ("trained", "constructed", "classical", "reference")


class Entry(NamedTuple):
  """An entry of a table."""

  text: str
  kind: str = ""  # its class in the style
  note: str = ""  # what stands below the text
  is_best: bool = False  # of its column


class Line(NamedTuple):
  """A line of a table."""

  head: str
  entries: list[Entry]
  kind: str = ""  # its class in the style


class Table(NamedTuple):
  """A table; its first head is that of the column of the lines' heads."""

  heads: list[Entry]
  lines: list[Line]


class Counts(NamedTuple):
  """How much was solved."""

  solvers: int
  cells: int
  tasks: str  # in each cell
  failures: str
  solutions: str


class Gap(NamedTuple):
  """Planned results of a solver that are missing in a setting."""

  solver: str
  setting: str
  columns: list[int]  # K
  metrics: list[str]


class Missing(NamedTuple):
  """What is missing of what was planned."""

  total: int
  planned: int
  gaps: list[Gap]


class Summary(NamedTuple):
  """What a run comes down to."""

  best: Table  # of each kind of solver
  counts: Counts | None  # None without rows
  missing: Missing


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


def settings_with(
  rows: Sequence[results.Row], expected: Sequence[results.Cell]
) -> list[results.Setting]:
  """The settings of rows and of planned cells, ascending."""
  planned = {setting for _, setting, _, _ in expected}
  return sorted(planned.union(results.settings_of(rows)))


def metric_tables(
  rows: Sequence[results.Row], expected: Sequence[results.Cell], metric: str
) -> list[Table]:
  """A table for each setting: solvers by K, `mean ± standard error`.

  Failures are in the table of `l2_error` only: they are the same for every
  metric. The best mean of a column is bold, and so are those within its
  standard error, references aside.

  Args:
    rows: of any metrics.
    expected: planned cells; those without a row read "missing".
    metric: which one.

  Returns:
    The tables, none if the metric is neither in rows nor planned.
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
  return tables


def _metric_table(here, planned, metric, label):
  keys = here.keys() | planned
  columns = sorted({num_components for _, num_components in keys})
  solvers = sorted({name for name, _ in keys}, key=figure_style.solver_order)
  best = {column: _best(here, column, metric) for column in columns}
  lines = []
  for solver in solvers:
    entries = []
    for column in columns:
      row = here.get((solver, column))
      if row is not None:
        entries.append(_mean_entry(row, row in best[column], metric))
      elif (solver, column) in planned:
        entries.append(Entry("missing", "missing"))
      else:
        entries.append(Entry("–"))
    kind = "reference" if solver in results.REFERENCES else ""
    lines.append(Line(solver, entries, kind))
  return Table([Entry(label), *_heads(columns)], lines)


def _mean_entry(row, is_best, metric):
  has_note = metric == "l2_error" and row.failures
  return Entry(
    format_mean(row.mean, row.standard_error),
    kind="" if math.isfinite(row.mean) else "missing",
    note=f"{format_failures(row)} failed" if has_note else "",
    is_best=is_best,
  )


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
) -> Summary | None:
  """Headline numbers: the best of each kind for each d, and what is missing.

  Args:
    rows: of any metrics.
    expected: planned cells.

  Returns:
    The summary, None if there are neither rows nor planned cells.
  """
  if not (rows or expected):
    return None
  return Summary(_best_table(rows), _counts(rows), _missing(rows, expected))


def _best_table(rows):
  settings = results.settings_of(rows)
  columns = sorted({row.num_components for row in rows})
  lines = []
  for setting in settings:
    here = [
      row
      for row in rows
      if results.setting_of(row) == setting and row.metric == "l2_error"
    ]
    label = figure_style.setting_label(setting, settings)
    for kind, solver, means in _best_of_kinds(here):
      entries = [Entry(kind, "text"), Entry(solver, "text")]
      entries += [
        Entry(format_mean(*means[column]) if column in means else "–")
        for column in columns
      ]
      lines.append(Line(label, entries, kind))
      label = ""
  names = [Entry(""), Entry("kind", "text"), Entry("solver", "text")]
  return Table([*names, *_heads(columns)], lines)


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
    kind = results.family_of(solver)
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
  if not cells:
    return None
  counts = [row.count for row in cells.values()]
  ends = dict.fromkeys((min(counts), max(counts)))
  return Counts(
    solvers=len({row.solver for row in rows}),
    cells=len(cells),
    tasks=" to ".join(f"{count:,}" for count in ends),
    failures=f"{sum(row.failures for row in cells.values()):,}",
    solutions=f"{sum(counts):,}",
  )


def _missing(rows, expected):
  cells = results.missing(rows, expected)
  settings = settings_with(rows, expected)
  groups = {}
  for solver, setting, num_components, metric in cells:
    group = groups.setdefault((solver, setting), ({}, {}))
    group[0][num_components] = group[1][metric] = None
  gaps = [
    Gap(
      solver,
      figure_style.setting_label(setting, settings),
      list(columns),
      list(metrics),
    )
    for (solver, setting), (columns, metrics) in groups.items()
  ]
  return Missing(len(cells), len(dict.fromkeys(expected)), gaps)


def mapping_table(mapping: Mapping[str, object]) -> Table | None:
  """A mapping as a table; one of mappings has their keys as columns."""
  if not mapping:
    return None
  nested = [value for value in mapping.values() if isinstance(value, Mapping)]
  columns = list(dict.fromkeys(name for value in nested for name in value))
  lines = []
  for name, value in mapping.items():
    if isinstance(value, Mapping):
      values = [value.get(column, "–") for column in columns]
    else:
      values = [value]
    lines.append(Line(name, [Entry(_format(item)) for item in values]))
  heads = [Entry(""), *map(Entry, columns)] if columns else []
  return Table(heads, lines)


def _format(value):
  if isinstance(value, int) and not isinstance(value, bool):
    return f"{value:,}"
  return f"{value:.6g}" if isinstance(value, float) else str(value)


def _heads(columns):
  return [Entry(f"K = {column}") for column in columns]
