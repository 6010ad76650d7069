"""How many parameters a network has, and which of them are per task.

The TGMM paper serves s numbers of components with one backbone; only the
embedding of K and the readout are per task. That is O(s d D) parameters.
"""

import math
from typing import Any, NamedTuple

import jax

# Parts of a params pytree whose leaves have one row or module for each K.
_PER_TASK = ("tasks", "readout")


class Counts(NamedTuple):
  """Numbers of parameters; `shared + per_task == total`.

  Attributes:
    total: all.
    shared: used for every K.
    per_task: of all K together: the embedding's rows and the readouts.
  """

  total: int
  shared: int
  per_task: int


def count(params: Any) -> Counts:
  """Counts a params pytree: nested dicts of arrays or of shapes."""
  total = per_task = 0
  for path, leaf in jax.tree.leaves_with_path(params):
    size = math.prod(leaf.shape)
    total += size
    if _keys(path)[0] in _PER_TASK:
      per_task += size
  return Counts(total, total - per_task, per_task)


def _keys(path):
  """Names along a path without the `value` that NNX puts at its end."""
  names = [
    str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path
  ]
  return names[:-1] if len(names) > 1 and names[-1] == "value" else names
