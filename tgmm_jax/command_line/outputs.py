"""Files that a command writes: whether it may, before it works for them."""

import os
import pathlib
from collections.abc import Sequence

# Of files for fits, as `fitting` writes them, and of pictures. They are written
# down here since what writes them takes its time to import.
FITS = (".json", ".safetensors")
PICTURES = (".png", ".pdf")


def check(
  option: str,
  path: str | None,
  *,
  inputs: Sequence[str],
  is_forced: bool,
  suffixes: Sequence[str] = (),
) -> None:
  """Refuses a file that cannot or must not be written.

  Args:
    option: which names it.
    path: of the file; nothing is to be written to None.
    inputs: files that the command reads, or writes besides: never replaced.
    is_forced: whether another file that exists may be replaced.
    suffixes: that are taken, in small letters; all, if there are none.

  Raises:
    ValueError: in one line.
  """
  if path is None:
    return
  target = pathlib.Path(path)
  if suffixes and target.suffix.lower() not in suffixes:
    raise ValueError(
      f"{option} is {path!r}, takes a path that ends in {' or '.join(suffixes)}"
    )
  if any(_are_same(path, other) for other in inputs):
    raise ValueError(f"{option} is {path!r}, takes a path of its own")
  folder = pathlib.Path(os.path.realpath(target)).parent
  if not folder.is_dir():
    raise ValueError(
      f"{option} is {path!r}, takes a path in a folder that exists"
    )
  if target.exists() and not target.is_file():
    raise ValueError(f"{option} is {path!r}, takes the path of a plain file")
  if target.exists() and not is_forced:
    raise ValueError(f"{option} is {path!r}, which exists: --force replaces it")
  if not os.access(folder, os.W_OK):
    raise ValueError(f"{option} is {path!r}, takes a folder to write to")


def write(path: str, content: bytes) -> None:
  """Writes a file that is the old one or the new one, whatever happens.

  Args:
    path: of the file; of a link that what it points to.
    content: the bytes.
  """
  from tgmm_jax.training import files

  files.write(os.path.realpath(path), content)


def _are_same(path, other):
  if other == "-":
    return False
  if os.path.realpath(path) == os.path.realpath(other):
    return True
  # Hard links, and names that differ in case alone where that is no difference.
  try:
    return os.path.samefile(path, other)
  except OSError:
    return False
