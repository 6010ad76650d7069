"""Files that are written whole or not at all."""

import json
import os
import pathlib
import secrets
import shutil
import time
from typing import Any

_MOST_LEVELS = 50
_TOO_DEEP = f"it is nested deeper than {_MOST_LEVELS} levels"


def write(path: str | os.PathLike, content: bytes) -> None:
  """Writes a file that is, whatever happens, the old one or the new one.

  Args:
    path: of the file; its folder is made if it does not exist.
    content: the bytes.

  Raises:
    OSError: the file cannot be written; an old one is as it was.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # Jobs of one array may write the same file at once; those of two containers
  # may have the same process id.
  temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
  try:
    with open(temporary, "xb") as file:  # never through a link
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes what JSON can hold, as `write` does."""
  write(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: str | os.PathLike) -> dict[str, Any]:
  """The object that a JSON file holds; an empty one if there is no file.

  Raises:
    ValueError: it holds anything else; the message names it, in one line.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return {}
  try:
    return parse_object(path.read_bytes())
  except ValueError as error:
    raise ValueError(f"{path} is damaged: {error}") from error


def parse_object(text: str | bytes) -> dict[str, Any]:
  """The JSON object that a text is.

  Raises:
    ValueError: it is none, or nested so deep that whoever walks through it
      would fail.
  """
  try:
    value = json.loads(text)
  except RecursionError:
    raise ValueError(_TOO_DEEP) from None
  if not isinstance(value, dict):
    raise ValueError(f"it holds {type(value).__name__}, takes a JSON object")
  check_depth(value)
  return value


def check_depth(value: Any) -> None:
  """Raises ValueError where JSON is nested deeper than we ever write it."""
  level = [value]
  for _ in range(_MOST_LEVELS):
    level = [
      below
      for own in level
      if isinstance(own, (dict, list))
      for below in (own.values() if isinstance(own, dict) else own)
    ]
    if not level:
      return
  raise ValueError(_TOO_DEEP)


def remove_folder(path: pathlib.Path):
  """Removes a folder, in which a failed save's threads may still write."""
  for seconds in (0.1, 1.0, 5.0):
    try:
      return shutil.rmtree(path)
    except OSError:
      time.sleep(seconds)
  shutil.rmtree(path)
