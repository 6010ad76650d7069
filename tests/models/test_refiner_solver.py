"""The refiner as a solver: what its answers do not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.models import small_refiner
from tgmm_jax import types


def test_a_point_of_weight_two_is_the_point_twice():
  points = small_refiner.points_of()
  points[20:] = points[:4]
  twice = small_refiner.solver()(
    jax.random.key(0), points, 3, small_refiner.weight_of(24)
  )
  weight = small_refiner.weight_of(20)
  weight[:4] = 2.0
  weighted = small_refiner.solver()(jax.random.key(0), points, 3, weight)
  small_refiner.assert_close(weighted, twice, atol=1e-4)


@pytest.mark.parametrize("dim", [2, 8])
def test_without_the_origin_the_answer_moves_with_the_points(dim):
  points = small_refiner.points_of(dim)
  shift = np.linspace(-20.0, 30.0, dim).astype(np.float32)
  arguments = 3, small_refiner.weight_of(17)
  here = small_refiner.solver()(
    jax.random.key(0), points, *arguments, knows_origin=False
  )
  there = small_refiner.solver()(
    jax.random.key(0), points + shift, *arguments, knows_origin=False
  )
  np.testing.assert_allclose(
    there.mixture.means[:3], here.mixture.means[:3] + shift, atol=1e-3
  )
  np.testing.assert_allclose(
    there.mixture.weights, here.mixture.weights, atol=1e-4
  )
  assert there.log_likelihood == pytest.approx(
    float(here.log_likelihood), rel=1e-4
  )
  # With the origin it does not: that is what it is for.
  here = small_refiner.solver()(jax.random.key(0), points, *arguments)
  there = small_refiner.solver()(jax.random.key(0), points + shift, *arguments)
  change = there.mixture.means[:3] - here.mixture.means[:3] - shift
  assert np.abs(change).max() > 1e-2


def test_a_rotation_of_the_data_changes_nothing_but_the_view():
  """Another key's view of the data is a view of the rotated data."""
  _, params = small_refiner.network()
  points = small_refiner.points_of(8)
  rotation = stats.ortho_group.rvs(8, random_state=0).astype(np.float32)

  arguments = small_refiner.weight_of(17), jnp.int32(3)
  problem, frame = small_refiner.encoder()(
    jax.random.key(2), points, *arguments
  )
  rotated, its_frame = small_refiner.encoder()(
    jax.random.key(2), points @ rotation.T, *arguments
  )
  between = problem.points.T @ np.linalg.pinv(rotated.points.T)
  np.testing.assert_allclose(between @ between.T, np.eye(4), atol=1e-3)
  seen = rotated._replace(
    points=rotated.points @ between.T, origin=rotated.origin @ between.T
  )
  small_refiner.assert_close(seen, problem, atol=2e-3)
  for knows_origin in (0.0, 1.0):
    prediction, its_prediction = (
      small_refiner.compiled()(
        params, p._replace(knows_origin=jnp.array(knows_origin))
      )
      for p in (problem, seen)
    )
    means = frame.centre + prediction.means[-1, :3] @ frame.directions.T
    directions = its_frame.directions @ between.T
    its_means = its_frame.centre + its_prediction.means[-1, :3] @ directions.T
    np.testing.assert_allclose(its_means, means @ rotation.T, atol=1e-2)


def batch_of(counts=(3, 2, 5, 3), num_points=(24, 5, 9, 17)):
  points = np.stack([small_refiner.points_of(seed=seed) for seed in range(4)])
  weight = np.stack([small_refiner.weight_of(number) for number in num_points])
  return (
    jax.random.split(jax.random.key(0), 4),
    points,
    np.array(counts),
    weight,
  )


def test_ragged_batch_is_one_problem_at_a_time():
  keys, points, counts, weight = batch_of()
  batch = small_refiner.solver(is_batch=True)(keys, points, counts, weight)
  for index in range(4):
    alone = small_refiner.solver()(
      keys[index], points[index], counts[index], weight[index]
    )
    small_refiner.assert_close(
      jax.tree.map(lambda leaf, i=index: leaf[i], batch), alone, atol=1e-4
    )
    mixture = jax.tree.map(lambda leaf, i=index: leaf[i], batch.mixture)
    small_refiner.assert_is_mixture(mixture, counts[index], 2)


@pytest.mark.parametrize("junk", [1e3, np.nan])
def test_neighbours_in_the_batch_do_not_matter(junk):
  keys, points, counts, weight = batch_of()
  expected = small_refiner.solver(is_batch=True)(keys, points, counts, weight)
  points[0], counts[0] = junk, 5
  points[2] += 1.0
  weight[3] = 1.0
  other = small_refiner.solver(is_batch=True)(keys, points, counts, weight)
  small_refiner.assert_same_bits(
    *(jax.tree.map(lambda leaf: leaf[1], r) for r in (other, expected))
  )
  assert other.status[0] == (
    types.Status.INVALID_INPUT if np.isnan(junk) else types.Status.CONVERGED
  )


@pytest.mark.parametrize(
  "dim",
  [2, 8, *(pytest.param(dim, marks=pytest.mark.slow) for dim in (1, 3, 32))],
)
def test_one_network_serves_every_dimension(dim):
  points = small_refiner.points_of(dim)
  result = small_refiner.solver()(
    jax.random.key(0), points, 3, small_refiner.weight_of(20)
  )
  small_refiner.assert_is_mixture(result.mixture, 3, dim)
  assert result.status == types.Status.CONVERGED
  density = sum(
    weight * stats.multivariate_normal(mean, np.eye(dim)).pdf(points[:20])
    for weight, mean in zip(
      np.asarray(result.mixture.weights[:3], float),
      np.asarray(result.mixture.means[:3], float),
      strict=True,
    )
  )
  assert result.log_likelihood == pytest.approx(
    np.log(density).mean(), rel=1e-3
  )


def test_solver_lifts_the_last_stage():
  key, points, weight = (
    jax.random.key(4),
    small_refiner.points_of(),
    small_refiner.weight_of(17),
  )
  problem, frame = small_refiner.encoder()(key, points, weight, jnp.int32(3))
  prediction = small_refiner.compiled()(small_refiner.network()[1], problem)
  result = small_refiner.solver()(key, points, 3, weight)
  means = frame.centre + prediction.means[-1, :3] @ frame.directions.T
  np.testing.assert_allclose(result.mixture.means[:3], means, atol=1e-4)
  np.testing.assert_allclose(
    result.mixture.weights[:3],
    np.exp(prediction.log_weights[-1, :3]),
    atol=1e-4,
  )


def invalid_problems():
  points, weight = small_refiner.points_of(), small_refiner.weight_of(20)
  for junk in (np.nan, np.inf, 1e20):
    bad = points.copy()
    bad[3, 1] = junk
    yield f"a point of {junk}", bad, 3, weight
  yield "no weight", points, 3, np.zeros_like(weight)
  for junk in (np.nan, np.inf, -1.0):
    bad = weight.copy()
    bad[3] = junk
    yield f"a weight of {junk}", points, 3, bad
  for count in (-1, 0, 1, 4, 6):
    yield f"K = {count}", points, count, weight


def test_invalid_input_has_a_status_and_a_finite_answer():
  names, *arguments = zip(*invalid_problems(), strict=True)
  keys = jnp.stack([jax.random.key(0)] * 4)
  for first in range(0, len(names), 4):
    columns = [np.stack(column[first : first + 4]) for column in arguments]
    together = small_refiner.solver(is_batch=True)(keys, *columns)
    for index, name in enumerate(names[first : first + 4]):
      problem = (column[first + index] for column in arguments)
      alone = small_refiner.solver()(jax.random.key(0), *problem)
      for result in (alone, jax.tree.map(lambda x, i=index: x[i], together)):
        assert result.status == types.Status.INVALID_INPUT, name
        assert np.isneginf(result.log_likelihood), name
        for leaf in jax.tree.leaves(result.mixture):
          assert np.all(np.isfinite(leaf)), name
        assert np.sum(result.mixture.weights) == pytest.approx(1.0), name


def degenerate_problems():
  points, weight = small_refiner.points_of(), small_refiner.weight_of(20)
  yield "one point", points, small_refiner.weight_of(1)
  yield "the same point", np.ones_like(points), weight
  yield "tiny", 1e-20 * points, weight
  yield "large", 1e15 * points, weight
  yield "tiny weights", points, 1e-30 * weight
  yield "large weights", points, 1e30 * weight


def test_degenerate_input_has_a_finite_answer():
  for name, points, weight in degenerate_problems():
    arguments = points.astype(np.float32), 3, weight.astype(np.float32)
    result = small_refiner.solver()(jax.random.key(0), *arguments)
    for leaf in jax.tree.leaves(result):
      assert np.all(np.isfinite(leaf)), name
    assert np.sum(result.mixture.weights) == pytest.approx(1.0, rel=1e-5), name
