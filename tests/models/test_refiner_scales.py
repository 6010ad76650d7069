"""The refiner of mixtures with diagonal covariances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.models import small_refiner
from tgmm_jax import types
from tgmm_jax.models import factory, refiner

DIAG = {"covariance_type": "diag", "rank": 3}
SIZE = small_refiner.SIZE
NETWORK = functools.partial(small_refiner.network, **DIAG)
COMPILED = functools.partial(small_refiner.compiled, **DIAG)
SOLVER = functools.partial(small_refiner.solver, **DIAG)
ENCODER = functools.partial(small_refiner.encoder, **DIAG)
PROBLEM_OF = functools.partial(small_refiner.problem_of, **DIAG)


def is_used(count, dim):
  """Components and coordinates that hold something, `[K, r]`."""
  return (np.arange(SIZE) < count)[:, None] & (np.arange(3) < dim)


@pytest.mark.parametrize(("count", "dim"), [(2, 2), (3, 3), (5, 2)])
def test_every_stage_has_scales(count, dim):
  prediction = COMPILED()(NETWORK()[1], PROBLEM_OF(count=count, dim=dim))
  assert prediction.means.shape == prediction.scales.shape == (2, SIZE, 3)
  used = is_used(count, dim)
  assert np.all(prediction.scales > 0.0)
  np.testing.assert_array_equal(prediction.scales[:, ~used], 1.0)
  np.testing.assert_array_equal(prediction.means[:, ~used], 0.0)
  # The layers do something to every number.
  change = np.abs(np.diff(prediction.scales, axis=0))[0]
  assert np.all(change[used] > 1e-4)


def test_weights_are_the_mass_of_an_e_step():
  problem = PROBLEM_OF(num_points=17, count=3, dim=3)
  prediction = COMPILED()(NETWORK()[1], problem)
  points = np.asarray(problem.points[:17], float)
  weights = np.ones(3)
  for stage in range(2):
    joint = np.stack(
      [
        weight * stats.multivariate_normal(mean, np.diag(scale**2)).pdf(points)
        for weight, mean, scale in zip(
          weights,
          np.asarray(prediction.means[stage, :3], float),
          np.asarray(prediction.scales[stage, :3], float),
          strict=True,
        )
      ]
    )
    mass = (joint / joint.sum(axis=0)).mean(axis=1) + 1e-6
    weights = mass / mass.sum()
    np.testing.assert_allclose(
      np.exp(prediction.log_weights[stage, :3]), weights, atol=1e-4
    )


def test_without_corrections_a_layer_is_an_em_step():
  model, params = NETWORK()
  params = jax.tree.map(jnp.asarray, params)
  second = params["layers"]["1"]
  second = {
    **second,
    "to_mean": jax.tree.map(jnp.zeros_like, second["to_mean"]),
    "to_scale": jax.tree.map(jnp.zeros_like, second["to_scale"]),
    "log_inverse_temperature": jnp.zeros(()),
  }
  params["layers"]["1"] = second
  problem = PROBLEM_OF(num_points=24, count=3, dim=3)
  prediction = COMPILED()(params, problem)
  points = np.asarray(problem.points, float)
  joint = np.stack(
    [
      np.exp(prediction.log_weights[0, k])
      * stats.norm(prediction.means[0, k], prediction.scales[0, k])
      .pdf(points)
      .prod(axis=1)
      for k in range(3)
    ]
  )
  share = joint / joint.sum(axis=0)
  share /= share.sum(axis=1, keepdims=True)
  means = share @ points
  scales = np.sqrt(share @ points**2 - means**2)
  np.testing.assert_allclose(prediction.means[1, :3], means, atol=2e-3)
  np.testing.assert_allclose(prediction.scales[1, :3], scales, atol=2e-3)


@pytest.mark.parametrize("bias", [-1e3, 1e3])
def test_no_correction_makes_a_scale_vanish_or_overflow(bias):
  params = dict(NETWORK()[1])
  params["layers"] = {
    name: {
      **layer,
      "to_scale": {**layer["to_scale"], "bias": jnp.full(3, bias)},
    }
    for name, layer in params["layers"].items()
  }
  problem = PROBLEM_OF(dim=3)
  prediction = COMPILED()(params, problem)
  spread = np.sqrt(np.max(problem.variances))
  scales = prediction.scales[:, :3] / spread
  np.testing.assert_allclose(
    scales, np.exp(-3.5 if bias < 0 else 1.5), rtol=1e-3
  )
  for leaf in jax.tree.leaves(prediction):
    assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("junk", [1e6, np.nan])
def test_padding_may_hold_anything(junk):
  problem = PROBLEM_OF(num_points=17)
  is_point = (problem.sample_weight > 0)[:, None]
  expected = COMPILED()(NETWORK()[1], problem)
  other = problem._replace(points=jnp.where(is_point, problem.points, junk))
  small_refiner.assert_same_bits(COMPILED()(NETWORK()[1], other), expected)


def test_batch_of_two_dimensions_is_one_problem_at_a_time():
  sizes = [(24, 3, 2), (9, 5, 3), (17, 2, 2)]
  problems = [PROBLEM_OF(*size) for size in sizes]
  stack = functools.partial(jax.tree.map, lambda *leaves: jnp.stack(leaves))
  together = COMPILED()(NETWORK()[1], stack(*problems))
  alone = stack(*[COMPILED()(NETWORK()[1], p) for p in problems])
  small_refiner.assert_close(together, alone)


@jax.jit
@jax.grad
def gradient(params, problem):
  prediction = NETWORK()[0].apply(params, problem)
  slots = 1.0 + jnp.arange(SIZE)[:, None]
  return jnp.sum(slots * (prediction.means**2 + prediction.scales))


def test_gradients_are_finite_and_all_parameters_take_part():
  problem = PROBLEM_OF(dim=3)
  same = problem._replace(
    points=jnp.zeros_like(problem.points), variances=jnp.zeros(3)
  )
  for case in (problem, same):
    for leaf in jax.tree.leaves(gradient(NETWORK()[1], case)):
      assert np.all(np.isfinite(leaf))
  leaves = jax.tree.leaves(gradient(NETWORK()[1], problem))
  assert all(np.any(np.asarray(leaf) != 0.0) for leaf in leaves)


def test_a_known_covariance_has_no_more_parameters():
  names = [
    set(
      jax.eval_shape(factory.build(config).init, jax.random.key(0))["layers"][
        "1"
      ]
    )
    for config in (refiner.RefinerConfig(), refiner.RefinerConfig(**DIAG))
  ]
  assert names[1] - names[0] == {"to_scale"}


def test_solver_gives_the_data_back_its_axes():
  dim = 2
  key, points = jax.random.key(4), small_refiner.points_of(dim)
  weight = small_refiner.weight_of(17)
  problem, frame = ENCODER()(key, points, weight, jnp.int32(3))
  prediction = COMPILED()(NETWORK()[1], problem)
  result = SOLVER()(key, points, 3, weight)
  # Where each coordinate of the data is among those of the frame.
  place = np.abs(frame.directions).argmax(axis=1)
  sign = frame.directions[np.arange(dim), place]
  np.testing.assert_allclose(
    result.mixture.means[:3],
    frame.centre + sign * prediction.means[-1, :3][:, place],
    atol=1e-4,
  )
  np.testing.assert_allclose(
    result.mixture.covariances[:3],
    prediction.scales[-1, :3][:, place] ** 2,
    rtol=1e-4,
  )
  np.testing.assert_array_equal(result.mixture.covariances[3:], 1.0)
  density = sum(
    weight_k
    * stats.multivariate_normal(mean, np.diag(variances)).pdf(points[:17])
    for weight_k, mean, variances in zip(
      *(np.asarray(leaf[:3], float) for leaf in result.mixture), strict=True
    )
  )
  assert result.log_likelihood == pytest.approx(
    np.log(density).mean(), rel=1e-3
  )


def test_in_another_order_of_the_axes_the_answer_is_a_view_of_the_same():
  """The views of swapped and mirrored data are the views of the data."""
  points = small_refiner.points_of(2)
  weight = small_refiner.weight_of(20)
  swapped = points[:, ::-1] * np.array([1.0, -1.0], np.float32)
  keys = jax.random.split(jax.random.key(0), 64)

  def answers(points):
    return [
      SOLVER()(key, points, 3, weight, knows_origin=False).mixture
      for key in keys
    ]

  def distinct(mixtures, order, sign):
    rows = [
      np.concatenate(
        [m.means[:3][:, order] * sign, m.covariances[:3][:, order]], axis=None
      )
      for m in mixtures
    ]
    rounded = np.round(np.stack(rows), 2)
    return rounded[np.lexsort(rounded.T)][[0, -1]]

  here = distinct(answers(points), [0, 1], 1.0)
  there = distinct(answers(swapped), [1, 0], np.array([-1.0, 1.0]))
  np.testing.assert_allclose(here, there, atol=0.02)
  assert np.abs(here[0] - here[1]).max() > 0.05


def test_more_coordinates_than_the_rank_are_refused():
  with pytest.raises(ValueError, match="d = 4, takes d <= rank = 3") as error:
    SOLVER()(
      jax.random.key(0),
      small_refiner.points_of(4),
      3,
      small_refiner.weight_of(17),
    )
  assert "\n" not in str(error.value)


def odd_problems():
  points, weight = small_refiner.points_of(), small_refiner.weight_of(20)
  converged, invalid = types.Status.CONVERGED, types.Status.INVALID_INPUT
  yield "one point", points, 3, small_refiner.weight_of(1), converged
  yield "the same point", np.ones_like(points), 3, weight, converged
  yield "tiny", 1e-20 * points, 3, weight, converged
  yield "large", 1e15 * points, 3, weight, converged
  yield "flat", points * np.array([1.0, 0.0]), 3, weight, converged
  yield "a point of NaN", points * np.nan, 3, weight, invalid
  yield "K not served", points, 4, weight, invalid


def test_odd_input_has_a_finite_answer():
  for name, points, count, weight, status in odd_problems():
    result = SOLVER()(
      jax.random.key(0), points.astype(np.float32), count, weight
    )
    assert result.status == status, name
    is_valid = status != types.Status.INVALID_INPUT
    assert np.isfinite(result.log_likelihood) == is_valid, name
    for leaf in jax.tree.leaves(result.mixture):
      assert np.all(np.isfinite(leaf)), name
    assert np.all(np.asarray(result.mixture.covariances) > 0.0), name


def test_covariances_that_no_network_answers_are_refused():
  with pytest.raises(ValueError, match="covariance_type is 'tied', takes"):
    refiner.RefinerConfig(covariance_type="tied")
  assert refiner.RefinerConfig(**DIAG).covariance_type == "diag"
  assert refiner.RefinerConfig().covariance_type == "unit"
