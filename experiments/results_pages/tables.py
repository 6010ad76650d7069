"""The one small table of a page: which rows of the kept tables it shows.

A table is declared by the fields that its lines and its columns have; each of
its entries is the one row with the fields of both.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from tgmm_jax.evaluation import results
from tgmm_jax.figures import report_tables
from tgmm_jax.figures import style as figure_style

Row = results.Row | results.CurveRow
# What a row must have: by the name of a field its value.
Fields = Mapping[str, object]

# Failures are counted by this error, and are the same for every metric.
_ERROR = "l2_error"
# Classical solvers of a table that declares none.
_USUAL_SOLVERS = ("em/normal", "em/k-means++-x10", "spectral", "em/oracle")
# The truth itself, in the tables of spectra.
_TRUTH = "eigh"
_FAILURES = " In brackets: how many of them failed."


class Table(NamedTuple):
  """A table.

  Attributes:
    caption: what its numbers are.
    lines: by the head of a line and of a column the entry.
  """

  caption: str
  lines: Mapping[str, Mapping[str, str]]


# `rows -> table`, of all rows of a run.
TableOf = Callable[[Sequence[Row]], Table]


def find(rows: Sequence[Row], fields: Fields) -> Row | None:
  """The row with these fields, None if there is none.

  Args:
    rows: of a run.
    fields: what it must have.

  Raises:
    ValueError: there are several.
  """
  found = [
    row
    for row in rows
    if all(getattr(row, name, None) == value for name, value in fields.items())
  ]
  if len(found) > 1:
    raise ValueError(f"{dict(fields)} are {len(found)} rows, takes one")
  return found[0] if found else None


def text_of(row: Row) -> str:
  """`0.0210 ± 0.0016 (3)`: with the standard error and failures, if any."""
  value, error = row.estimate, row.standard_error
  if not error > 0 and abs(value) >= 1000 and float(value).is_integer():
    return f"{value:,.0f}"
  text = report_tables.format_mean(value, error)
  counts = isinstance(row, results.CurveRow) or row.metric == _ERROR
  return f"{text} ({row.failures})" if row.failures and counts else text


def solvers(*names: str) -> dict[str, Fields]:
  """Lines of solvers in cells, headed by their names."""
  return {f"`{name}`": {"solver": name} for name in names}


def series(*names: str) -> dict[str, Fields]:
  """Lines of curves, headed by their names."""
  return {name: {"series": name} for name in names}


def across(
  field: str, values: Iterable[object], head: str, **fields
) -> dict[str, Fields]:
  """Columns that differ in one field.

  Args:
    field: its name.
    values: in the order of the columns.
    head: of a column, with {} for the value.
    **fields: that they share.
  """
  return {head.format(value): {**fields, field: value} for value in values}


def cells(
  caption: str,
  lines: Mapping[str, Fields],
  columns: Mapping[str, Fields],
  **fields,
) -> TableOf:
  """A table whose entries are rows.

  Args:
    caption: what the numbers are; `{count}` is how many tasks they are of.
    lines: by their heads; where a line and a column have the same field, the
      line's counts.
    columns: by their heads.
    **fields: that all of them share.

  Returns:
    `rows -> table`. It raises ValueError where a line or a column is empty.
  """

  def table_of(rows):
    found = {
      (head, other): find(rows, {**fields, **column, **line})
      for head, line in lines.items()
      for other, column in columns.items()
    }
    found = {place: row for place, row in found.items() if row is not None}
    filled = {head for place in found for head in place}
    empty = [head for head in (*lines, *columns) if head not in filled]
    if empty:
      raise ValueError(
        f"{empty} have no rows, takes lines and columns with one"
      )
    texts = {place: text_of(row) for place, row in found.items()}
    return Table(
      _caption(caption, found.values(), texts.values()),
      {
        head: {other: texts.get((head, other), "–") for other in columns}
        for head in lines
      },
    )

  return table_of


def _caption(caption, rows, texts):
  """With the number of tasks, and what the brackets are if there are any."""
  counts = sorted({row.count for row in rows})
  ends = dict.fromkeys((counts[0], counts[-1]))
  caption = caption.format(count=" to ".join(f"{count:,}" for count in ends))
  return caption + (_FAILURES if any(text[-1] == ")" for text in texts) else "")


def default(rows: Sequence[Row]) -> Table:
  """Solvers by K at the first d and N, or series of the main study by x.

  Args:
    rows: of a run.
  """
  in_cells = [row for row in rows if isinstance(row, results.Row)]
  return _by_components(in_cells) if in_cells else _by_x(rows)


def _by_components(rows):
  plain = [row for row in rows if not row.shift]
  setting = results.settings_of(plain)[0]
  plain = [
    row
    for row in plain
    if row.metric == _ERROR and results.setting_of(row) == setting
  ]
  counts = sorted({row.num_components for row in plain})
  names = [
    name
    for name in figure_style.solvers_of(plain)
    if results.family_of(name) == "trained" or name in _USUAL_SOLVERS
  ]
  caption = (
    f"Squared error of the means at d = {setting.dim}, N ="
    f" {setting.num_points}, {{count}} tasks in each cell, with its standard"
    " error."
  )
  columns = across("num_components", counts, "K = {}")
  return cells(caption, solvers(*names), columns)(plain)


def _by_x(rows):
  studies = list(dict.fromkeys(row.study for row in rows))
  # Of spectra the curves over a size, of others the first.
  over = [study for study in studies if study.startswith("over ")]
  study = (over or studies)[0]
  own = [row for row in rows if row.study == study]
  metric = own[0].metric
  own = [row for row in own if row.metric == metric]
  names = dict.fromkeys(row.series for row in own if row.series != _TRUTH)
  columns = across("x", sorted({row.x for row in own}), "{:g}")
  caption = f"{study}: {metric}, with its standard error."
  return cells(caption, series(*names), columns)(own)
