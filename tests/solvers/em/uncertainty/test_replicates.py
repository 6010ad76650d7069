"""The bootstrap, against closed forms, NumPy and brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.solvers.em import problems
from tgmm_jax import types
from tgmm_jax.solvers import em
from tgmm_jax.solvers.em.uncertainty import replicates

KEY = jax.random.key(3)
POINTS = problems.clusters((3, 2), 90, seed=3, spread=5.0).astype(np.float32)
SIZES = {"num_replicates": 100, "batch_size": 32}


@pytest.fixture(scope="module")
def fit():
  """Three clusters that stand apart, with full covariances."""
  options = {"covariance_type": "full", "num_init": 5}
  found = em.fit(jax.random.key(0), POINTS, 3, **options)
  assert found.status == types.Status.CONVERGED
  return jax.tree.map(np.asarray, found.mixture)


@pytest.fixture(scope="module")
def drawn(fit):
  found = em.bootstrap(KEY, POINTS, fit, covariance_type="full", **SIZES)
  return jax.tree.map(np.asarray, found)


def test_of_one_component_errors_have_closed_forms():
  """Those of a weighted mean and variance, within Monte Carlo error."""
  generator = np.random.default_rng(0)
  points = generator.normal(size=(80, 2)) @ [[2.0, 1.0], [0.0, 0.5]] + [5, 100]
  points = points.astype(np.float32)
  count, mean = len(points), points.mean(axis=0)
  gaps = points - mean
  covariance = gaps.T @ gaps / count
  mixture = types.Mixture(np.ones(1), mean[None], covariance[None])
  found = em.bootstrap(
    KEY, points, mixture, num_replicates=2000, covariance_type="full"
  )
  assert found.is_valid
  assert found.num_left_out == 0
  errors = found.standard_errors
  # A share has the variance 1 / N^2 (N - 1) / (N + 1) under Dirichlet(1).
  tolerance = {"rtol": 4.0 / np.sqrt(2 * 2000)}
  np.testing.assert_allclose(
    errors.means[0], np.sqrt(np.diag(covariance) / (count + 1)), **tolerance
  )
  products = gaps[:, :, None] * gaps[:, None] - covariance
  expected = np.sqrt(np.mean(products**2, axis=0) / (count + 1))
  np.testing.assert_allclose(errors.covariances[0], expected, rtol=0.1)
  np.testing.assert_allclose(
    found.mean_covariances[0], covariance / (count + 1), rtol=0.15
  )
  assert errors.weights == 0
  assert found.draws.weights.shape == (2000, 1)


def test_errors_with_weights_are_those_of_a_weighted_mean():
  generator = np.random.default_rng(1)
  points = generator.normal(size=(80, 2)).astype(np.float32)
  weight = generator.uniform(0.1, 3.0, 80).astype(np.float32)
  share = weight / weight.sum()
  mean = share @ points
  found = em.bootstrap(
    KEY,
    points,
    types.Mixture(np.ones(1), mean[None]),
    num_replicates=2000,
    sample_weight=5.0 * weight,
  )
  expected = np.sqrt(share**2 @ (points - mean) ** 2)
  np.testing.assert_allclose(found.standard_errors.means[0], expected, rtol=0.1)


def test_replicates_are_fits_with_random_weights(drawn, fit):
  """Each is what `em.fit` finds with the weights of its key."""
  for index in (0, 57):
    key = jax.random.fold_in(KEY, index)
    weight = jax.random.exponential(key, (len(POINTS),))
    own = em.fit(
      KEY, POINTS, 3, covariance_type="full", sample_weight=weight, init=fit
    )
    jax.tree.map(
      lambda leaf, other, index=index: np.testing.assert_allclose(
        leaf[index], other, rtol=5e-3, atol=5e-3
      ),
      drawn.draws,
      own.mixture,
    )


def test_padding_and_the_batch_change_nothing(drawn, fit):
  padded = jax.tree.map(
    lambda leaf: np.pad(leaf, [(0, 1)] + [(0, 0)] * (leaf.ndim - 1)), fit
  )
  wide = em.bootstrap(
    KEY,
    np.pad(POINTS, ((0, 6), (0, 0)), constant_values=np.nan),
    padded,
    3,
    covariance_type="full",
    sample_weight=np.pad(np.full(90, 2.0, np.float32), (0, 6)),
    num_replicates=100,
    batch_size=7,
  )
  for own, other in zip(
    jax.tree.leaves(drawn.draws), jax.tree.leaves(wide.draws), strict=True
  ):
    # EM may end a step earlier or later.
    np.testing.assert_allclose(other[:, :3], own, rtol=0.02, atol=0.02)
  for name in ("standard_errors", "lower", "upper"):
    for own, other in zip(
      jax.tree.leaves(getattr(drawn, name)),
      jax.tree.leaves(getattr(wide, name)),
      strict=True,
    ):
      np.testing.assert_allclose(other[:3], own, rtol=0.02, atol=2e-3)
      assert np.all(other[3:] == 0)


def test_errors_and_intervals_are_those_of_the_draws(drawn, fit):
  jax.tree.map(
    lambda leaf, error: np.testing.assert_allclose(
      error, leaf.std(axis=0, ddof=1), rtol=1e-3
    ),
    drawn.draws,
    drawn.standard_errors,
  )
  for index in range(3):
    np.testing.assert_allclose(
      drawn.mean_covariances[index],
      np.cov(drawn.draws.means[:, index].T),
      rtol=1e-3,
      atol=1e-6,
    )
  own = 90 * fit.weights
  widths = [
    np.sqrt((number + 1) / (number - 1)) * stats.t.ppf(0.95, freedom)
    for number, freedom in (
      *((90, 90), (own[:, None], own[:, None])),
      (own[:, None, None], own[:, None, None] / 7),
    )
  ]
  for leaf, own, low, high, width in zip(
    drawn.draws, fit, drawn.lower, drawn.upper, widths, strict=True
  ):
    shift = 2 * stats.norm.ppf((leaf < own).mean(axis=0))
    for end, sign in ((low, -1), (high, 1)):
      chance = stats.norm.cdf(shift + sign * width)
      for place in np.ndindex(own.shape):
        expected = np.quantile(leaf[:, *place], chance[place], method="weibull")
        np.testing.assert_allclose(end[place], expected, rtol=1e-2, atol=3e-3)


def brute_force(mixture, fit):
  """The order of least total divergence, bounded as x / (1 + x)."""
  size, dim = mixture.means.shape
  cost = np.zeros((size, size))
  for i, j in np.ndindex(size, size):
    inverse = np.linalg.inv(fit.covariances[j])
    gap = mixture.means[i] - fit.means[j]
    ratio = inverse @ mixture.covariances[i]
    value = np.trace(ratio) - dim + gap @ inverse @ gap
    value = 0.5 * (value - np.linalg.slogdet(ratio)[1])
    cost[i, j] = value / (1 + value)
  return min(
    itertools.permutations(range(size)),
    key=lambda order: sum(cost[own, j] for j, own in enumerate(order)),
  )


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_components_that_swap_are_put_back(covariance_type):
  """Also those about one centre, which differ in their shapes alone."""
  generator = np.random.default_rng(0)
  fit = types.Mixture(
    np.array([0.1, 0.2, 0.3, 0.4], np.float32),
    np.array([[0, 0], [0, 0], [9, 9], [9, 8]], np.float32),
    np.array([[1, 9], [9, 1], [1, 1], [2, 2]], np.float32)[:, None] * np.eye(2),
  )
  for order in ((1, 0, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)):
    moved = types.Mixture(
      fit.weights[[*order]],
      fit.means[[*order]] + 0.2 * generator.normal(size=(4, 2)),
      fit.covariances[[*order]] * generator.uniform(0.8, 1.25, (4, 1, 1)),
    )
    expected = brute_force(moved, fit)
    given = [moved, fit]
    if covariance_type == "diag":
      given = [
        one._replace(covariances=np.einsum("kii->ki", one.covariances))
        for one in given
      ]
    own, other = given
    found = replicates._aligned(
      *jax.tree.map(jnp.asarray, (own, other)),
      4,
      covariance_type=covariance_type,
    )
    np.testing.assert_allclose(found.weights, moved.weights[[*expected]])
    np.testing.assert_allclose(found.weights, fit.weights)
    own = own._replace(
      means=own.means[[*expected]], covariances=own.covariances[[*expected]]
    )
    np.testing.assert_allclose(found.means, own.means, rtol=1e-6)
    np.testing.assert_allclose(found.covariances, own.covariances, rtol=1e-6)


def test_degenerate_replicates_are_counted_and_left_out(fit):
  """Of four points some weights leave hardly more than what is added."""
  few = np.concatenate([POINTS[:60], [[40, 0], [41, 2], [42, -1], [40, 3]]])
  few = few.astype(np.float32)
  options = {"covariance_type": "full", "num_init": 20}
  found = em.fit(jax.random.key(0), few, 4, **options)
  drawn = em.bootstrap(
    KEY,
    few,
    found.mixture,
    covariance_type="full",
    reg_share=0.1,
    num_replicates=100,
  )
  drawn = jax.tree.map(np.asarray, drawn)
  is_kept = drawn.status < types.Status.DEGENERATE
  assert drawn.num_left_out == np.sum(~is_kept)
  assert 0 < drawn.num_left_out < 50
  assert drawn.is_valid
  np.testing.assert_allclose(
    drawn.standard_errors.means,
    drawn.draws.means[is_kept].std(axis=0, ddof=1),
    rtol=1e-2,
  )


def test_where_nothing_can_be_said_errors_are_infinite(fit):
  spoiled = POINTS.copy()
  spoiled[3, 1] = np.nan
  found = em.bootstrap(KEY, spoiled, fit, covariance_type="full", **SIZES)
  assert not found.is_valid
  assert found.num_left_out == 100
  assert np.all(found.status == types.Status.INVALID_INPUT)
  for leaf in jax.tree.leaves(found.standard_errors):
    assert np.all(leaf == np.inf)
  for leaf in jax.tree.leaves(found):
    assert not np.any(np.isnan(leaf))


def test_what_no_data_could_make_right_is_refused(fit):
  for options, match in (
    ({"num_init": 2}, "num_init is 2, takes 1 with bootstrap"),
    ({"init": "normal"}, "init is 'normal', takes 'ward'"),
    ({"num_replicates": 0}, "num_replicates is 0, takes an integer >= 1"),
    ({"level": 90}, "level is 90, takes a number between 0 and 1"),
    ({"tolerance": 1}, "option is 'tolerance', takes"),
  ):
    with pytest.raises(ValueError, match=match):
      em.bootstrap(KEY, POINTS, fit, covariance_type="full", **options)
