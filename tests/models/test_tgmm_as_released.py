"""What the released network has of its own: positions, and a fault."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tgmm_jax.models import prediction as prediction_lib
from tgmm_jax.models import tgmm

DIM, COUNTS, COUNT, ROWS, POSITIONS = 3, (2, 3), 3, 12, 40
CONFIG = tgmm.TGMMConfig(
  dim=DIM,
  num_components=COUNTS,
  width=8,
  num_layers=2,
  num_heads=2,
  embedding_width=8,
  is_causal=True,
  max_points=POSITIONS,
  pooling="released",
)


@functools.cache
def network(**changes):
  """A module whose parameters let everything show."""
  module = tgmm.TGMM(dataclasses.replace(CONFIG, **changes), rngs=nnx.Rngs(0))
  generator = np.random.default_rng(1)
  state = nnx.state(module, nnx.Param)
  noise = jax.tree.map(
    lambda leaf: leaf + 0.3 * generator.normal(size=leaf.shape), state
  )
  nnx.update(module, jax.tree.map(jnp.float32, noise))
  return module


def problem_of(num_points, num_rows=ROWS):
  points = 3.0 * jax.random.normal(jax.random.key(2), (num_rows, DIM))
  is_point = jnp.arange(num_rows) < num_points
  return prediction_lib.NetworkInput(
    jnp.where(is_point[:, None], points, 0.0),
    is_point.astype(jnp.float32),
    jnp.asarray(COUNT, jnp.int32),
    jnp.asarray(float(DIM)),
  )


def numpy_answer(module, problem, rows):
  """Weights and means pooled from some rows of the hidden states alone."""
  index = COUNTS.index(COUNT)
  task = module.read_in_task(module.tasks.embedding[...][index])
  hidden = module.backbone(
    module.read_in(problem.points) + task, problem.sample_weight > 0
  )
  hidden = np.asarray(hidden, np.float64)[rows]
  queries, keys, values = (
    np.asarray(parameter[...], np.float64)[index]
    for parameter in (
      module.readout.queries,
      module.readout.key_kernel,
      module.readout.kernel,
    )
  )
  logits = queries @ (hidden @ keys).T
  if len(rows) == ROWS:
    logits = np.zeros_like(logits)  # nothing is padded: all count the same
  shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  outputs = shares @ hidden @ values
  weights = np.exp(outputs[:, :3].mean(0))
  return weights / weights.sum(), outputs[:, 3:]


def assert_is(prediction, expected):
  weights, means = expected
  np.testing.assert_allclose(
    np.exp(prediction.log_weights[0]), weights, atol=2e-5
  )
  np.testing.assert_allclose(prediction.means[0], means, atol=2e-5)


@pytest.mark.parametrize("num_points", [5, 11, ROWS])
def test_inverted_pooling_attends_to_the_padding(num_points):
  problem = problem_of(num_points)
  module = network(has_inverted_pooling=True)
  padding = np.arange(num_points % ROWS, ROWS)  # all rows where none is padded
  found = module(problem)
  assert_is(found, numpy_answer(module, problem, padding))
  # Usually it is the points that are attended to.
  usual = network()(problem)
  if num_points < ROWS:
    points = np.arange(num_points)
    assert_is(usual, numpy_answer(module, problem, points))
  assert np.abs(usual.means - found.means).max() > 1e-2


@pytest.mark.parametrize("num_points", [5, ROWS])
def test_gradients_of_inverted_pooling_reach_the_points(num_points):
  problem = problem_of(num_points)
  graphdef, params = nnx.split(network(has_inverted_pooling=True), nnx.Param)

  def total(params, points):
    prediction = nnx.merge(graphdef, params)(problem._replace(points=points))
    return jnp.sum(prediction.means**2) + prediction.log_weights[0, 0]

  of_params, of_points = jax.jit(jax.grad(total, (0, 1)))(
    params, problem.points
  )
  for leaf in jax.tree.leaves(of_params):
    assert np.all(np.isfinite(leaf))
  # The states of padding have seen the points that stand before it.
  assert np.all(np.abs(of_points[:num_points]).max(-1) > 1e-6)
  np.testing.assert_array_equal(of_points[num_points:], 0.0)


def test_more_positions_than_points_change_nothing():
  many = network()
  few = tgmm.TGMM(
    dataclasses.replace(CONFIG, max_points=ROWS), rngs=nnx.Rngs(0)
  )
  fewer = jax.tree.map_with_path(
    lambda path, leaf: (
      leaf[:ROWS] if "positions" in jax.tree_util.keystr(path) else leaf
    ),
    nnx.state(many, nnx.Param),
  )
  nnx.update(few, fewer)
  for one, other in zip(
    jax.tree.leaves(many(problem_of(9))),
    jax.tree.leaves(few(problem_of(9))),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)


def test_as_many_points_as_positions_are_answered():
  answer = network()(problem_of(POSITIONS, num_rows=POSITIONS))
  assert np.all(np.isfinite(answer.means))
  with pytest.raises(
    ValueError, match=f"takes at most max_points = {POSITIONS}"
  ):
    network()(problem_of(41, num_rows=41))


def test_a_pooling_that_is_none():
  with pytest.raises(ValueError, match="pooling is 'mean', takes one of"):
    dataclasses.replace(CONFIG, pooling="mean")
