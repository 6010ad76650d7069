"""Files that are written whole or not at all."""

import json
import os
import pathlib
import shutil
import time
from typing import Any


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
  # Jobs of one array may write the same file at once.
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    with open(temporary, "wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes what JSON can hold, as `write` does."""
  write(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: str | os.PathLike) -> Any:
  """What a JSON file holds; an empty mapping if there is none."""
  path = pathlib.Path(path)
  return json.loads(path.read_text()) if path.exists() else {}


def remove_folder(path: pathlib.Path):
  """Removes a folder, in which a failed save's threads may still write."""
  for seconds in (0.1, 1.0, 5.0):
    try:
      return shutil.rmtree(path)
    except OSError:
      time.sleep(seconds)
  shutil.rmtree(path)
