"""Which columns and rows of a file are points."""

import decimal
import fractions

import numpy as np
import pytest

from tests.fitting.tables.written import read
from tgmm_jax.fitting.tables import columns
from tgmm_jax.fitting.tables.record import Raw

TEXT = "id;x;kind;y;x\n7;1.5;u;2;9\n3;2.5;v;NA;8\n4;3.5;w;4;7\n"


@pytest.mark.parametrize(
  "cell", ["", " ", "NA", "n/a", "-", "?", "NaN", "null"]
)
@pytest.mark.parametrize("row", [0, 1, 4])
@pytest.mark.parametrize("header", ["", "x,y\n"])
def test_missing_cells_never_pass_in_silence(cell, row, header):
  lines = [f"{index}.5,{index}.25" for index in range(5)]
  lines[row] = f"{row}.5,{cell}"
  text = header + "\n".join(lines)
  name = "'y'" if header else "2"
  with pytest.raises(ValueError, match=f"row {row + 1}, column {name}; 1 of 5"):
    read(text)
  found = read(text, missing="drop")
  assert found.rows.tolist() == [i + 1 for i in range(5) if i != row]
  assert found.notes == ("left out: 1 row with missing cells",)


def test_columns_by_name_and_number():
  found = read(TEXT, columns=["5", "id"])
  assert found.columns == ("x", "id")
  np.testing.assert_array_equal(found.points, [[9, 7], [8, 3], [7, 4]])
  assert found.notes == ("left out: 'x', 'kind', 'y', not chosen",)
  found = read(TEXT, columns=[4, 1], missing="drop")
  np.testing.assert_array_equal(found.points, [[2, 7], [4, 4]])
  assert found.rows.tolist() == [1, 3]
  # A name comes before a number.
  assert read("2,b\n5.5,6.5\n", columns=["2"]).points.item() == 5.5


@pytest.mark.parametrize(
  ("chosen", "message"),
  [
    (["z"], "columns has 'z', takes some of 'id', 'x', 'kind', 'y', 'x'"),
    (["0"], "columns has '0', takes"),
    (["6"], "or numbers from 1 to 5"),
    (["x"], "which 2 columns are called, takes 2 or 5"),
    (["id", "1"], "columns has 'id' twice"),
    (["kind"], "has 'u' in row 1, column 'kind', takes numbers; there are 3"),
    ([], "columns is empty"),
  ],
)
def test_columns_that_cannot_be(chosen, message):
  with pytest.raises(ValueError, match=message):
    read(TEXT, columns=chosen)


def test_columns_of_a_fit_wherever_they_stand():
  found = read("y;q;x\n1;2;3\n", like=("x", "y"))
  assert found.columns == ("x", "y")
  assert found.points.tolist() == [[3.0, 1.0]]
  # Without names their number has to agree.
  assert read("1;2\n", like=("x", "y")).points.tolist() == [[1.0, 2.0]]
  with pytest.raises(ValueError, match="has 3 columns of numbers, takes 2: x"):
    read("1;2;3\n", like=("x", "y"))
  with pytest.raises(ValueError, match="has no column 'x', takes 'x', 'y'; it"):
    read("y;q\n1;2\n", like=("x", "y"))
  with pytest.raises(ValueError, match="has 2 column 'x'"):
    read("x;x\n1;2\n", like=("x",))
  assert read("y;q\n1;2\n", like=("x",), columns=["q"]).points.item() == 2.0


def test_one_wrong_cell_is_an_error_and_a_column_of_texts_is_not():
  with pytest.raises(ValueError, match="has 'b' in row 2, column 2, takes num"):
    read("1,2\n3,b\n4,5\n")
  found = read("x,code\n5,A7\n2,8\n3,B9\n")
  assert found.columns == ("x",)
  assert found.notes == ("left out: column 'code' has no numbers ('A7')",)
  with pytest.raises(ValueError, match="has no column of numbers; its columns"):
    read("x,y\na,b\nc,d\n")


def test_an_index_without_a_name_is_no_coordinate():
  for name in ("", "Unnamed: 0", "Unnamed: 0.1"):
    found = read(f"{name},x\n5,1.5\n2,2.5\n")
    assert found.columns == ("x",)
    assert found.notes == (
      f"left out: column {repr(name) if name else 1} is an index without a"
      " name",
    )
  # Asked for, it is one.
  assert read(",x\n5,1.5\n2,2.5\n", columns=["1"]).points[0, 0] == 5.0
  # Elsewhere a column may have lost its name.
  found = read("x,,y\n1,2.5,3\n4,5.5,6\n")
  assert found.columns == ("x", "column 2", "y")
  assert found.notes == ("column 2 has no name and is taken",)
  assert "counts the rows" in read("n,x\n1,5.5\n2,6\n3,9\n").notes[0]
  assert read("x,e\n1.5,\n2.5,\n").notes == ("left out: column 'e' is empty",)


@pytest.mark.parametrize(
  ("cell", "expected"),
  [
    *(("1", 1.0), ("-1.5e3", -1500.0), (".5", 0.5), ("1.", 1.0), ("+2", 2.0)),
    *(("1D-2", 0.01), ("true", 1.0), ("FALSE", 0.0), ("inf", np.inf)),
    *(("1,5", None), ("0x10", None), ("1_000", None), ("5%", None)),
    *(("1 2", None), ("nan", None), ("", None), ("12:30", None)),
  ],
)
def test_numbers_in_cells(cell, expected):
  assert columns.number_of(cell) == expected


def test_numbers_with_a_decimal_comma():
  assert columns.number_of("-1,5e3", ",") == -1500.0
  assert columns.number_of("1.5", ",") is None
  assert columns.number_of("1.234,5", ",") is None


def test_objects_of_every_kind():
  cells = [1, 2.5, decimal.Decimal("3.5"), fractions.Fraction(1, 2), True]
  own = np.array([*cells, None, float("nan"), np.float32(2)], object)
  raw = Raw("a", ("x",), [own], are_texts=False)
  found = columns.chosen(raw, missing="drop")
  assert found.points[:, 0].tolist() == [1.0, 2.5, 3.5, 0.5, 1.0, 2.0]
  for strange in (1j, [1], "1", b"1", np.datetime64(1, "s")):
    cells = np.empty(2, object)
    cells[0], cells[1] = strange, 1.0
    with pytest.raises(ValueError, match="row 1, column 'x', takes numbers"):
      columns.chosen(raw._replace(columns=[cells]))


def test_frames_know_what_is_missing():
  pd = pytest.importorskip("pandas")
  frame = pd.DataFrame(
    {
      "x": pd.array([1, None], "Int64"),
      "t": pd.to_datetime(["2024-01-01", "2024-01-02"]),
      "s": pd.to_timedelta([1, 2], "s"),
    }
  )
  raw = Raw("a", ("x", "t", "s"), [frame[name] for name in frame])
  found = columns.chosen(raw, missing="drop")
  assert found.columns == ("x",)
  assert found.points.tolist() == [[1.0]]


def test_integers_that_float64_rounds_are_told():
  with pytest.warns(UserWarning, match="column 'x' has integers that float64"):
    read("x,y\n9007199254740993,2\n3,4\n")
