"""Sharded fits on one device; on several: `tests/devices/test_fit_large.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.solvers.em import problems as em_problems
from tgmm_jax import types
from tgmm_jax.solvers import em
from tgmm_jax.solvers.em import sharded
from tgmm_jax.training import sharding

NUM_POINTS, DIM, K = 61, 3, 3


POINTS, WEIGHTS = em_problems.spoiled_clusters(NUM_POINTS, every=7)


def fit(points=POINTS, num_components=K, **options):
  options = {
    "mesh": sharding.make_mesh(1),
    "sample_weight": WEIGHTS,
    "block_size": 16,
  } | options
  return sharded.fit_sharded(
    jax.random.key(0), points, num_components, **options
  )


def assert_same(found, expected):
  for mine, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  "covariance_type", [pytest.param("unit", marks=pytest.mark.slow), "full"]
)
def test_blocks_give_the_fit_of_all_at_once(covariance_type):
  start = types.Mixture(
    jnp.array([0.2, 0.3, 0.5]),
    jnp.array([[1.0, 0.0, 0.0], [3.0, 1.0, 1.0], [1.0, 4.0, 2.0]]),
    jnp.broadcast_to(2.0 * jnp.eye(DIM), (K, DIM, DIM)),
  )
  options = {
    "covariance_type": covariance_type,
    "init": start,
    "max_iter": 8,
    "tol": 0.0,
  }
  expected = em.fit(
    jax.random.key(0), POINTS, K, sample_weight=WEIGHTS, **options
  )
  assert expected.status == types.Status.MAX_ITER
  assert_same(fit(**options), expected)


@pytest.mark.slow
def test_a_drawn_start_is_that_of_em_fit():
  options = {"covariance_type": "diag", "sample_weight": WEIGHTS, "tol": 1e-4}
  expected = em.fit(jax.random.key(0), POINTS, K, **options)
  assert expected.status == types.Status.CONVERGED
  assert_same(fit(**options), expected)


def test_a_start_from_some_of_the_points(monkeypatch):
  monkeypatch.setattr(sharded, "NUM_START_POINTS", 40)
  weight = np.where(np.arange(NUM_POINTS) < 30, WEIGHTS, 0.0)
  result = fit(init="random_points", sample_weight=weight, max_iter=0)
  distances = np.abs(POINTS[None] - np.asarray(result.mixture.means)[:, None])
  nearest = np.nanargmin(np.max(distances, axis=-1), axis=1)
  np.testing.assert_allclose(result.mixture.means, POINTS[nearest], atol=1e-6)
  assert np.all(weight[nearest] > 0)
  assert np.unique(nearest).size == K


def test_a_given_start_that_cannot_be_gets_a_status():
  start = types.Mixture(jnp.ones(K), jnp.full((K, DIM), jnp.nan))
  result = fit(init=start)
  assert result.status == types.Status.INVALID_INPUT
  assert np.isneginf(result.log_likelihood)
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(result[0]))


def with_value(array, index, value):
  array = array.copy()
  array[index] = value
  return array


@pytest.mark.parametrize(
  ("options", "named"),
  [
    ({"points": with_value(POINTS, (50, 2), np.nan)}, r"nan .*\[50, 2\]"),
    ({"points": with_value(POINTS, (60, 0), np.inf)}, r"inf .*\[60, 0\]"),
    ({"sample_weight": with_value(WEIGHTS, 40, -1.0)}, "is -1.0 at 40"),
    ({"sample_weight": with_value(WEIGHTS, 0, np.nan)}, "is nan at 0"),
    ({"sample_weight": 0.0 * WEIGHTS}, "is zero for all of 61 points"),
    ({"sample_weight": WEIGHTS[1:]}, r"has shape \(60,\), takes \(61,\)"),
    ({"sample_weight": WEIGHTS[:, None]}, "sample_weight has shape"),
    ({"points": POINTS[0]}, r"points has shape \(3,\)"),
    ({"points": POINTS[:0]}, r"points has shape \(0, 3\)"),
    ({"points": POINTS[None]}, r"points has shape \(1, 61, 3\)"),
    ({"axis": "model"}, "axis is 'model', takes 'data'"),
    ({"num_components": 0}, "num_components is 0"),
    ({"num_components": 62}, "is 62, takes an integer from 1 to 61"),
    ({"num_components": 2.5}, "num_components is 2.5"),
    ({"block_size": 0}, "block_size is 0"),
    ({"covariance_type": "round"}, "covariance_type is 'round'"),
    ({"init": "best"}, "init is 'best'"),
    ({"tol": -1.0}, "tol is -1.0"),
    ({"max_iter": 1.5}, "max_iter is 1.5"),
  ],
)
def test_what_cannot_be_is_refused_by_name(options, named):
  with pytest.raises(ValueError, match=named):
    fit(**options)


def test_points_that_are_no_numbers_are_refused():
  with pytest.raises(ValueError, match="points has dtype"):
    fit(POINTS.astype(str))
