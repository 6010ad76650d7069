"""The bytes of a file: unpacked, what they are, and as text."""

import bz2
import codecs
import gzip
import io
import lzma
import os
import pathlib
import zipfile
import zlib
from typing import Any

_PACKED = {
  b"\x1f\x8b": gzip.decompress,
  b"BZh": bz2.decompress,
  b"\xfd7zXZ": lzma.decompress,
}
# What other files begin with, and what to do about it.
_STRANGE = {
  b"\x89HDF": "an HDF5 file",
  b"SIMPLE  =": "a FITS file",
  b"%PDF": "a PDF file",
  b"\x89PNG": "a picture",
  b"\xff\xd8\xff": "a picture",
  b"GIF8": "a picture",
  b"\xd0\xcf\x11\xe0": "an old Excel workbook",
  b"ARROW1": "an Arrow file",
  b"\x28\xb5\x2f\xfd": "a file packed by zstd",
  b"7z\xbc\xaf": "a file packed by 7-Zip",
  b"SQLite format 3": "a database",
}
_TAKES = "takes .csv, .tsv, .txt, .parquet, .npy or .npz, also packed by gzip"
# Suffixes of texts that are no tables.
_NO_TABLES = (".json", ".jsonl", ".ndjson", ".xml", ".html", ".htm", ".md")
_NO_TABLES += (".yaml", ".yml", ".toml", ".py", ".ipynb", ".arff", ".xlsx")
_NO_TABLES += (".xls", ".ods", ".h5", ".hdf5", ".fits", ".pkl", ".pickle")
_NO_TABLES += (".mat", ".rds", ".rdata", ".sav", ".feather", ".safetensors")
_MARKS = (
  (codecs.BOM_UTF8, "utf-8-sig"),
  # Before UTF-16's, which it begins with.
  (codecs.BOM_UTF32_LE, "utf-32"),
  (codecs.BOM_UTF32_BE, "utf-32"),
  (codecs.BOM_UTF16_LE, "utf-16"),
  (codecs.BOM_UTF16_BE, "utf-16"),
)


def read(source: Any) -> tuple[str, bytes]:
  """Name and bytes of a file.

  Args:
    source: a path, or a file that is open for reading bytes.

  Raises:
    OSError: the file cannot be read.
  """
  if hasattr(source, "read"):
    name = getattr(source, "name", None)
    is_path = isinstance(name, str) and not name.startswith("<")
    return (name if is_path else "standard input"), source.read()
  # Other than a path, a number would be that of an open file.
  path = pathlib.Path(source)
  if path.is_dir():
    raise ValueError(f"{path} is a folder, takes a file")
  return os.fspath(path), path.read_bytes()


def unpacked(name: str, content: bytes) -> tuple[str, bytes]:
  """Name without the packer's suffix, and bytes, of what may be packed.

  Raises:
    ValueError: it is damaged.
  """
  for mark, unpack in _PACKED.items():
    if content.startswith(mark):
      try:
        content = unpack(content)
      except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{name} cannot be unpacked: {error}") from error
      stem, suffix = os.path.splitext(name)
      is_packers = suffix.lower() in (".gz", ".gzip", ".bz2", ".xz")
      return (stem if is_packers else name), content
  return name, content


def kind_of(name: str, content: bytes) -> str:
  """What bytes are: "npy", "npz", "parquet" or "text".

  The bytes say it; the suffix is for what they do not tell.

  Args:
    name: of the file, for its suffix and the message.
    content: unpacked.

  Raises:
    ValueError: they are something else, or not what the suffix says.
  """
  suffix = pathlib.PurePath(name).suffix.lower()
  kind = _kind_of_bytes(name, content)
  if kind == "text" and suffix in (".npy", ".npz", ".parquet"):
    raise ValueError(f"{name} is no {suffix} file")
  if kind == "text" and suffix in _NO_TABLES:
    raise ValueError(f"{name} has the suffix {suffix!r}, {_TAKES}")
  return kind


def decoded(name: str, content: bytes) -> tuple[str, str]:
  """A text and its encoding.

  Args:
    name: of the file, for the message.
    content: UTF-8, UTF-16 or UTF-32 with or without a mark of the byte order,
      or else Latin-1.

  Raises:
    ValueError: it is no text.
  """
  encoding = _encoding_of(content)
  try:
    text = content.decode(encoding)
  except UnicodeDecodeError as error:
    if encoding != "utf-8":
      raise ValueError(f"{name} is no text in {encoding}: {error}") from error
    encoding = "latin-1"
    text = content.decode(encoding)
  if "\0" in text:
    raise ValueError(f"{name} is no text, {_TAKES}")
  # Some programs write minus and spaces of their own.
  for own, plain in (("\u2212", "-"), ("\u00a0", " "), ("\u202f", " ")):
    text = text.replace(own, plain)
  return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _kind_of_bytes(name, content):
  if content.startswith(b"\x93NUMPY"):
    return "npy"
  if content.startswith(b"PAR1"):
    return "parquet"
  if content.startswith(b"PK\x03\x04") or content.startswith(b"PK\x05\x06"):
    return _kind_of_zip(name, content)
  for mark, what in _STRANGE.items():
    if content.startswith(mark):
      raise ValueError(f"{name} is {what}, {_TAKES}")
  return "text"


def _kind_of_zip(name, content):
  try:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
      names = archive.namelist()
  except (zipfile.BadZipFile, OSError, ValueError) as error:
    raise ValueError(f"{name} is a damaged zip file: {error}") from error
  if any(own.startswith("xl/") for own in names):
    raise ValueError(f"{name} is an Excel workbook, {_TAKES}: export a sheet")
  if not names or any(own.endswith(".npy") for own in names):
    return "npz"
  raise ValueError(f"{name} is a zip file, {_TAKES}")


def _encoding_of(content):
  for mark, encoding in _MARKS:
    if content.startswith(mark):
      return encoding
  # Without a mark: digits and separators have a zero for their upper half.
  start = content[:4096]
  half = len(start) // 2
  if half and start[1::2].count(0) > 0.6 * half:
    return "utf-16-le"
  if half and start[0::2].count(0) > 0.6 * half:
    return "utf-16-be"
  return "utf-8"
