import pathlib

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tgmm_jax.models import layers, transformer

GOLDEN = pathlib.Path(__file__).with_name("golden") / "gpt2.npz"


def make(max_positions=None, dtype=jnp.float32):
  """A compiled `(hidden, is_point) -> hidden` and its weights.

  They are wide and have biases, so that every part of a block shows.
  """
  graphdef, state = nnx.split(
    nnx.eval_shape(
      lambda: transformer.Transformer(
        16, 2, 4, max_positions=max_positions, dtype=dtype, rngs=nnx.Rngs(0)
      )
    ),
    nnx.Param,
  )
  generator = np.random.default_rng(1)
  state = jax.tree.map(
    lambda leaf: jnp.asarray(0.4 * generator.normal(size=leaf.shape), "f4"),
    state,
  )
  return compiled(graphdef, state), nnx.to_pure_dict(state)


def compiled(graphdef, state):
  return jax.jit(
    lambda hidden, is_point: nnx.merge(graphdef, state)(hidden, is_point)
  )


def hidden_states(seed=2, num_points=7):
  return jax.random.normal(jax.random.key(seed), (num_points, 16))


def numpy_norm(inputs, norm):
  centred = inputs - inputs.mean(-1, keepdims=True)
  variance = (centred**2).mean(-1, keepdims=True)
  return centred / np.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"]


def numpy_linear(inputs, linear):
  return inputs @ linear["kernel"] + linear["bias"]


def numpy_block(inputs, block, num_seen, num_heads=4):
  """A GPT-2 block of one problem by loops over heads and points, float64."""
  num_points, width = inputs.shape
  size = width // num_heads
  heads = numpy_linear(
    numpy_norm(inputs, block["attention_norm"]),
    block["attention"]["query_key_value"],
  )
  query, key, value = np.split(heads, 3, axis=-1)
  pooled = np.zeros_like(inputs)
  for head in range(num_heads):
    part = slice(head * size, (head + 1) * size)
    for point in range(num_points):
      logits = key[:num_seen, part] @ query[point, part] / np.sqrt(size)
      weights = np.exp(logits - logits.max())
      pooled[point, part] = weights @ value[:num_seen, part] / weights.sum()
  inputs = inputs + numpy_linear(pooled, block["attention"]["output"])
  hidden = numpy_linear(
    numpy_norm(inputs, block["mlp_norm"]), block["mlp"]["hidden"]
  )
  cubic = np.sqrt(2.0 / np.pi) * (hidden + 0.044715 * hidden**3)
  hidden = 0.5 * hidden * (1.0 + np.tanh(cubic))
  return inputs + numpy_linear(hidden, block["mlp"]["output"])


def test_bidirectional_backbone_is_a_numpy_loop():
  module, weights = make()
  weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights)
  inputs = hidden_states()
  expected = np.asarray(inputs, np.float64)
  for index in range(2):
    expected = numpy_block(expected, weights["blocks"][index], num_seen=5)
  expected = numpy_norm(expected, weights["final_norm"])
  actual = module(inputs, jnp.arange(7) < 5)
  np.testing.assert_allclose(actual, expected, atol=2e-5)


def gpt2_weights(golden):
  """Hugging Face's names in the order of ours."""

  def linear(name):
    return {
      "kernel": golden[f"{name}.weight"],
      "bias": golden[f"{name}.bias"],
    }

  def norm(name):
    return {"scale": golden[f"{name}.weight"], "bias": golden[f"{name}.bias"]}

  def block(name):
    return {
      "attention_norm": norm(f"{name}.ln_1"),
      "attention": {
        "query_key_value": linear(f"{name}.attn.c_attn"),
        "output": linear(f"{name}.attn.c_proj"),
      },
      "mlp_norm": norm(f"{name}.ln_2"),
      "mlp": {
        "hidden": linear(f"{name}.mlp.c_fc"),
        "output": linear(f"{name}.mlp.c_proj"),
      },
    }

  return {
    "blocks": {index: block(f"h.{index}") for index in range(2)},
    "final_norm": norm("ln_f"),
    "positions": {"embedding": golden["wpe.weight"]},
  }


def test_causal_backbone_is_hugging_faces_gpt2():
  with np.load(GOLDEN) as golden:
    golden = dict(golden)
  graphdef, state = nnx.split(
    transformer.Transformer(
      16, 2, 4, max_positions=9, dtype=jnp.float32, rngs=nnx.Rngs(0)
    ),
    nnx.Param,
  )
  weights = gpt2_weights(golden)
  assert jax.tree.map(jnp.shape, nnx.to_pure_dict(state)) == jax.tree.map(
    np.shape, weights
  )
  nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, weights))
  is_point = golden["mask"] > 0
  actual = compiled(graphdef, state)(
    jnp.asarray(golden["inputs"]), jnp.asarray(is_point)
  )
  np.testing.assert_allclose(
    actual[is_point], golden["hidden"][is_point], atol=2e-5
  )


def test_bidirectional_follows_a_permutation_of_the_points():
  (module, _), inputs = make(), hidden_states()
  is_point = jnp.arange(7) != 3
  order = jnp.array([4, 2, 6, 0, 3, 1, 5])
  straight = module(inputs, is_point)
  permuted = module(inputs[order], is_point[order])
  np.testing.assert_allclose(permuted, straight[order], atol=2e-5)


def test_causal_states_depend_on_earlier_points_only():
  (module, _), inputs = make(max_positions=9), hidden_states()
  jacobian = jax.jacobian(lambda x: module(x, jnp.ones(7, bool)))(inputs)
  influence = np.abs(jacobian).sum((1, 3))  # [to, from]
  np.testing.assert_array_equal(influence > 0, np.tri(7, dtype=bool))


def test_every_point_sees_every_real_point_and_no_padding():
  (module, _), inputs = make(), hidden_states()
  jacobian = jax.jacobian(lambda x: module(x, jnp.arange(7) < 5))(inputs)
  influence = np.abs(jacobian).sum((1, 3))[:5]
  np.testing.assert_array_equal(influence > 0, np.arange(7)[None] < [[5]] * 5)


def test_more_points_than_positions_are_refused():
  module, _ = make(max_positions=6)
  with pytest.raises(ValueError, match=r"7 rows.*max_points = 6"):
    module(hidden_states(), jnp.ones(7, bool))


def test_positions_of_a_shorter_problem_are_the_first():
  (module, _), inputs = make(max_positions=9), hidden_states()
  whole = module(inputs, jnp.ones(7, bool))
  part = module(inputs[:4], jnp.ones(4, bool))
  np.testing.assert_allclose(part, whole[:4], atol=2e-5)


def test_initialisation_is_gpt2s():
  module = transformer.Transformer(
    64, 8, 4, max_positions=32, dtype=jnp.float32, rngs=nnx.Rngs(0)
  )
  block = module.blocks[3]
  for parameter, scale in [
    (block.attention.query_key_value.kernel, 0.02),
    (block.attention.output.kernel, 0.02 / 4),
    (block.mlp.hidden.kernel, 0.02),
    (block.mlp.output.kernel, 0.02 / 4),
    (module.positions.embedding, 0.02),
  ]:
    # The standard error of a standard deviation is scale / sqrt(2 n).
    values = np.asarray(parameter[...])
    error = 4.0 * scale / np.sqrt(2 * values.size)
    assert abs(values.std() - scale) < error
  assert not np.any(block.attention.query_key_value.bias[...])
  np.testing.assert_array_equal(block.mlp_norm.scale[...], np.ones(64))


def test_bfloat16_is_close_and_keeps_residuals_in_float32():
  module, _ = make(dtype=jnp.bfloat16)
  reference, _ = make()
  inputs, is_point = hidden_states(), jnp.ones(7, bool)
  actual = module(inputs, is_point)
  assert actual.dtype == jnp.float32
  difference = np.asarray(actual - reference(inputs, is_point))
  scale = np.asarray(reference(inputs, is_point)).std()
  # bfloat16 has eight bits: some rounding shows, and no more than some.
  assert 1e-4 < np.sqrt(np.mean(difference**2)) / scale < 3e-2


def test_masked_logits_vanish_in_float32():
  assert np.exp(np.float32(layers.MASKED)) == 0.0


def operand_dtypes(jaxpr):
  """Dtypes of both operands of every matrix product."""
  found = []
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      found += [variable.aval.dtype for variable in equation.invars]
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      found += operand_dtypes(inner)
  return found


def test_every_product_of_a_bfloat16_backbone_is_in_bfloat16():
  module, _ = make(dtype=jnp.bfloat16)
  jaxpr = jax.make_jaxpr(module)(hidden_states(), jnp.ones(7, bool)).jaxpr
  # Four maps and two products of attention in each of two layers.
  assert operand_dtypes(jaxpr) == [jnp.bfloat16] * (2 * 6 * 2)
