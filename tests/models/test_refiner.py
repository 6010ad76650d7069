import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from tgmm_jax import types
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
def solver(is_batch=False):
  """`(key, points, count, weight, knows_origin=1) -> SolverResult`."""
  model, params = network()

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
def encoder():
  """`(key, points, weight, count) -> (Problem, Frame)`, compiled."""
  return jax.jit(network()[0].encode)


def problem_of(num_points=17, count=3, dim=2):
  problem, _ = encoder()(
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


@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_stage_is_a_mixture(count):
  prediction = compiled()(network()[1], problem_of(count=count))
  assert prediction.log_weights.shape == (2, SIZE)
  assert prediction.means.shape == (2, SIZE, 4)
  assert prediction.scales is None
  weights = np.exp(prediction.log_weights)
  np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-5)
  np.testing.assert_array_equal(weights[:, count:], 0.0)
  assert np.all(np.isfinite(prediction.log_weights))
  np.testing.assert_array_equal(prediction.means[:, count:], 0.0)
  # The queries differ and the layers do something.
  means = np.asarray(prediction.means[:, :count])
  assert np.all(np.abs(means[:, 0] - means[:, 1]).max(-1) > 1e-2)
  assert np.all(np.abs(np.diff(means, axis=0)).max((1, 2)) > 1e-2)


def test_batch_in_one_call_is_one_problem_at_a_time():
  counts, num_points = (3, 2, 5, 3), (24, 5, 9, 17)
  problems = [
    problem_of(*sizes) for sizes in zip(num_points, counts, strict=True)
  ]
  stack = functools.partial(jax.tree.map, lambda *leaves: jnp.stack(leaves))
  together = compiled()(network()[1], stack(*problems))
  assert together.means.shape == (4, 2, SIZE, 4)
  alone = stack(*[compiled()(network()[1], p) for p in problems])
  assert_close(together, alone)


@pytest.mark.parametrize("junk", [1e6, np.nan, np.inf])
def test_padding_may_hold_anything(junk):
  problem = problem_of(num_points=17)
  is_point = (problem.sample_weight > 0)[:, None]
  expected = compiled()(network()[1], problem)
  other = problem._replace(points=jnp.where(is_point, problem.points, junk))
  assert_same_bits(compiled()(network()[1], other), expected)

  points = points_of()
  expected = solver()(jax.random.key(0), points, 3, weight_of(17))
  points[17:] = junk
  other = solver()(jax.random.key(0), points, 3, weight_of(17))
  assert_same_bits(other, expected)


@jax.jit
@functools.partial(jax.grad, argnums=(0, 1), allow_int=True)
def gradient(params, problem):
  """In the params and, with integers left out, in the problem."""
  prediction = network()[0].apply(params, problem)
  slots = 1.0 + jnp.arange(SIZE)[:, None]
  return jnp.sum(slots * prediction.means**2) + jnp.sum(
    jnp.exp(prediction.log_weights[:, 0])
  )


def test_padded_points_have_no_gradient_and_the_others_have():
  problem = problem_of(num_points=17)._replace(
    points=problem_of(num_points=24).points
  )
  _, values = gradient(network()[1], problem)
  np.testing.assert_array_equal(values.points[17:], 0.0)
  assert np.all(np.abs(values.points[:17, :2]).max(1) > 0.0)


def test_padded_is_truncated():
  problem = problem_of(num_points=17)
  truncated = problem._replace(
    points=problem.points[:17], sample_weight=problem.sample_weight[:17]
  )
  apply, params = compiled(), network()[1]
  assert_close(apply(params, truncated), apply(params, problem))


def test_order_of_the_points_does_not_matter():
  problem = problem_of(num_points=17)
  order = np.random.default_rng(0).permutation(NUM_POINTS)
  permuted = problem._replace(
    points=problem.points[order], sample_weight=problem.sample_weight[order]
  )
  apply, params = compiled(), network()[1]
  assert_close(apply(params, permuted), apply(params, problem), atol=1e-5)


def test_a_point_of_weight_two_is_the_point_twice():
  points = points_of()
  points[20:] = points[:4]
  twice = solver()(jax.random.key(0), points, 3, weight_of(24))
  weight = weight_of(20)
  weight[:4] = 2.0
  weighted = solver()(jax.random.key(0), points, 3, weight)
  assert_close(weighted, twice, atol=1e-4)


def test_weights_are_the_mass_of_an_e_step():
  problem = problem_of(num_points=17, count=3)
  prediction = compiled()(network()[1], problem)
  log_weights = np.zeros(3)
  for stage in range(2):
    difference = problem.points[:17, None] - prediction.means[stage, None, :3]
    logits = log_weights - 0.5 * np.sum(difference**2, axis=-1)
    posterior = np.exp(logits - logits.max(1, keepdims=True))
    mass = (posterior / posterior.sum(1, keepdims=True)).mean(0) + 1e-6
    log_weights = np.log(mass / mass.sum())
    np.testing.assert_allclose(
      np.exp(prediction.log_weights[stage, :3]), np.exp(log_weights), atol=1e-4
    )


@pytest.mark.parametrize("dim", [2, 8])
def test_without_the_origin_the_answer_moves_with_the_points(dim):
  points = points_of(dim)
  shift = np.linspace(-20.0, 30.0, dim).astype(np.float32)
  arguments = 3, weight_of(17)
  here = solver()(jax.random.key(0), points, *arguments, knows_origin=False)
  there = solver()(
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
  here = solver()(jax.random.key(0), points, *arguments)
  there = solver()(jax.random.key(0), points + shift, *arguments)
  change = there.mixture.means[:3] - here.mixture.means[:3] - shift
  assert np.abs(change).max() > 1e-2


def test_a_rotation_of_the_data_changes_nothing_but_the_view():
  """Another key's view of the data is a view of the rotated data."""
  _, params = network()
  points = points_of(8)
  rotation = stats.ortho_group.rvs(8, random_state=0).astype(np.float32)

  arguments = weight_of(17), jnp.int32(3)
  problem, frame = encoder()(jax.random.key(2), points, *arguments)
  rotated, its_frame = encoder()(
    jax.random.key(2), points @ rotation.T, *arguments
  )
  between = problem.points.T @ np.linalg.pinv(rotated.points.T)
  np.testing.assert_allclose(between @ between.T, np.eye(4), atol=1e-3)
  seen = rotated._replace(
    points=rotated.points @ between.T, origin=rotated.origin @ between.T
  )
  assert_close(seen, problem, atol=2e-3)
  for knows_origin in (0.0, 1.0):
    prediction, its_prediction = (
      compiled()(params, p._replace(knows_origin=jnp.array(knows_origin)))
      for p in (problem, seen)
    )
    means = frame.center + prediction.means[-1, :3] @ frame.directions.T
    directions = its_frame.directions @ between.T
    its_means = its_frame.center + its_prediction.means[-1, :3] @ directions.T
    np.testing.assert_allclose(its_means, means @ rotation.T, atol=1e-2)


def batch_of(counts=(3, 2, 5, 3), num_points=(24, 5, 9, 17)):
  points = np.stack([points_of(seed=seed) for seed in range(4)])
  weight = np.stack([weight_of(number) for number in num_points])
  return (
    jax.random.split(jax.random.key(0), 4),
    points,
    np.array(counts),
    weight,
  )


def test_ragged_batch_is_one_problem_at_a_time():
  keys, points, counts, weight = batch_of()
  batch = solver(is_batch=True)(keys, points, counts, weight)
  for index in range(4):
    alone = solver()(keys[index], points[index], counts[index], weight[index])
    assert_close(
      jax.tree.map(lambda leaf, i=index: leaf[i], batch), alone, atol=1e-4
    )
    mixture = jax.tree.map(lambda leaf, i=index: leaf[i], batch.mixture)
    assert_is_mixture(mixture, counts[index], 2)


@pytest.mark.parametrize("junk", [1e3, np.nan])
def test_neighbours_in_the_batch_do_not_matter(junk):
  keys, points, counts, weight = batch_of()
  expected = solver(is_batch=True)(keys, points, counts, weight)
  points[0], counts[0] = junk, 5
  points[2] += 1.0
  weight[3] = 1.0
  other = solver(is_batch=True)(keys, points, counts, weight)
  assert_same_bits(
    *(jax.tree.map(lambda leaf: leaf[1], r) for r in (other, expected))
  )
  assert other.status[0] == (
    types.Status.INVALID_INPUT if np.isnan(junk) else types.Status.CONVERGED
  )


def test_padded_components_are_not_seen():
  _, params = network()
  problem = problem_of(count=3)
  expected = compiled()(params, problem)
  slots = params["slots"]["embedding"]
  assert slots.shape == (SIZE, 16)

  def change_of(row):
    """How far the means move when a row of the slots is another."""
    other = np.array(slots)
    other[row] = np.random.default_rng(0).normal(size=16)
    changed = {**params, "slots": {"embedding": other}}
    return np.abs(compiled()(changed, problem).means - expected.means)

  np.testing.assert_array_equal(change_of(3), 0.0)
  np.testing.assert_array_equal(change_of(4), 0.0)
  # A real one is seen by itself and by the others, from the first layer on.
  assert np.all(change_of(2)[0, :3].max(-1) > 1e-3)


def test_folded_attention_is_ordinary_attention():
  """A head's key map lies in its query map, its value map in the output."""
  width, num_heads, head_width = 16, 2, 8
  rng = np.random.default_rng(0)
  shape = (num_heads, width, head_width)
  to_query, to_key, to_value = rng.normal(size=(3, *shape)) / 4.0
  to_output = rng.normal(size=(num_heads, head_width, width))
  queries, points = rng.normal(size=(3, width)), rng.normal(size=(10, width))
  bias = np.where(rng.uniform(size=(3, num_heads, 10)) < 0.7, 0.0, -1e9)

  logits = np.einsum(
    "khe,nhe->khn",
    np.einsum("kd,hde->khe", queries, to_query),
    np.einsum("nd,hde->nhe", points, to_key),
  ) / np.sqrt(head_width)
  weights = np.exp(logits + bias - (logits + bias).max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  values = np.einsum("nd,hde->nhe", points, to_value)
  pooled = np.einsum("khn,nhe->khe", weights, values)
  expected = np.einsum("khe,hed->kd", pooled, to_output)

  attention = refiner._Attention(
    refiner.RefinerConfig(**SMALL), rngs=nnx.Rngs(0)
  )
  folded = np.einsum("hde,hfe->dhf", to_query, to_key)
  folded *= np.sqrt(width / head_width)
  attention.query.kernel[...] = jnp.asarray(
    folded.reshape(width, -1), jnp.float32
  )
  attention.output.kernel[...] = jnp.asarray(
    np.einsum("hde,hef->hdf", to_value, to_output).reshape(-1, width),
    jnp.float32,
  )
  arrays = [np.float32(array) for array in (queries, points, bias)]
  actual = jax.jit(lambda *inputs: attention(*inputs))(*arrays)
  np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize(
  "dim",
  [2, 8, *(pytest.param(dim, marks=pytest.mark.slow) for dim in (1, 3, 32))],
)
def test_one_network_serves_every_dimension(dim):
  points = points_of(dim)
  result = solver()(jax.random.key(0), points, 3, weight_of(20))
  assert_is_mixture(result.mixture, 3, dim)
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
  key, points, weight = jax.random.key(4), points_of(), weight_of(17)
  problem, frame = encoder()(key, points, weight, jnp.int32(3))
  prediction = compiled()(network()[1], problem)
  result = solver()(key, points, 3, weight)
  means = frame.center + prediction.means[-1, :3] @ frame.directions.T
  np.testing.assert_allclose(result.mixture.means[:3], means, atol=1e-4)
  np.testing.assert_allclose(
    result.mixture.weights[:3],
    np.exp(prediction.log_weights[-1, :3]),
    atol=1e-4,
  )


def invalid_problems():
  points, weight = points_of(), weight_of(20)
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
    together = solver(is_batch=True)(keys, *columns)
    for index, name in enumerate(names[first : first + 4]):
      problem = (column[first + index] for column in arguments)
      alone = solver()(jax.random.key(0), *problem)
      for result in (alone, jax.tree.map(lambda x, i=index: x[i], together)):
        assert result.status == types.Status.INVALID_INPUT, name
        for leaf in jax.tree.leaves(result):
          assert np.all(np.isfinite(leaf)), name
        assert np.sum(result.mixture.weights) == pytest.approx(1.0), name


def degenerate_problems():
  points, weight = points_of(), weight_of(20)
  yield "one point", points, weight_of(1)
  yield "the same point", np.ones_like(points), weight
  yield "tiny", 1e-20 * points, weight
  yield "large", 1e15 * points, weight
  yield "tiny weights", points, 1e-30 * weight
  yield "large weights", points, 1e30 * weight


def test_degenerate_input_has_a_finite_answer():
  for name, points, weight in degenerate_problems():
    arguments = points.astype(np.float32), 3, weight.astype(np.float32)
    result = solver()(jax.random.key(0), *arguments)
    for leaf in jax.tree.leaves(result):
      assert np.all(np.isfinite(leaf)), name
    assert np.sum(result.mixture.weights) == pytest.approx(1.0, rel=1e-5), name


def test_gradients_of_the_parameters_are_finite():
  """Also where points and means coincide, or one point is all there is."""
  _, params = network()
  problem = problem_of()
  same = problem._replace(points=jnp.zeros_like(problem.points))
  flat = same._replace(variances=jnp.zeros(4))
  for case in (problem, same, flat):
    for leaf in jax.tree.leaves(gradient(params, case)[0]):
      assert np.all(np.isfinite(leaf))
  # All parameters take part.
  leaves = jax.tree.leaves(gradient(params, problem)[0])
  assert all(np.any(np.asarray(leaf) != 0.0) for leaf in leaves)


@pytest.mark.slow
def test_bfloat16_is_close_to_float32():
  _, params = network()
  problem = problem_of()
  exact = compiled()(params, problem)
  rough = compiled(compute_dtype="bfloat16")(params, problem)
  assert rough.means.dtype == rough.log_weights.dtype == jnp.float32
  # Eight bits of the mantissa; the first stage, before errors add up.
  scale = np.abs(exact.means).max()
  difference = np.abs(rough.means - exact.means)[0].max()
  assert 0.0 < difference < 0.05 * scale
  assert np.all(np.isfinite(rough.means))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"num_components": ()}, r"num_components is \(\), takes"),
    ({"num_components": (0, 2)}, r"num_components is \(0, 2\), takes"),
    ({"rank": 0}, "rank is 0, takes"),
    ({"width": 0}, "width is 0, takes"),
    ({"num_layers": 0}, "num_layers is 0, takes"),
    ({"num_heads": -1}, "num_heads is -1, takes"),
    ({"origin_rate": 1.5}, "origin_rate is 1.5, takes"),
    ({"compute_dtype": "float16"}, "compute_dtype is 'float16', takes"),
  ],
)
def test_sizes_that_cannot_be_built_are_refused(change, message):
  with pytest.raises(ValueError, match=message) as error:
    refiner.RefinerConfig(**change)
  assert "\n" not in str(error.value)
