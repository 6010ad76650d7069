"""Separators, decimal marks and headers, and what has two meanings."""

import pytest

from tests.fitting.tables.written import read
from tgmm_jax.fitting.tables import dialect


@pytest.mark.parametrize(
  ("text", "separator", "decimal", "names"),
  [
    ("x,y\n1,2\n3,4", ",", ".", ("x", "y")),
    ("1,2\n3,4", ",", ".", None),
    ("1, 2\n3, 4", ",", ".", None),
    ("x;y\n1,5;2\n3;4,25", ";", ",", ("x", "y")),
    ("1,5;2,5\n3,5;4,5", ";", ",", None),
    ("1,5\t2,5\n3,5\t4,5", "\t", ",", None),
    ("1,5 2,5\n3,5 4,5", " ", ",", None),
    ("  1.5  2\n  3 4\n", " ", ".", None),
    ("1.5\t 2\n3\t4\n", "\t", ".", None),
    ("x|y\n1|2", "|", ".", ("x", "y")),
    ('"1,5","2,25"\n"3,5","4,1"', ",", ",", None),
    ("'1.5','2'\n'3','4'", ",", ".", None),
    ("my column\n1\n2", None, ".", ("my column",)),
    ("1.5\n2\n", None, ".", None),
    # One column with a decimal comma: 05 and -0 are no integers.
    ("1,50\n2,05\n", None, ",", None),
    ("-0,5\n1,5\n", None, ",", None),
    ("x\n1,5\n2,5\n", None, ",", ("x",)),
    ("x\n1,5e-07\n2,5\n", None, ",", ("x",)),
    ('"x,y"\n"1,5"\n"2,5"\n', None, ",", ("x,y",)),
    ("1,5\n2,6\n", ",", ".", None),
    # Dates and texts with blanks.
    ("t,x\n2024-01-01 10:00,1.5\n2024-01-02 11:00,2", ",", ".", ("t", "x")),
    ("John Smith;1,5\nJane Roe;2,5", ";", ",", None),
  ],
)
def test_separators_decimal_marks_and_headers(text, separator, decimal, names):
  found = dialect.guessed("a", [own for own in text.split("\n") if own])
  assert found.separator == separator
  assert found.decimal == decimal
  assert found.names == names


@pytest.mark.parametrize(
  ("lines", "num_points", "columns"),
  [
    # What pandas writes above columns and indices without names.
    (["0,1", "1.5,2.5", "3.5,4.5"], 2, ("0", "1")),
    ([",0,1", "0,1.5,2.5", "1,3.5,4.5"], 2, ("0", "1")),
    ([",0", "a,1.5", "b,3.5"], 2, ("0",)),
    (["0", "1.5", "2.5"], 2, ("0",)),
    # But these are points.
    (["0", "1", "0"], 3, ("1",)),
    (["0.0,1.0", "1.5,2.5"], 2, ("1", "2")),
    (["1,0", "1.5,2.5"], 2, ("1", "2")),
    # The first of the points, with a text that the others have as well.
    (["5.1,3.5,setosa", "4.9,3.0,setosa"], 2, ("1", "2")),
    (["5.1,3.5,setosa", "4.9,3.0,virginica"], 2, ("1", "2")),
    # Years as names.
    (["land,1990,1991", "A,1.5,2.5", "B,3,4"], 2, ("1990", "1991")),
    # R has no name for its row names.
    (['"x" "y"', '"1" 1.5 2', '"2" 3 4'], 2, ("x", "y")),
    (["x,y", "a,1,2", "b,3,4"], 2, ("x", "y")),
    # Separators at the ends.
    (["x,y", "1,2,", "3,4,"], 2, ("x", "y")),
    (["x,y,", "1,2", "3,4"], 2, ("x", "y")),
    # A name is missing, as is a value.
    (["x,", "1,2", "3,4"], 2, ("x", "column 2")),
    (["x,NA", "1,2", "3,4"], 2, ("x", "NA")),
  ],
)
def test_first_lines(lines, num_points, columns):
  found = read("\n".join(lines))
  assert found.columns == columns
  assert len(found.points) == num_points


def test_numbers_as_names_are_told():
  note = "the first line, 0,1, is taken for the header"
  assert read("0,1\n1.5,2.5\n").notes == (note,)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("x,y\n1,2\n3\n", "has '3' in row 2, 1 cell, takes 2 .separated by ','"),
    ("x,y\n1,2\n3,4,5\n", "in row 2, 3 cells, takes 2"),
    ("x,y\n1\n2\n3,4\n", "1 cell, takes 2"),
    (
      "x,y,z\n1.5,2,3,4\n1.5,6,7,8",
      "has a header of 3 cells, 'x, y, z', takes",
    ),
    ("x;y;z\n1;2\n3;4\n", "has a header of 3 cells"),
    ('"1,500","2,250"\n"3,500","4,100"', "its comma is a decimal mark or a"),
    ("1,50,2,05\n3,25,4,75\n", "takes another separator than ','"),
    ("1.5,b\n2,3\n4,5\n", "has 'b' in row 1, column 2, takes numbers"),
    ("x;y\n1,5;2.5\n3,5;4.5\n", "has '1,5' in row 1, column 'x'"),
    ('x;y\n1.5;"1,234"\n2.5;"2,345"', "has '1,234' in row 1, column 'y'"),
  ],
)
def test_what_is_uneven_or_has_two_meanings_is_refused(text, message):
  with pytest.raises(ValueError, match=message) as caught:
    read(text)
  assert "\n" not in str(caught.value)
