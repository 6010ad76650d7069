"""One problem that comes in blocks, each of them some of the points."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from tgmm_jax.solvers.checks import conversion

# `[n, d]` points, or a pair of them and their weights `[n]`.
Block = Any
# A name for messages, and the block.
Named = tuple[str, Block]

# Iterated, a frame gives its columns: it is no sequence of blocks.
_OF_FRAMES = ("columns", "column_names", "__dataframe__")
_OF_ARRAYS = ("shape", "__array__", "__dataframe__", "__arrow_c_stream__")


def reader(blocks: Any) -> Callable[[], Iterator[Named]]:
  """A function that gives a new iterator over the blocks, with their names.

  Args:
    blocks: all points as one array, a sequence of blocks, or a function that
      gives a new iterator over blocks.

  Raises:
    ValueError: for what can be read only once, and for a frame.
  """
  if any(hasattr(blocks, name) for name in _OF_FRAMES):
    raise ValueError(
      f"blocks is a {type(blocks).__name__}, takes an array or blocks: for one"
      " block [blocks]"
    )
  is_array = any(hasattr(blocks, name) for name in _OF_ARRAYS)
  if callable(blocks) and not is_array:
    return lambda: _named(blocks())
  is_many = isinstance(blocks, Iterable) and not isinstance(
    blocks, str | bytes | dict
  )
  if is_array or not is_many:
    return lambda: iter((("blocks", blocks),))
  if iter(blocks) is blocks:
    raise ValueError(
      f"blocks is a {type(blocks).__name__}, which cannot be read again and"
      " again, takes an array, a sequence of blocks or a function that gives a"
      " new iterator"
    )
  return lambda: _named(blocks)


def pieces(
  read: Callable[[], Iterator[Named]], block_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Points `[n, d]` and weights `[n]`, n at most `block_size`.

  Args:
    read: from `reader`.
    block_size: the most points of a piece; of a block that is a file not more
      than a piece is in memory.

  Raises:
    ValueError: see `conversion.numbers_of`; for blocks of another d than the
      first, and weights of another n.
  """
  dim = None
  for name, block in read():
    is_pair = isinstance(block, tuple) and len(block) == 2
    points, weight = block if is_pair else (block, None)
    axes = ("N", "d") if name == "blocks" else ("n", "d")
    points, shape = _ready(name, points, axes)
    if dim not in (None, shape[1]):
      raise ValueError(
        f"{name} has shape {shape}, takes [n, {dim}] as the first"
      )
    dim = shape[1]
    if weight is not None:
      weight, found = _ready(f"{name}'s weight", weight, axes[:1])
      if found != shape[:1]:
        raise ValueError(
          f"{name}'s weight has shape {found}, takes {shape[:1]}"
        )
    # As equal as can be: what works on them makes room for the largest.
    num_pieces = -(-shape[0] // block_size)
    for index in range(num_pieces):
      first, last = (shape[0] * i // num_pieces for i in (index, index + 1))
      rows = slice(first, last)
      piece = _rows_of(name, points, rows, axes)
      if weight is None:
        yield piece, np.ones(len(piece))
      else:
        own = _rows_of(f"{name}'s weight", weight, rows, axes[:1])
        yield piece, own.astype(np.float64, copy=False)


def _named(blocks):
  for index, block in enumerate(blocks):
    yield f"block {index}", block


def _ready(name, value, axes):
  """What rows can be taken of, and its shape as an array."""
  is_array = isinstance(value, np.ndarray | jax.Array) and value.ndim
  if not is_array and not hasattr(value, "iloc"):
    value = np.asarray(conversion.numbers_of(name, value, axes))
    shape = value.shape
  else:
    none = _rows_of(name, value, slice(0, 0), axes)
    shape = (len(value), *none.shape[1:])
  is_empty = 0 in shape if name == "blocks" else 0 in shape[1:]
  if len(shape) != len(axes) or is_empty:
    conversion.shape(name, np.broadcast_to(0, shape), axes, given=value)
  return value, shape


def _rows_of(name, value, rows, axes):
  own = value.iloc[rows] if hasattr(value, "iloc") else value[rows]
  return np.asarray(
    conversion.numbers_of(name, own, axes, first=rows.start), order="C"
  )
