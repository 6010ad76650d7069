"""What the training loop knows of a network and its tasks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Learner(NamedTuple):
  """A network, its tasks and its loss as pure functions.

  Attributes:
    init: `key -> params`, a pytree of float32 arrays.
    sample: `(key, data) -> examples`, a batch; every leaf has a leading axis
      of `batch_size` tasks. Draws are a function of the key alone, so tasks
      do not depend on the devices.
    loss: `(params, examples) -> (loss, scalars)`, the mean loss of the batch
      and, by name, what else is logged, each `[]`.
    batch_size: tasks in a batch.
    data: arrays that `sample` draws from, such as images, the same in every
      step; () where tasks are synthetic.
  """

  init: Callable[[jax.Array], Any]
  sample: Callable[[jax.Array, Any], Any]
  loss: Callable[[Any, Any], tuple[jax.Array, dict[str, jax.Array]]]
  batch_size: int
  data: Any = ()
