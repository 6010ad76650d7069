"""In what precision a door computes: that of the data."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def is_traced(tree: Any) -> bool:
  """Whether any array in a tree is a tracer."""
  return any(
    isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)
  )


def in_that_of(points: Any, function: Callable[[], Any]) -> Any:
  """What a function returns when JAX computes in the dtype of the points.

  Args:
    points: as converted. Where they are float64 and JAX has no 64 bits, it has
      them for this call alone.
    function: without arguments.

  Returns:
    Its result; in NumPy where JAX has 64 bits for this call alone, for outside
    JAX would not compute with float64.
  """
  if (
    is_traced(points) or points.dtype != np.float64 or jax.config.jax_enable_x64
  ):
    return function()
  with jax.enable_x64(True):
    return jax.tree.map(np.asarray, function())
