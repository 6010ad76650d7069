"""How a text writes a table: separator, decimal mark, header; from its start.

A separator is right if the lines fall into equally many cells by it, and these
are numbers. Where a text can be meant in two ways it is refused, in a line.
"""

import csv
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from tgmm_jax.fitting.tables import columns
from tgmm_jax.fitting.tables.record import counted

# By priority, where two are equally right. A blank is for runs of blanks.
_SEPARATORS = ("\t", ";", "|", ",", " ")
_NAMES = {
  "\t": "separated by tabs",
  ";": "separated by ';'",
  "|": "separated by '|'",
  ",": "separated by ','",
  " ": "separated by spaces",
  None: "one cell a line",
}
_ONE_NUMBER = re.compile(r"[+-]?\d+(,\d+)?([eE][+-]?\d+)?")
# How nobody writes an integer, but every fraction: 05, and the whole part -0.
_FRACTION = re.compile(r"0\d+([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+")
# Cells that are shown of a line.
_MOST_SHOWN = 60


class Dialect(NamedTuple):
  """How the lines of a text are read.

  Attributes:
    separator: one character; a blank for runs of blanks; None for one cell.
    quote: mark around cells.
    decimal: "." or ",".
    names: of the header, "" where there is none; None without a header.
    num_cells: of every line after the header.
    num_headers: 1 if the first line is the header, 0 if none or a comment is.
  """

  separator: str | None
  quote: str
  decimal: str
  names: tuple[str, ...] | None
  num_cells: int
  num_headers: int

  @property
  def form(self) -> tuple[str, ...]:
    """In words."""
    words = (_NAMES[self.separator],)
    if self.decimal == ",":
      words += ("decimal comma",)
    return words


def guessed(
  source: str,
  lines: Sequence[str],
  *,
  separator: str | None = None,
  comment: str | None = None,
) -> Dialect:
  """How a text writes its table.

  Args:
    source: its name, for messages.
    lines: the first of them, neither blank nor comments.
    separator: where the text tells it.
    comment: the last comment before the lines, which may be the header.

  Raises:
    ValueError: the lines have unequal numbers of cells, or two meanings.
  """
  quote = _quote_of(lines)
  found = _reading(lines, separator, quote, ".")
  if separator is None:
    readings = [
      _reading(lines, own, quote, mark)
      for own in _SEPARATORS
      for mark in (".", ",")
    ]
    # The first of the best: by priority, and the decimal point before.
    found = max(readings, key=lambda own: own.score)
    if found.score == 0.0:
      found = _reading(lines, None, quote, ".")
    if _is_one_number_a_line(lines, found):
      found = _reading(lines, None, quote, ",")
  elif _reading(lines, separator, quote, ",").score > found.score:
    found = _reading(lines, separator, quote, ",")
  _refuse_two_meanings(source, found)
  return _with_header(source, found, comment)


def cells_of(
  lines: Sequence[str], separator: str | None, quote: str
) -> list[list[str]]:
  """The cells of each line, as `pandas` splits them.

  Args:
    lines: of a text.
    separator: see `Dialect`.
    quote: mark around cells.
  """
  if separator is None:
    return [[line.strip().strip(quote).strip()] for line in lines]
  if separator == " ":
    lines = [line.replace("\t", " ").strip() for line in lines]
  # A cell in quotes may go on in the next line.
  lines = [f"{line}\n" for line in lines]
  reader = csv.reader(
    lines, delimiter=separator, quotechar=quote, skipinitialspace=True
  )
  return [[cell.strip() for cell in cells] for cells in reader]


class _Reading(NamedTuple):
  """The lines as one separator and decimal mark read them.

  Attributes:
    separator: see `Dialect`.
    quote: mark around cells.
    decimal: "." or ",".
    rows: the cells of each line.
    num_cells: of most lines.
    score: from 0 to 1, how right that is.
  """

  separator: str | None
  quote: str
  decimal: str
  rows: list[list[str]]
  num_cells: int
  score: float

  @property
  def body(self):
    """The rows but the first, which may be a header."""
    return self.rows[1:] or self.rows

  @property
  def form(self):
    """How lines are split, in words."""
    return _NAMES[self.separator]

  def is_number(self, cell):
    """Whether a cell is a number, by the decimal mark."""
    return columns.number_of(cell, self.decimal) is not None

  def is_text(self, cell):
    """Whether a cell has a value that is no number."""
    return not self.is_number(cell) and not columns.is_missing(cell)


def _reading(lines, separator, quote, decimal):
  try:
    rows = cells_of(lines, separator, quote)
  except csv.Error:
    rows = [[]]
  found = _Reading(separator, quote, decimal, rows, 0, 0.0)
  counts = [len(row) for row in found.body]
  # Of two that are equally frequent that of the first line, if it is one.
  num_cells = max(
    set(counts), key=lambda own: (counts.count(own), own == len(rows[0]), own)
  )
  if len(rows[0]) > num_cells == 1 and not any(map(found.is_number, rows[0])):
    # Names that most lines do not follow: so they are broken.
    num_cells = len(rows[0])
  found = found._replace(num_cells=num_cells)
  if separator is not None and num_cells < 2:
    return found
  cells = [cell for row in found.body for cell in row]
  known = [cell for cell in cells if not columns.is_missing(cell)]
  if not known:
    return found
  share = counts.count(num_cells) / len(counts)
  share *= sum(map(found.is_number, known)) / len(known)
  return found._replace(score=round(share, 6))


def _quote_of(lines):
  """A single quote where every line has pairs of them, and no double ones."""
  text = "\n".join(lines)
  is_single = '"' not in text and all(
    line.count("'") and line.count("'") % 2 == 0 for line in lines
  )
  return "'" if is_single else '"'


def _is_one_number_a_line(given, found):
  """Whether what reads as two integers is one number with a decimal comma."""
  lines = [line.strip().strip(found.quote) for line in given]
  first, body = lines[0], lines[1:] or lines
  if not all(_ONE_NUMBER.fullmatch(line) for line in body):
    return False
  if not any("," in line for line in body):
    return False
  if not _ONE_NUMBER.fullmatch(first):
    # As many names as there are columns.
    (names,) = cells_of(given[:1], ",", found.quote)
    return len(names) == 1
  if "," not in first:
    return True
  parts = [line.split(",") for line in lines if "," in line]
  is_fraction = any(_FRACTION.fullmatch(fraction) for _, fraction in parts)
  return is_fraction or any(whole == "-0" for whole, _ in parts)


def _refuse_two_meanings(source, found):
  """What has commas both as separators and as decimal marks, or may have."""
  if found.separator != ",":
    return
  cells = [cell for row in found.body for cell in row]
  if found.decimal == ",":
    own = [cell for cell in cells if "," in cell and found.is_number(cell)]
    if own and all(_THOUSANDS.fullmatch(cell) for cell in own):
      raise ValueError(
        f"{source} has cells such as {own[0]!r}, takes a decimal point: its"
        " comma is a decimal mark or a mark of thousands"
      )
    return
  if any(map(found.is_text, found.rows[0])):
    return  # a header, with a name for each
  # 1,50,2,05 is a point with two decimal commas.
  rows = [row for row in found.rows if all(map(found.is_number, row))]
  wholes = [cell for row in rows for cell in row[0::2]]
  fractions = [cell for row in rows for cell in row[1::2]]
  is_even = all(len(row) % 2 == 0 for row in found.body)
  is_plain = all(cell.isdecimal() for cell in fractions)
  has_zeros = any(_FRACTION.fullmatch(cell) for cell in fractions)
  is_whole = all(_WHOLE.fullmatch(cell) for cell in wholes)
  if rows and is_even and is_plain and has_zeros and is_whole:
    raise ValueError(
      f"{source} has the line {','.join(rows[0])[:_MOST_SHOWN]!r}, takes"
      " another separator than ',' where the decimal mark is a comma"
    )


def _with_header(source, found, comment):
  """The dialect; says which line has another number of cells."""
  rows, count = found.rows, found.num_cells
  has_header = _is_header(found)
  names = rows[0] if has_header else None
  body = rows[1:] if has_header else rows
  if names is None and comment is not None:
    (cells,) = cells_of([comment], found.separator, found.quote)
    is_text = not any(found.is_number(cell) for cell in cells)
    names = cells if len(cells) == count and is_text else None
  for index, row in enumerate(body):
    if len(row) != count:
      raise ValueError(
        f"{source} has {_brief(row)} in row {index + 1},"
        f" {counted(len(row), 'cell')}, takes {count} ({found.form})"
      )
  if names is not None and len(names) != count:
    names = _fitted(source, found, names, body)
  if names is not None:
    names = tuple(" ".join(name.split()) for name in names)
  return Dialect(
    found.separator,
    found.quote,
    found.decimal,
    names,
    count,
    int(has_header),
  )


def _fitted(source, found, names, body):
  """Names for all columns where a header has one more or less of them."""
  count = found.num_cells
  if len(names) == count + 1 and not names[-1]:
    return names[:-1]
  if len(names) == count - 1:
    if not any(row[-1] for row in body):
      return [*names, ""]
    # R writes the names of the rows without one for themselves.
    firsts = [row[0] for row in body]
    is_unique = len(set(firsts)) == len(firsts)
    if is_unique and not any(_is_decimal(cell, found) for cell in firsts):
      return ["", *names]
  raise ValueError(
    f"{source} has a header of {len(names)} cells, {_brief(names)}, takes"
    f" {count} ({found.form})"
  )


def _is_header(found):
  """Whether the first line names the columns."""
  first = found.rows[0]
  if len(found.rows) < 2:
    return not any(map(found.is_number, first))
  if not any(map(found.is_text, first)):
    return _is_pandas_header(found)
  if len(first) != found.num_cells:
    return True
  has_numbers = [_mostly_numbers(found, index) for index in range(len(first))]
  pairs = list(zip(first, has_numbers, strict=True))
  if any(found.is_text(cell) and is_above for cell, is_above in pairs):
    # A text above numbers: a name, if no other cell is one of the data's.
    return not any(_is_decimal(cell, found) for cell in first)
  if not any(map(found.is_number, first)):
    return True
  # A line like the others, 5.1,3.5,setosa; but years are names.
  is_new = all(
    cell not in [row[index] for row in found.body if index < len(row)]
    for index, cell in enumerate(first)
  )
  own = [cell for cell, is_above in pairs if is_above]
  return is_new and len(own) > 1 and _are_years(own)


def _are_years(cells):
  """Whether cells are four digits, one after the other."""
  if not all(re.fullmatch(r"[12]\d{3}", cell) for cell in cells):
    return False
  return all(int(a) < int(b) for a, b in itertools.pairwise(cells))


def _is_decimal(cell, found):
  return found.is_number(cell) and not cell.lstrip("+-").isdecimal()


def _mostly_numbers(found, index):
  cells = [row[index] for row in found.body if index < len(row)]
  known = [cell for cell in cells if not columns.is_missing(cell)]
  return sum(map(found.is_number, known)) * 2 > len(known)


def _is_pandas_header(found):
  """0,1,2 as `pandas` numbers columns; with an empty cell above an index."""
  first = found.rows[0]
  if first[0] == "" and len(first) > 1:
    index = [row[0] for row in found.body if row]
    is_index = index == [str(row) for row in range(len(index))]
    is_index |= not _mostly_numbers(found, 0)
    return is_index and first[1:] == _counted(len(first) - 1)
  if len(first) == 1:
    # A column may well begin with 0: not where the others have decimals.
    cells = [row[0] for row in found.body if row]
    return first == ["0"] and all(_is_decimal(cell, found) for cell in cells)
  return first == _counted(len(first))


def _counted(count):
  return [str(index) for index in range(count)]


def _brief(row):
  text = repr(", ".join(row))
  return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...'"
