"""Files of NumPy: a table where they hold one, a line where they do not."""

import io
import math
import warnings
import zipfile
import zlib

import numpy as np
from numpy.lib import format as npy_format

from tgmm_jax.fitting.tables.record import Raw
from tgmm_jax.solvers import checks

# What an archive of several calls its table.
_NAMES = ("points", "X", "x", "data")


def of_npy(source: str, content: bytes) -> Raw:
  """The columns of a `.npy` file.

  Args:
    source: its name.
    content: its bytes.

  Raises:
    ValueError: it is damaged, holds objects, or no table of real numbers.
  """
  value = _array(source, content)
  if value.dtype.names is not None:
    if value.ndim != 1:
      raise ValueError(
        f"{source} has records of shape {value.shape}, takes [N]"
      )
    names = tuple(value.dtype.names)
    columns = [_native(value[name]) for name in names]
    for name, column in zip(names, columns, strict=True):
      if column.ndim != 1:
        raise ValueError(
          f"{source} has more than one value in a cell of column {name!r},"
          " takes one"
        )
    return Raw(source, names, columns, (".npy",), are_texts=False)
  if value.ndim not in (1, 2) or 0 in value.shape:
    raise ValueError(f"{source} has shape {value.shape}, takes [N] or [N, d]")
  value = np.asarray(checks.numbers_of(source, value, ("N", "d")), float)
  columns = list(value.reshape(len(value), -1).T)
  return Raw(source, None, columns, (".npy",), are_texts=False)


def of_npz(source: str, content: bytes) -> Raw:
  """The columns of the one array of a `.npz` file, or of that named "points".

  Args:
    source: its name.
    content: its bytes.

  Raises:
    ValueError: see `of_npy`; or there is not one array.
  """
  try:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
      members = {
        name.removesuffix(".npy"): name
        for name in archive.namelist()
        if name.endswith(".npy")
      }
      known = [name for name in _NAMES if name in members]
      if len(members) != 1 and not known:
        raise ValueError(
          f"{source} has the arrays {sorted(members)}, takes one, or one that"
          " is called 'points'"
        )
      name = known[0] if known else next(iter(members))
      found = of_npy(f"{source}: {name}", archive.read(members[name]))
  except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
    raise ValueError(f"{source} is a damaged .npz file: {error}") from error
  left = sorted(set(members) - {name})
  notes = (f"arrays left out: {', '.join(left)}",) if left else ()
  return found._replace(form=(f".npz, array {name!r}",), notes=notes)


def _array(source, content):
  """The array, if the file has as much as its header says."""
  stream = io.BytesIO(content)
  try:
    with warnings.catch_warnings():
      # Of files by Python 2; they are read all the same.
      warnings.simplefilter("ignore", UserWarning)
      version = npy_format.read_magic(stream)
      if version == (1, 0):
        shape, is_fortran, dtype = npy_format.read_array_header_1_0(stream)
      else:
        # Format 3 differs in names alone, and for them NumPy has no reader.
        shape, is_fortran, dtype = npy_format.read_array_header_2_0(stream)
        if version == (3, 0) and dtype.names:
          dtype.names = [
            name.encode("latin-1").decode() for name in dtype.names
          ]
  except Exception as error:
    # A header is a Python literal, which fails in many ways.
    line = str(error).strip().split("\n")[0][:100]
    raise ValueError(f"{source} is a damaged .npy file: {line}") from error
  if dtype.hasobject:
    raise ValueError(
      f"{source} has dtype object, takes numbers: save"
      " np.asarray(points, float)"
    )
  count = math.prod(shape)
  claimed, held = count * dtype.itemsize, len(content) - stream.tell()
  if min(shape, default=0) < 0 or claimed > held:
    raise ValueError(
      f"{source} is cut off: shape {shape} takes {claimed:,} bytes, it has"
      f" {held:,}"
    )
  if not dtype.itemsize or dtype.subdtype is not None:
    raise ValueError(f"{source} has dtype {dtype}, takes numbers")
  value = np.frombuffer(content, dtype, count, offset=stream.tell())
  return _native(value.reshape(shape, order="F" if is_fortran else "C"))


def _native(value):
  """In the byte order of the machine."""
  return value.astype(value.dtype.newbyteorder("="), copy=False)
