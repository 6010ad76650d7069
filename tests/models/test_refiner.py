import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.models import small_refiner
from tgmm_jax.models import refiner


@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_stage_is_a_mixture(count):
  prediction = small_refiner.compiled()(
    small_refiner.network()[1], small_refiner.problem_of(count=count)
  )
  assert prediction.log_weights.shape == (2, small_refiner.SIZE)
  assert prediction.means.shape == (2, small_refiner.SIZE, 4)
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
    small_refiner.problem_of(*sizes)
    for sizes in zip(num_points, counts, strict=True)
  ]
  stack = functools.partial(jax.tree.map, lambda *leaves: jnp.stack(leaves))
  together = small_refiner.compiled()(
    small_refiner.network()[1], stack(*problems)
  )
  assert together.means.shape == (4, 2, small_refiner.SIZE, 4)
  alone = stack(
    *[small_refiner.compiled()(small_refiner.network()[1], p) for p in problems]
  )
  small_refiner.assert_close(together, alone)


@pytest.mark.parametrize("junk", [1e6, np.nan, np.inf])
def test_padding_may_hold_anything(junk):
  problem = small_refiner.problem_of(num_points=17)
  is_point = (problem.sample_weight > 0)[:, None]
  expected = small_refiner.compiled()(small_refiner.network()[1], problem)
  other = problem._replace(points=jnp.where(is_point, problem.points, junk))
  small_refiner.assert_same_bits(
    small_refiner.compiled()(small_refiner.network()[1], other), expected
  )

  points = small_refiner.points_of()
  expected = small_refiner.solver()(
    jax.random.key(0), points, 3, small_refiner.weight_of(17)
  )
  points[17:] = junk
  other = small_refiner.solver()(
    jax.random.key(0), points, 3, small_refiner.weight_of(17)
  )
  small_refiner.assert_same_bits(other, expected)


@jax.jit
@functools.partial(jax.grad, argnums=(0, 1), allow_int=True)
def gradient(params, problem):
  """In the params and, with integers left out, in the problem."""
  prediction = small_refiner.network()[0].apply(params, problem)
  slots = 1.0 + jnp.arange(small_refiner.SIZE)[:, None]
  return jnp.sum(slots * prediction.means**2) + jnp.sum(
    jnp.exp(prediction.log_weights[:, 0])
  )


def test_padded_points_have_no_gradient_and_the_others_have():
  problem = small_refiner.problem_of(num_points=17)._replace(
    points=small_refiner.problem_of(num_points=24).points
  )
  _, values = gradient(small_refiner.network()[1], problem)
  np.testing.assert_array_equal(values.points[17:], 0.0)
  assert np.all(np.abs(values.points[:17, :2]).max(1) > 0.0)


def test_padded_is_truncated():
  problem = small_refiner.problem_of(num_points=17)
  truncated = problem._replace(
    points=problem.points[:17], sample_weight=problem.sample_weight[:17]
  )
  apply, params = small_refiner.compiled(), small_refiner.network()[1]
  small_refiner.assert_close(apply(params, truncated), apply(params, problem))


def test_order_of_the_points_does_not_matter():
  problem = small_refiner.problem_of(num_points=17)
  order = np.random.default_rng(0).permutation(small_refiner.NUM_POINTS)
  permuted = problem._replace(
    points=problem.points[order], sample_weight=problem.sample_weight[order]
  )
  apply, params = small_refiner.compiled(), small_refiner.network()[1]
  small_refiner.assert_close(
    apply(params, permuted), apply(params, problem), atol=1e-5
  )


def test_weights_are_the_mass_of_an_e_step():
  problem = small_refiner.problem_of(num_points=17, count=3)
  prediction = small_refiner.compiled()(small_refiner.network()[1], problem)
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


def test_padded_components_are_not_seen():
  _, params = small_refiner.network()
  problem = small_refiner.problem_of(count=3)
  expected = small_refiner.compiled()(params, problem)
  slots = params["slots"]["embedding"]
  assert slots.shape == (small_refiner.SIZE, 16)

  def change_of(row):
    """How far the means move when a row of the slots is another."""
    other = np.array(slots)
    other[row] = np.random.default_rng(0).normal(size=16)
    changed = {**params, "slots": {"embedding": other}}
    return np.abs(
      small_refiner.compiled()(changed, problem).means - expected.means
    )

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
    refiner.RefinerConfig(**small_refiner.SMALL), rngs=nnx.Rngs(0)
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


def test_gradients_of_the_parameters_are_finite():
  """Also where points and means coincide, or one point is all there is."""
  _, params = small_refiner.network()
  problem = small_refiner.problem_of()
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
  _, params = small_refiner.network()
  problem = small_refiner.problem_of()
  exact = small_refiner.compiled()(params, problem)
  rough = small_refiner.compiled(compute_dtype="bfloat16")(params, problem)
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
