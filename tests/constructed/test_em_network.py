"""The EM network layer by layer against EM's own iterates."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import gmm, types
from tgmm_jax.constructed import em, em_network, piecewise_linear, primitives
from tgmm_jax.solvers import em as reference

MAX_DIM, MAX_COMPONENTS = 32, 5
CLEARED = ("ga", "la", "p", "m")
KEPT = ("x", "e", "f", "w", "g", "one")


@functools.cache
def network(design="two_layer", segments=64, dtype="float64"):
  return em.build(
    MAX_DIM, MAX_COMPONENTS, segments=segments, design=design, dtype=dtype
  )


def problem(seed, dim=8, num_components=3, num_points=60, spread=1.5):
  """Points about the origin, weights of some of which are 0, and a start."""
  rng = np.random.default_rng(seed)
  means = rng.uniform(-spread, spread, (num_components, dim))
  weights = rng.uniform(0.2, 1.0, num_components)
  labels = rng.choice(num_components, num_points, p=weights / weights.sum())
  points = means[labels] + rng.normal(size=(num_points, dim))
  sample_weight = rng.uniform(0.2, 3.0, num_points)
  sample_weight[-5:] = 0.0
  chosen = rng.choice(num_points - 5, num_components, replace=False)
  start = types.Mixture(weights / weights.sum(), points[chosen])
  return jax.tree.map(jnp.asarray, (points, sample_weight, start))


step = jax.jit(em.step)
encode = jax.jit(em.encode)
exact_step = jax.jit(reference.step)


@jax.jit
def half_layers(net, state):
  """States after each half of each layer of one step, by name."""
  states = {}
  for name, layer in zip("ABC", net.transformer.layers, strict=False):
    states[f"{name}.attention"] = state = primitives.attend(
      layer, state, "softmax"
    )
    states[f"{name}.mlp"] = state = primitives.feed_forward(layer, state)
  return states


def read(net, state, name):
  return np.asarray(net.transformer.slots.read(state, name))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("design", em_network.DESIGNS)
def test_each_half_layer_is_a_half_step_of_em(design):
  net, (points, sample_weight, start) = network(design), problem(0)
  state = encode(net, points, start, sample_weight=sample_weight)
  states = half_layers(net, state)
  first = 3 + (design == "three_layer")

  shares = read(net, states["A.attention"], "ga")[:, first:]
  # Padding is encoded as 0; what it is given is used nowhere.
  points = jnp.where(sample_weight[:, None] > 0, points, 0.0)
  expected = gmm.responsibilities(points, start)
  np.testing.assert_allclose(shares[:3].T, expected, atol=1e-12)
  np.testing.assert_array_equal(shares[3:], 0.0)

  logs = read(net, states["A.mlp"], "la")[:, first:]
  curve = piecewise_linear.log_share(net.segments)
  expected = curve(shares[:3]) - curve.offset
  np.testing.assert_allclose(logs[:3], expected, atol=1e-12)

  sums = np.exp(logs[:3]) * np.asarray(sample_weight)
  means = sums @ np.asarray(points) / sums.sum(axis=1, keepdims=True)
  moved = read(net, states["B.attention"], "m")[:, :3]
  np.testing.assert_allclose(moved[:8].T, means, atol=1e-12)
  np.testing.assert_array_equal(moved[8:], 0.0)
  weights = shares @ np.asarray(sample_weight) / float(sample_weight.sum())
  averaged = read(net, states["B.attention"], "p")[:, :3]
  np.testing.assert_allclose(averaged.T, [weights] * 3, atol=1e-12)

  after = em.decode(net, states["B.mlp"], 3, 8)
  np.testing.assert_allclose(after.means, means, atol=1e-12)
  np.testing.assert_allclose(after.weights, weights[:3], atol=1e-12)
  bias = read(net, states["B.mlp"], "b")[0]
  np.testing.assert_array_equal(bias[first:], 0.0)
  if design == "three_layer":
    bias_limit = piecewise_linear.log_geometric_bound(1e-4, net.segments)
    assert np.max(np.abs(bias[:3] - np.log(weights[:3]))) < bias_limit
    norms = np.sum(means**2, axis=1)
    found = read(net, states["C.attention"], "sg")[0, :3]
    np.testing.assert_allclose(
      found, 1.0 / (1.0 + np.exp(-1e-7 * norms)), atol=1e-15
    )
    change = read(net, states["C.mlp"], "b")[0] - bias
    np.testing.assert_allclose(change[:3], -norms / 2.0, rtol=1e-7, atol=1e-8)
    np.testing.assert_array_equal(change[3:], 0.0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("design", em_network.DESIGNS)
def test_between_steps_everything_is_as_before_a_step(design):
  net, (points, sample_weight, start) = network(design), problem(1)
  before = encode(net, points, start, sample_weight=sample_weight)
  bound = piecewise_linear.log_geometric_bound(1e-4, net.segments)
  offset = 0.0
  if design == "two_layer":
    square = piecewise_linear.half_square(net.max_range, net.segments // 2)
    bound += 8 * piecewise_linear.half_square_bound(
      net.max_range, net.segments // 2
    )
    offset = 8 * square.offset
  state = before
  for _ in range(4):
    state = step(net, state)
    for name in CLEARED + (("sg",) if design == "three_layer" else ()):
      np.testing.assert_allclose(read(net, state, name), 0.0, atol=1e-14)
    for name in KEPT:
      np.testing.assert_array_equal(
        read(net, state, name), read(net, before, name)
      )
    mixture = em.decode(net, state, 3, 8)
    assert float(mixture.weights.sum()) == pytest.approx(1.0, abs=1e-12)
    norms = np.sum(np.asarray(mixture.means) ** 2, axis=1)
    expected = np.log(mixture.weights) - norms / 2.0
    bias = read(net, state, "b")[0, :3] + offset
    assert np.max(np.abs(bias - expected)) <= bound
    for name in ("mu", "pi", "b"):
      np.testing.assert_array_equal(read(net, state, name)[:, 3:], 0.0)


@pytest.mark.usefixtures("x64")
def test_masks_are_beyond_the_logits_of_points_far_from_all_means():
  net = em.build(
    8, 2, segments=16, design="three_layer", max_range=1e3, dtype="float64"
  )
  points, _, start = problem(5, num_components=2)
  start = start._replace(means=start.means - 900.0)
  state = encode(net, points + 900.0, start)
  state = primitives.attend(net.transformer.layers[0], state, "softmax")
  expected = gmm.responsibilities(points + 900.0, start)
  found = read(net, state, "ga")[:, 3:].T
  np.testing.assert_allclose(found, expected, atol=1e-7)


def block_cases():
  with jax.enable_x64(True):
    return [
      (design, name)
      for design in em_network.DESIGNS
      for name in network(design).transformer.block_names
    ]


@functools.cache
def error_of_three_steps(design, name=None):
  """Largest error of a mean or a weight, with one block zeroed or none."""
  net, (points, sample_weight, start) = network(design), problem(2)
  transformer = net.transformer
  if name is not None:
    transformer = primitives.zero_block(transformer, name)
  state = encode(net, points, start, sample_weight=sample_weight)
  net = dataclasses.replace(net, transformer=transformer)
  for _ in range(3):
    state = step(net, state)
  expected = start
  for _ in range(3):
    expected = exact_step(points, expected, sample_weight=sample_weight)
  found = em.decode(net, state, 3, 8)
  errors = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), found, expected)
  return max(float(error) for error in jax.tree.leaves(errors))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("design", "name"), block_cases())
def test_every_block_is_needed(design, name):
  assert error_of_three_steps(design) < 5e-3
  # NaN or inf is broken as well.
  assert not error_of_three_steps(design, name) < 0.05


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("design", em_network.DESIGNS)
@pytest.mark.parametrize(
  ("dim", "num_components", "num_points"), [(2, 5, 40), (32, 4, 64), (1, 1, 7)]
)
def test_one_set_of_weights_for_all_sizes(
  dim, num_components, num_points, design
):
  net = network(design)
  points, sample_weight, start = problem(3, dim, num_components, num_points)
  state = encode(net, points, start, sample_weight=sample_weight)
  for _ in range(3):
    start = exact_step(points, start, sample_weight=sample_weight)
    state = step(net, state)
  found = em.decode(net, state, num_components, dim)
  np.testing.assert_allclose(found.means, start.means, atol=2e-2)
  np.testing.assert_allclose(found.weights, start.weights, atol=5e-3)


@pytest.mark.usefixtures("x64")
def test_padding_and_order_change_nothing():
  net, (points, sample_weight, start) = network(), problem(4)

  def run(points, sample_weight, start):
    state = encode(net, points, start, sample_weight=sample_weight)
    state = step(net, step(net, state))
    return em.decode(net, state, start.weights.size, 8)

  expected = run(points, sample_weight, start)
  close = functools.partial(np.testing.assert_allclose, atol=1e-11)
  # Without the points of weight 0.
  jax.tree.map(close, run(points[:-5], sample_weight[:-5], start), expected)
  # The unit of the weights.
  jax.tree.map(close, run(points, 7.0 * sample_weight, start), expected)
  order = np.random.default_rng(0).permutation(points.shape[0])
  jax.tree.map(close, run(points[order], sample_weight[order], start), expected)
  # More padding of either kind, which may hold anything.
  more = types.Mixture(
    jnp.concatenate([start.weights, jnp.zeros(2)]),
    jnp.concatenate([start.means, jnp.full((2, 8), jnp.nan)]),
  )
  padded = jnp.concatenate([points, jnp.full((9, 8), jnp.nan)])
  found = run(padded, jnp.concatenate([sample_weight, jnp.zeros(9)]), more)
  np.testing.assert_array_equal(found.weights[3:], 0.0)
  np.testing.assert_array_equal(found.means[3:], 0.0)
  jax.tree.map(close, jax.tree.map(lambda leaf: leaf[:3], found), expected)
  turned = jax.tree.map(lambda leaf: leaf[::-1], start)
  found = run(points, sample_weight, turned)
  jax.tree.map(close, jax.tree.map(lambda leaf: leaf[::-1], found), expected)


@pytest.mark.usefixtures("x64")
def test_sizes_are_those_of_the_construction():
  for design, heads, width, hidden in (
    ("two_layer", 2, 3 * 32 + 4 * 5 + 6, 32 * (6 + 64) + 5 * (64 + 4) + 3),
    ("three_layer", 2, 3 * 32 + 4 * 5 + 8, 32 * 6 + 5 * (64 + 4) + 3),
  ):
    net = network(design)
    found = primitives.sizes(net.transformer, net.schedule(10))
    per_step = 2 if design == "two_layer" else 3
    assert found[:4] == (10 * per_step, heads, width, hidden)
    assert found.nonzero_share < 0.02


def test_weights_that_cannot_be_built_are_refused():
  for options, message in (
    ({"max_dim": 0}, "max_dim is 0"),
    ({"max_components": 0}, "max_components is 0"),
    ({"segments": 7}, "segments is 7"),
    ({"design": "one_layer"}, "design is 'one_layer'"),
    ({"max_range": 0.0}, "max_range is 0.0"),
    ({"dtype": "bfloat16"}, "dtype is bfloat16"),
  ):
    with pytest.raises(ValueError, match=message):
      em.build(**{"max_dim": 2, "max_components": 2} | options)
