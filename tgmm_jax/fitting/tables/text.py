"""The columns of a text, read by `pandas` in the dialect of its start."""

import io
import re

from tgmm_jax.fitting.tables import columns, dialect
from tgmm_jax.fitting.tables.record import Raw, counted

# Lines from which the dialect is guessed, fewer where they are long.
_NUM_LINES, _NUM_LETTERS, _LEAST_LINES = 1000, 100_000, 20
_COMMENTS = ("#", "%", "//")
_UNEVEN = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
# A line within the text that is blank, or a comment.
_NO_ROW = re.compile(r"\n[ \t]*(\n|#|%|//)")
_TELLS_SEPARATOR = re.compile(r"\ufeff?sep=(.)", re.IGNORECASE)


def of_text(source: str, text: str, encoding: str = "utf-8") -> Raw:
  """The columns of a text.

  Args:
    source: its name, for messages.
    text: lines that end in line feeds.
    encoding: it was written in, to be told.

  Raises:
    ValueError: it has no rows, or they are unequal.
  """
  head, position, comments, separator = _preamble(text)
  if not head:
    raise ValueError(f"{source} has no rows of numbers")
  found = dialect.guessed(
    source,
    head,
    separator=separator,
    comment=comments[-1].lstrip("#%/").strip() if comments else None,
  )
  body, num_inner = _body(text[position:])
  frame = _frame(source, body, found)
  if not len(frame):
    raise ValueError(f"{source} has no rows of numbers")
  own = [frame[index] for index in range(found.num_cells)]
  if own[-1].isna().any():
    _refuse_short_lines(source, body, found)
  form = found.form
  if encoding not in ("utf-8", "utf-8-sig"):
    form += (encoding,)
  notes = []
  if found.names is not None and not any(map(_is_name, found.names)):
    shown = (found.separator or "").join(found.names)
    notes.append(f"the first line, {shown}, is taken for the header")
  is_last_names = found.names is not None and not found.num_headers
  count = num_inner + len(comments) - is_last_names
  if count:
    notes.append(f"left out: {counted(count, 'comment line')}")
  return Raw(source, found.names, own, form, tuple(notes), found.decimal)


def _preamble(text):
  """First lines, where they begin, comments before, and a told separator."""
  lines, comments, separator = [], [], None
  position = start = 0
  while position < len(text) and len(lines) < _NUM_LINES:
    if position - start > _NUM_LETTERS and len(lines) >= _LEAST_LINES:
      break
    end = text.find("\n", position)
    end = len(text) if end < 0 else end
    line = text[position:end]
    position = end + 1
    if not line.strip():
      continue
    told = _TELLS_SEPARATOR.fullmatch(line.strip(" "))
    if not lines and told and separator is None:
      separator = told[1]
    elif line.lstrip().startswith(_COMMENTS):
      comments += [] if lines else [line]
    else:
      start = start if lines else end - len(line)
      lines.append(line)
  # A cell may go over several lines: those of the last may be missing.
  while position < len(text) and "".join(lines).count('"') % 2:
    lines.pop()
  return lines, start, comments, separator


def _body(text):
  """A text without blank lines and comments, and how many comments it had."""
  if not _NO_ROW.search(text):
    return text, 0
  lines = [line for line in text.split("\n") if line.strip()]
  rows = [line for line in lines if not line.lstrip().startswith(_COMMENTS)]
  return "\n".join(rows), len(lines) - len(rows)


def _frame(source, body, found):
  # Only here: pandas takes its time.
  import pandas as pd

  # To the last digit; what older versions must be told newer ones refuse.
  version = tuple(map(int, pd.__version__.split(".")[:2]))
  is_told = version < (3, 1)
  separator = {" ": r"\s+", None: "\0"}.get(found.separator, found.separator)
  try:
    return pd.read_csv(
      io.BytesIO(body.encode()),
      sep=separator,
      decimal=found.decimal,
      quotechar=found.quote,
      header=None,
      names=range(found.num_cells),
      skiprows=found.num_headers,
      skipinitialspace=True,
      # What is missing is told by `columns`, in any mixture of letters.
      keep_default_na=False,
      na_values=["", "NA", "NaN", "nan", "N/A", "-", "NULL", "null"],
      **({"float_precision": "round_trip"} if is_told else {}),
      low_memory=False,
    )
  except pd.errors.EmptyDataError:
    raise ValueError(f"{source} has no rows of numbers") from None
  except pd.errors.ParserError as error:
    uneven = _UNEVEN.search(str(error))
    if uneven is None:
      raise ValueError(f"{source} cannot be read: {error}") from None
    takes, line, count = map(int, uneven.groups())
    raise ValueError(
      f"{source} has {count} cells in row {line - found.num_headers}, takes"
      f" {takes} ({found.form[0]})"
    ) from None


def _refuse_short_lines(source, body, found):
  """`pandas` fills up lines that end early; they are broken."""
  lines = [line for line in body.split("\n") if line.strip()]
  rows = dialect.cells_of(lines, found.separator, found.quote)
  for index, row in enumerate(rows[found.num_headers :]):
    if len(row) < found.num_cells:
      shown = (found.separator or "").join(row)[:40]
      raise ValueError(
        f"{source} has {shown!r} in row {index + 1},"
        f" {counted(len(row), 'cell')}, takes {found.num_cells}"
        f" ({found.form[0]})"
      )


def _is_name(cell):
  return not cell.isdecimal() and not columns.is_missing(cell)
