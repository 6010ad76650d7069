"""The same points in every form in which people have them, and in bad ones.

Each entry of a table makes one of an array `[N, d]` of whole numbers from 0 to
127, which all dtypes hold.
"""

import decimal
import fractions
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

NAMES = ["length", "width"]


def points_of(num_points=24, seed=0):
  """Two groups far from each other, `[N, 2]`."""
  generator = np.random.default_rng(seed)
  labels = np.arange(num_points) % 2
  points = np.array([[20.0, 30.0], [90.0, 80.0]])[labels]
  return np.rint(points + 5.0 * generator.normal(size=points.shape))


def frame(points):
  return pd.DataFrame(points, columns=NAMES)


def polars_frame(points):
  polars = pytest.importorskip("polars")
  return polars.DataFrame({name: points[:, i] for i, name in enumerate(NAMES)})


def arrow_table(points):
  arrow = pytest.importorskip("pyarrow")
  return arrow.table({name: points[:, i] for i, name in enumerate(NAMES)})


def record(points, dtype=np.float64):
  fields = np.zeros(len(points), [(name, dtype) for name in NAMES])
  for index, name in enumerate(NAMES):
    fields[name] = points[:, index]
  return fields


def memory_map(points):
  # The file is gone when the map is.
  path = pathlib.Path(pytest.importorskip("tempfile").mkstemp(suffix=".npy")[1])
  np.save(path, points)
  mapped = np.load(path, mmap_mode="r")
  path.unlink()
  return mapped


def objects_of(points, make):
  return np.array([[make(int(x)) for x in row] for row in points], object)


class Holder:
  """Hands over its array in one way only."""

  def __init__(self, way, held):
    self._way, self._held = way, held

  def __getattr__(self, name):
    if name == self.__dict__["_way"]:
      return getattr(self._held, name)
    raise AttributeError(name)


class WithArray:
  """As arrays of most other libraries."""

  def __init__(self, held):
    self._held = held

  def __array__(self, dtype=None, copy=None):
    return np.array(self._held, dtype)


def torch_tensor(points, dtype):
  torch = pytest.importorskip("torch")
  return torch.tensor(points.tolist(), dtype=getattr(torch, dtype))


KINDS = {
  name: lambda points, name=name: points.astype(name)
  for name in (">f8", ">f4", "<f4", ">i4", ">i2", "int64", "int8", "uint8")
  + ("uint64", "float16", "longdouble")
} | {
  "bfloat16": lambda points: points.astype(ml_dtypes.bfloat16),
  "lists": lambda points: points.tolist(),
  "lists of int": lambda points: points.astype(int).tolist(),
  "tuples": lambda points: tuple(map(tuple, points.tolist())),
  "list of rows": list,
  "list of JAX's": lambda points: list(jnp.asarray(points)),
  "JAX": jnp.asarray,
  "columns first": np.asfortranarray,
  "backwards": lambda points: points[::-1, ::-1][::-1, ::-1],
  "no mask": np.ma.masked_array,
  "memory map": memory_map,
  "objects": lambda points: points.astype(object),
  "decimals": lambda points: objects_of(points, decimal.Decimal),
  "fractions": lambda points: objects_of(points, fractions.Fraction),
  "structured": record,
  "structured, >i4": lambda points: record(points, ">i4"),
  "records": lambda points: record(points).view(np.recarray),
  "frame": frame,
  "frame of int": lambda points: frame(points).astype(int),
  "frame of int8 and Float64": lambda points: frame(points).astype(
    {"length": np.int8, "width": "Float64"}
  ),
  "frame of Int64": lambda points: frame(points).convert_dtypes(),
  "frame of objects": lambda points: frame(points).astype(object),
  "frame of categories": lambda points: frame(points).astype("category"),
  "frame of Sparse": lambda points: frame(points).astype("Sparse[float]"),
  "frame, rows named": lambda points: frame(points).set_index(
    np.linspace(0.5, 7.0, len(points))[::-1]
  ),
  "frame, one name twice": lambda points: pd.DataFrame(
    points, columns=["x", "x"]
  ),
  "frame, numbers as names": pd.DataFrame,
  "list of series": lambda points: [row for _, row in frame(points).iterrows()],
  "Polars": polars_frame,
  "Arrow": arrow_table,
  "Arrow, a part": lambda points: arrow_table(points).to_batches()[0],
  "pandas with Arrow": lambda points: (
    arrow_table(points) and frame(points).astype("double[pyarrow]")
  ),
  "torch, float32": lambda points: torch_tensor(points, "float32"),
  "torch, int64": lambda points: torch_tensor(points, "int64"),
  "__array__": WithArray,
  "__array_interface__": lambda points: Holder("__array_interface__", points),
  "__dataframe__": lambda points: Holder("__dataframe__", frame(points)),
  "__arrow_c_stream__": lambda points: Holder(
    "__arrow_c_stream__", arrow_table(points)
  ),
}


def frame_with(**columns):
  def make(points):
    others = {
      name: values[: len(points)]
      if isinstance(values, pd.Series)
      else list(values) * len(points)
      for name, values in columns.items()
    }
    return frame(points).assign(**others)

  return make


def with_one(value):
  """An array of objects with one that is no number, at [3, 1]."""

  def make(points):
    spoiled = points.astype(object)
    spoiled[3, 1] = value
    return spoiled

  return make


def without_one(make):
  """A frame in which the second column has nothing in row 3."""

  def spoil(points):
    given = frame(points).convert_dtypes()
    given.loc[3, "width"] = pd.NA
    return make(given)

  return spoil


# Name: what makes it, and what the message has to say.
REFUSED = {
  "text": (lambda points: points.astype(str), "dtype <U"),
  "bytes": (lambda points: points.astype("S8"), r"dtype \|S8"),
  "text among lists": (lambda points: [["1", 2.0]] * 24, "dtype <U"),
  "dates": (lambda points: points.astype("M8[s]"), r"dtype datetime64\[s\]"),
  "spans": (lambda points: points.astype("m8[s]"), r"dtype timedelta64\[s\]"),
  "complex": (lambda points: points + 0j, "dtype complex128"),
  "sparse": (scipy.sparse.csr_array, "is a sparse csr_array"),
  "sparse matrix": (scipy.sparse.coo_matrix, "is a sparse coo_matrix"),
  "ragged": (lambda points: [*points.tolist(), [1.0]], "is ragged"),
  "ragged rows": (lambda points: [*points, np.ones(1)], "is ragged"),
  "masked": (
    lambda points: np.ma.masked_less(points, 25.0),
    "is a masked array with [0-9]+ masked values",
  ),
  "keys": (lambda points: jax.random.split(jax.random.key(0), 24), "dtype key"),
  "path": (lambda points: "points.csv", "is the text 'points.csv'"),
  "Path": (lambda points: pathlib.Path("points.csv"), r"Path\('points.csv'\)"),
  "None": (lambda points: None, "is None"),
  "dict": (lambda points: {"x": points}, "is a dict"),
  "object": (lambda points: object(), "is a object"),
  "None in it": (with_one(None), r"missing value at \[3, 1\]"),
  "pd.NA in it": (with_one(pd.NA), r"missing value at \[3, 1\]"),
  "pd.NaT in it": (with_one(pd.NaT), r"missing value at \[3, 1\]"),
  "a text in it": (with_one("a"), r"has the text 'a' at \[3, 1\]"),
  "a dict in it": (with_one({}), r"has a dict at \[3, 1\]"),
  "complex in it": (with_one(1j), r"has a complex at \[3, 1\]"),
  "too large": (with_one(10**400), "none of float64"),
  "missing in a frame": (
    without_one(lambda given: given),
    r"missing value at \[3, 'width'\]",
  ),
  "missing in Polars": (
    without_one(lambda given: pytest.importorskip("polars").DataFrame(given)),
    r"missing value at \[3, 'width'\]",
  ),
  "missing in Arrow": (
    without_one(lambda given: pytest.importorskip("pyarrow").table(given)),
    r"missing value at \[3, 'width'\]",
  ),
  "lazy Polars": (
    lambda points: polars_frame(points).lazy(),
    "is a LazyFrame",
  ),
  "text in a frame": (frame_with(kind="a"), r"the text 'a' at \[0, 'kind'\]"),
  "category in a frame": (
    frame_with(kind=pd.Series(["a", "b"] * 12, dtype="category")),
    r"the text 'a' at \[0, 'kind'\]",
  ),
  "dates in a frame": (
    frame_with(when=pd.Series(pd.date_range("2020", periods=24))),
    r"dtype datetime64\[.*\] in column 'when'",
  ),
  "dates with a zone": (
    frame_with(when=pd.Series(pd.date_range("2020", periods=24, tz="UTC"))),
    r"has a Timestamp at \[0, 'when'\]",
  ),
  "more than a number": (
    lambda points: np.zeros(24, [("x", float, (2,)), ("y", float)]),
    "more than a number in column 'x'",
  ),
}
