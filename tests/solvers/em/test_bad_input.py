"""What EM says of bad points and starts, and the options it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.solvers.em import problems as em_problems
from tgmm_jax import types
from tgmm_jax.solvers import em

K, DIM, NUM_POINTS = 3, 4, 40
POINTS = em_problems.clusters((K, DIM), NUM_POINTS).astype(np.float32)


def bad_inputs():
  points = POINTS.copy()
  weight = np.ones(NUM_POINTS, np.float32)
  with_nan, with_inf, huge = points.copy(), points.copy(), points.copy()
  with_nan[3, 1] = np.nan
  with_inf[0, 0] = -np.inf
  huge[0, 0] = 1e25
  negative, nan_weight = weight.copy(), weight.copy()
  negative[2] = -1.0
  nan_weight[2] = np.nan
  cases = [
    (points, weight, 3, types.Status.CONVERGED),
    (with_nan, weight, 3, types.Status.INVALID_INPUT),
    (with_inf, weight, 3, types.Status.INVALID_INPUT),
    (huge, weight, 3, types.Status.INVALID_INPUT),
    (points, 0.0 * weight, 3, types.Status.INVALID_INPUT),
    (points, negative, 3, types.Status.INVALID_INPUT),
    (points, nan_weight, 3, types.Status.INVALID_INPUT),
    (points, np.inf * weight, 3, types.Status.INVALID_INPUT),
    (points, weight, 0, types.Status.INVALID_INPUT),
    (points, weight, -2, types.Status.INVALID_INPUT),
    (points, weight, 5, types.Status.INVALID_INPUT),
    (np.ones_like(points), weight, 3, types.Status.DEGENERATE),
    (points, weight * (np.arange(NUM_POINTS) < 2), 3, types.Status.DEGENERATE),
  ]
  return [np.stack(column) for column in zip(*cases, strict=True)]


@pytest.mark.parametrize(
  ("init", "is_projected"),
  [
    ("k-means++", True),
    pytest.param("random_points", False, marks=pytest.mark.slow),
    pytest.param("normal", False, marks=pytest.mark.slow),
  ],
)
def test_bad_inputs_get_a_status_and_finite_parameters(init, is_projected):
  points, weight, num_components, status = bad_inputs()
  options = {
    "max_components": 4,
    "init": init,
    "num_init": 2,
    "is_projected": is_projected,
  }
  keys = jax.random.split(jax.random.key(0), len(points))
  one_by_one = jax.jit(
    jax.vmap(
      lambda key, points, num_components, weight: em.fit(
        key, points, num_components, sample_weight=weight, **options
      )
    )
  )(keys, points, num_components, weight)
  queued = em.fit_batch(
    keys, points, num_components, sample_weight=weight, **options
  )
  for result in (one_by_one, queued):
    # From normal starts a repeated point need not be degenerate.
    is_told = (status != types.Status.DEGENERATE) | (init != "normal")
    np.testing.assert_array_equal(result.status[is_told], status[is_told])
    for leaf in jax.tree.leaves(result.mixture):
      assert np.all(np.isfinite(leaf))
    assert not np.any(np.isnan(result.log_likelihood))
    np.testing.assert_array_equal(
      np.isneginf(result.log_likelihood),
      status == types.Status.INVALID_INPUT,
    )


@pytest.mark.parametrize(
  ("weights", "means", "status"),
  [
    ([0.5, 0.5, 0.0], "points", types.Status.DEGENERATE),
    ([0.4, 0.3, 0.3], "equal", types.Status.DEGENERATE),
    ([0.4, 0.3, 0.3], "far", types.Status.DEGENERATE),
    ([0.4, 0.3, 0.3], "nan", types.Status.INVALID_INPUT),
    ([0.4, 0.3, 0.3], "huge", types.Status.INVALID_INPUT),
    ([0.0, 0.0, 0.0], "points", types.Status.INVALID_INPUT),
    ([0.5, np.nan, 0.5], "points", types.Status.INVALID_INPUT),
    ([0.8, -0.2, 0.4], "points", types.Status.INVALID_INPUT),
  ],
)
def test_bad_starts_get_a_status_and_finite_parameters(weights, means, status):
  points = POINTS.copy()
  given = {
    "points": points[:K],
    "equal": np.repeat(points[:1], K, axis=0),
    "far": np.concatenate([points[: K - 1], np.full((1, DIM), 1e6)]),
    "nan": np.full((K, DIM), np.nan),
    "huge": np.full((K, DIM), 1e30),
  }[means].astype(np.float32)
  start = types.Mixture(jnp.asarray(weights, jnp.float32), jnp.asarray(given))
  result = em.fit(jax.random.key(0), points, K, init=start)
  assert result.status == status
  for leaf in jax.tree.leaves(result.mixture):
    assert np.all(np.isfinite(leaf))
  if means == "far":
    # Without points the mean stays where it was given.
    np.testing.assert_allclose(result.mixture.means[-1], 1e6, rtol=1e-6)


def test_five_steps_from_a_degenerate_start_are_five_steps():
  points = POINTS.copy()
  equal = types.Mixture(jnp.full(K, 1 / K), jnp.zeros((K, DIM)))
  result = em.fit(jax.random.key(0), points, K, init=equal, max_iter=5, tol=0.0)
  assert result.num_iters == 5


@pytest.mark.parametrize(
  ("options", "named"),
  [
    ({"init": "kmeans"}, "init is 'kmeans'"),
    ({"num_init": 0}, "num_init is 0"),
    ({"max_iter": -1}, "max_iter is -1"),
    ({"tol": -1.0}, "tol is -1.0"),
    ({"tol": np.nan}, "tol is nan"),
    ({"max_components": 0}, "max_components is 0"),
    (
      {"init": types.Mixture(jnp.ones(3), jnp.ones((3, 5)))},
      "init has means of shape",
    ),
    (
      {"init": types.Mixture(jnp.ones(3), jnp.ones((3, 4))), "num_init": 2},
      "num_init is 2",
    ),
  ],
)
def test_wrong_options_are_refused_by_name(options, named):
  points = jnp.zeros((NUM_POINTS, DIM))
  with pytest.raises(ValueError, match=named):
    em.fit(jax.random.key(0), points, K, **options)


def test_a_traced_number_of_components_needs_max_components():
  with pytest.raises(ValueError, match="max_components is None"):
    em.fit(jax.random.key(0), jnp.zeros((9, 2)), jnp.asarray(3))


def test_integer_points_are_taken():
  points = np.array([[0, 0], [0, 1], [9, 9], [9, 8]])
  result = em.fit(jax.random.key(0), jnp.asarray(points), 2, num_init=3)
  means = np.sort(np.asarray(result.mixture.means), axis=0)
  np.testing.assert_allclose(means, [[0, 0.5], [9, 8.5]], atol=1e-5)
