"""What a checkpoint says of itself: format, config, names, digests.

The metadata of a step is plain JSON beside its arrays. It is read and judged
before any array is.
"""

import hashlib
import json
from typing import Any

import jax

from tgmm_jax.training import files, run_folder, tree_digest

# Of the layout of a step: a change of its names, types or digests raises it.
# In every format `sha256` is that of all the rest.
FORMAT = 1

_MAX_NAMED = 3  # leaves named in one message


class NewerFormatError(ValueError):
  """A later version of the library wrote the step."""


def make(
  step: int,
  config: dict[str, Any],
  leaves: dict[str, jax.Array],
  digests: dict[str, str],
) -> dict[str, Any]:
  """The metadata of a step.

  Args:
    step: steps done.
    config: identity of the run, what JSON can hold.
    leaves: by name (`tree_digest.named_leaves`).
    digests: of the leaves (`tree_digest.digests`).
  """
  content = {
    "format": FORMAT,
    "step": step,
    "config": config,
    "leaves": {
      name: {"type": _describe(leaf), "digest": digests[name]}
      for name, leaf in leaves.items()
    },
  }
  return {"sha256": _sha256(content), **content}


def check(meta: dict[str, Any], step: int):
  """Makes sure that the metadata is what was written, and of this step.

  Raises:
    NewerFormatError: this version cannot read the step.
    ValueError, KeyError, TypeError: it is damaged.
  """
  content = {key: value for key, value in meta.items() if key != "sha256"}
  # The digest comes first: a flipped bit must not read as another format.
  if meta["sha256"] != _sha256(content):
    raise ValueError("the digest of the metadata differs")
  if type(meta["format"]) is not int or meta["format"] < 1:
    raise ValueError(f"its format is {meta['format']!r}")
  if meta["format"] > FORMAT:
    raise NewerFormatError(
      f"written by a newer version: its format is {meta['format']}, this"
      f" version reads up to {FORMAT}"
    )
  if meta["step"] != step:
    raise ValueError(f"it is a copy of step {meta['step']}")
  # A digest that was made anew says nothing of what it is made of.
  files.check_depth(meta)
  if not isinstance(meta["config"], dict):
    raise ValueError("config is no object")
  leaves = meta["leaves"]
  if not isinstance(leaves, dict) or not all(map(_is_leaf, leaves.values())):
    raise ValueError("leaves have no type and digest each")


def _is_leaf(leaf):
  return isinstance(leaf, dict) and all(
    isinstance(leaf.get(key), str) for key in ("type", "digest")
  )


def misfit(
  meta: dict[str, Any],
  template: dict[str, jax.ShapeDtypeStruct],
  config: dict[str, Any] | None,
  *,
  subtree: str = "",
) -> str:
  """Says in one line how a step differs from what is wanted, "" if it fits.

  Args:
    meta: of the step.
    template: the wanted leaves by name.
    config: the wanted config, to name the keys that differ, or None.
    subtree: only names below it are compared; "" compares all.
  """
  stored = {
    name: leaf["type"]
    for name, leaf in meta["leaves"].items()
    if not subtree or name.startswith(f"{subtree}.")
  }
  wanted = {name: _describe(leaf) for name, leaf in template.items()}
  faults = [
    f"{name} is {stored.get(name, 'missing')} there and"
    f" {wanted.get(name, 'missing')} here"
    for name in sorted(stored.keys() | wanted.keys())
    if stored.get(name) != wanted.get(name)
  ]
  if not faults:
    return ""
  text = ", ".join(faults[:_MAX_NAMED])
  if len(faults) > _MAX_NAMED:
    text += f" and {len(faults) - _MAX_NAMED} leaves more"
  difference = config and run_folder.config_difference(meta["config"], config)
  if difference:
    text += f"; config: {run_folder.format_difference(difference)}"
  return text


def digest_of(meta: dict[str, Any], subtree: str) -> str:
  """The digest of a tree within a step, as `tree_digest.of_tree` has it.

  Args:
    meta: of the step.
    subtree: where the tree stands, e.g. "params".
  """
  found = {
    name.removeprefix(f"{subtree}."): leaf["digest"]
    for name, leaf in meta["leaves"].items()
    if name.startswith(f"{subtree}.")
  }
  return tree_digest.combined(found)


def _describe(leaf: jax.Array | jax.ShapeDtypeStruct) -> str:
  """Dtype and shape, e.g. `float32[64,32]`."""
  return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _sha256(value: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
