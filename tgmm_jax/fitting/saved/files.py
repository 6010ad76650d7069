"""Fits as files: safe to read, exact, and checked.

`NAME.safetensors` is one file: arrays, and in its header a JSON text with the
rest. `NAME.json` says the same to people and to other programs. Both have the
SHA-256 of what they hold, are written whole or not at all, and give back every
bit. Nothing in a file is executed.
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from tgmm_jax.fitting.saved import as_json, checks
from tgmm_jax.fitting.saved.checks import SavedFitError
from tgmm_jax.training import files

# Raised when an older reader would misunderstand a file.
FORMAT = 1
SUFFIXES = (".safetensors", ".json")
# Of the header of a safetensors file: where the JSON text stands.
_KEY = "tgmm_jax fit"
# Fields of a fit that are no arrays.
_STATIC = ("covariance_type", "methods", "candidates", "columns")


def write(
  path: str | os.PathLike, fields: Mapping[str, Any], *, overwrite: bool
) -> pathlib.Path:
  """Writes a fit.

  Args:
    path: of the file, with one of `SUFFIXES`.
    fields: those of a `Fit`, weights, means and covariances in the place of the
      mixture.
    overwrite: whether a file that exists is replaced.

  Raises:
    FileExistsError: there is such a file.
    ValueError: another suffix, or fields that are no fit.
  """
  path = pathlib.Path(path)
  suffix = suffix_of(path)
  # A link to nothing is somebody's too.
  if os.path.lexists(path) and not overwrite:
    raise FileExistsError(f"{path} exists, takes overwrite=True to replace it")
  arrays = {
    name: np.array(value, order="C")
    for name, value in fields.items()
    if name not in _STATIC and value is not None
  }
  static = {name: fields[name] for name in _STATIC}
  checks.check(arrays, static)
  head = {
    "format": FORMAT,
    "version": importlib.metadata.version("tgmm_jax"),
    "sha256": _digest(arrays, static),
  }
  if suffix == ".json":
    content = as_json.encode(head, arrays, static)
  else:
    text = json.dumps(head | static)
    content = safetensors.numpy.save(arrays, metadata={_KEY: text})
  files.write(path, content)
  return path


def suffix_of(path: pathlib.Path) -> str:
  """The suffix of a file for a fit, in lower case.

  Raises:
    ValueError: it is none of `SUFFIXES`.
  """
  suffix = path.suffix.lower()
  if suffix not in SUFFIXES:
    raise ValueError(
      f"path is {str(path)!r}, takes one that ends in {' or '.join(SUFFIXES)}"
    )
  return suffix


def is_card(path: pathlib.Path) -> bool:
  """Whether a file, or the JSON beside it, is the card of a network."""
  try:
    found = json.loads(path.with_suffix(".json").read_bytes())
  except (OSError, ValueError):
    return False
  return isinstance(found, dict) and "network" in found


def read(
  path: str | os.PathLike,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Arrays and other fields of a fit, as given to `write`.

  Args:
    path: of a file that `write` or the command line has written.

  Raises:
    SavedFitError: the file is damaged, of a newer version, or no fit.
    OSError: the file cannot be read.
  """
  path = pathlib.Path(path)
  reader = _read_json if suffix_of(path) == ".json" else _read_safetensors
  try:
    head, arrays, static = reader(path)
    static = {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in static.items()
    }
    checks.check(arrays, static)
  except SavedFitError as error:
    raise SavedFitError(f"{path} cannot be read as a fit: {error}") from None
  digest = head.get("sha256")
  if digest is not None and digest != _digest(arrays, static):
    hint = ""
    if path.suffix.lower() == ".json":
      hint = '; without its "sha256" it is taken as it is'
    raise SavedFitError(
      f"{path} does not hold what its SHA-256 was made of: it is damaged or was"
      f" changed{hint}"
    )
  return arrays, static


def _read_safetensors(path):
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      text = (file.metadata() or {}).get(_KEY)
      if text is None:
        raise SavedFitError("its header has no fit")
      arrays = {name: file.get_tensor(name) for name in file.keys()}
  except safetensors.SafetensorError as error:
    raise SavedFitError(f"{error}") from None
  head = _parse(text)
  if not isinstance(head.get("sha256"), str):
    raise SavedFitError("it has no sha256")
  return head, arrays, {name: head.get(name) for name in _STATIC}


def _read_json(path):
  found = _parse(path.read_bytes())
  return found, *as_json.decode(found)


def _parse(text):
  """A JSON object of a format that is known."""
  try:
    found = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise SavedFitError(f"{error}") from None
  if not isinstance(found, dict):
    raise SavedFitError("it is no JSON object")
  version = found.get("format", FORMAT)
  if type(version) is not int:
    raise SavedFitError(f"format is {version!r}, takes an integer")
  if version > FORMAT:
    raise SavedFitError(
      f"format is {version}, takes {FORMAT} or less: a newer version of"
      " tgmm_jax reads it"
    )
  return found


def _digest(arrays, static):
  """SHA-256 of all that a fit holds."""
  found = hashlib.sha256(json.dumps(static, sort_keys=True).encode())
  for name, value in sorted(arrays.items()):
    found.update(f"{name} {value.dtype.name} {value.shape} ".encode())
    found.update(value.tobytes())
  return found.hexdigest()
