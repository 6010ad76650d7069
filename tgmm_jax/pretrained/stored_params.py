"""Parameters of a network as the bytes of a safetensors file, and back."""

from typing import Any

import jax
import numpy as np
import safetensors.numpy

# Leaves by name, the keys on the way joined by slashes.
Flat = dict[str, Any]


def encode(params: dict[str, Any]) -> bytes:
  """The content of a file.

  Args:
    params: nested mappings of arrays, stored as float32.
  """
  return safetensors.numpy.save(
    {
      name: np.asarray(leaf, np.float32)
      for name, leaf in flatten(params).items()
    }
  )


def decode(content: bytes) -> Flat:
  """The arrays of a file, all of finite numbers.

  Raises:
    ValueError: it is no such file, or a value is NaN or inf; one line, to be
      put behind the name of the file.
  """
  try:
    flat = safetensors.numpy.load(content)
  # A type of numbers that NumPy does not know is a KeyError, or another.
  except Exception as error:
    text = " ".join(str(error).split())
    raise ValueError(
      f"is no safetensors file that can be read: {text}"
    ) from error
  for name, leaf in flat.items():
    if leaf.dtype.kind != "f" or not np.all(np.isfinite(leaf)):
      raise ValueError(f"has NaN, inf or no numbers in {name!r}")
  return flat


def flatten(params: dict[str, Any]) -> Flat:
  """Leaves by name."""
  return {
    "/".join(entry.key for entry in path): leaf
    for path, leaf in jax.tree.leaves_with_path(params)
  }


def unflatten(flat: Flat) -> dict[str, Any]:
  """The mappings that `flatten` was given."""
  tree = {}
  for name, leaf in flat.items():
    *parents, last = name.split("/")
    place = tree
    for parent in parents:
      place = place.setdefault(parent, {})
    place[last] = leaf
  return tree


def types_of(flat: Flat) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
  """Shape and type of each leaf."""
  return {
    name: (leaf.shape, np.dtype(leaf.dtype)) for name, leaf in flat.items()
  }
