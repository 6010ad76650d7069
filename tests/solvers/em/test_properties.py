"""What holds of EM for every covariance type and any data."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.solvers import odd_data
from tgmm_jax import gmm, types
from tgmm_jax.solvers import em
from tgmm_jax.solvers.em import batches

N, DIM, K = 40, 3, 3
NUM_STEPS = 30


def types_with_fast(*fast):
  slow = pytest.mark.slow
  return pytest.mark.parametrize(
    "covariance_type",
    [
      pytest.param(name, marks=() if name in fast else slow)
      for name in gmm.COVARIANCE_TYPES
    ],
  )


def make_problem(seed, spread, covariance_type):
  """Points of clusters in all units, weights, and a random start."""
  generator = np.random.default_rng(seed)
  labels = generator.integers(K, size=N)
  points = generator.normal(size=(N, DIM))
  points += spread * generator.normal(size=(K, DIM))[labels]
  if covariance_type != "unit":
    points *= 10.0 ** generator.uniform(-2, 2)
  weight = generator.uniform(0.2, 2.0, N)
  weights = generator.dirichlet(np.full(K, 2.0))
  means = points[generator.choice(N, K, replace=False)]
  return points, weight, types.Mixture(weights, means)


@functools.partial(jax.jit, static_argnames="covariance_type")
def unrolled(points, weight, start, covariance_type):
  result = em.unroll(
    jax.random.key(0),
    points,
    K,
    num_steps=NUM_STEPS,
    covariance_type=covariance_type,
    sample_weight=weight,
    init=start,
    reg_share=0.0,
  )
  return result, gmm.responsibilities(
    points, result.mixture, covariance_type=covariance_type
  )


def check_monotone(seed, spread, covariance_type, dtype, drop):
  with jax.enable_x64(dtype == "float64"):
    problem = make_problem(seed, spread, covariance_type)
    problem = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), problem)
    result, share = jax.tree.map(
      np.asarray, unrolled(*problem, covariance_type=covariance_type)
    )
  values = np.append(result.history, result.log_likelihood)
  assert values.dtype == dtype
  # Of a collapsed covariance nothing is left but rounding, and in float32 of
  # one nearly so.
  hypothesis.assume(result.status != types.Status.DEGENERATE)
  is_matrix = covariance_type in ("full", "tied")
  if dtype == "float32" and is_matrix:
    eigenvalues = np.linalg.eigvalsh(result.mixture.covariances)
    hypothesis.assume(np.all(eigenvalues[..., 0] > 1e-5 * eigenvalues[..., -1]))
  # The value depends on the units and may be 0; each coordinate counts as 1.
  size = np.maximum(np.abs(values[1:]), DIM)
  assert np.all(np.diff(values) >= -drop * size)
  np.testing.assert_allclose(share.sum(axis=-1), 1.0, rtol=1e-5)
  odd_data.assert_sane(result, K)


examples = hypothesis.settings(
  max_examples=50, deadline=None, derandomize=True, database=None
)
any_problem = hypothesis.given(
  seed=st.integers(0, 2**32 - 1), spread=st.floats(0.0, 6.0)
)


@types_with_fast("full", "spherical")
def test_no_step_lowers_the_likelihood(covariance_type):
  @examples
  @any_problem
  def check(seed, spread):
    check_monotone(seed, spread, covariance_type, "float32", 1e-5)

  check()


@types_with_fast("tied", "diag")
def test_no_step_lowers_the_likelihood_in_float64(covariance_type):
  @examples
  @any_problem
  def check(seed, spread):
    check_monotone(seed, spread, covariance_type, "float64", 1e-10)

  check()


def random_start(covariance_type, seed=0):
  points, weight, start = make_problem(seed, 3.0, "unit")
  generator = np.random.default_rng(seed + 1)
  root = generator.normal(size=(K, DIM, DIM)) + 2.0 * np.eye(DIM)
  full = np.einsum("kij,klj->kil", root, root)
  covariances = {
    "unit": None,
    "tied_spherical": 1.5,
    "spherical": np.array([0.5, 1.0, 2.0]),
    "diag": generator.uniform(0.5, 2.0, (K, DIM)),
    "tied": full[0],
    "full": full,
  }[covariance_type]
  mixture = start._replace(covariances=covariances)
  return jax.tree.map(np.float32, (points, weight, mixture))


def reorder_features(mixture, order, covariance_type):
  covariances = mixture.covariances
  if covariance_type in ("full", "tied"):
    covariances = covariances[..., order, :][..., order]
  elif covariance_type == "diag":
    covariances = covariances[:, order]
  return types.Mixture(mixture.weights, mixture.means[:, order], covariances)


def reorder_components(mixture, order, covariance_type):
  if covariance_type in ("spherical", "diag", "full"):
    return types.Mixture(*(leaf[order] for leaf in mixture))
  return types.Mixture(
    mixture.weights[order], mixture.means[order], mixture.covariances
  )


def assert_close(found, expected, rtol):
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


@types_with_fast("full", "unit")
def test_equivariance(covariance_type):
  points, weight, start = random_start(covariance_type)

  def fit(points, weight, start):
    result = em.fit(
      jax.random.key(0),
      points,
      K,
      covariance_type=covariance_type,
      sample_weight=weight,
      init=start,
      max_iter=10,
      tol=0.0,
    )
    return result.mixture, result.log_likelihood

  generator = np.random.default_rng(2)
  mixture, log_likelihood = fit(points, weight, start)
  order = generator.permutation(N)
  found = fit(points[order], weight[order], start)
  assert_close(found, (mixture, log_likelihood), 1e-4)
  order = np.array([2, 0, 1])
  found = fit(
    points[:, order], weight, reorder_features(start, order, covariance_type)
  )
  expected = reorder_features(mixture, order, covariance_type)
  assert_close(found, (expected, log_likelihood), 1e-4)
  found = fit(points, weight, reorder_components(start, order, covariance_type))
  expected = reorder_components(mixture, order, covariance_type)
  assert_close(found, (expected, log_likelihood), 1e-4)


@pytest.mark.parametrize(
  "covariance_type",
  [
    "diag",
    pytest.param("tied", marks=pytest.mark.slow),
    pytest.param("full", marks=pytest.mark.slow),
  ],
)
@pytest.mark.usefixtures("x64")
def test_padding_makes_no_difference(covariance_type):
  points, weight, start = jax.tree.map(
    np.float64, random_start(covariance_type)
  )
  padded = np.full((N + 9, DIM), np.nan)
  place = np.sort(np.random.default_rng(3).permutation(N + 9)[:N])
  padded[place] = points
  padded_weight = np.zeros(N + 9)
  padded_weight[place] = weight
  wide = {
    "weights": np.append(start.weights, [0.0, np.nan]),
    "means": np.concatenate([start.means, np.full((2, DIM), np.nan)]),
    "covariances": start.covariances,
  }
  if covariance_type in ("spherical", "diag", "full"):
    filling = np.full((2, *start.covariances.shape[1:]), np.nan)
    wide["covariances"] = np.concatenate([start.covariances, filling])
  fit = functools.partial(
    em.fit,
    jax.random.key(0),
    covariance_type=covariance_type,
    max_iter=10,
    tol=0.0,
  )
  plain = fit(points, K, sample_weight=weight, init=start)
  result = fit(
    padded,
    jnp.asarray(K),
    sample_weight=padded_weight,
    max_components=K + 2,
    init=types.Mixture(**wide),
  )
  odd_data.assert_sane(jax.tree.map(np.asarray, result), K)
  np.testing.assert_array_equal(result.status, plain.status)
  np.testing.assert_allclose(
    result.log_likelihood, plain.log_likelihood, rtol=1e-10
  )
  assert_close(result.mixture.means[:K], plain.mixture.means, 1e-10)
  assert_close(result.mixture.weights[:K], plain.mixture.weights, 1e-10)
  if covariance_type != "unit":
    covariances = result.mixture.covariances
    if "tied" not in covariance_type:
      covariances = covariances[:K]
    assert_close(covariances, plain.mixture.covariances, 1e-10)


B = 64


def batch_of_64():
  """Keys, points, K from 1 to 3, and weights of 20 to 40 points."""
  generator = np.random.default_rng(4)
  num_components = generator.integers(1, 4, B)
  labels = generator.integers(num_components[:, None], size=(B, N))
  centres = 3.0 * generator.normal(size=(B, K, DIM))
  points = generator.normal(size=(B, N, DIM))
  points += centres[np.arange(B)[:, None], labels]
  weight = np.arange(N) < generator.integers(20, N + 1, (B, 1))
  keys = jax.random.split(jax.random.key(2), B)
  return keys, np.float32(points), num_components, np.float32(weight)


def fit_items(keys, points, num_components, weight, *, door, **options):
  def fit(key, points, num_components, weight):
    return em.fit(key, points, num_components, sample_weight=weight, **options)

  if door == "vmap":
    return jax.vmap(fit)(keys, points, num_components, weight)
  return em.fit_batch(
    keys,
    points,
    num_components,
    sample_weight=weight,
    batch_size=16,
    **options,
  )


def assert_same_bits(one, other):
  for leaf, expected in zip(
    jax.tree.leaves(one), jax.tree.leaves(other), strict=True
  ):
    np.testing.assert_array_equal(leaf, expected)


def take(tree, index):
  return jax.tree.map(lambda leaf: leaf[index], tree)


@types_with_fast("diag")
def test_lane_isolation(covariance_type):
  check_isolation(covariance_type, "fit_batch")


@pytest.mark.slow
def test_lane_isolation_under_vmap():
  check_isolation("full", "vmap")


def check_isolation(covariance_type, door):
  inputs = batch_of_64()
  fit = functools.partial(
    fit_items,
    door=door,
    covariance_type=covariance_type,
    max_components=K,
    num_init=2,
    max_iter=40,
  )
  clean = fit(*inputs)
  keys, points, num_components, weight = inputs
  for index, filling, status in (
    (5, np.nan, types.Status.INVALID_INPUT),
    (5, np.inf, types.Status.INVALID_INPUT),
    (17, 2.0, None),
    (40, 1e30, types.Status.INVALID_INPUT),
    (63, 1e15, None),
  ):
    poisoned = points.copy()
    poisoned[index] = filling
    result = fit(keys, poisoned, num_components, weight)
    others = np.delete(np.arange(B), index)
    assert_same_bits(take(result, others), take(clean, others))
    item = jax.tree.map(np.asarray, take(result, index))
    odd_data.assert_sane(item, num_components[index])
    assert status is None or item.status == status
  order = np.random.default_rng(0).permutation(B)
  assert_same_bits(fit(*take(inputs, order)), take(clean, order))
  if door == "fit_batch" and covariance_type in ("diag", "full"):
    few = np.arange(20)
    assert_same_bits(fit(*take(inputs, few)), take(clean, few))


@pytest.mark.parametrize("covariance_type", ["spherical"])
def test_two_batches_and_other_options_compile_once(covariance_type):
  keys, points, num_components, weight = batch_of_64()
  # The static options of `check_isolation`.
  fit = functools.partial(
    em.fit_batch,
    covariance_type=covariance_type,
    max_components=K,
    num_init=2,
    batch_size=16,
  )
  batches._fit_batch.clear_cache()
  fit(keys, points, num_components, sample_weight=weight)
  others = take(
    (keys, points + 1.0, num_components, weight), np.arange(B)[::-1]
  )
  keys, points, num_components, weight = others
  for options in (
    {},
    {"tol": 1e-3},
    {"tol": 0},
    {"tol": np.float32(1e-4)},
    {"max_iter": 5},
    {"max_iter": np.int64(7)},
    {"reg_covar": 1e-3},
    {"reg_covar": 1},
    {"reg_share": 0.0},
  ):
    fit(keys, points, num_components, sample_weight=weight, **options)
    assert batches._fit_batch._cache_size() == 1, options
