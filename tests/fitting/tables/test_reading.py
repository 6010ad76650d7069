"""Files of every kind, read as the points that they mean."""

import bz2
import contextlib
import gzip
import io
import lzma

import hypothesis
import numpy as np
import pytest

from tests.fitting.tables import written
from tests.fitting.tables.written import read
from tgmm_jax.fitting import tables


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(written.texts())
def test_a_text_is_what_was_written(table):
  found = read(table.content)
  np.testing.assert_array_equal(found.points, table.points)
  assert found.points.dtype == np.float64
  assert found.has_names == (table.names is not None)
  if table.names is not None:
    assert found.columns == table.names


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_and_suffixes_of_any_case(pack, tmp_path):
  for name in ("DATA.CSV", "a.tsv", "a.txt", "a.dat", "a"):
    path = tmp_path / name
    path.write_text("x,y\n1.5,2\n3,4\n")
    assert tables.read(path).points.shape == (2, 2)
    path = tmp_path / f"{name}.GZ"
    path.write_bytes(pack(b"x,y\n1.5,2\n3,4\n"))
    assert tables.read(str(path)).points.shape == (2, 2)


def test_what_was_read_is_told():
  text = ",b;c,name\n0,1.5,u\n1,,v\n2,2.5,w\n".replace(",", "\t")
  found = read(text.encode("utf-16"), missing="drop")
  assert tables.described(found) == (
    "standard input: 3 rows, 1 column (b;c), separated by tabs, utf-16",
    "left out: column 1 is an index without a name",
    "left out: column 'name' has no numbers ('u')",
    "left out: 1 row with missing cells",
  )
  np.testing.assert_array_equal(found.rows, [1, 3])
  assert found.num_rows == 3


def test_a_folder_and_a_missing_file(tmp_path):
  with pytest.raises(ValueError, match="is a folder, takes a file"):
    tables.read(tmp_path)
  with pytest.raises(FileNotFoundError):
    tables.read(tmp_path / "a.csv")


def test_parquet(tmp_path):
  pd = pytest.importorskip("pandas")
  pytest.importorskip("pyarrow")
  frame = pd.DataFrame({"b": [1.5, 2.5], "t": ["u", "v"], "a": [1, 2]})
  frame.to_parquet(tmp_path / "a.parquet")
  found = tables.read(tmp_path / "a.parquet")
  assert found.columns == ("b", "a")
  np.testing.assert_array_equal(found.points, [[1.5, 1.0], [2.5, 2.0]])
  content = (tmp_path / "a.parquet").read_bytes()
  with pytest.raises(ValueError, match="is a damaged .parquet file"):
    tables.read(io.BytesIO(content[:-20]))


def test_parquet_without_its_reader(monkeypatch):
  import pandas as pd

  def missing(_):
    raise ImportError("Unable to find a usable engine\ntried pyarrow")

  monkeypatch.setattr(pd, "read_parquet", missing)
  with pytest.raises(ValueError, match="pip install pyarrow") as caught:
    read(b"PAR1")
  assert "\n" not in str(caught.value)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
  hypothesis.strategies.sampled_from(
    (b"x,y\n1,2\n", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x1f\x8b", b"")
  ),
  hypothesis.strategies.binary(max_size=200),
)
def test_bytes_without_sense_are_a_line(start, rest):
  with contextlib.suppress(ValueError):
    assert read(start + rest).points.ndim == 2
