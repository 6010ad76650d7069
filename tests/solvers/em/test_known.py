"""What is known stays, bit for bit, and the rest is the constrained optimum."""

import functools
import itertools

import jax
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from tests.solvers.em import problems as em_problems
from tgmm_jax import gmm, types
from tgmm_jax.solvers import em
from tgmm_jax.training import sharding

KEY = jax.random.key(0)
MEANS = np.array([True, False, False])
FAST = (("full", True), ("unit", False))


def problem(covariance_type):
  """Points in odd units; a start whose first mean the frame would round."""
  shape = gmm.kind_of(covariance_type).shape(3, 2)
  points = 3.7 * em_problems.clusters((3, 2), 90, seed=2, spread=4.0) + 3.1
  start = em_problems.make_start(points, 3, covariance_type, seed=1)
  start.means[0] = [0.1, 1.0 / 3.0]
  if start.covariances is None:
    return points, start
  return points, start._replace(covariances=start.covariances.reshape(shape))


def masks(covariance_type):
  kind = gmm.kind_of(covariance_type)
  covariances = np.array([False, False, True])
  if not kind.is_per_component:
    covariances = None if kind.is_known else np.array(True)
  return em.Fixed(np.array([False, True, False]), MEANS, covariances)


def held(mixture, fixed):
  """All numbers that stay, in a row."""
  return np.concatenate(
    [
      np.ravel(np.asarray(leaf)[mask])
      for leaf, mask in zip(mixture, fixed, strict=True)
      if mask is not None
    ]
  )


@pytest.mark.parametrize(
  ("covariance_type", "x64"),
  [
    pytest.param(*way, marks=() if way in FAST else pytest.mark.slow)
    for way in itertools.product(gmm.COVARIANCE_TYPES, [False, True])
  ],
)
def test_what_is_fixed_is_the_given_bit_for_bit(covariance_type, x64):
  points, start = problem(covariance_type)
  fixed, dtype = masks(covariance_type), np.float64 if x64 else np.float32
  points, start = jax.tree.map(lambda leaf: leaf.astype(dtype), (points, start))
  options = {"covariance_type": covariance_type, "max_iter": 15}
  with jax.enable_x64(x64):
    one = em.fit(KEY, points, 3, init=start, fixed=fixed, **options)
    batch = em.fit_batch(
      KEY,
      np.stack([points, points]),
      3,
      init=jax.tree.map(lambda leaf: np.stack([leaf, leaf]), start),
      fixed=fixed,
      **options,
    )
    free = em.fit(KEY, points, 3, init=start, **options)
  expected = held(start, fixed)
  for mixture in (
    one.mixture,
    jax.tree.map(lambda leaf: leaf[1], batch.mixture),
  ):
    np.testing.assert_array_equal(held(mixture, fixed), expected)
    np.testing.assert_allclose(np.sum(mixture.weights), 1.0, rtol=1e-6)
    assert np.all(np.asarray(mixture.means)[1:] != start.means[1:])
  assert np.all(held(free.mixture, fixed) != expected)


@pytest.mark.parametrize("name", ["fit_stream", "fit_sharded"])
def test_large_problems_keep_it_too(name):
  points, start = problem("full")
  fixed = masks("full")
  options = {"covariance_type": "full", "max_iter": 15, "tol": 0.0}
  options |= {"init": start, "fixed": fixed}
  with jax.enable_x64(True):
    expected = em.fit(KEY, points, 3, **options)
    if name == "fit_sharded":
      options["mesh"] = sharding.make_mesh(1)
    found = getattr(em, name)(KEY, points, 3, **options)
  np.testing.assert_array_equal(held(found.mixture, fixed), held(start, fixed))
  for own, other in zip(found.mixture, expected.mixture, strict=True):
    np.testing.assert_allclose(own, other, rtol=1e-9)


def unpacked(vector, start):
  """Weights of two, means of two, log variances of two components of three."""
  rest = 1.0 - start.weights[1]
  share = 1.0 / (1.0 + np.exp(-vector[0]))
  weights = np.array([rest * share, start.weights[1], rest * (1.0 - share)])
  means = np.stack([start.means[0], vector[1:3], vector[3:5]])
  variances = np.array([*np.exp(vector[5:7]), start.covariances[2]])
  return weights, means, variances


def log_likelihood(points, weights, means, variances):
  joint = [
    weight * scipy.stats.multivariate_normal(mean, variance).pdf(points)
    for weight, mean, variance in zip(weights, means, variances, strict=True)
  ]
  return np.mean(np.log(np.sum(joint, axis=0)))


@pytest.mark.usefixtures("x64")
def test_the_rest_is_the_constrained_optimum():
  points, start = problem("spherical")
  fixed = masks("spherical")
  found = em.fit(
    *(KEY, points, 3),
    covariance_type="spherical",
    init=start,
    fixed=fixed,
    tol=0.0,
    max_iter=2000,
    reg_share=0.0,
  )
  weights, means, variances = map(np.asarray, found.mixture)
  begin = np.concatenate(
    [
      [np.log(weights[0] / weights[2])],
      means[1:].ravel(),
      np.log(variances[:2]),
    ]
  )
  best = scipy.optimize.minimize(
    lambda vector: -log_likelihood(points, *unpacked(vector, start)),
    begin + 0.05 * np.random.default_rng(0).normal(size=begin.size),
    method="BFGS",
    options={"gtol": 1e-9},
  )
  np.testing.assert_allclose(found.log_likelihood, -best.fun, rtol=1e-10)
  for own, other in zip(found.mixture, unpacked(best.x, start), strict=True):
    np.testing.assert_allclose(own, other, rtol=1e-4)


@pytest.mark.usefixtures("x64")
def test_weights_have_a_floor_and_the_rest_is_shared_in_proportion():
  generator = np.random.default_rng(0)
  centres = np.array([0.0, 30.0, 60.0, 90.0])[:, None]
  counts = [4, 10, 26, 60]
  points = np.repeat(centres, counts, axis=0)
  points = points + generator.normal(size=points.shape)
  start = types.Mixture(np.full(4, 0.25), centres)
  fit = functools.partial(em.fit, KEY, points, 4, init=start)
  # Apart as they are, masses are counts: at 0.2 the lowest two are raised, the
  # third would be but for what these take (0.6 * 26 / 86 = 0.18).
  weights = fit(min_weight=0.2).mixture.weights
  expected = scipy.optimize.minimize(
    lambda own: -np.dot(counts, np.log(own)),
    np.full(4, 0.25),
    bounds=[(0.2, 1.0)] * 4,
    constraints={"type": "eq", "fun": lambda own: np.sum(own) - 1.0},
  ).x
  np.testing.assert_allclose(weights, expected, atol=1e-4)
  np.testing.assert_allclose(weights, [0.2, 0.2, 0.2, 0.4], atol=1e-12)
  # Beside a weight that stays.
  start = start._replace(weights=np.array([0.7, 0.1, 0.1, 0.1]))
  fixed = em.Fixed(weights=np.array([True, False, False, False]))
  weights = fit(init=start, fixed=fixed, min_weight=0.05).mixture.weights
  left = 0.25 * np.array([26.0, 60.0]) / 86.0
  np.testing.assert_allclose(weights, [0.7, 0.05, *left], atol=1e-12)


def test_what_cannot_stay_is_refused_or_has_a_status():
  points, start = problem("full")
  fit = functools.partial(em.fit, KEY, points, 3, covariance_type="full")
  for fixed, options, message in (
    (em.Fixed(means=MEANS), {}, "fixed is given with a drawn start, takes a M"),
    (MEANS, {"init": start}, "fixed is array.*, takes an em.Fixed or None"),
    (
      em.Fixed(means=MEANS[:2]),
      {"init": start},
      r"fixed has means .*, takes bools of shape \(3,\)",
    ),
    (
      em.Fixed(covariances=MEANS),
      {"init": start._replace(covariances=None)},
      "fixed has covariances, takes None",
    ),
  ):
    with pytest.raises(ValueError, match=message):
      fit(fixed=fixed, **options)
  with pytest.raises(
    ValueError, match="min_weight is 0.4, takes at most 1 / K"
  ):
    fit(min_weight=0.4)
  # Weights that are no shares.
  for weights, mask in (
    ([0.6, 0.6, 0.1], [True, True, False]),
    ([0.2, 0.2, 0.2], [True, True, True]),
  ):
    own = start._replace(weights=np.array(weights))
    found = fit(init=own, fixed=em.Fixed(weights=np.array(mask)))
    assert found.status == types.Status.INVALID_INPUT
    assert all(np.all(np.isfinite(leaf)) for leaf in found.mixture)
