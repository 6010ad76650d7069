"""Names and digests of a tree's leaves, the same on any number of devices."""

import functools
import hashlib
import json
import math
import re
from typing import Any

import jax
import jax.numpy as jnp

_KEY = re.compile(r"[\w.-]+", re.ASCII)


class NotFiniteError(ValueError):
  """A leaf has NaN or inf; the message names it."""


def named_leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
  """Leaves by name, in the tree's order.

  Args:
    tree: any pytree.
    prefix: where the tree stands in a larger one, or "".

  Returns:
    Names are the keys on the way to the leaf, joined by dots.

  Raises:
    ValueError: a key holds what a name cannot, or two leaves have one name.
  """
  paths = {}
  leaves = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
    where = jax.tree_util.keystr(path)
    name = ".".join([prefix, *keys] if prefix else keys)
    if not _KEY.fullmatch(name):
      raise ValueError(
        f"the leaf {where} cannot be named: a key takes letters, digits, _ . -"
      )
    if name in paths:
      raise ValueError(
        f"the leaves {paths[name]} and {where} would both be named {name}"
      )
    paths[name] = where
    leaves[name] = leaf
  return leaves


def digests(leaves: dict[str, jax.Array]) -> dict[str, str]:
  """A digest of each leaf, which every single flipped bit changes.

  Args:
    leaves: arrays of floats, integers or booleans, sharded in any way.

  Returns:
    16 hexadecimal digits a leaf.

  Raises:
    NotFiniteError: a value is NaN or inf.
    ValueError: a leaf is not such an array.
  """
  sums = {}
  for name, leaf in leaves.items():
    if not isinstance(leaf, jax.Array) or not (
      leaf.dtype == bool
      or jnp.issubdtype(leaf.dtype, jnp.integer)
      or jnp.issubdtype(leaf.dtype, jnp.floating)
    ):
      raise ValueError(
        f"the leaf {name} is {getattr(leaf, 'dtype', type(leaf))}, takes an"
        " array of floats, integers or booleans"
      )
    mesh = getattr(leaf.sharding, "mesh", None)
    sums[name] = _jitted_summary(mesh)(leaf)
  sums = jax.device_get(sums)
  bad = [name for name, (_, _, is_finite) in sums.items() if not is_finite]
  if bad:
    raise NotFiniteError(
      f"NaN or inf in {bad[0]} ({len(bad)} of {len(sums)} leaves)"
    )
  return {name: f"{a:08x}{b:08x}" for name, (a, b, _) in sums.items()}


def of_tree(tree: Any) -> str:
  """One digest of a whole tree of such arrays, as `digests` takes them."""
  return combined(digests(named_leaves(tree)))


def combined(found: dict[str, str]) -> str:
  """One digest, 16 hexadecimal digits, of those of leaves by name."""
  text = json.dumps(found, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def _jitted_summary(mesh: jax.sharding.Mesh | None):
  # Replicated, so that each of several processes can read the sums.
  replicated = mesh and jax.sharding.NamedSharding(mesh, jax.P())
  return jax.jit(_summarise, out_shardings=replicated)


def _summarise(array: jax.Array) -> jax.Array:
  """Two sums and whether all is finite, `[3]` uint32.

  The words are mixed with their positions and summed modulo 2^32, where the
  array lies. A flipped bit changes one word by a power of two, times an odd
  factor in the first sum: never 0.
  """
  is_finite = jnp.all(jnp.isfinite(array))
  if array.dtype == bool:
    array = array.astype(jnp.uint8)
  word = {1: jnp.uint8, 2: jnp.uint16}.get(array.dtype.itemsize, jnp.uint32)
  words = jax.lax.bitcast_convert_type(array, word).astype(jnp.uint32)
  index = jnp.zeros(words.shape, jnp.uint32)
  for axis in range(words.ndim):
    stride = math.prod(words.shape[axis + 1 :]) % 2**32
    position = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    index += position * jnp.uint32(stride)
  first = jnp.sum(words * (_mix(index) | 1), dtype=jnp.uint32)
  second = jnp.sum(
    _mix(words ^ _mix(index + jnp.uint32(0x9E3779B9))), dtype=jnp.uint32
  )
  return jnp.stack([first, second, is_finite.astype(jnp.uint32)])


def _mix(x: jax.Array) -> jax.Array:
  """A bijection of 32-bit words that spreads every bit over all of them."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
  x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
  return x ^ (x >> 16)
