"""What stands around the rows of a text, and lines far down."""

import time

import numpy as np
import pytest

from tests.fitting.tables.written import read


def test_comments_blank_lines_and_told_separators():
  found = read("# made by hand\n\n1 2\n  \n# a pause\n3 4\n\n")
  np.testing.assert_array_equal(found.points, [[1, 2], [3, 4]])
  assert found.notes == ("left out: 2 comment lines",)
  found = read("sep=;\nx;y\n1,5;2\n")
  assert found.columns == ("x", "y")
  assert found.points.tolist() == [[1.5, 2.0]]


def test_the_last_comment_before_the_rows_may_be_the_header():
  found = read("% of a meter\n# x y\n1 2\n3 4\n")
  assert found.columns == ("x", "y")
  assert found.notes == ("left out: 1 comment line",)
  assert not read("# 5 points\n1 2\n3 4\n").has_names


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("3", "has '3' in row 1501, 1 cell, takes 2"),
    ("3,4,5", "has 3 cells in row 1501, takes 2"),
    ("3,b", "has 'b' in row 1501, column 'y', takes numbers"),
    ("3,", "no value in row 1501, column 'y'; 1 of 1,502 rows"),
  ],
)
def test_lines_beyond_those_that_tell_the_dialect(line, message):
  with pytest.raises(ValueError, match=message):
    read("x,y\n" + "1,2\n" * 1500 + line + "\n5,6\n")


@pytest.mark.parametrize("text", ["\n\n", "x,y\n", "# x\n", "sep=;\n", "hello"])
def test_texts_without_rows(text):
  with pytest.raises(ValueError, match="has no rows of numbers"):
    read(text)


def test_numbers_are_read_to_the_last_digit():
  points = np.random.default_rng(0).normal(size=(2000, 3)) * 10.0 ** (
    np.random.default_rng(1).integers(-300, 300, size=(2000, 3))
  )
  lines = [",".join(map(repr, row)) for row in points.tolist()]
  np.testing.assert_array_equal(read("\n".join(lines)).points, points)
  swapped = "\n".join(own.replace(",", ";").replace(".", ",") for own in lines)
  np.testing.assert_array_equal(read(swapped).points, points)


def test_cells_of_several_lines():
  found = read('x,"a\nb"\n1.5,"u\nv"\n2.5,"w\nz"\n')
  assert found.columns == ("x",)
  assert found.notes == ("left out: column 'a b' has no numbers ('u\\nv')",)
  assert found.points[:, 0].tolist() == [1.5, 2.5]
  found = read('"length\n(mm)",y\n1.5,2\n')
  assert found.columns == ("length (mm)", "y")
  # The first thousand lines end within a cell.
  text = "x,t\n1.5,u\n" + '2.5,"v\nw"\n' * 700
  assert len(read(text).points) == 701


def test_wide_tables_take_no_longer_than_their_cells():
  points = np.random.default_rng(0).normal(size=(300, 800)).round(3)
  text = "\n".join(",".join(map(str, row)) for row in points.tolist())
  start = time.perf_counter()
  np.testing.assert_array_equal(read(text).points, points)
  assert time.perf_counter() - start < 10.0
