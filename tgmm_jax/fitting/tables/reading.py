"""A file as a table of points, whatever it is."""

import io
import os
from collections.abc import Sequence
from typing import BinaryIO

from tgmm_jax.fitting.tables import arrays, contents, text
from tgmm_jax.fitting.tables.columns import chosen
from tgmm_jax.fitting.tables.record import Raw, Table


def read(
  source: str | os.PathLike | BinaryIO,
  *,
  columns: Sequence[str | int] | None = None,
  like: Sequence[str] | None = None,
  missing: str = "error",
) -> Table:
  """Reads points from a file.

  What a file is its bytes tell: a text of any separator, decimal mark and
  encoding, `.npy`, `.npz` with one array, or `.parquet` (which needs pyarrow);
  packed by gzip, bzip2 or xz as well.

  Args:
    source: a path, or a file that is open for reading bytes.
    columns: the coordinates, by names or by numbers from 1 on; None takes
      all columns of numbers but for an index without a name.
    like: names of the columns of a fit: where the file names its columns these
      are taken, in this order, wherever they stand.
    missing: "error", or "drop" for rows with missing cells.

  Raises:
    ValueError: in one line, for what has no table of numbers.
    OSError: the file cannot be read.
  """
  name, content = contents.read(source)
  name, content = contents.unpacked(name, content)
  if not content:
    raise ValueError(f"{name} is empty")
  return chosen(
    _raw(name, content), columns=columns, like=like, missing=missing
  )


def _raw(name, content):
  match contents.kind_of(name, content):
    case "npy":
      return arrays.of_npy(name, content)
    case "npz":
      return arrays.of_npz(name, content)
    case "parquet":
      return _of_parquet(name, content)
  return text.of_text(name, *contents.decoded(name, content))


def _of_parquet(name, content):
  # Only here: pandas takes its time.
  import pandas as pd

  try:
    frame = pd.read_parquet(io.BytesIO(content))
  except ImportError:
    raise ValueError(
      f"{name} is a .parquet file, which pyarrow reads: pip install pyarrow"
    ) from None
  except Exception as error:
    # pyarrow has its own.
    line = " ".join(str(error).split())[:100]
    raise ValueError(f"{name} is a damaged .parquet file: {line}") from error
  names = tuple(map(str, frame.columns))
  series = [frame.iloc[:, index] for index in range(len(names))]
  return Raw(name, names, series, (".parquet",), are_texts=False)
