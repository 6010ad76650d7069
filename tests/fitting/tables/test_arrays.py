"""`.npy` and `.npz` of every shape and dtype: points or a line."""

import io
import warnings

import numpy as np
import pytest

from tests.fitting.tables.written import read

POINTS = np.array([[1.5, 2.0], [3.0, -4.25], [0.0, 8.0]])


def npy(value, **options):
  stream = io.BytesIO()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    np.save(stream, value, **options)
  return stream.getvalue()


def npz(**values):
  stream = io.BytesIO()
  np.savez(stream, **values)
  return stream.getvalue()


@pytest.mark.parametrize(
  "dtype", ["f8", "f4", "f2", ">f8", ">f4", "g", "i1", ">i8", "u2", "u8"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_of_every_dtype_and_order(dtype, order):
  expected = np.abs(POINTS) if dtype[0] == "u" else POINTS
  value = np.asarray(expected, dtype, order=order)
  found = read(npy(value))
  np.testing.assert_array_equal(found.points, value.astype(float))
  assert found.points.dtype == np.dtype("f8")


def test_truth_values_and_one_axis():
  np.testing.assert_array_equal(read(npy(POINTS > 1)).points, POINTS > 1)
  assert read(npy(POINTS[:, 0])).points.shape == (3, 1)


@pytest.mark.parametrize(
  "value",
  [
    np.float64(3.0),
    POINTS[None],
    POINTS[:0],
    POINTS[:, :0],
    POINTS + 1j,
    POINTS.astype(str),
    POINTS.astype("S8"),
    POINTS.astype("M8[D]"),
    POINTS.astype("m8[s]"),
    np.zeros((3, 2), "V4"),
    np.zeros((3, 2), "U0"),
    np.zeros((3, 2), [("x", "f8")]),
    np.zeros(3, [("x", "f8", (2,))]),
    np.zeros(3, [("x", [("y", "f8")])]),
    np.full((3, 2), np.nan),
  ],
  ids=str,
)
def test_all_else_is_a_line(value):
  with pytest.raises(ValueError, match=r"takes|has no") as caught:
    read(npy(value))
  assert "\n" not in str(caught.value)


def test_objects_are_not_unpickled():
  with pytest.raises(ValueError, match="has dtype object, takes numbers"):
    read(npy(POINTS.astype(object), allow_pickle=True))


def test_records_are_columns_with_names():
  value = np.zeros(2, [("μ", ">f4"), ("n", "i2"), ("t", "U3"), ("d", "M8[s]")])
  value["μ"], value["n"] = [1.5, 2.5], [3, 4]
  found = read(npy(value))
  assert found.columns == ("μ", "n")
  np.testing.assert_array_equal(found.points, [[1.5, 3.0], [2.5, 4.0]])
  assert len(found.notes) == 2


def test_missing_values_are_missing_cells():
  value = POINTS.copy()
  value[1, 0] = np.nan
  with pytest.raises(ValueError, match="no value in row 2, column 1"):
    read(npy(value))
  np.testing.assert_array_equal(
    read(npy(value), missing="drop").points, POINTS[[0, 2]]
  )


def test_more_is_claimed_than_there_is():
  content = npy(POINTS)
  huge = content.replace(b"(3, 2), }" + 11 * b" ", b"(30000000000, 2), } ")
  assert len(huge) == len(content)
  with pytest.raises(ValueError, match="takes 480,000,000,000 bytes, it has"):
    read(huge)
  with pytest.raises(ValueError, match="is cut off"):
    read(content[:-1])
  with pytest.raises(ValueError, match="is cut off"):
    read(content.replace(b"(3, 2)", b"(-3,2)"))


@pytest.mark.parametrize("end", [6, 7, 8, 10, 40, 127])
def test_headers_that_are_cut_off(end):
  with pytest.raises(ValueError, match="is a damaged .npy file|is cut off"):
    read(npy(POINTS)[:end])


def test_archives():
  for name in ("a", "points"):
    found = read(npz(**{name: POINTS}))
    np.testing.assert_array_equal(found.points, POINTS)
  found = read(npz(labels=np.arange(3), points=POINTS))
  np.testing.assert_array_equal(found.points, POINTS)
  assert found.notes == ("arrays left out: labels",)
  with pytest.raises(ValueError, match=r"has the arrays \['a', 'b'\], takes"):
    read(npz(a=POINTS, b=POINTS))
  with pytest.raises(ValueError, match=r"has the arrays \[\], takes one"):
    read(npz())
  content = npz(a=np.random.default_rng(0).normal(size=(99, 9)))
  with pytest.raises(ValueError, match="damaged"):
    read(content[:2000] + b"0000" + content[2004:])
