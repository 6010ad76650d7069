"""Networks that read a set: against NumPy, and what must not matter."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.models import factory, set_transformer

Config = set_transformer.SetTransformerConfig

KINDS = {
  "softmax": Config(dim=3, width=8, num_layers=1, num_targets=2),
  "relu": Config(
    dim=3,
    width=8,
    num_layers=2,
    num_targets=2,
    answer="labels",
    attention="relu",
  ),
  "relu/N": Config(
    dim=3,
    width=8,
    num_layers=1,
    num_targets=2,
    answer="eigenvectors",
    attention="relu/N",
    has_norm=False,
    readout="flat",
    num_points=7,
  ),
}


@functools.cache
def network(name):
  """Weights of which every one shows, and a compiled `-> states, answer`."""
  model = factory.build_set(KINDS[name])
  generator = np.random.default_rng(1)
  params = jax.tree.map(
    lambda leaf: jnp.asarray(0.5 * generator.normal(size=leaf.shape), "f4"),
    jax.eval_shape(model.init, jax.random.key(0)),
  )

  @jax.jit
  def call(params, *problem):
    return model.states(params, *problem), model.apply(params, *problem)

  return params, call


def answers_of(name):
  params, call = network(name)
  return params, lambda *problem: call(*problem)[1]


def problems(*shape, seed=2):
  return jax.random.normal(jax.random.key(seed), (*shape, 3))


def numpy_linear(inputs, linear):
  return inputs @ linear["kernel"] + linear["bias"]


def numpy_norm(inputs, norm):
  if not norm:
    return inputs
  centred = inputs - inputs.mean(-1, keepdims=True)
  variance = (centred**2).mean(-1, keepdims=True)
  return centred / np.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"]


def numpy_attention(query, key, value, kind):
  scores = query @ key.T / np.sqrt(query.shape[-1])
  if kind == "softmax":
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
  else:
    weights = np.maximum(scores, 0.0) / (len(key) if kind == "relu/N" else 1)
  return weights @ value


def numpy_states(points, params, config):
  """Of one problem without padding, in float64."""
  hidden = numpy_linear(points, params["read_in"])
  backbone, states = params["backbone"], []
  for index in range(config.num_layers):
    states.append(hidden)
    block = backbone["blocks"][str(index)]
    normed = numpy_norm(hidden, block.get("attention_norm"))
    maps = numpy_linear(normed, block["attention"]["query_key_value"])
    size = config.width // config.num_heads
    pooled = [
      numpy_attention(
        *(
          maps[:, start + head * size : start + (head + 1) * size]
          for start in (0, config.width, 2 * config.width)
        ),
        config.attention,
      )
      for head in range(config.num_heads)
    ]
    hidden = hidden + numpy_linear(
      np.concatenate(pooled, axis=-1), block["attention"]["output"]
    )
    wide = numpy_linear(
      numpy_norm(hidden, block.get("mlp_norm")), block["mlp"]["hidden"]
    )
    cubic = np.sqrt(2.0 / np.pi) * (wide + 0.044715 * wide**3)
    wide = 0.5 * wide * (1.0 + np.tanh(cubic))
    hidden = hidden + numpy_linear(wide, block["mlp"]["output"])
  return [*states, numpy_norm(hidden, backbone.get("final_norm"))]


def numpy_answer(hidden, params, config):
  """What is read out of the last states: all four ways."""
  if config.answer == "labels":
    return numpy_linear(hidden, params["read_out"])
  if config.readout == "pooled":
    hidden = numpy_attention(params["queries"], hidden, hidden, "softmax")
  answer = numpy_linear(hidden.reshape(-1), params["read_out"])
  if config.answer == "eigenvectors":
    return answer.reshape(config.dim, config.num_targets)
  return answer


@pytest.mark.parametrize("name", KINDS)
def test_states_and_answer_are_numpys(name):
  params, call = network(name)
  points, config = problems(7), KINDS[name]
  weights = jax.tree.map(np.float64, params)
  expected = numpy_states(np.float64(points), weights, config)
  actual, answer = call(params, points, jnp.ones(7))
  assert len(actual) == config.num_layers + 1
  for one, other in zip(actual, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-4)
  expected = numpy_answer(expected[-1], weights, config)
  np.testing.assert_allclose(answer, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["softmax", "relu/N"])
def test_a_batch_in_one_call_is_vmap_and_one_at_a_time(name):
  params, apply = answers_of(name)
  points = problems(2, 3, 7)
  weight = jnp.ones((2, 3, 7)).at[0, 1, 5:].set(0.0)
  whole = apply(params, points, weight)
  over = jax.vmap(jax.vmap(apply, (None, 0, 0)), (None, 0, 0))
  np.testing.assert_allclose(over(params, points, weight), whole, atol=2e-5)
  one = apply(params, points[0, 1], weight[0, 1])
  np.testing.assert_allclose(one, whole[0, 1], atol=2e-5)


@pytest.mark.parametrize("name", KINDS)
def test_what_stands_in_the_padding_has_no_say(name):
  params, apply = answers_of(name)
  points, weight = problems(7), (jnp.arange(7) < 5).astype(jnp.float32)
  expected = apply(params, points, weight)
  assert np.all(np.isfinite(expected))
  seen = 5 if KINDS[name].answer == "labels" else None
  for content in (1e30, jnp.nan, jnp.inf):
    actual = apply(params, points.at[5:].set(content), weight)
    np.testing.assert_array_equal(actual[:seen], expected[:seen])
  moved = apply(params, points.at[4].set(1.0), weight)
  assert np.any(moved[:seen] != expected[:seen])


def test_a_flat_readout_reads_zeros_where_there_is_padding():
  config = KINDS["relu/N"]
  params, apply = answers_of("relu/N")
  points, weight = problems(7), (jnp.arange(7) < 5).astype(jnp.float32)
  weights = jax.tree.map(np.float64, params)
  hidden = numpy_states(np.float64(points[:5]), weights, config)[-1]
  expected = numpy_answer(np.pad(hidden, ((0, 2), (0, 0))), weights, config)
  np.testing.assert_allclose(apply(params, points, weight), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["softmax", "relu"])
def test_any_number_of_points_and_of_padding(name):
  params, apply = answers_of(name)
  points = problems(5)
  expected = apply(params, points, jnp.ones(5))
  padded = jnp.pad(points, ((0, 2), (0, 0)))
  actual = apply(params, padded, jnp.pad(jnp.ones(5), (0, 2)))
  if KINDS[name].answer == "labels":
    actual = actual[:5]
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_order_of_the_points():
  points, order = problems(7), jnp.array([4, 2, 6, 0, 3, 1, 5])
  weight = jnp.ones(7).at[2].set(0.0)
  straight, permuted = {}, {}
  for name in KINDS:
    params, apply = answers_of(name)
    straight[name] = np.asarray(apply(params, points, weight))
    permuted[name] = np.asarray(apply(params, points[order], weight[order]))
  # Pooled it does not matter, labels go with their points, flat it does.
  assert_close = functools.partial(np.testing.assert_allclose, atol=2e-5)
  assert_close(permuted["softmax"], straight["softmax"])
  is_point = np.asarray(weight[order]) > 0
  assert_close(permuted["relu"][is_point], straight["relu"][order][is_point])
  assert np.max(np.abs(permuted["relu/N"] - straight["relu/N"])) > 0.1


def test_other_numbers_of_points_are_refused_where_they_are_fixed():
  params, apply = answers_of("relu/N")
  with pytest.raises(ValueError, match="points has 6 rows, takes num_points ="):
    apply(params, problems(6), jnp.ones(6))
  causal = Config(dim=3, width=8, num_layers=1, is_causal=True, num_points=7)
  model = factory.build_set(causal)
  params = jax.eval_shape(model.init, jax.random.key(0))
  with pytest.raises(ValueError, match="points has 8 rows, takes at most"):
    jax.eval_shape(model.apply, params, problems(8), jnp.ones(8))
  # Learned positions bound N only; the flat readout fixes it.
  jax.eval_shape(model.apply, params, problems(5), jnp.ones(5))
  assert causal.needs_num_points
  assert not KINDS["softmax"].needs_num_points
  assert not KINDS["relu"].needs_num_points
  assert KINDS["relu/N"].needs_num_points
  labels = dataclasses.replace(KINDS["relu"], readout="flat")
  assert not labels.needs_num_points


def test_a_layer_written_by_hand_moves_every_point_by_a_power_step():
  """`x + A x / sqrt(d)`, A = X^T X / N: ReLU attention divided by N."""
  dim, num_points = 3, 7
  model = factory.build_set(
    Config(
      dim=dim,
      width=2 * dim,
      num_layers=1,
      attention="relu/N",
      has_norm=False,
    )
  )
  params = jax.tree.map(
    lambda leaf: np.zeros(leaf.shape, np.float32),
    jax.eval_shape(model.init, jax.random.key(0)),
  )
  one = np.eye(dim)
  params["read_in"]["kernel"][:, :dim] = one
  attention = params["backbone"]["blocks"]["0"]["attention"]
  # Of the two heads query, key and value; the second has the other sign.
  maps = attention["query_key_value"]["kernel"].reshape(2 * dim, 3, 2, dim)
  maps[:dim, :, 0] = one[:, None]
  maps[:dim, :, 1] = one[:, None] * np.array([1, -1, -1])[:, None]
  attention["output"]["kernel"][:dim, :dim] = one
  attention["output"]["kernel"][dim:, :dim] = one
  points = np.asarray(problems(num_points))
  states = jax.jit(model.states)(params, points, jnp.ones(num_points))
  covariance = points.T @ points / num_points
  expected = points + points @ covariance / np.sqrt(dim)
  np.testing.assert_allclose(states[1][:, :dim], expected, atol=1e-5)


def num_parameters(config):
  """By formula."""
  width, num_norms = config.width, 2 * config.num_layers + 1
  total = (config.dim + 1) * width  # read-in
  # Query, key, value and output; two maps of the MLP; biases.
  total += config.num_layers * (12 * width**2 + 9 * width)
  total += num_norms * 2 * width if config.has_norm else 0
  total += config.num_points * width if config.is_causal else 0
  num_inputs = width
  if config.answer != "labels" and config.readout == "flat":
    num_inputs = config.num_points * width
  elif config.answer != "labels":
    num_inputs = config.num_queries * width
    total += config.num_queries * width
  num_outputs = config.num_targets
  num_outputs *= config.dim if config.answer == "eigenvectors" else 1
  return total + (num_inputs + 1) * num_outputs


SMALL = Config(dim=20, num_targets=10)
LARGE = dataclasses.replace(SMALL, num_layers=12, num_heads=4, width=256)


@pytest.mark.parametrize(
  "config",
  [
    *KINDS.values(),
    SMALL,
    LARGE,
    dataclasses.replace(
      SMALL,
      num_heads=8,
      is_causal=True,
      readout="flat",
      answer="eigenvectors",
      num_targets=4,
    ),
    dataclasses.replace(SMALL, compute_dtype="bfloat16", has_norm=False),
  ],
)
def test_parameters_are_float32_and_as_many_as_the_formula_says(config):
  model = factory.build_set(config)
  params = jax.eval_shape(model.init, jax.random.key(0))
  leaves = jax.tree.leaves(params)
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}
  total = sum(math.prod(leaf.shape) for leaf in leaves)
  assert total == num_parameters(config)
  num_points = config.num_points
  points = jax.ShapeDtypeStruct((5, num_points, config.dim), jnp.float32)
  weight = jax.ShapeDtypeStruct((5, num_points), jnp.float32)
  answer = jax.eval_shape(model.apply, params, points, weight)
  expected = {
    "eigenvalues": (5, config.num_targets),
    "eigenvectors": (5, config.dim, config.num_targets),
    "labels": (5, num_points, config.num_targets),
  }
  assert answer.shape == expected[config.answer]
  assert answer.dtype == jnp.float32


def test_paper_sizes_are_the_defaults():
  assert (SMALL.num_layers, SMALL.num_heads, SMALL.width) == (3, 2, 64)


@pytest.mark.slow
def test_initial_weights_have_the_scale_that_is_asked_for():
  config = Config(dim=5, width=32, num_layers=1, init_scale=0.3)
  init = jax.jit(factory.build_set(config).init)
  params, again = init(jax.random.key(3)), init(jax.random.key(3))
  assert jax.tree.all(jax.tree.map(np.array_equal, params, again))
  block = params["backbone"]["blocks"]["0"]
  for kernel, scale in (
    (block["attention"]["query_key_value"]["kernel"], 0.3),
    (block["attention"]["output"]["kernel"], 0.3 / math.sqrt(2)),
    (block["mlp"]["hidden"]["kernel"], 0.3),
    (block["mlp"]["output"]["kernel"], 0.3 / math.sqrt(2)),
  ):
    # The standard error of a standard deviation is scale / sqrt(2 n).
    error = 4.0 * scale / math.sqrt(2 * kernel.size)
    assert abs(np.std(kernel) - scale) < error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax", "relu/N"])
def test_bfloat16_runs_and_is_near_float32(name):
  params, apply = answers_of(name)
  half = factory.build_set(
    dataclasses.replace(KINDS[name], compute_dtype="bfloat16")
  )
  points, weight = problems(4, 7), jnp.ones((4, 7))
  actual = jax.jit(half.apply)(params, points, weight)
  expected = apply(params, points, weight)
  assert actual.dtype == jnp.float32
  difference = np.sqrt(np.mean((actual - expected) ** 2)) / np.std(expected)
  # Eight bits: some rounding shows, and no more than some.
  assert 1e-4 < difference < 5e-2


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"num_targets": 4}, "num_targets is 4, takes at most dim = 3"),
    ({"width": 9}, "width is 9, takes a multiple of num_heads = 2"),
    ({"answer": "means"}, "answer is 'means', takes one of .'eigenvalues'"),
    ({"attention": "linear"}, "attention is 'linear', takes one of .'softmax'"),
    ({"readout": "mean"}, "readout is 'mean', takes one of .'flat', 'pooled'"),
    ({"compute_dtype": "float64"}, "compute_dtype is 'float64', takes one of"),
    ({"init_scale": 0.0}, "init_scale is 0.0, takes a finite number > 0"),
    ({"init_scale": math.nan}, "init_scale is nan, takes a finite number > 0"),
    *(
      ({field: 0}, f"{field} is 0, takes an integer >= 1")
      for field in (
        *("dim", "num_targets", "width", "num_layers", "num_heads"),
        *("num_points", "num_queries"),
      )
    ),
  ],
)
def test_sizes_that_cannot_be_built(change, message):
  with pytest.raises(ValueError, match=message) as error:
    dataclasses.replace(KINDS["softmax"], **change)
  assert "\n" not in str(error.value)


def test_there_may_be_more_classes_than_dimensions():
  config = dataclasses.replace(KINDS["relu"], num_targets=5)
  assert config.answer_shape == (5,)
