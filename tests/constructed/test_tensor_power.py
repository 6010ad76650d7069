"""The tensor power network against the iteration in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import types
from tgmm_jax.constructed import primitives, tensor_power
from tgmm_jax.solvers.spectral import tensor_power as classical

ITERATE = jax.jit(tensor_power.iterate, static_argnames="num_steps")
APPLY = jax.jit(primitives.apply, static_argnames=("schedule", "return_states"))
MAX_DIM = 6
PRODUCT = ["A.product.plus", "A.product.minus"]
INVERSE = ["A.length", "A.inverse", "A.clear"]
SUM = ["B.sum.plus", "B.sum.minus", "B.clear"]
RESCALE = ["C.forget", "C.rescale", "C.clear"]
BLOCKS = {
  False: [*PRODUCT, "B.forget", *SUM],
  True: [*PRODUCT, *INVERSE, *SUM, *RESCALE],
}


@functools.cache
def network(is_normalised, name="float32"):
  with jax.enable_x64(name == "float64"):
    return tensor_power.build(
      MAX_DIM, 32, is_normalised=is_normalised, dtype=name
    )


def problem(dim, num_tokens, seed=0):
  generator = np.random.default_rng(seed)
  tokens = generator.normal(size=(num_tokens, dim)) / num_tokens ** (1 / 3)
  start = generator.normal(size=dim)
  return tokens, start / np.linalg.norm(start)


def plain_steps(tokens, start, num_steps, *, is_normalised=False):
  vectors = [start]
  for _ in range(num_steps):
    vector = vectors[-1]
    if is_normalised:
      vector = vector / np.linalg.norm(vector)
    vectors.append((tokens @ vector) ** 2 @ tokens)
  return np.array(vectors)


def relative_errors(vectors, expected):
  error = np.linalg.norm(np.asarray(vectors, np.float64) - expected, axis=1)
  return error / np.linalg.norm(expected, axis=1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("dim", "num_tokens"), [(1, 1), (4, 32), (6, 24)])
def test_five_steps_are_exact_to_rounding(dim, num_tokens):
  tokens, start = problem(dim, num_tokens)
  found = ITERATE(network(False, "float64"), tokens, start, num_steps=5)
  expected = plain_steps(tokens, start, 5)
  # Over sizes from 1e-30 up; required are 1e-10.
  assert relative_errors(found.vectors, expected).max() < 1e-13
  assert found.status == types.Status.CONVERGED
  assert found.num_steps == 5


def test_float32_is_off_by_its_rounding_which_doubles_every_step():
  for seed in range(3):
    tokens, start = problem(6, 24, seed)
    found = ITERATE(network(False), tokens, start, num_steps=5)
    expected = plain_steps(tokens, start, 5)
    errors = relative_errors(found.vectors, expected)
    assert np.all(errors < 4e-7 * 2.0 ** np.arange(6))


@pytest.mark.usefixtures("x64")
def test_the_normalised_network_keeps_the_length_and_the_exact_direction():
  tokens, start = problem(4, 32)
  found = ITERATE(network(True, "float64"), tokens, start, num_steps=5)
  expected = plain_steps(tokens, start, 5, is_normalised=True)
  lengths = np.linalg.norm(found.vectors, axis=1)
  exact_lengths = np.linalg.norm(expected, axis=1)
  directions = found.vectors / lengths[:, None]
  np.testing.assert_allclose(
    directions, expected / exact_lengths[:, None], atol=1e-14
  )
  ratio = lengths / exact_lengths
  assert np.all(ratio > 1 - 1e-12)
  assert np.all(ratio < 1.09)
  assert ratio.max() > 1.001, "the curve is no longer an approximation"
  assert found.status == types.Status.CONVERGED


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("is_normalised", [False, True])
def test_directions_are_those_of_the_classical_power_step(is_normalised):
  tokens, start = problem(4, 32, seed=3)
  tensor = np.einsum("ni,nj,nk->ijk", tokens, tokens, tokens)
  vectors = ITERATE(
    network(is_normalised, "float64"), tokens, start, num_steps=5
  ).vectors
  vector = start
  for found in np.asarray(vectors[1:]):
    vector = np.asarray(classical.power_step(tensor, vector))
    np.testing.assert_allclose(
      found / np.linalg.norm(found), vector, atol=1e-13
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("is_normalised", [False, True])
def test_every_layer_does_its_part(is_normalised):
  net = network(is_normalised, "float64")
  slots = net.slots
  tokens, start = problem(5, 20)
  state = tensor_power.encode(net, tokens, start)
  states = APPLY(net, state, tensor_power.schedule(net, 2), return_states=True)
  period = len(net.layers)
  names = ("x", "v", "y", "u") if is_normalised else ("x", "v", "y")
  for step in range(2):
    at = [
      {name: slots.read(states[step * period + i], name)[:5] for name in names}
      for i in range(period + 1)
    ]
    vector = at[0]["v"][:, 0]
    scores = tokens @ vector
    total = scores**2 @ tokens
    np.testing.assert_allclose(
      at[1]["y"], scores * tokens.T, rtol=1e-12, atol=1e-300
    )
    after = at[2]["u" if is_normalised else "v"]
    np.testing.assert_allclose(
      after, np.tile(total[:, None], 20), rtol=1e-12, atol=1e-300
    )
    np.testing.assert_array_equal(at[2]["y"], 0.0)
    if is_normalised:
      inverse = slots.read(states[step * period + 1], "r")[0]
      square = np.sum(np.asarray(vector) ** 2)
      assert np.all((inverse * square >= 1 - 1e-12) & (inverse < 1.09 / square))
      np.testing.assert_allclose(
        at[3]["v"], inverse * total[:, None], rtol=1e-12
      )
      np.testing.assert_array_equal(at[3]["u"], 0.0)
      np.testing.assert_array_equal(slots.read(states[3], "r"), 0.0)
  np.testing.assert_array_equal(states[-1][slots["x"]], state[slots["x"]])


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_the_last_step_in_range_is_foretold(name):
  with jax.enable_x64(name == "float64"):
    for growth in (2.0, 5.0, 800.0, 0.4, 1e-3):
      tokens = jnp.asarray([[growth ** (1 / 3), 0.0], [0.0, 1.0]], name)
      start = jnp.asarray([1.0, 0.0], name)
      found = ITERATE(network(False, name), tokens, start, num_steps=12)
      expected = tensor_power.num_steps_in_range(growth, name)
      assert found.num_steps == expected, growth
      assert found.status == types.Status.DEGENERATE
      assert np.all(np.isfinite(found.vectors))
      exact = [growth ** (2**t - 1) for t in range(expected + 1)]
      rtol = {"float32": 1e-4, "float64": 1e-12}[name]
      np.testing.assert_allclose(
        found.vectors[: expected + 1, 0], exact, rtol=rtol
      )


def test_beyond_the_range_the_network_itself_returns_nan():
  net = network(False)
  tokens, start = jnp.full((1, 1), 800.0 ** (1 / 3)), jnp.ones(1)
  steps = tensor_power.num_steps_in_range(800.0, jnp.float32)
  for num_steps, is_finite in ((steps, True), (steps + 1, False)):
    state = APPLY(
      net,
      tensor_power.encode(net, tokens, start),
      tensor_power.schedule(net, num_steps),
    )
    assert bool(jnp.all(jnp.isfinite(state))) == is_finite


def test_steps_in_range_of_known_cases():
  steps = tensor_power.num_steps_in_range
  assert steps(2.0, jnp.float32) == 7  # 2^127 is the last below 2^128
  assert steps(2.0, jnp.float64) == 10
  assert steps(1.0, jnp.float32) == np.inf
  assert steps(1.0, jnp.float32, start_norm=2.0) == 7
  assert steps(4.0, jnp.float32, start_norm=0.25) == np.inf
  for growth in (0.0, -1.0, np.inf, np.nan):
    with pytest.raises(ValueError, match="growth"):
      steps(growth, jnp.float32)


@functools.cache
def five_steps(is_normalised, block=None):
  net = network(is_normalised)
  if block is not None:
    net = primitives.zero_block(net, block)
  tokens, start = problem(6, 24)
  tokens, start = tokens.astype(np.float32), start.astype(np.float32)
  return np.asarray(ITERATE(net, tokens, start, num_steps=5).vectors[-1])


@pytest.mark.parametrize(
  ("is_normalised", "block"), [(n, b) for n in BLOCKS for b in BLOCKS[n]]
)
def test_every_block_of_the_weights_matters(is_normalised, block):
  sound = five_steps(is_normalised)
  change = np.linalg.norm(five_steps(is_normalised, block) - sound)
  assert change > 1e-2 * np.linalg.norm(sound)


@pytest.mark.parametrize("is_normalised", [False, True])
def test_no_block_is_left_untested(is_normalised):
  assert network(is_normalised).block_names == tuple(BLOCKS[is_normalised])


def test_sizes_are_those_of_the_theorem():
  for num_steps in (1, 5):
    net = network(False)
    sizes = primitives.sizes(net, tensor_power.schedule(net, num_steps))
    assert sizes.num_layers == 2 * num_steps
    assert (sizes.num_heads, sizes.mlp_width) == (3, 2 * MAX_DIM)
    assert sizes.width == 3 * MAX_DIM + 5 + 1
    net = network(True)
    sizes = primitives.sizes(net, tensor_power.schedule(net, num_steps))
    assert sizes.num_layers == 3 * num_steps
    assert (sizes.num_heads, sizes.mlp_width) == (3, 66)
    assert sizes.width == 4 * MAX_DIM + 5 + 3


def test_tokens_of_weight_zero_add_nothing():
  tokens, start = problem(6, 18)
  weight = np.r_[np.full(18, 3.0), np.zeros(6)].astype(np.float32)
  points = np.r_[tokens * 18 ** (1 / 3), np.full((6, 6), 7.0)]
  padded = tensor_power.weighted_tokens(
    points.astype(np.float32), sample_weight=weight
  )
  for is_normalised in (False, True):
    found = ITERATE(network(is_normalised), padded, start, num_steps=5)
    expected = plain_steps(tokens, start, 5, is_normalised=is_normalised)
    lengths = np.linalg.norm(found.vectors, axis=1)
    lengths /= np.linalg.norm(expected, axis=1)
    assert np.all(abs(lengths - 1) < (0.09 if is_normalised else 1e-4))
    errors = relative_errors(found.vectors / lengths[:, None], expected)
    assert errors.max() < 1e-5


def test_noise_tokens_take_off_what_noise_adds():
  generator = np.random.default_rng(1)
  mean, scales = generator.normal(size=3), np.array([0.5, 0.0, 2.0])
  with jax.enable_x64(True):
    tokens = np.asarray(
      tensor_power.noise_tokens(jnp.asarray(mean), jnp.asarray(scales))
    )
  added = np.einsum("i,jk->ijk", mean, np.diag(scales**2))
  added = added + added.transpose(1, 0, 2) + added.transpose(1, 2, 0)
  np.testing.assert_allclose(
    np.einsum("ni,nj,nk->ijk", tokens, tokens, tokens), -added, atol=1e-12
  )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_tokens_that_are_no_numbers_are_marked(bad):
  tokens, start = problem(6, 24)
  for is_normalised in (False, True):
    spoilt = tokens.copy()
    spoilt[3, 1] = bad
    found = ITERATE(network(is_normalised), spoilt, start, num_steps=5)
    assert found.status == types.Status.INVALID_INPUT
    assert found.num_steps == 0
    np.testing.assert_array_equal(found.vectors, 0.0)
  found = ITERATE(network(False), tokens, 0.0 * start, num_steps=5)
  assert found.status == types.Status.INVALID_INPUT


@pytest.mark.parametrize("size", [1e-2, 30.0])
def test_lengths_that_the_curve_does_not_cover_are_marked(size):
  tokens, start = problem(6, 24)
  found = ITERATE(network(True), size * tokens, start, num_steps=5)
  assert found.status == types.Status.DEGENERATE
  assert np.all(np.isfinite(found.vectors))


def test_too_many_dimensions_or_tokens_are_refused():
  net = network(False)
  with pytest.raises(ValueError, match="d = 7, takes d <= max_dim = 6"):
    tensor_power.encode(net, jnp.ones((5, 7)), jnp.ones(7))
  with pytest.raises(ValueError, match="T = 33, takes T <= 32"):
    tensor_power.encode(net, jnp.ones((33, 2)), jnp.ones(2))
  with pytest.raises(ValueError, match=r"start has shape \(3,\)"):
    tensor_power.encode(net, jnp.ones((5, 2)), jnp.ones(3))
  with pytest.raises(ValueError, match="max_dim is 0"):
    tensor_power.build(0, 8)
  with pytest.raises(ValueError, match="max_tokens is 0"):
    tensor_power.build(2, 0)
