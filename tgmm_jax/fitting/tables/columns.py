"""Which columns of a file are coordinates, and which rows points."""

import decimal as decimal_lib
import numbers
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tgmm_jax.fitting.tables.record import Raw, Table, counted
from tgmm_jax.solvers import checks

# What happens to rows with missing cells.
MISSING = ("error", "drop")
# Cells without a value, in small letters.
_EMPTY = {"", "na", "n/a", "nan", "<na>", "#n/a", "#na", "nil", "null", "none"}
_EMPTY |= {"-", "--", "---", "?", ".", "*", "missing", "nat", "-nan", "+nan"}
_EMPTY |= {"#value!", "#div/0!", "#num!", "#ref!", "#name?", "#null!", "#n/v"}
_EMPTY |= {"\u2013", "\u2014", "1.#qnan", "-1.#ind", "1.#ind", "n.a.", "n.a"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([ed][+-]?\d+)?|[+-]?inf(inity)?")
_TRUTH = {"true": 1.0, "false": 0.0}
# What pandas calls a column without a name when it reads and writes it again.
_UNNAMED = re.compile(r"Unnamed: 0(\.\d+)*(_level_\d+)?")
# Of the texts of a column, in messages.
_MOST_SHOWN = 40


def is_missing(cell: str) -> bool:
  """Whether a cell is one of the ways to say that there is no value."""
  return cell.strip().lower() in _EMPTY


def number_of(cell: str, decimal: str = ".") -> float | None:
  """The number in a cell, or None.

  Args:
    cell: a text; "inf" is a number, "nan" is none.
    decimal: "." or ",".
  """
  text = cell.strip().lower()
  if decimal != ".":
    if "." in text:
      return None
    text = text.replace(decimal, ".")
  if _NUMBER.fullmatch(text):
    return float(text.replace("d", "e"))  # Fortran's 1.0D+00
  return _TRUTH.get(text)


def chosen(
  raw: Raw,
  *,
  columns: Sequence[str | int] | None = None,
  like: Sequence[str] | None = None,
  missing: str = "error",
) -> Table:
  """The points among the columns of a file.

  Args:
    raw: all columns.
    columns: names, or numbers from 1 on; None for all that have numbers, but
      for an index without a name.
    like: names that the columns must have, in this order, where the file names
      any, and their number where it names none. `columns` comes first.
    missing: one of `MISSING`: what happens to rows with missing cells.

  Raises:
    ValueError: there is no such column, none of numbers, a cell that is no
      number among numbers, or a missing one that is not to be dropped.
  """
  checks.name("missing", missing, MISSING)
  names = _shown_names(raw)
  notes = list(raw.notes)
  if columns is None and like is not None and raw.names is not None:
    columns = _like(raw, names, like)
  if columns is None:
    kept, more = _usable(raw, names)
    notes += more
  else:
    kept = _kept(raw, names, columns)
    notes += _not_chosen(names, [index for index, _ in kept])
  if like is not None and len(kept) != len(like):
    raise ValueError(
      f"{raw.source} has {len(kept)} columns of numbers, takes {len(like)}:"
      f" {', '.join(like)}"
    )
  own = [names[index] for index, _ in kept]
  points = np.stack([values for _, values in kept], axis=-1)
  titles = [_titles(raw, names)[index] for index, _ in kept]
  rows, more = _complete(raw.source, points, titles, missing)
  return Table(
    points=np.ascontiguousarray(points[rows]),
    columns=tuple(own),
    has_names=raw.names is not None,
    rows=rows + 1,
    num_rows=len(points),
    source=raw.source,
    form=raw.form,
    notes=(*notes, *more),
  )


class _Column(NamedTuple):
  """A column as numbers; `strange` cells, with their rows, are none."""

  values: np.ndarray
  strange: tuple[tuple[int, str], ...]
  num_strange: int


def _shown_names(raw):
  """A name for each column: its number where the file has none."""
  count = len(raw.columns)
  if raw.names is None:
    return [str(index + 1) for index in range(count)]
  return [name or f"column {i + 1}" for i, name in enumerate(raw.names)]


def _titles(raw, names):
  """How columns are called within a sentence."""
  own = raw.names or [""] * len(names)
  return [
    f"column {name!r}" if has_name else f"column {index + 1}"
    for index, (name, has_name) in enumerate(zip(names, own, strict=True))
  ]


def _usable(raw, names):
  """Indices and numbers of the columns that are taken if nobody chooses."""
  kept, notes, titles = [], [], _titles(raw, names)
  for index in range(len(names)):
    if _is_index(raw, index):
      what = "is an index without a name"
    else:
      column = _numbers(raw, index)
      what = _why_not(column)
      is_doubtful = what is None or _has_other_mark(raw, column)
      if column.num_strange and is_doubtful:
        raise ValueError(_strange(raw.source, titles[index], column))
    if what is None:
      kept.append((index, column.values))
      if raw.names is not None and not raw.names[index]:
        notes.append(f"{titles[index]} has no name and is taken")
      elif len(names) > 1 and _counts_rows(column.values):
        notes.append(
          f"{titles[index]} counts the rows and is taken;"
          " --columns takes others"
        )
    else:
      notes.append(f"left out: {titles[index]} {what}")
  if not kept:
    shown = ", ".join(map(repr, names[:8]))
    raise ValueError(
      f"{raw.source} has no column of numbers; its columns are {shown}"
    )
  return kept, notes


def _is_index(raw, index):
  """Whether a column is the row names that a program wrote beside others."""
  if raw.names is None or index or len(raw.names) == 1:
    return False
  return not raw.names[0] or _UNNAMED.fullmatch(raw.names[0]) is not None


def _why_not(column):
  """Why a column is no coordinate; None if it is one, or nearly."""
  num_numbers = np.sum(~np.isnan(column.values))
  if not num_numbers and not column.num_strange:
    return "is empty"
  if column.num_strange > num_numbers:
    return f"has no numbers ({_brief(column.strange[0][1])})"
  return None


def _has_other_mark(raw, column):
  """Whether the first text is a number with the other decimal mark."""
  if not column.num_strange or not raw.are_texts:
    return False
  other = "," if raw.decimal == "." else "."
  return number_of(column.strange[0][1], other) is not None


def _counts_rows(values):
  is_whole = len(values) > 2 and values[0] in (0.0, 1.0)
  return is_whole and bool(np.all(np.diff(values) == 1.0))


def _kept(raw, names, columns):
  """Indices and numbers of the columns that are asked for."""
  indices = [_index_of(raw, names, column) for column in columns]
  if not indices:
    raise ValueError(f"columns is empty, takes some of {_some(names)}")
  kept = []
  for index in indices:
    if indices.count(index) > 1:
      raise ValueError(f"columns has {names[index]!r} twice, takes it once")
    column = _numbers(raw, index)
    if column.num_strange:
      raise ValueError(_strange(raw.source, _titles(raw, names)[index], column))
    kept.append((index, column.values))
  return kept


def _index_of(raw, names, column):
  """Where a column stands that is told by its name or number."""
  text = str(column).strip()
  is_number = not isinstance(column, str)
  if raw.names is not None and not is_number:
    found = [i for i, name in enumerate(raw.names) if name == text]
    if len(found) > 1:
      numbers = " or ".join(str(index + 1) for index in found)
      raise ValueError(
        f"columns has {text!r}, which {len(found)} columns are called, takes"
        f" {numbers}"
      )
    if found:
      return found[0]
  if text.isdecimal() and 1 <= int(text) <= len(names):
    return int(text) - 1
  raise ValueError(
    f"columns has {text!r}, takes some of {_some(names)}, or numbers from 1 to"
    f" {len(names)}"
  )


def _not_chosen(names, indices):
  left = [name for i, name in enumerate(names) if i not in indices]
  if not left:
    return []
  return [f"left out: {_some(left)}, not chosen"]


def _like(raw, names, like):
  """The columns of a file that others are called."""
  for name in like:
    if raw.names.count(name) != 1:
      count = raw.names.count(name) or "no"
      raise ValueError(
        f"{raw.source} has {count} column {name!r}, takes {_some(like)}; it"
        f" has {_some(names)}"
      )
  return like


def _some(names):
  more = ", ..." if len(names) > 8 else ""
  return ", ".join(map(repr, names[:8])) + more


def _complete(source, points, titles, missing):
  """Indices of the rows without missing cells, and what to say of others."""
  is_empty = np.isnan(points)
  rows = np.flatnonzero(~np.any(is_empty, axis=1))
  count = len(points) - len(rows)
  if count and missing == "error":
    row, column = np.argwhere(is_empty)[0]
    raise ValueError(
      f"{source} has no value in row {row + 1}, {titles[column]};"
      f" {count} of {counted(len(points), 'row')} with missing cells, which"
      " --missing=drop leaves out"
    )
  if not len(rows):
    what = "rows without missing cells" if len(points) else "rows of numbers"
    raise ValueError(f"{source} has no {what}")
  if not count:
    return rows, []
  return rows, [f"left out: {counted(count, 'row')} with missing cells"]


def _strange(source, title, column):
  row, cell = column.strange[0]
  more = f"; there are {column.num_strange}" if column.num_strange > 1 else ""
  return (
    f"{source} has {_brief(cell)} in row {row + 1}, {title}, takes numbers"
    f"{more}"
  )


def _brief(cell):
  text = repr(cell)
  return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...'"


def _numbers(raw, index) -> _Column:
  """A column as numbers, NaN where it is missing or strange."""
  values = raw.columns[index]
  name = _shown_names(raw)[index]
  dtype = getattr(values, "dtype", None)
  if isinstance(dtype, np.dtype) and checks.is_real(dtype):
    found = checks.numbers_of(f"column {name!r}", np.asarray(values), ("N",))
    return _Column(np.asarray(found, float), (), 0)
  if getattr(dtype, "kind", "O") in "mM":
    # As objects some of them are integers.
    values = np.asarray(values).astype(str)
  return _of_cells(_cells_of(values), raw)


def _cells_of(values) -> Sequence[Any]:
  """The cells of a column, None for what its own library calls missing."""
  cells = np.asarray(values, object)
  if hasattr(values, "isna"):
    cells = np.where(np.asarray(values.isna(), bool), None, cells)
  return cells


def _of_cells(cells, raw) -> _Column:
  found, strange, count = np.full(len(cells), np.nan), [], 0
  for row, cell in enumerate(cells):
    if isinstance(cell, str):
      if is_missing(cell):
        continue
      value = number_of(cell, raw.decimal) if raw.are_texts else None
    elif cell is None or _is_nan(cell):
      continue
    else:
      value = _number_of_object(cell)
    if value is None:
      count += 1
      if count == 1:
        strange.append((row, str(cell)))
    else:
      found[row] = value
  return _Column(found, tuple(strange), count)


def _is_nan(cell):
  # A cell may be a list, too.
  return isinstance(cell, numbers.Number) and bool(cell != cell)


def _number_of_object(cell):
  """Of Python's and NumPy's real numbers."""
  if not isinstance(cell, numbers.Real | decimal_lib.Decimal):
    return None
  try:
    return float(cell)
  except (TypeError, ValueError, OverflowError):
    return None
