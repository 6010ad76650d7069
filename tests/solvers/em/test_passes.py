"""A large problem over the cores, against the same within one program."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import mixture as sklearn_mixture

from tgmm_jax import types
from tgmm_jax.solvers import em
from tgmm_jax.solvers.em import blocks, passes
from tgmm_jax.solvers.execution import cores

K, DIM, N = 3, 2, 5001
MEANS = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
  monkeypatch.setattr(cores, "num_cores", lambda: 2)


def make_points(dtype=np.float64, *, thinnest=1.0):
  generator = np.random.default_rng(0)
  noise = generator.normal(size=(N, DIM)) * [1.0, thinnest]
  turn = np.array([[0.6, -0.8], [0.8, 0.6]])
  return (MEANS[generator.integers(K, size=N)] + noise @ turn).astype(dtype)


def fit_within_one(*args, **options):
  """`em.fit` where it is traced: in one program."""
  key, points, num_components = args
  return jax.jit(
    lambda key, points: em.fit(key, points, num_components, **options)
  )(key, points)


def assert_same(found, expected, *, rtol):
  for leaf, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(leaf, other, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("covariance_type", ["unit", "diag", "full"])
@pytest.mark.parametrize("num_init", [1, 3])
def test_it_is_the_same_fit(x64, covariance_type, num_init):
  assert N > blocks.most_at_once()
  options = {
    "covariance_type": covariance_type,
    "num_init": num_init,
    "max_iter": 20,
    "sample_weight": jnp.linspace(0.0, 2.0, N),
  }
  args = (jax.random.key(0), jnp.asarray(make_points()), K)
  assert_same(
    em.fit(*args, **options), fit_within_one(*args, **options), rtol=1e-8
  )


def test_each_start_has_its_end(x64):
  """`fit_each` of several keys, and which of them `fit` would have kept."""
  keys = jax.random.split(jax.random.key(1), 3)
  points = jnp.asarray(make_points())
  options = {"covariance_type": "full", "max_iter": 5}
  ended = em.fit_each(keys, points, K, **options)
  for index, key in enumerate(keys):
    alone = em.fit(key, points, K, **options)
    one = jax.tree.map(lambda leaf: leaf[index], ended.results)  # noqa: B023
    assert_same(one, alone, rtol=1e-12)
    shorter = em.fit(key, points, K, **options | {"max_iter": 4})
    np.testing.assert_allclose(
      ended.before[index], shorter.log_likelihood, rtol=1e-10
    )


def test_a_degenerate_run_is_run_again_with_a_prior(x64):
  points = make_points()
  # Far from the others and in one place: what is there collapses.
  points[: N // 5] = [30.0, 30.0]
  given = types.Mixture(
    np.full(K, 1 / K),
    np.array([[30.0, 30.0], *MEANS[1:]]),
    np.stack([np.eye(DIM)] * K),
  )
  options = {"covariance_type": "full", "init": given}
  args = (jax.random.key(0), jnp.asarray(points), K)
  assert em.fit(*args, **options).status == types.Status.DEGENERATE
  options["prior_if_degenerate"] = 10.0
  found = em.fit(*args, **options)
  assert found.status == types.Status.CONVERGED
  assert_same(found, fit_within_one(*args, **options), rtol=1e-7)


def test_what_cannot_be_fitted_is_told():
  points = make_points(np.float32)
  points[7] = np.nan
  found = em.fit(jax.random.key(0), jnp.asarray(points), K)
  assert found.status == types.Status.INVALID_INPUT
  assert found.num_iters == 0
  assert found.log_likelihood == -np.inf


def test_without_steps_the_start_is_returned(x64):
  given = types.Mixture(np.full(K, 1 / K), MEANS, np.stack([np.eye(DIM)] * K))
  found = em.fit(
    jax.random.key(0),
    jnp.asarray(make_points()),
    K,
    covariance_type="full",
    init=given,
    max_iter=0,
  )
  assert_same(found.mixture, given, rtol=1e-12)


def test_float32_follows_float64_where_a_component_is_thin():
  """Condition number 1e4: half the digits, but not more, are lost."""
  points = make_points(thinnest=1e-2)
  covariances = np.stack([np.cov(points.T)] * K)
  peer = sklearn_mixture.GaussianMixture(
    K,
    tol=0.0,
    max_iter=20,
    reg_covar=0.0,
    means_init=MEANS,
    weights_init=np.full(K, 1 / K),
    precisions_init=np.linalg.inv(covariances),
  )
  with warnings.catch_warnings(action="ignore"):  # it has not converged
    peer.fit(points)
  found = em.fit(
    jax.random.key(0),
    jnp.asarray(points, jnp.float32),
    K,
    covariance_type="full",
    init=types.Mixture(np.full(K, 1 / K), MEANS, covariances),
    max_iter=20,
    tol=0.0,
    reg_share=0.0,
  )
  np.testing.assert_allclose(
    found.log_likelihood, peer.score(points), atol=1e-4
  )
  np.testing.assert_allclose(found.mixture.means, peer.means_, atol=1e-3)
  np.testing.assert_allclose(
    found.mixture.covariances, peer.covariances_, rtol=1e-2, atol=1e-5
  )


@pytest.mark.parametrize("kind", ["fixed", "noise", "holes"])
def test_what_is_not_plain_stays_within_one_program(x64, kind):
  points = make_points()
  given = types.Mixture(np.full(K, 1 / K), MEANS, np.stack([np.eye(DIM)] * K))
  options = {"covariance_type": "full", "init": given, "max_iter": 3}
  if kind == "fixed":
    options["fixed"] = em.Fixed(means=np.array([True, False, False]))
  elif kind == "noise":
    options["point_covariances"] = np.full((N, DIM), 0.5)
  else:
    points[::7, 1] = np.nan
    options["missing"] = "observed"
  args = (jax.random.key(0), jnp.asarray(points), K)
  found = em.fit(*args, **options)
  assert_same(found, fit_within_one(*args, **options), rtol=1e-8)
  if kind == "fixed":
    np.testing.assert_array_equal(found.mixture.means[0], MEANS[0])


def test_a_batch_of_large_problems_is_each_by_itself(x64):
  points = np.stack([make_points(), 2.0 * make_points() - 1.0, make_points()])
  options = {"covariance_type": "full", "num_init": 2, "max_iter": 4}
  keys = jax.random.split(jax.random.key(0), 3)
  found = em.fit_batch(keys, points, K, **options)
  for index in range(3):
    alone = em.fit(keys[index], jnp.asarray(points[index]), K, **options)
    one = jax.tree.map(lambda leaf: leaf[index], found)  # noqa: B023
    assert_same(one, alone, rtol=1e-8)


def test_inside_jit_nothing_is_shared_out():
  inputs = em.Inputs(jax.random.key(0), jnp.zeros((N, DIM)), K, None, None)
  form = em.make_plan(
    {}, inputs.points, K, covariance_type="unit", max_components=None
  ).form
  assert passes.are_worth_it(inputs, form)
  small = inputs._replace(points=inputs.points[: blocks.most_at_once()])
  assert not passes.are_worth_it(small, form)

  @jax.jit
  def inside(points):
    assert not passes.are_worth_it(inputs._replace(points=points), form)
    return points

  inside(inputs.points)


def test_many_problems_are_dealt_out_over_the_cores(monkeypatch):
  """Bit for bit what one core makes of them, the last part filled up."""
  generator = np.random.default_rng(0)
  points = generator.normal(size=(67, 16, 2)).astype(np.float32)
  options = {"covariance_type": "diag", "batch_size": 8, "max_iter": 5}
  key = jax.random.key(0)
  dealt = em.fit_batch(key, points, 2, **options)
  monkeypatch.setattr(cores, "num_cores", lambda: 1)
  alone = em.fit_batch(key, points, 2, **options)
  for leaf, other in zip(
    jax.tree.leaves(dealt), jax.tree.leaves(alone), strict=True
  ):
    assert leaf.shape[0] == 67
    np.testing.assert_array_equal(leaf, other)
