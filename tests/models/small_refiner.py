"""Small refiners and problems for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax.models import factory, refiner

# K = 4 has a slot but is not served.
SMALL = {
  "num_components": (2, 3, 5),
  "width": 16,
  "num_layers": 2,
  "num_heads": 2,
}
SIZE, NUM_POINTS = 5, 24


@functools.cache
def network(**changes):
  """A model and params wider than at the start, so that everything shows."""
  model = factory.build(refiner.RefinerConfig(**{**SMALL, **changes}))
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32),
    jax.jit(model.init)(jax.random.key(0)),
  )
  return model, params


@functools.cache
def compiled(**changes):
  """`(params, Problem) -> Prediction` of one problem."""
  return jax.jit(network(**changes)[0].apply)


@functools.cache
def solver(is_batch=False, **changes):
  """`(key, points, count, weight, knows_origin=1) -> SolverResult`."""
  model, params = network(**changes)

  def solve(key, points, num_components, sample_weight, knows_origin):
    return factory.solver(model, params, knows_origin=knows_origin)(
      key, points, num_components, sample_weight=sample_weight
    )

  if is_batch:
    solve = jax.vmap(solve, in_axes=(0, 0, 0, 0, None))
  solve = jax.jit(solve)
  return lambda *arguments, knows_origin=True: solve(*arguments, knows_origin)


def points_of(dim=2, count=3, seed=0):
  rng = np.random.default_rng(seed)
  means = rng.uniform(-5.0, 5.0, (count, dim))
  labels = rng.integers(0, count, NUM_POINTS)
  return (means[labels] + rng.normal(size=(NUM_POINTS, dim))).astype(np.float32)


def weight_of(num_points):
  return (np.arange(NUM_POINTS) < num_points).astype(np.float32)


@functools.cache
def encoder(**changes):
  """`(key, points, weight, count) -> (Problem, Frame)`, compiled."""
  encode = network(**changes)[0].encode
  return jax.jit(
    lambda key, points, weight, count: encode(
      key, points, count, sample_weight=weight
    )
  )


def problem_of(num_points=17, count=3, dim=2, **changes):
  problem, _ = encoder(**changes)(
    jax.random.key(2), points_of(dim), weight_of(num_points), jnp.int32(count)
  )
  return problem


def assert_close(one, other, atol=2e-5):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)


def assert_same_bits(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


def assert_is_mixture(mixture, count, dim):
  assert mixture.weights.shape == (SIZE,)
  assert mixture.means.shape == (SIZE, dim)
  np.testing.assert_allclose(np.sum(mixture.weights), 1.0, rtol=1e-5)
  assert np.all(np.asarray(mixture.weights[:count]) > 0.0)
  np.testing.assert_array_equal(mixture.weights[count:], 0.0)
  assert np.all(np.isfinite(mixture.means))
  np.testing.assert_array_equal(mixture.means[count:], 0.0)
  assert mixture.covariances is None
