import dataclasses
import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tgmm_jax import types
from tgmm_jax.models import factory, refiner, tgmm

REFINER = refiner.RefinerConfig(
  num_components=(2, 3), width=8, num_layers=1, num_heads=1
)
TGMM = tgmm.TGMMConfig(
  dim=2,
  num_components=(2, 3),
  width=8,
  num_layers=1,
  num_heads=1,
  max_points=12,
  embedding_width=4,
  has_scales=True,
)
CONFIGS = {"refiner": REFINER, "tgmm": TGMM}


@functools.cache
def built(name):
  """A model, its init compiled, and params."""
  model = factory.build(CONFIGS[name])
  init = jax.jit(model.init)
  return model, init, init(jax.random.key(0))


@functools.cache
def solver(name):
  """`(key, points, count, weight) -> SolverResult`, compiled."""
  model, _, params = built(name)
  solve = factory.solver(model, params)
  return jax.jit(
    lambda key, points, count, weight: solve(
      key, points, count, sample_weight=weight
    )
  )


def points_of(seed=0):
  rng = np.random.default_rng(seed)
  return (4.0 * rng.normal(size=(12, 2))).astype(np.float32)


WEIGHT = (np.arange(12) < 9).astype(np.float32)


@pytest.mark.parametrize("name", CONFIGS)
def test_build_allocates_nothing(name):
  before = len(jax.live_arrays())
  model = factory.build(CONFIGS[name])
  assert len(jax.live_arrays()) == before
  assert isinstance(model.config, factory.CONFIGS[name])


def test_a_network_larger_than_memory_can_be_built():
  config = refiner.RefinerConfig(width=2**20)
  model = factory.build(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  sizes = [leaf.size for leaf in jax.tree.leaves(shapes)]
  assert sum(sizes) > 10**13


@pytest.mark.parametrize("name", CONFIGS)
def test_params_are_nested_dicts_with_string_keys(name):
  _, _, params = built(name)

  def check(tree):
    if isinstance(tree, dict):
      for key, value in tree.items():
        assert type(key) is str
        check(value)
    else:
      assert isinstance(tree, jax.Array)
      assert tree.dtype == jnp.float32

  assert type(params) is dict
  check(params)
  assert len(jax.tree.leaves(params)) > 20


@pytest.mark.parametrize("name", CONFIGS)
def test_init_is_a_function_of_the_key(name):
  _, init, params = built(name)
  jax.tree.map(np.testing.assert_array_equal, init(jax.random.key(0)), params)
  other = init(jax.random.key(1))
  is_same = jax.tree.map(lambda a, b: bool(np.all(a == b)), params, other)
  is_drawn = jax.tree.map(lambda leaf: np.unique(leaf).size > 1, params)
  # What is drawn differs; biases and scales start as constants.
  for same, drawn in zip(
    jax.tree.leaves(is_same), jax.tree.leaves(is_drawn), strict=True
  ):
    assert same != drawn
  # No two parameters are drawn from one stream.
  firsts = [
    float(leaf.ravel()[0])
    for leaf in jax.tree.leaves(params)
    if np.unique(leaf).size > 1
  ]
  assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize("name", CONFIGS)
def test_apply_is_the_module_itself(name):
  model, _, params = built(name)
  make = {"refiner": refiner.Refiner, "tgmm": tgmm.TGMM}[name]
  problem, _ = jax.jit(model.encode)(
    jax.random.key(1), points_of(), jnp.int32(3), sample_weight=WEIGHT
  )

  @jax.jit
  def construct_and_call(key, problem):
    return make(CONFIGS[name], rngs=nnx.Rngs(params=key))(problem)

  expected = construct_and_call(jax.random.key(0), problem)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-5),
    jax.jit(model.apply)(params, problem),
    expected,
  )
  assert np.abs(expected.means).max() > 0.0


def test_more_than_ten_layers_keep_their_order():
  """As text "10" sorts before "2"; a layer's number is in its parameters."""
  config = refiner.RefinerConfig(
    num_components=(2,), width=2, num_heads=1, num_layers=11, rank=1
  )
  model = factory.build(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  assert set(shapes["layers"]) == {str(number) for number in range(11)}
  # All parameters are 0 but for the bias of each layer's answer.
  params = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
  for number, layer in params["layers"].items():
    layer["to_mean"]["bias"] += 2.0 ** int(number)
  # As optimisers and checkpoints hand it back: sorted as text.
  params = jax.tree.map(jnp.asarray, params)
  assert list(params["layers"])[:3] == ["0", "1", "10"]
  problem, _ = jax.jit(model.encode)(
    jax.random.key(0), np.zeros((3, 1)), 2, sample_weight=np.ones(3)
  )
  prediction = jax.jit(model.apply)(params, problem)
  # The EM mean of points at 0 is 0; the unit is the floor of the scale.
  np.testing.assert_allclose(
    prediction.means[:, 0, 0] / 1e-3, 2.0 ** np.arange(11), rtol=1e-5
  )


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", CONFIGS)
def test_one_number_of_components_is_enough(name, count):
  """A table of one row, looked up for one problem and for a batch."""
  config = dataclasses.replace(CONFIGS[name], num_components=(count,))
  model = factory.build(config)
  params = jax.eval_shape(model.init, jax.random.key(0))
  problem, _ = jax.eval_shape(
    model.encode,
    jax.random.key(1),
    points_of(),
    jnp.int32(count),
    sample_weight=WEIGHT,
  )
  batch = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((4, *leaf.shape), leaf.dtype), problem
  )
  alone = jax.eval_shape(model.apply, params, problem)
  together = jax.eval_shape(model.apply, params, batch)
  assert alone.log_weights.shape == (1, count)
  assert together.log_weights.shape == (4, 1, count)


@pytest.mark.parametrize("name", CONFIGS)
def test_params_of_another_network_are_refused(name):
  model, _, params = built(name)
  problem, _ = jax.eval_shape(
    model.encode,
    jax.random.key(1),
    points_of(),
    jnp.int32(3),
    sample_weight=WEIGHT,
  )
  fewer = {key: value for key, value in params.items() if key != "tasks"}
  assert len(fewer) < len(params)
  with pytest.raises(ValueError, match="leaves"):
    jax.eval_shape(model.apply, fewer, problem)


@pytest.mark.parametrize("name", CONFIGS)
def test_solver_answers_one_problem_and_a_batch(name):
  model, _, params = built(name)
  keys = jax.random.split(jax.random.key(5), 3)
  points = np.stack([points_of(seed) for seed in range(3)])
  points[2, 1] = np.nan
  counts = np.array([3, 2, 3])
  batch = jax.jit(jax.vmap(solver(name), in_axes=(0, 0, 0, None)))(
    keys, points, counts, WEIGHT
  )
  assert batch.status.tolist() == [
    types.Status.CONVERGED,
    types.Status.CONVERGED,
    types.Status.INVALID_INPUT,
  ]
  for leaf in jax.tree.leaves(batch.mixture):
    assert np.all(np.isfinite(leaf))
  is_finite = np.isfinite(batch.log_likelihood)
  np.testing.assert_array_equal(is_finite, [True, True, False])
  assert batch.mixture.means.shape == (3, 3, 2)
  assert (batch.mixture.covariances is None) == (name == "refiner")
  np.testing.assert_allclose(batch.mixture.weights.sum(1), 1.0, rtol=1e-5)
  assert batch.history is None
  np.testing.assert_array_equal(batch.num_iters, 0)
  for index in range(2):
    alone = solver(name)(keys[index], points[index], counts[index], WEIGHT)
    jax.tree.map(
      lambda a, b, i=index: np.testing.assert_allclose(a, b[i], atol=1e-4),
      alone,
      batch,
    )


def test_the_key_of_a_solver_draws_the_view():
  arguments = points_of(), 3, WEIGHT
  for name, is_same in [("refiner", False), ("tgmm", True)]:
    one, other, again = (
      solver(name)(jax.random.key(seed), *arguments).mixture.means
      for seed in (0, 1, 0)
    )
    np.testing.assert_array_equal(one, again)
    assert bool(np.all(one == other)) == is_same


def test_points_without_weights_all_count():
  name = "tgmm"
  model, _, params = built(name)
  solve = factory.solver(model, params)
  result = jax.jit(lambda *arguments: solve(*arguments))(
    jax.random.key(0), points_of(), 3
  )
  expected = solver(name)(jax.random.key(0), points_of(), 3, np.ones(12))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-5), result, expected
  )


def test_the_truth_is_encoded_as_the_points_are():
  model, _, _ = built("refiner")
  points = points_of()
  means = points[:4] * np.array([[1.0], [1.0], [1.0], [0.0]], np.float32)
  truth = types.Mixture(np.array([0.2, 0.3, 0.5, 0.0], np.float32), means)
  problem, frame = jax.jit(model.encode)(
    jax.random.key(2), points, 3, sample_weight=WEIGHT
  )
  encoded = factory.encode_mixture(truth, frame)
  np.testing.assert_allclose(encoded.means[:3], problem.points[:3], atol=1e-5)
  np.testing.assert_array_equal(encoded.means[3], 0.0)
  np.testing.assert_array_equal(encoded.weights, truth.weights)
  assert factory.encode_mixture(truth, None) is truth


def test_the_true_scales_go_with_their_coordinates():
  config = dataclasses.replace(REFINER, covariance_type="diag")
  encode = jax.jit(factory.build(config).encode)
  points = points_of()
  variances = np.array([[0.5, 2.0], [1.5, 3.0], [1.0, 1.0]], np.float32)
  truth = types.Mixture(
    np.array([0.4, 0.6, 0.0], np.float32),
    points[:3] * np.array([[1.0], [1.0], [0.0]], np.float32),
    variances,
  )
  seen = set()
  for seed in range(4):
    problem, frame = encode(
      jax.random.key(seed), points, 2, sample_weight=WEIGHT
    )
    encoded = factory.encode_mixture(truth, frame, covariance_type="diag")
    np.testing.assert_allclose(encoded.means[:2], problem.points[:2], atol=1e-5)
    is_swapped = bool(np.abs(frame.directions[0, 1]))
    order = [1, 0] if is_swapped else [0, 1]
    np.testing.assert_array_equal(
      encoded.covariances[:, :2], variances[:, order]
    )
    np.testing.assert_array_equal(encoded.covariances[:, 2:], 1.0)
    seen.add(is_swapped)
  assert seen == {False, True}


# Prints the modes and the answers of two networks, bit by bit.
PROGRAM = """
import flax
import jax
import numpy as np

from tgmm_jax.models import factory, refiner, tgmm

configs = [
  refiner.RefinerConfig(
    num_components=(2,), width=4, num_layers=11, num_heads=1
  ),
  tgmm.TGMMConfig(
    dim=2, num_components=(2,), width=8, num_layers=1, num_heads=2
  ),
]
rng = np.random.default_rng(0)
points = (4.0 * rng.normal(size=(12, 2))).astype(np.float32)
print(flax.config.nnx_graph_mode, flax.config.nnx_graph_updates)
for config in configs:
  model = factory.build(config)
  if config.num_layers == 1:
    params = jax.jit(model.init)(jax.random.key(0))
  else:
    params = jax.tree.map(
      lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
      jax.eval_shape(model.init, jax.random.key(0)),
    )
  solve = jax.jit(factory.solver(model, params))
  print(solve(jax.random.key(0), points, 2).mixture.means.tobytes().hex())
"""


@pytest.mark.slow
def test_tree_mode_of_nnx_gives_the_same_numbers():
  """Flax is about to make modules plain trees; both modes must do."""
  outputs = []
  for mode in ("true", "false"):
    completed = subprocess.run(
      [sys.executable, "-c", PROGRAM],
      env={**os.environ, "NNX_GRAPH_MODE": mode, "NNX_GRAPH_UPDATES": mode},
      capture_output=True,
      text=True,
      check=False,
    )
    assert completed.returncode == 0, completed.stderr
    outputs.append(completed.stdout.splitlines())
  assert [lines.pop(0) for lines in outputs] == ["True True", "False False"]
  assert len(outputs[0]) == 2
  assert outputs[0] == outputs[1]
