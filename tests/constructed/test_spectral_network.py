"""The network of the whole spectral method against that method in NumPy."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from tgmm_jax import types
from tgmm_jax.constructed import (
  primitives,
  spectral_method,
  spectral_network,
)

# Built for more of everything than the problems have.
MAX_DIM, MAX_COMPONENTS, MAX_TOKENS = 4, 2, 64
NUM_POINTS, NUM_RESTARTS = 24, 3
STEPS = spectral_network.Steps(
  num_squarings=3, num_multiplications=12, num_iters=12, num_polish=8
)

pytestmark = pytest.mark.usefixtures("x64")


@functools.cache
def network():
  return spectral_network.build(
    MAX_DIM, MAX_COMPONENTS, MAX_TOKENS, dtype="float64"
  )


@functools.partial(jax.jit, static_argnames=("steps",))
def run(net, points, starts, steps=STEPS):
  """The mixture and the last state."""
  size = len(starts.seekers)
  state = primitives.apply(
    net.transformer,
    spectral_method.encode(net, points, starts),
    spectral_network.schedule(size, steps),
  )
  return spectral_method.decode(net, state, *points.shape, size), state


def problem(seed, dim=3, size=2, lengths=(4.0, 4.0)):
  """Points of `size` clusters, and starts."""
  generator = np.random.default_rng(seed)
  means = np.linalg.qr(generator.normal(size=(dim, dim)))[0][:size]
  means = np.array(lengths)[:, None] * means
  labels = np.where(np.arange(NUM_POINTS) % 3 < 1, 0, 1)
  points = means[labels] + generator.normal(size=(NUM_POINTS, dim))
  return points, starts_of(generator, dim, size)


def starts_of(generator, dim, size):
  def unit(*shape):
    rows = generator.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

  return spectral_method.Starts(unit(size, dim), unit(size, NUM_RESTARTS, size))


def spectral_in_numpy(points, starts):
  """Means and weights, with `eigh`, the tensor itself and 100 power steps."""
  num_points, dim = points.shape
  size = len(starts.seekers)
  values, vectors = np.linalg.eigh(points.T @ points / num_points - np.eye(dim))
  values, vectors = values[::-1][:size], vectors[:, ::-1][:, :size]
  # The power method keeps to the side on which it starts.
  vectors = vectors * np.sign(np.sum(starts.eigenvectors.T * vectors, axis=0))
  values = np.maximum(values, 1e-3)
  rows = points @ (vectors / np.sqrt(values))
  tensor = np.einsum("ni,nj,nk->ijk", rows, rows, rows) / num_points
  for i in range(size):
    for j in range(size):
      for index in ((i, j, j), (j, i, j), (j, j, i)):
        tensor[index] -= rows.mean(axis=0)[i] / values[j]
  means, weights = [], []
  for vectors_in in starts.seekers:
    found = []
    for vector in vectors_in:
      for _ in range(100):
        vector = np.einsum("ijk,j,k->i", tensor, vector, vector)
        vector = vector / np.linalg.norm(vector)
      found.append(
        (np.einsum("ijk,i,j,k->", tensor, vector, vector, vector), vector)
      )
    value, vector = max(found, key=lambda pair: pair[0])
    tensor = tensor - value * np.einsum("i,j,k->ijk", vector, vector, vector)
    means.append(value * (vectors * np.sqrt(values)) @ vector)
    weights.append(value**-2)
  return np.array(means), np.array(weights) / np.sum(weights)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_spectral_method_to_rounding(seed):
  points, starts = problem(seed)
  means, weights = spectral_in_numpy(points, starts)
  found, _ = run(network(), points, starts)
  np.testing.assert_allclose(found.means, means, atol=1e-11)
  np.testing.assert_allclose(found.weights, weights, atol=1e-12)


def small_eigenvalue():
  """Points in the plane, with 8 and 1e-4 beyond the noise."""
  generator = np.random.default_rng(5)
  points = generator.normal(size=(NUM_POINTS, 2)) + [3.0, 0.0]
  values, vectors = np.linalg.eigh(points.T @ points / NUM_POINTS)
  points = points @ (vectors / np.sqrt(values)) * np.sqrt([1.0001, 9.0])
  # The third coordinate is noise: exactly what is taken off.
  third = np.linalg.svd(points)[0][:, -1:] * np.sqrt(NUM_POINTS)
  return np.c_[points, third], starts_of(generator, 3, 2)


def test_an_eigenvalue_that_is_too_small_is_raised():
  points, starts = small_eigenvalue()
  means, weights = spectral_in_numpy(points, starts)
  found, state = run(network(), points, starts)
  back = spectral_method.read(network(), state, "back", *points.shape, 2)
  np.testing.assert_allclose(np.sum(back**2, axis=1), [8.0, 1e-3], rtol=1e-9)
  largest = np.max(np.abs(means))
  np.testing.assert_allclose(found.means, means, atol=1e-9 * largest)
  np.testing.assert_allclose(found.weights, weights, atol=1e-9)


def test_every_block_zeroed_breaks_it():
  net = network()
  # In one problem some vectors have no negative entry, without squares that
  # forget all but close eigenvalues are found, and few are raised.
  close = problem(1, lengths=(5.0, 4.0))
  problems = [close, problem(2), small_eigenvalue()]
  answers = [run(net, *inputs)[0] for inputs in problems]

  def is_same(network, inputs, answer):
    found = run(network, *inputs)[0]
    differences = jax.tree.map(lambda a, b: np.abs(a - b), found, answer)
    # NaN is no answer either.
    return all(np.all(d < 1e-6) for d in jax.tree.leaves(differences))

  for name in net.transformer.block_names:
    broken = dataclasses.replace(
      net, transformer=primitives.zero_block(net.transformer, name)
    )
    pairs = zip(problems, answers, strict=True)
    assert not all(is_same(broken, *pair) for pair in pairs), name


def test_the_last_state_holds_what_the_method_computes():
  points, starts = problem(2)
  _, state = run(network(), points, starts)
  slots = network().transformer.slots
  rows = slots.read(state, "t")[:2, :NUM_POINTS]
  to = spectral_method.read(network(), state, "to", *points.shape, 2)
  second = rows @ rows.T / NUM_POINTS - to @ to.T
  np.testing.assert_allclose(second, np.eye(2), atol=1e-12)
  values = spectral_method.read(network(), state, "lv", *points.shape, 2)
  assert np.all(values > 1.0)
  # What steps work with is as it was.
  for name in ("v", "z", "nn", "r", "h", "lam", "st", "sr"):
    np.testing.assert_array_equal(slots.read(state, name), 0.0)


@pytest.mark.parametrize("size", [1, 2])
def test_layers_are_as_many_as_is_said(size):
  s, m, n, i, j = STEPS
  schedule = spectral_network.schedule(size, STEPS)
  found = primitives.sizes(network().transformer, schedule)
  each = 20 + 3 * (s + i + j) + 2 * m + 6 * n
  assert found.num_layers == 17 + 6 * n + size * each
  assert found.num_heads == max(2 * MAX_COMPONENTS + 1, 7)


def fit(points, num_components, weight):
  return spectral_method.fit(
    jax.random.key(0),
    points,
    num_components,
    sample_weight=weight,
    max_components=2,
    network=network(),
    num_restarts=NUM_RESTARTS,
    steps=STEPS,
  )


def test_solver():
  points, _ = problem(0)
  weight = np.ones(NUM_POINTS)
  plain = fit(points, 2, weight)
  assert plain.status == types.Status.CONVERGED
  padded = fit(
    np.concatenate([points, np.full((4, points.shape[1]), np.nan)]),
    2,
    np.append(weight, np.zeros(4)),
  )
  for own, other in zip(padded.mixture[:2], plain.mixture[:2], strict=True):
    np.testing.assert_allclose(own, other, rtol=1e-9)
  junk = np.where(np.arange(NUM_POINTS)[:, None] < 20, points, np.nan)
  np.testing.assert_allclose(np.sum(plain.mixture.weights), 1.0, rtol=1e-12)
  for points_of, count, status in (
    (points, 1, types.Status.CONVERGED),
    (points, 3, types.Status.INVALID_INPUT),
    (junk, 2, types.Status.INVALID_INPUT),
    (0.0 * points, 2, types.Status.DEGENERATE),
    (1e6 * points, 2, types.Status.DEGENERATE),
    (np.tile(points[:1], (NUM_POINTS, 1)), 2, types.Status.DEGENERATE),
  ):
    found = fit(points_of, count, weight)
    assert found.status == status
    assert np.all(np.isfinite(found.mixture.means))
  mean = fit(points, 1, weight).mixture.means[0]
  np.testing.assert_allclose(mean, points.mean(axis=0), rtol=1e-12)


def test_sizes_that_do_not_fit_are_refused():
  points, starts = problem(0)
  net = network()
  with pytest.raises(ValueError, match="max_components is 5, takes 1 ... 4"):
    spectral_network.build(4, 5, 64)
  with pytest.raises(ValueError, match="points have d = 5, takes at most 4"):
    spectral_method.encode(net, np.ones((4, 5)), starts)
  with pytest.raises(ValueError, match="tokens have T = 80, takes at most 64"):
    spectral_method.encode(net, np.ones((63, 3)), starts)
  wide = starts_of(np.random.default_rng(0), 4, 3)
  with pytest.raises(ValueError, match="starts have K = 3, takes at most 2"):
    spectral_method.encode(net, np.ones((4, 4)), wide)
  with pytest.raises(ValueError, match="num_newton is -1"):
    spectral_method.fit(
      jax.random.key(0), points, 2, steps=STEPS._replace(num_newton=-1)
    )
