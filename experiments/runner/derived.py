"""What files were made of: a record beside them, compared by content.

A table is of parameters, settings and code; a page is of tables and a config.
A JSON file beside them says of what (`made_of`) and has the files' digests, so
that whoever comes later sees whether they still are what they are taken for.
Times of files say nothing: clocks differ between machines.
"""

import functools
import hashlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from tgmm_jax.training import files, run_folder

_ROOT = pathlib.Path(__file__).parents[2]
# What programs and their constants stand in.
_SUFFIXES = (".py", ".csv", ".json", ".safetensors", ".html", ".css")
# Folders that neither rows nor a run's page follow from, and what only shows.
_OTHERS = {"command_line", "benchmarks", "pictures", "results", "results_pages"}
_SHOWING = {"figures"}

_DIGITS = 16  # of a digest that people may read
_MAX_NAMED = 3  # differences in one message


def difference(path: pathlib.Path, made_of: Mapping[str, Any]) -> str:
  """Why the files of a record are not those of `made_of`, "" if they are.

  Args:
    path: of the record; its files stand beside it.
    made_of: what JSON can hold; what else the record has is not compared.

  Returns:
    Half a sentence: there is no record, a file is not the one that was
    written, or what differs, with both values.
  """
  stored = read(path)
  if not stored:
    return f"there is no {path.name} of what it was made of"
  for name, digest in stored["files"].items():
    if sha256(path.parent / name) != digest:
      return f"{name} is not what was written"
  own = {k: value for k, value in stored["made_of"].items() if k in made_of}
  found = run_folder.config_difference(own, dict(made_of))
  named = dict(list(found.items())[:_MAX_NAMED])
  text = run_folder.format_difference(named)
  if len(found) > _MAX_NAMED:
    text += f" and {len(found) - _MAX_NAMED} values more"
  return text


def write(
  path: pathlib.Path,
  made_of: Mapping[str, Any],
  made: Iterable[pathlib.Path],
  **about: Any,
) -> None:
  """Writes the record, after its files.

  Args:
    path: of the record; an old one is replaced.
    made_of: what the files follow from, what JSON can hold.
    made: the files, in the record's folder or below it.
    **about: what else is worth knowing, and is not compared.
  """
  names = sorted(file.relative_to(path.parent).as_posix() for file in made)
  files.write_json(
    path,
    {
      "made_of": made_of,
      "files": {name: sha256(path.parent / name) for name in names},
      **about,
    },
  )


def read(path: pathlib.Path) -> dict[str, Any]:
  """The record; empty if there is none, or none that can be read."""
  try:
    stored = files.read_json(path)
    return stored if stored.keys() >= {"made_of", "files"} else {}
  except (ValueError, AttributeError):
    return {}


def sha256(path: pathlib.Path) -> str | None:
  """The digest of a file, None if there is none."""
  if not path.is_file():
    return None
  return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def code(*questions: str, is_shown: bool = False) -> str:
  """The version of the code: a digest of the sources, whatever git says.

  It holds for an installed copy and for a checkout in which somebody is at
  work. The files of questions do not count, but for those that are named; nor
  does, for rows, what only shows them.

  Args:
    *questions: paths of the questions' files that measure, or draw.
    is_shown: whether it is of a page.
  """
  library = pathlib.Path(run_folder.__file__).parents[1]
  found = [(library, path) for path in library.rglob("*")]
  found += [(_ROOT, path) for path in _ROOT.glob("experiments/*/**/*")]
  found += [(_ROOT, pathlib.Path(path)) for path in questions]
  left_out = _OTHERS if is_shown else _OTHERS | _SHOWING
  digest = hashlib.sha256()
  for name, path in sorted((_name(*pair), pair[1]) for pair in found):
    is_in = left_out.isdisjoint(name.split("/"))
    if is_in and path.suffix in _SUFFIXES and path.is_file():
      digest.update(f"{name} {sha256(path)}\n".encode())
  return digest.hexdigest()[:_DIGITS]


def _name(folder, path):
  """The same on every machine, of a file outside the checkout too."""
  is_below = path.is_relative_to(folder)
  return path.relative_to(folder).as_posix() if is_below else path.name
