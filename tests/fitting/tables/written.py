"""Tables written in all the ways that programs write them, by rules."""

import csv
import io
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from tgmm_jax.fitting import tables

NAMES = ("x", "Länge (mm)", "b c", "7", "y,z", "größe")


class Written(NamedTuple):
  """A text and the points that it means."""

  content: bytes
  points: np.ndarray
  names: tuple[str, ...] | None


def read(content, **options):
  """What `tables.read` makes of a text or of bytes."""
  if isinstance(content, str):
    content = content.encode()
  return tables.read(io.BytesIO(content), **options)


@st.composite
def texts(draw):
  """Tables of numbers, in every dialect that has one meaning."""
  num_rows, dim = draw(st.integers(3, 12)), draw(st.integers(1, 4))
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  scale = draw(st.sampled_from((1e-8, 1.0, 1e3, 1e12)))
  points = scale * rng.normal(size=(num_rows, dim))
  if draw(st.booleans()):
    points = points.round(2)
  separator = draw(st.sampled_from(("\t", ";", "|", ",", " ", "   ")))
  decimal = draw(st.sampled_from((".", ",") if separator != "," else (".",)))
  header = draw(st.sampled_from(("none", "names", "counted", "index")))
  if dim == 1 and (decimal == "," or header == "counted"):
    header = "names"  # without one these have two meanings
  if header == "index" and separator.isspace() and separator != "\t":
    header = "names"  # runs of blanks have no empty cells
  # Alone a number is no name, and two names with a comma are no one name.
  known = [own for own in NAMES if dim > 1 or own not in ("7", "y,z")]
  names = draw(st.permutations(known))[:dim]
  if header == "counted":
    names = [str(index) for index in range(dim)]
  rows = [
    [repr(float(value)).replace(".", decimal) for value in row]
    for row in points
  ]
  head = [] if header == "none" else [list(names)]
  if header == "index":
    head = [["", *names]]
    rows = [[str(index), *row] for index, row in enumerate(rows)]
  text = _joined(draw, head + rows, separator)
  encoding = draw(
    st.sampled_from(("utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le"))
  )
  own = None if header == "none" else tuple(names)
  return Written(text.encode(encoding), points, own)


def _joined(draw, rows, separator):
  """Lines with the endings and quotes of some program."""
  stream = io.StringIO()
  rule = draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
  # What is a separator to somebody is quoted by everybody.
  own = separator[0]
  writer = csv.writer(stream, delimiter=own, quoting=rule, lineterminator="\n")
  writer.writerows(rows)
  text = stream.getvalue()
  if len(separator) > 1:
    text = "\n".join(
      line if '"' in line else line.replace(own, separator)
      for line in text.split("\n")
    )
  if draw(st.booleans()):
    text = text.removesuffix("\n")
  if draw(st.booleans()):
    text = text.replace("\n", "\n\n", 2)
  return text.replace("\n", draw(st.sampled_from(("\n", "\r\n", "\r"))))
