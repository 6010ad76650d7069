"""IDX files, written by hand, and what is not one."""

import gzip
import struct

import numpy as np
import pytest

from tgmm_jax.tasks.images import idx_files

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4"}
TYPES |= {0x0E: ">f8"}


def idx(array, type_byte=0x08):
  """The bytes of a file."""
  header = bytes([0, 0, type_byte, array.ndim])
  sizes = struct.pack(f">{array.ndim}I", *array.shape)
  return header + sizes + array.astype(TYPES[type_byte]).tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("type_byte", TYPES)
def test_every_type_is_read_plain_and_compressed(tmp_path, pack, type_byte):
  array = np.random.default_rng(0).integers(0, 100, (5, 3, 4))
  path = tmp_path / "a-file-of-any-name"
  path.write_bytes(pack(idx(array, type_byte)))
  read = idx_files.read(path)
  np.testing.assert_array_equal(read, array)
  assert read.dtype == np.dtype(TYPES[type_byte]).newbyteorder("=")


def test_an_empty_array_and_one_above_a_piece_are_read(tmp_path):
  path = tmp_path / "file"
  for shape in [(0, 3), (3, 1 << 20)]:
    array = np.random.default_rng(0).integers(0, 256, shape)
    path.write_bytes(idx(array))
    np.testing.assert_array_equal(idx_files.read(path), array)


GOOD = idx(np.zeros((10, 2, 2)))
# Without the time: names of tests are made of these bytes, and all workers
# must give them the same.
PACKED = gzip.compress(
  idx(np.random.default_rng(0).integers(0, 256, (99, 9))), mtime=0
)


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"", r"starts with the bytes \(none\), takes an IDX file"),
    (b"\0\0", "starts with the bytes 00 00, takes"),
    (b"\x89PNG\r\n\x1a\n", "starts with the bytes 89 50 4e 47, takes"),
    (b"\0\0\x07\x03" + GOOD[4:], "starts with the bytes 00 00 07 03, takes"),
    (b"\1\0\x08\x03" + GOOD[4:], "starts with the bytes 01 00 08 03, takes"),
    (b"\0\0\x08\x00", "ends within its header of 0 sizes"),
    (GOOD[:10], "ends within its header of 3 sizes"),
    (GOOD[:-1], r"has 39 bytes of entries, takes 40 for its shape \(10, 2, 2"),
    (GOOD + b"\0", "has more bytes of entries, takes 40"),
    (b"\0\0\x0e\x03" + b"\xff" * 12 + b"\0" * 9, "has 9 bytes of entries, ta"),
    (gzip.compress(GOOD[:-1], mtime=0), "has 39 bytes of entries, takes 40"),
    (
      gzip.compress(b"PNG..", mtime=0),
      "starts with the bytes 50 4e 47 2e, takes",
    ),
    (PACKED[:-20], "is damaged: "),
    (PACKED[:5], "is damaged: "),
    (PACKED[:-8] + b"\0" * 8, "is damaged: CRC"),
    (PACKED[:10] + b"\xff" * 99, "is damaged: Error -3 while decompressing"),
  ],
)
def test_other_files_are_refused(tmp_path, data, message):
  path = tmp_path / "file"
  path.write_bytes(data)
  with pytest.raises(ValueError, match=message) as caught:
    idx_files.read(path)
  assert str(caught.value).startswith(str(path))
  assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="nothing-there"):
    idx_files.read(tmp_path / "nothing-there")
