"""The power method's network against the power method in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.constructed import eigenvectors, power_method, primitives
from tgmm_jax.solvers import pca

MAX_DIM, NUM_VECTORS = 8, 2
NUM_STEPS = 12
BLOCKS = """
S.symmetrise.plus S.symmetrise.minus S.load
P.matrix.plus P.matrix.minus P.length P.inverse P.clear
Q.forget Q.rescale Q.clear
C.copy C.length C.inverse C.clear
W.copy W.length W.factor W.clear
L.project.plus L.project.minus L.label
E1.matrix.plus E1.matrix.minus E2.value E2.clear
R.forget R.remove.plus R.remove.minus R.move R.clear
T1.store T1.scale T1.load T2.store T2.scale
""".split()


@functools.cache
def network(name="float32"):
  with jax.enable_x64(name == "float64"):
    return power_method.build(MAX_DIM, NUM_VECTORS, dtype=name)


@functools.partial(
  jax.jit, static_argnames=("num_steps", "num_newton", "is_overlay")
)
def run(net, points, starts, is_overlay=False, num_steps=NUM_STEPS, **options):
  """All states."""
  state = power_method.encode(net, points, starts, is_overlay=is_overlay)
  schedule = power_method.schedule(starts.shape[0], num_steps, **options)
  return primitives.apply(net, state, schedule, return_states=True)


def eigenpairs(net, points, starts, **options):
  states = run(net, points, starts, **options)
  dim, num_vectors = points.shape[1], starts.shape[0]
  return power_method.decode(net, states[-1], dim, num_vectors)


def problem(dim, num_points, num_vectors, ratio=0.6, seed=0):
  """Points of eigenvalues `ratio^j`, starts of length 1."""
  generator = np.random.default_rng(seed)
  rows = np.linalg.qr(generator.normal(size=(num_points, dim)))[0]
  directions = np.linalg.qr(generator.normal(size=(dim, dim)))[0]
  points = rows * ratio ** (np.arange(dim) / 2) @ directions.T
  starts = generator.normal(size=(num_vectors, dim))
  return points, starts / np.linalg.norm(starts, axis=1, keepdims=True)


def power_method_in_numpy(points, starts, num_steps=NUM_STEPS):
  """Values, vectors, and every iterate of every vector."""
  matrix = points.T @ points
  values, vectors, iterates = [], [], []
  for vector in starts:
    iterates.append([vector])
    for _ in range(num_steps):
      vector = matrix @ vector
      vector = vector / np.linalg.norm(vector)
      iterates[-1].append(vector)
    values.append(vector @ matrix @ vector)
    vectors.append(vector)
    matrix = matrix - values[-1] * np.outer(vector, vector)
  return np.array(values), np.array(vectors).T, np.array(iterates)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_power_method_to_rounding(seed):
  points, starts = problem(8, 20, 2, seed=seed)
  values, vectors, _ = power_method_in_numpy(points, starts)
  found = eigenpairs(network("float64"), points, starts)
  np.testing.assert_allclose(found[0], values, rtol=1e-13)
  np.testing.assert_allclose(found[1], vectors, atol=1e-13)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_overlaid_tokens_padding_and_spare_dimensions_change_nothing():
  points, starts = problem(5, 10, 2)
  values, vectors, _ = power_method_in_numpy(points, starts)
  padded = np.r_[points, np.zeros((4, 5))]
  found = eigenpairs(network("float64"), padded, starts, is_overlay=True)
  np.testing.assert_allclose(found[0], values, rtol=1e-13)
  np.testing.assert_allclose(found[1], vectors, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_float32_is_off_by_rounding(seed):
  points, starts = problem(8, 20, 2, seed=seed)
  values, vectors, _ = power_method_in_numpy(points, starts)
  found = eigenpairs(
    network(), points.astype(np.float32), starts.astype(np.float32)
  )
  np.testing.assert_allclose(found[0], values, rtol=2e-6)
  np.testing.assert_allclose(found[1], vectors, atol=5e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  ("dim", "num_vectors", "ratio"), [(2, 1, 0.5), (8, 2, 0.8)]
)
def test_vectors_are_right_at_the_tau_that_the_gap_predicts(
  dim, num_vectors, ratio
):
  num_steps = eigenvectors.num_steps_for(ratio, dim)
  for seed in range(6):
    points, starts = problem(dim, 20, num_vectors, ratio, seed)
    exact = np.linalg.eigh(points.T @ points)[1][:, ::-1][:, :num_vectors]
    _, vectors = eigenpairs(
      network("float64"), points, starts, num_steps=num_steps
    )
    cosines = np.abs(np.sum(np.asarray(vectors) * exact, axis=0))
    assert np.all(cosines > 1 - 1e-6)


@pytest.mark.usefixtures("x64")
def test_the_error_falls_at_the_rate_of_the_gap():
  points, starts = problem(8, 20, 2, ratio=0.5)
  net = network("float64")
  exact = np.linalg.eigh(points.T @ points)[1][:, -1]
  states = run(net, points, starts)
  vectors = power_method.read_vector(net, states[1 : 2 + 2 * NUM_STEPS : 2], 8)
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  tangents = np.sqrt(1.0 / (vectors @ exact) ** 2 - 1.0)
  np.testing.assert_allclose(tangents[-1] / tangents[-3], 0.5**2, rtol=1e-2)


@pytest.mark.usefixtures("x64")
def test_every_iterate_is_that_of_the_classical_steps():
  points, starts = problem(8, 20, 2)
  net = network("float64")
  states = run(net, points, starts)
  matrix, at = jnp.asarray(points.T @ points), 1
  columns = net.slots.read(states[at], "a")
  np.testing.assert_allclose(columns[:, 20:28], matrix, atol=1e-14)
  np.testing.assert_array_equal(columns[:, :20], 0.0)
  np.testing.assert_array_equal(columns[:, 28:], 0.0)
  for start in starts:
    vector = jnp.asarray(start)
    np.testing.assert_allclose(
      power_method.read_vector(net, states[at], 8), vector, rtol=1e-13
    )
    for _ in range(NUM_STEPS):
      at += 2
      found = np.asarray(power_method.read_vector(net, states[at], 8))
      mapped = matrix @ vector
      vector = pca.power_step(matrix, vector)
      length = np.linalg.norm(found)
      np.testing.assert_allclose(found / length, vector, atol=1e-13)
      assert 1 - 1e-12 < length / np.linalg.norm(mapped) < 1.033
    at += 2 + 2 * 4
    found = power_method.read_vector(net, states[at], 8)
    np.testing.assert_allclose(found, vector, atol=1e-13)
    at += 4
    value = vector @ matrix @ vector
    matrix = pca.deflate(matrix, value, vector)
    columns = net.slots.read(states[at], "a")[:, 20:28]
    np.testing.assert_allclose(columns, matrix, atol=1e-13)
  assert at == len(states) - 1
  for name in ("w", "u", "nn", "r", "lam"):
    np.testing.assert_array_equal(net.slots.read(states[-1], name), 0.0)


@pytest.mark.usefixtures("x64")
def test_newton_makes_the_length_one_at_quadratic_rate():
  net = network("float64")
  states = run(net, *problem(8, 20, 2))
  # Of the curve, 3.2% at most; a step takes e to 1.5 e^2 and little more.
  bound, at = 0.033, 1 + 2 * NUM_STEPS + 2
  for _ in range(5):
    length = np.linalg.norm(power_method.read_vector(net, states[at], 8))
    assert abs(length - 1.0) < max(bound, 1e-15)
    bound, at = 1.6 * bound**2, at + 2


@functools.cache
def results(block=None):
  """All that a network without a block gives: pairs, iterates, the rest."""
  net = network()
  if block is not None:
    net = primitives.zero_block(net, block)
  points, starts = problem(8, 20, 2)
  points, starts = points.astype(np.float32), starts.astype(np.float32)
  states = run(net, points, starts)
  pairs = power_method.decode(net, states[-1], 8, 2)
  parts = [
    *pairs,
    power_method.read_vector(net, states, 8),
    net.slots.read(states[-1], "a"),
    label(net, points, starts[:1]),
  ]
  return np.concatenate([np.ravel(part) for part in parts])


@jax.jit
def label(net, points, starts):
  state = power_method.encode(net, points, starts)
  state = primitives.apply(net, state, power_method.label_schedule(8))
  return net.slots.read(state, "lab")[0, : len(points)]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_of_the_weights_matters(block):
  broken = results(block)
  assert not np.max(np.abs(broken - results())) < 1e-2


def test_no_block_is_left_untested():
  assert list(network().block_names) == BLOCKS


def test_labels_are_the_sides_of_the_direction():
  points, starts = problem(8, 17, 1)
  points = np.r_[points, np.zeros((3, 8))]
  found = label(network(), points.astype(np.float32), starts.astype(np.float32))
  vector = power_method_in_numpy(points, starts, 8)[1][:, 0]
  np.testing.assert_allclose(found[:17], np.sign(points[:17] @ vector), 0.01)
  np.testing.assert_array_equal(found[17:], 0.0)


def test_sizes_are_those_of_the_theorem():
  net = network()
  for num_vectors, num_steps, num_newton in ((1, 5, 0), (2, 20, 4)):
    sizes = primitives.sizes(
      net,
      power_method.schedule(num_vectors, num_steps, num_newton=num_newton),
    )
    layers = 1 + num_vectors * (2 * num_steps + 2 * num_newton + 6)
    assert sizes.num_layers == layers
    assert sizes.num_heads == 3
    assert sizes.width == 8 * MAX_DIM + NUM_VECTORS + 8
    assert sizes.mlp_width == max(66, 4 * MAX_DIM + 1)
  sizes = primitives.sizes(net, power_method.label_schedule(20))
  assert sizes.num_layers == 44


def test_what_the_network_was_not_built_for_is_refused():
  net = network()
  cases = [
    ((20, 9), (1, 9), "d = 9, takes d <= max_dim = 8"),
    ((20, 8), (3, 8), r"k = 3, takes 1 \.\.\. 2"),
    ((20, 1), (2, 1), r"k = 2, takes 1 \.\.\. 1"),
    ((20, 8), (2, 7), r"starts have shape \(2, 7\)"),
  ]
  for points, starts, message in cases:
    with pytest.raises(ValueError, match=message):
      power_method.encode(net, jnp.ones(points), jnp.ones(starts))
  with pytest.raises(ValueError, match="max_dim is 0"):
    power_method.build(0)
  for num_vectors in (0, 4):
    with pytest.raises(ValueError, match=f"num_vectors is {num_vectors}"):
      power_method.build(3, num_vectors)
