"""The tidy tables of a run: solvers in cells, and curves.

A cell is a setting of the tasks: dimension, K, N and shift. A curve is what
depends on one number. Every mean comes with its standard error and the number
of failed tasks; nothing is dropped.
"""

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tgmm_jax.training import files

# What solvers are measured by: they know the truth, and the true K.
REFERENCES = ("em/oracle", "labels", "sorted-loss/optimum")
# Under this name tables say something of the tasks themselves.
TASKS = "tasks"
# What the names of classical solvers and of constructed networks begin with.
_CLASSICAL, _CONSTRUCTED = ("em/", "spectral"), ("constructed/",)

# Depends on the machine, so two tables of the same evaluation differ in it.
_TIMING_METRICS = ("milliseconds",)


class Row(NamedTuple):
  """One metric of one solver in one cell; the columns of `results.csv`.

  Attributes:
    solver: name, as in `refiner+em5`.
    dim: d.
    num_components: K.
    num_points: N.
    shift: how far the tasks are from the law of training.
    shift_kind: in what; one of `shifts.KINDS`.
    metric: name, as in `l2_error`.
    mean: over the tasks; nan where the metric of any task is not finite.
    standard_error: of the mean; nan where the mean is, or for one task.
    count: number of tasks.
    failures: number of failed tasks of this solver in this cell, whatever the
      metric.
  """

  solver: str
  dim: int
  num_components: int
  num_points: int
  shift: float
  shift_kind: str
  metric: str
  mean: float
  standard_error: float
  count: int
  failures: int

  @property
  def estimate(self) -> float:
    """The mean."""
    return self.mean

  @property
  def key(self) -> tuple:
    """What is measured; a table has it once and is sorted by it."""
    return (
      *setting_of(self),
      self.num_components,
      self.solver,
      self.metric,
    )

  @property
  def label(self) -> str:
    """The same in words."""
    return (
      f"{self.solver}, {self.metric} for d = {self.dim}, K ="
      f" {self.num_components}, N = {self.num_points}, shift {self.shift:g} of"
      f" {self.shift_kind}"
    )


def family_of(solver: str) -> str:
  """Of a solver's name: "reference", "classical", "constructed", "trained"."""
  if solver in REFERENCES:
    return "reference"
  if solver.startswith(_CLASSICAL):
    return "classical"
  return "constructed" if solver.startswith(_CONSTRUCTED) else "trained"


class CurveRow(NamedTuple):
  """One point of a curve; the columns of `curves.csv`.

  Attributes:
    study: what was looked at; one table holds several.
    metric: the ordinate.
    series: which curve.
    x: the abscissa.
    value: the ordinate at it: a mean, or what the metric's name says.
    standard_error: of a mean over the problems; nan for anything else.
    count: number of problems.
    failures: number of problems that failed.
  """

  study: str
  metric: str
  series: str
  x: float
  value: float
  standard_error: float
  count: int
  failures: int

  @property
  def estimate(self) -> float:
    """The ordinate."""
    return self.value

  @property
  def key(self) -> tuple:
    """What is measured; a table has it once and is sorted by it."""
    return self[:4]

  @property
  def label(self) -> str:
    """The same in words."""
    return f"{self.study}, {self.metric} of {self.series} at {self.x:g}"


class Setting(NamedTuple):
  """What the cells of one table or panel have in common: all but K."""

  dim: int
  num_points: int
  shift_kind: str
  shift: float


def setting_of(row: Row) -> Setting:
  """The setting of a row."""
  return Setting(row.dim, row.num_points, row.shift_kind, row.shift)


def settings_of(rows: Iterable[Row]) -> list[Setting]:
  """The settings that occur in rows, ascending."""
  return sorted({setting_of(row) for row in rows})


def summarise(
  values: Mapping[str, np.ndarray],
  *,
  solver: str,
  dim: int,
  num_components: int,
  num_points: int,
  shift: float,
  shift_kind: str = "means",
  failed: np.ndarray,
) -> list[Row]:
  """Reduces the metrics of a solver's tasks in one cell to rows.

  A value that is not finite is not dropped: its task counts as failed, and
  the metric's mean is nan, so that nobody reads past it.

  Args:
    values: by metric, `[tasks]`.
    solver: name of the solver.
    dim: d of the cell.
    num_components: K of the cell.
    num_points: N of the cell.
    shift: shift of the cell.
    shift_kind: its kind.
    failed: `[tasks]` bool.

  Returns:
    One row per metric, in the order of `values`.

  Raises:
    ValueError: a metric has another shape than `failed`.
  """
  has_failed = np.array(failed, bool)
  arrays = {name: np.asarray(array, float) for name, array in values.items()}
  for name, array in arrays.items():
    if array.shape != has_failed.shape or array.ndim != 1:
      raise ValueError(
        f"values[{name!r}] has shape {array.shape}, takes the shape of "
        f"failed, {has_failed.shape}, with one axis"
      )
    has_failed |= ~np.isfinite(array)
  rows = []
  for name, array in arrays.items():
    mean, standard_error = _mean_and_standard_error(array)
    rows.append(
      Row(
        solver=solver,
        dim=int(dim),
        num_components=int(num_components),
        num_points=int(num_points),
        shift=float(shift),
        shift_kind=shift_kind,
        metric=name,
        mean=mean,
        standard_error=standard_error,
        count=array.size,
        failures=int(has_failed.sum()),
      )
    )
  return rows


def _mean_and_standard_error(array):
  if array.size == 0 or not np.isfinite(array).all():
    return math.nan, math.nan
  if array.size == 1:
    return float(array[0]), math.nan
  return float(array.mean()), float(array.std(ddof=1) / math.sqrt(array.size))


def mean_point(
  study: str, metric: str, series: str, x: float, values: np.ndarray
) -> CurveRow:
  """A point of a curve that is the mean of values `[problems]`.

  Values that are not finite are counted as failures and stay in the mean,
  which is nan then.
  """
  values = np.asarray(values, float)
  mean, standard_error = _mean_and_standard_error(values)
  return CurveRow(
    study,
    metric,
    series,
    float(x),
    mean,
    standard_error,
    values.size,
    int(np.sum(~np.isfinite(values))),
  )


def write_csv(
  path: str | os.PathLike,
  rows: Iterable[Row | CurveRow],
  row_type: type = Row,
) -> None:
  """Writes rows, sorted by what they measure; whole or not at all.

  Floats have the digits that give the same number back; the same rows in any
  order give the same bytes.

  Args:
    path: of the file; an old one is replaced.
    rows: what to write.
    row_type: `Row` or `CurveRow`.

  Raises:
    ValueError: two rows measure the same.
  """
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  writer.writerow(row_type._fields)
  last = None
  for row in sorted(rows, key=lambda row: row.key):
    if row.key == last:
      raise ValueError(f"rows has {row.label} twice, takes one row for each")
    last = row.key
    writer.writerow(
      repr(value) if isinstance(value, float) else value for value in row
    )
  files.write(path, buffer.getvalue().encode())


def read_csv(
  path: str | os.PathLike, row_type: type = Row
) -> list[Row] | list[CurveRow]:
  """Reads what `write_csv` wrote.

  Args:
    path: of the file.
    row_type: `Row` or `CurveRow`.

  Returns:
    The rows in the file's order.

  Raises:
    ValueError: other columns, or a value that does not fit its column.
  """
  types, fields = row_type.__annotations__.values(), row_type._fields
  with open(path, newline="", encoding="utf-8") as file:
    reader = csv.reader(file)
    header = tuple(next(reader, ()))
    if header != fields:
      raise ValueError(
        f"{path} has columns {','.join(header)!r}, takes {','.join(fields)!r}"
      )
    rows = []
    for cells in reader:
      try:
        pairs = zip(types, cells, strict=True)
        rows.append(row_type(*(convert(cell) for convert, cell in pairs)))
      except ValueError as error:
        raise ValueError(
          f"{path}, line {reader.line_num}, is {','.join(cells)!r}, takes "
          f"{len(fields)} values as {','.join(fields)}"
        ) from error
  return rows


def join(
  paths: Sequence[str | os.PathLike], row_type: type = Row
) -> list[Row] | list[CurveRow]:
  """Joins the tables of several runs, such as the elements of a sweep.

  Where files share a row (each element of a sweep evaluates the baselines) that
  of the first file stands, and the others must agree with it: the same counts,
  and means within one standard error. The tasks are the same, so more than
  rounding between machines means two different solvers under one name. Timings
  are exempt.

  Args:
    paths: of the files.
    row_type: `Row` or `CurveRow`.

  Returns:
    The rows, those of the first file first.

  Raises:
    ValueError: two files disagree.
  """
  joined, origin = {}, {}
  for path in paths:
    for row in read_csv(path, row_type):
      first = joined.setdefault(row.key, row)
      origin.setdefault(row.key, path)
      if not _agree(first, row):
        raise ValueError(
          f"{path} has {row.estimate:g} as {row.label}, takes"
          f" {first.estimate:g} as in {origin[row.key]}"
        )
  return list(joined.values())


def _agree(first, other):
  if first.metric in _TIMING_METRICS:
    return True
  if first.count != other.count:
    return False
  own, others = first.estimate, other.estimate
  if math.isnan(own) or math.isnan(others):
    return math.isnan(own) and math.isnan(others)
  # Not the error itself where it is nan, as for one task, or 0.
  margin = np.nan_to_num(first.standard_error) + 1e-5 * abs(own)
  return abs(own - others) <= margin


# What is planned: solver, setting, K, metric.
Cell = tuple[str, Setting, int, str]


def missing(rows: Iterable[Row], expected: Iterable[Cell]) -> list[Cell]:
  """Planned cells without a row, in the order of `expected`.

  Args:
    rows: what there is.
    expected: what was planned.
  """
  present = {
    (row.solver, setting_of(row), row.num_components, row.metric)
    for row in rows
  }
  return [cell for cell in dict.fromkeys(expected) if cell not in present]
