"""States to save, and ways to damage what was saved."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tgmm_jax.training import checkpoints

CONFIG = {"model": {"width": 8}, "seed": 0}


class State(NamedTuple):
  step: jax.Array
  params: Any
  opt_state: Any


def make_state(step, *, width=8, depth=2):
  key = jax.random.fold_in(jax.random.key(0), step)
  params = {
    f"layer{index}": {
      "w": jax.random.normal(jax.random.fold_in(key, index), (width, 700)),
      "gain": jnp.ones((width,), jnp.bfloat16) * step,
    }
    for index in range(depth)
  }
  return State(
    jnp.asarray(step, jnp.int32), params, optax.adam(0.1).init(params)
  )


def template(state):
  return jax.eval_shape(lambda: state)


def assert_same(state, expected):
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  for got, want in zip(
    jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
  ):
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(np.asarray(got), np.asarray(want))


def save(directory, *steps, **options):
  with checkpoints.Checkpointer(
    directory, config=CONFIG, **options
  ) as checkpointer:
    for step in steps:
      checkpointer.save(step, make_state(step))


def restore(directory):
  with checkpoints.Checkpointer(directory, config=CONFIG) as checkpointer:
    return checkpointer.restore_latest(template(make_state(0)))


def data_file(path):
  """The file that holds the arrays: the largest."""
  return max(
    (file for file in path.rglob("*") if file.is_file()),
    key=lambda file: file.stat().st_size,
  )


def flip(file, bit):
  raw = bytearray(file.read_bytes())
  raw[bit // 8] ^= 1 << (bit % 8)
  file.write_bytes(raw)


def cut(file, size):
  file.write_bytes(file.read_bytes()[:size])
