"""What a file holds, before and after its columns are chosen."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Raw(NamedTuple):
  """All columns of a file.

  Attributes:
    source: name of the file, for messages.
    names: of the columns, "" where a header names none; None without a header.
    columns: of equal length; arrays or series of any kind.
    form: how the file was read, in words.
    notes: what else there is to say, a line each.
    decimal: mark in numbers that are texts.
    are_texts: whether a text may be a number; not so where a file knows types.
  """

  source: str
  names: tuple[str, ...] | None
  columns: Sequence[Any]
  form: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()
  decimal: str = "."
  are_texts: bool = True


class Table(NamedTuple):
  """Points of a file, and what was left out of it.

  Attributes:
    points: `[N, d]` float64, without missing values.
    columns: d names; numbers, from "1", where the file names none.
    has_names: whether they are names of the file.
    rows: `[N]`, which row of the file each point is, from 1 on; blank lines,
      comments and the header do not count.
    num_rows: of the file.
    source: name of the file.
    form: how it was read, in words: the separator, the encoding.
    notes: what was left out and why, a line each.
  """

  points: np.ndarray
  columns: tuple[str, ...]
  has_names: bool
  rows: np.ndarray
  num_rows: int
  source: str
  form: tuple[str, ...]
  notes: tuple[str, ...]


def described(table: Table) -> tuple[str, ...]:
  """What was read, in lines: rows, columns, separator, what was left out."""
  count = len(table.columns)
  what = f"{counted(table.num_rows, 'row')}, {counted(count, 'column')}"
  shown = ", ".join(table.columns[:8]) + ", ..." * (count > 8)
  what += f" ({shown})" if table.has_names else " without names"
  parts = ", ".join((what, *table.form))
  return (f"{table.source}: {parts}", *table.notes)


def counted(count: int, what: str) -> str:
  """As in "1 row" and "2 rows"."""
  return f"{count:,} {what}{'s' * (count != 1)}"
