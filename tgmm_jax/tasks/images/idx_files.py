"""Arrays in IDX files, the format of MNIST and its relatives.

A file is two zero bytes, the type of the entries, the number of axes, the
sizes as big-endian 32-bit integers, then the entries. It may be compressed
with gzip, whatever its name says.
"""

import gzip
import math
import pathlib
import struct
import zlib

import numpy as np

# By the third byte of a file.
_DTYPES = {
  0x08: np.dtype(np.uint8),
  0x09: np.dtype(np.int8),
  0x0B: np.dtype(">i2"),
  0x0C: np.dtype(">i4"),
  0x0D: np.dtype(">f4"),
  0x0E: np.dtype(">f8"),
}
_GZIP_START = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20


def read(path: str | pathlib.Path) -> np.ndarray:
  """Reads the array of an IDX file, plain or compressed with gzip.

  Args:
    path: of the file.

  Returns:
    The array, in the byte order of the machine.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not IDX, shorter or longer than its sizes say, or
      its compressed data are damaged.
  """
  path = pathlib.Path(path)
  with path.open("rb") as file:
    is_compressed = file.read(2) == _GZIP_START
    file.seek(0)
    try:
      if not is_compressed:
        return _read(file, path)
      with gzip.GzipFile(fileobj=file) as uncompressed:
        return _read(uncompressed, path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      raise ValueError(f"{path} is damaged: {error}") from error


def _read(file, path):
  start = file.read(4)
  if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _DTYPES:
    raise ValueError(
      f"{path} starts with the bytes {start.hex(' ') or '(none)'}, takes an"
      " IDX file: 00 00, a type (08, 09, 0b to 0e), the number of axes"
    )
  num_axes = start[3]
  header = file.read(4 * num_axes)
  if not num_axes or len(header) < 4 * num_axes:
    raise ValueError(f"{path} ends within its header of {num_axes} sizes")
  shape = struct.unpack(f">{num_axes}I", header)
  dtype = _DTYPES[start[2]]
  expected = math.prod(shape) * dtype.itemsize
  # In pieces: what the header says may be more than there is memory.
  data = bytearray()
  while len(data) <= expected:
    chunk = file.read(min(_CHUNK_BYTES, expected + 1 - len(data)))
    if not chunk:
      break
    data += chunk
  if len(data) != expected:
    has = "more" if len(data) > expected else f"{len(data)}"
    raise ValueError(
      f"{path} has {has} bytes of entries, takes {expected} for its shape"
      f" {shape}"
    )
  array = np.frombuffer(data, dtype).reshape(shape)
  return array.astype(dtype.newbyteorder("="), copy=False)
