"""The refiner where the unit of the points means nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.models import small_refiner
from tgmm_jax import gmm, types
from tgmm_jax.models import refiner

OPTIONS = {
  "tied_spherical": {"covariance_type": "tied_spherical", "origin_rate": 0.0},
  "full": {"covariance_type": "full", "rank": 3, "origin_rate": 0.0},
}
TYPES = tuple(OPTIONS)
SIZE = small_refiner.SIZE


def problem_of(kind, **sizes):
  return small_refiner.problem_of(**sizes, **OPTIONS[kind])


def answer(kind, problem, params=None):
  own = small_refiner.network(**OPTIONS[kind])[1]
  compiled = small_refiner.compiled(**OPTIONS[kind])
  return compiled(own if params is None else params, problem)


def with_second_layer(kind, **values):
  """Parameters whose second layer corrects nothing, and these values."""
  params = jax.tree.map(jnp.asarray, small_refiner.network(**OPTIONS[kind])[1])
  second = params["layers"]["1"]
  params["layers"]["1"] = {
    **second,
    "to_mean": jax.tree.map(jnp.zeros_like, second["to_mean"]),
    "to_scale": jax.tree.map(jnp.zeros_like, second["to_scale"]),
    "log_inverse_temperature": jnp.zeros(()),
    **values,
  }
  return params


def shares_of(prediction, points, covariances, count=3):
  """Posterior probabilities by SciPy, from the first stage's mixture."""
  joint = np.stack(
    [
      np.exp(prediction.log_weights[0, k])
      * stats.multivariate_normal(
        np.asarray(prediction.means[0, k], float), covariances[k]
      ).pdf(points)
      for k in range(count)
    ]
  )
  return joint / joint.sum(axis=0)


def test_an_uncorrected_layer_with_full_covariances_is_an_em_step():
  problem = problem_of("full", num_points=24, dim=3)
  params = with_second_layer("full")
  # Components that differ: else each has the covariance of all points, which
  # are whitened.
  first = params["layers"]["0"]
  bias = first["to_scale"]["bias"] - 1.0
  params["layers"]["0"] = {
    **first,
    "to_mean": jax.tree.map(lambda leaf: 2.0 * leaf, first["to_mean"]),
    "to_scale": {**first["to_scale"], "bias": bias},
  }
  params["slots"] = jax.tree.map(lambda leaf: 5.0 * leaf, params["slots"])
  prediction = answer("full", problem, params)
  points = np.asarray(problem.points, float)
  first = [
    np.diag(np.asarray(scales, float) ** 2) for scales in prediction.scales[0]
  ]
  share = shares_of(prediction, points, first)
  largest = 0.0
  for k in range(3):
    mean = np.average(points, axis=0, weights=share[k])
    covariance = np.cov(points.T, aweights=share[k], ddof=0)
    scales = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(prediction.means[1, k], mean, atol=2e-3)
    np.testing.assert_allclose(prediction.scales[1, k], scales, atol=2e-3)
    # As if d + 2 more points had no correlation.
    mass = share[k].sum()
    correlation = covariance / np.outer(scales, scales)
    expected = correlation * mass / (mass + 5.0)
    largest = max(largest, np.abs(np.triu(expected, 1)).max())
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(
      prediction.correlations[1, k], expected, atol=2e-3
    )
  assert largest > 0.1


@pytest.mark.parametrize("dim", [2, 8])
def test_an_uncorrected_layer_with_one_variance_is_an_em_step(dim):
  """Its variance is that of all d coordinates, not of the frame's four."""
  kind, weight = "tied_spherical", small_refiner.weight_of(24)
  points = small_refiner.points_of(dim)
  problem, frame = small_refiner.encoder(**OPTIONS[kind])(
    jax.random.key(2), points, weight, jnp.int32(3)
  )
  prediction = answer(kind, problem, with_second_layer(kind))
  variance = float(prediction.scales[0, 0, 0]) ** 2
  inside = np.asarray(problem.points, float)
  share = shares_of(prediction, inside, [variance * np.eye(4)] * 3)
  means = share @ inside / share.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(prediction.means[1, :3], means, atol=5e-3)
  lifted = np.asarray(frame.centre + means @ frame.axes)
  squares = np.sum((points[None] - lifted[:, None]) ** 2, axis=-1)
  expected = np.sqrt(np.sum(share * squares) / points.size)
  np.testing.assert_allclose(prediction.scales[1, 0, 0], expected, rtol=2e-3)


def test_one_variance_is_one_number():
  prediction = answer("tied_spherical", problem_of("tied_spherical", dim=3))
  used = np.asarray(prediction.scales[:, :3, :3])
  np.testing.assert_array_equal(
    used, np.broadcast_to(used[:, :1, :1], used.shape)
  )
  assert abs(np.log(used[1, 0, 0] / used[0, 0, 0])) > 1e-4
  np.testing.assert_array_equal(prediction.scales[:, 3:], 1.0)
  assert prediction.correlations is None


def test_weights_are_the_mass_of_an_e_step_with_full_covariances():
  problem = problem_of("full", num_points=17, dim=3)
  prediction = answer("full", problem)
  points = np.asarray(problem.points[:17], float)
  weights = np.ones(3)
  for stage in range(2):
    scales = np.asarray(prediction.scales[stage, :3], float)
    covariances = scales[:, :, None] * scales[:, None, :]
    covariances *= np.asarray(prediction.correlations[stage, :3], float)
    joint = np.stack(
      [
        weight * stats.multivariate_normal(mean, covariance).pdf(points)
        for weight, mean, covariance in zip(
          weights,
          np.asarray(prediction.means[stage, :3], float),
          covariances,
          strict=True,
        )
      ]
    )
    mass = (joint / joint.sum(axis=0)).mean(axis=1) + 1e-6
    weights = mass / mass.sum()
    np.testing.assert_allclose(
      np.exp(prediction.log_weights[stage, :3]), weights, atol=2e-3
    )


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_the_unit_of_the_points_does_not_matter(kind, unit):
  solve = small_refiner.solver(**OPTIONS[kind])
  key, points = jax.random.key(4), small_refiner.points_of(2)
  weight = small_refiner.weight_of(20)
  here = solve(key, points, 3, weight)
  there = solve(key, unit * points + 7.0 * unit, 3, weight, knows_origin=True)
  np.testing.assert_allclose(
    there.mixture.means[:3] / unit - 7.0, here.mixture.means[:3], atol=0.01
  )
  covariances = np.asarray(there.mixture.covariances) / unit**2
  expected = np.asarray(here.mixture.covariances)
  if kind == "full":
    covariances, expected = covariances[:3], expected[:3]
  np.testing.assert_allclose(covariances, expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("kind", TYPES)
def test_the_likelihood_is_that_of_the_answer(kind):
  solve = small_refiner.solver(**OPTIONS[kind])
  points, weight = small_refiner.points_of(2), small_refiner.weight_of(24)
  result = solve(jax.random.key(4), points, 3, weight)
  weights, means, covariances = (
    np.asarray(leaf, float) for leaf in result.mixture
  )
  shape = gmm.COVARIANCE_TYPES[kind].shape(SIZE, 2)
  assert covariances.shape == shape
  if kind == "full":
    np.testing.assert_array_equal(
      covariances[3:], np.broadcast_to(np.eye(2), (2, 2, 2))
    )
  density = sum(
    weights[k]
    * stats.multivariate_normal(
      means[k],
      covariances[k] if kind == "full" else covariances * np.eye(2),
    ).pdf(points)
    for k in range(3)
  )
  assert result.log_likelihood == pytest.approx(
    np.log(density).mean(), rel=1e-3
  )


def odd_problems():
  points, weight = small_refiner.points_of(), small_refiner.weight_of(20)
  converged, invalid = types.Status.CONVERGED, types.Status.INVALID_INPUT
  yield "one point", points, weight * (np.arange(24) < 1), converged
  yield "the same point", np.ones_like(points), weight, converged
  yield "tiny", 1e-15 * points, weight, converged
  yield "large", 1e15 * points, weight, converged
  yield "flat", points * np.array([1.0, 0.0]), weight, converged
  yield "a point of NaN", points * np.nan, weight, invalid


@pytest.mark.parametrize("kind", TYPES)
def test_odd_input_has_a_finite_answer(kind):
  solve = small_refiner.solver(**OPTIONS[kind])
  for name, points, weight, status in odd_problems():
    result = solve(jax.random.key(0), points.astype(np.float32), 3, weight)
    assert result.status == status, name
    is_valid = status != types.Status.INVALID_INPUT
    assert np.isfinite(result.log_likelihood) == is_valid, name
    for leaf in jax.tree.leaves(result.mixture):
      assert np.all(np.isfinite(leaf)), name


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("junk", [1e6, np.nan])
def test_padding_may_hold_anything(kind, junk):
  problem = problem_of(kind, num_points=17)
  is_point = (problem.sample_weight > 0)[:, None]
  other = problem._replace(points=jnp.where(is_point, problem.points, junk))
  small_refiner.assert_same_bits(answer(kind, other), answer(kind, problem))


@functools.partial(jax.jit, static_argnums=0)
def gradient(kind, params, problem):
  model = small_refiner.network(**OPTIONS[kind])[0]
  slots = 1.0 + jnp.arange(SIZE)[:, None]

  def value(params):
    prediction = model.apply(params, problem)
    return jnp.sum(slots * (prediction.means**2 + prediction.scales))

  return jax.grad(value)(params)


@pytest.mark.parametrize("kind", TYPES)
def test_gradients_are_finite_and_all_parameters_take_part(kind):
  params = small_refiner.network(**OPTIONS[kind])[1]
  problem = problem_of(kind, dim=3)
  same = problem._replace(
    points=jnp.zeros_like(problem.points),
    variances=jnp.zeros_like(problem.variances),
  )
  for case in (problem, same):
    for leaf in jax.tree.leaves(gradient(kind, params, case)):
      assert np.all(np.isfinite(leaf))
  leaves = jax.tree.leaves(gradient(kind, params, problem))
  assert all(np.any(np.asarray(leaf) != 0.0) for leaf in leaves)


def test_where_the_unit_means_nothing_there_is_no_origin():
  with pytest.raises(ValueError, match="origin_rate is 0.5, takes 0"):
    refiner.RefinerConfig(covariance_type="full", origin_rate=0.5)
  config = refiner.RefinerConfig(**OPTIONS["full"])
  assert config.is_scale_free
  assert config.max_dim == 3
  assert refiner.RefinerConfig(**OPTIONS["tied_spherical"]).max_dim is None
  assert config.covariance_type == "full"
