import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tgmm_jax.models import parameters, tgmm
from tgmm_jax.models import prediction as prediction_lib

DIM = 3
SMALL = {
  "dim": DIM,
  "num_components": (2, 3, 5),
  "width": 16,
  "num_layers": 2,
  "num_heads": 2,
  "max_points": 12,
  "embedding_width": 8,
}


@functools.cache
def network(**changes):
  """A compiled `(params, problem) -> Prediction` and its params."""
  config = tgmm.TGMMConfig(**{**SMALL, **changes})
  abstract = nnx.eval_shape(lambda: tgmm.TGMM(config, rngs=nnx.Rngs(0)))
  graphdef, params = nnx.split(abstract, nnx.Param)
  # Wider than at the start of a training, so that everything shows.
  generator = np.random.default_rng(1)

  def draw(path, leaf):
    is_scale = "scale" in jax.tree_util.keystr(path)
    values = is_scale + 0.3 * generator.normal(size=leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  def apply(params, problem):
    return nnx.merge(graphdef, params)(problem)

  return jax.jit(apply), jax.tree.map_with_path(draw, params)


def problem_of(points, sample_weight, num_components):
  return prediction_lib.Problem(
    points,
    sample_weight,
    jnp.asarray(num_components, jnp.int32),
    jnp.full(np.shape(num_components), float(DIM)),
  )


def padded_problem(num_points=8, count=3, seed=2):
  points = 3.0 * jax.random.normal(jax.random.key(seed), (12, DIM))
  return problem_of(
    points, (jnp.arange(12) < num_points).astype(jnp.float32), count
  )


def batch(counts=(3, 2, 5, 3), num_points=(12, 5, 9, 7)):
  points = 3.0 * jax.random.normal(jax.random.key(3), (4, 12, DIM))
  is_point = jnp.arange(12) < jnp.array(num_points)[:, None]
  return problem_of(points, is_point.astype(jnp.float32), counts)


def loss(prediction):
  weights = jnp.cos(jnp.arange(prediction.means.size, dtype=jnp.float32))
  return jnp.sum(
    weights.reshape(prediction.means.shape) * prediction.means
  ) + jnp.sum(jnp.exp(prediction.log_weights[..., 0]))


def assert_close(one, other, atol=5e-5):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, atol=atol)


def test_answer_has_one_stage_and_is_a_mixture():
  apply, params = network(has_scales=True)
  prediction = apply(params, padded_problem(count=3))
  assert prediction.log_weights.shape == (1, 5)
  assert prediction.means.shape == prediction.scales.shape == (1, 5, DIM)
  np.testing.assert_allclose(
    np.exp(prediction.log_weights[0, :3]).sum(), 1.0, atol=1e-6
  )
  np.testing.assert_array_equal(prediction.means[0, 3:], 0.0)
  assert np.all(np.abs(prediction.means[0, :3]) > 0.0)


def test_order_of_the_points_does_not_matter():
  apply, params = network()
  problem = padded_problem()
  order = jax.random.permutation(jax.random.key(7), 12)
  permuted = problem._replace(
    points=problem.points[order], sample_weight=problem.sample_weight[order]
  )
  assert_close(apply(params, permuted), apply(params, problem))


def test_order_matters_to_the_causal_variant():
  apply, params = network(is_causal=True)
  problem = padded_problem()
  swapped = problem._replace(
    points=problem.points.at[:2].set(problem.points[1::-1])
  )
  difference = apply(params, swapped).means - apply(params, problem).means
  assert np.abs(difference).max() > 1e-2
  bidirectional, its_params = network()
  difference = (
    apply(params, problem).means - bidirectional(its_params, problem).means
  )
  assert np.abs(difference).max() > 1e-2


@pytest.mark.parametrize("is_causal", [False, True])
def test_padded_is_truncated(is_causal):
  apply, params = network(is_causal=is_causal)
  problem = padded_problem(num_points=8)
  truncated = problem._replace(
    points=problem.points[:8], sample_weight=problem.sample_weight[:8]
  )
  assert_close(apply(params, truncated), apply(params, problem))


@pytest.mark.parametrize("is_causal", [False, True])
def test_what_stands_in_padding_has_no_effect(is_causal):
  apply, params = network(is_causal=is_causal)
  problem = padded_problem(num_points=8)

  @jax.jit
  def value_and_grads(points):
    def of(params, points):
      return loss(apply(params, problem._replace(points=points)))

    return jax.value_and_grad(of, (0, 1))(params, points)

  clean = jax.tree.leaves(value_and_grads(problem.points))
  for padding in (jnp.nan, jnp.inf, 1e30):
    dirty = problem.points.at[8:].set(padding)
    for one, other in zip(
      jax.tree.leaves(value_and_grads(dirty)), clean, strict=True
    ):
      np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("is_causal", [False, True])
def test_gradient_reaches_every_point_and_no_padding(is_causal):
  apply, params = network(is_causal=is_causal)
  problem = padded_problem(num_points=8)
  gradient = jax.grad(
    lambda points: loss(apply(params, problem._replace(points=points)))
  )(problem.points)
  np.testing.assert_array_equal(gradient[8:], 0.0)
  assert np.all(np.abs(gradient[:8]).max(-1) > 1e-6)


def test_all_parameters_learn():
  apply, params = network(is_causal=True, has_scales=True)
  problems = batch()

  def total(params):
    prediction = apply(params, problems)
    return loss(prediction) + jnp.sum(prediction.scales[..., :2, :])

  for path, leaf in jax.tree.leaves_with_path(jax.grad(total)(params)):
    assert np.any(leaf), jax.tree_util.keystr(path)


def test_a_batch_in_one_call_is_vmap_and_one_at_a_time():
  apply, params = network()
  problems = batch()

  def mapped(params, problems):
    return jax.vmap(apply, in_axes=(None, 0))(params, problems)

  def pick(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)

  def gradient(function):
    return jax.jit(jax.grad(lambda params: loss(function(params, problems))))(
      params
    )

  together = apply(params, problems)
  assert_close(together, mapped(params, problems))
  for index in range(4):
    alone = apply(params, pick(problems, index))
    assert_close(alone, pick(together, index))
  assert_close(gradient(apply), gradient(mapped))


def test_answer_does_not_depend_on_the_neighbours():
  apply, params = network()
  problems = batch()
  others = problems._replace(
    points=problems.points.at[1:].multiply(-2.0),
    num_components=jnp.array([3, 5, 2, 2]),
  )
  for one, other in zip(
    apply(params, problems), apply(params, others), strict=True
  ):
    if one is not None:
      np.testing.assert_array_equal(one[0], other[0])


def test_answer_depends_on_the_number_of_components():
  apply, params = network()
  two, three = (apply(params, padded_problem(count=k)) for k in (2, 3))
  assert np.abs(two.means[0, :2] - three.means[0, :2]).max() > 1e-2


def test_bfloat16_is_close_to_float32():
  apply, params = network()
  rounded, _ = network(compute_dtype="bfloat16")
  problems = batch()
  means = apply(params, problems).means
  difference = np.asarray(rounded(params, problems).means - means)
  assert 1e-5 < np.sqrt(np.mean(difference**2)) < 3e-2 * np.std(means)
  for leaf in jax.tree.leaves(
    jax.grad(lambda params: loss(rounded(params, problems)))(params)
  ):
    assert leaf.dtype == jnp.float32
    assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("is_causal", [False, True])
def test_number_of_parameters(is_causal):
  config = tgmm.TGMMConfig(**SMALL, is_causal=is_causal)
  width, embedding, served, components = 16, 8, 3, 5
  block = 12 * width**2 + 13 * width
  shared = (DIM + embedding + 1) * width + 2 * block + 2 * width
  if is_causal:
    shared += 12 * width
  outputs = components + DIM
  per_task = served * (embedding + components * width + (width + 1) * outputs)
  model = nnx.eval_shape(lambda: tgmm.TGMM(config, rngs=nnx.Rngs(0)))
  counts = parameters.count(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
  assert counts == (shared + per_task, shared, per_task)


def test_another_dimension_is_refused():
  apply, params = network()
  problem = padded_problem()._replace(points=jnp.zeros((12, 4)))
  with pytest.raises(ValueError, match=r"\(12, 4\).*dim = 3"):
    apply(params, problem)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_components": ()}, r"num_components is \(\), takes"),
    ({"num_components": (2, 0)}, r"num_components is \(2, 0\), takes"),
    ({"num_components": (2, 2)}, "takes each K once"),
    ({"dim": 0}, "dim is 0, takes"),
    ({"num_layers": 0}, "num_layers is 0, takes"),
    ({"max_points": 0}, "max_points is 0, takes"),
    ({"width": 10, "num_heads": 4}, "width is 10, takes a multiple of"),
    ({"compute_dtype": "float16"}, "compute_dtype is 'float16', takes"),
  ],
)
def test_bad_sizes_are_refused_in_one_line(changes, message):
  with pytest.raises(ValueError, match=message) as error:
    tgmm.TGMMConfig(**{**SMALL, **changes})
  assert "\n" not in str(error.value)
