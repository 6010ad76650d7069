import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tgmm_jax.models import layers


def heads(seed=0, batch=(2,), dtype=jnp.float32):
  """Query, key, value `[*batch, H, N, Dh]` and a bias that hides 3 keys."""
  keys = jax.random.split(jax.random.key(seed), 3)
  shape = (*batch, 3, 10, 8)
  query, key, value = (jax.random.normal(k, shape, dtype) for k in keys)
  bias = jnp.where(jnp.arange(10) < 7, 0.0, layers.MASKED)
  return query, key, value, jnp.broadcast_to(bias, (*batch, 1, 1, 10))


def numpy_attention(query, key, value, bias):
  query, key, value, bias = (
    np.asarray(array, np.float64) for array in (query, key, value, bias)
  )
  logits = np.einsum("...nd,...md->...nm", query, key) / np.sqrt(8.0) + bias
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  return np.einsum("...nm,...md->...nd", weights, value)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_attend_is_softmax_attention(batch):
  arguments = heads(batch=batch)
  np.testing.assert_allclose(
    jax.jit(layers.attend)(*arguments), numpy_attention(*arguments), atol=2e-6
  )


def test_gradient_is_that_of_jax_nn():
  query, key, value, bias = heads()
  target = jax.random.normal(jax.random.key(9), query.shape)

  def reference(query, key, value):
    outputs = jax.nn.dot_product_attention(
      *(jnp.swapaxes(array, 1, 2) for array in (query, key, value)), bias=bias
    )
    return jnp.sum(target * jnp.swapaxes(outputs, 1, 2))

  def ours(query, key, value):
    return jnp.sum(target * layers.attend(query, key, value, bias))

  expected = jax.jit(jax.grad(reference, (0, 1, 2)))(query, key, value)
  actual = jax.jit(jax.grad(ours, (0, 1, 2)))(query, key, value)
  for one, other in zip(actual, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)
  # Hidden keys and values: exactly no gradient.
  assert not np.any(actual[1][..., 7:, :])
  assert not np.any(actual[2][..., 7:, :])


def test_large_logits_do_not_overflow():
  query, key, value, bias = heads()
  outputs = layers.attend(1e3 * query, 1e3 * key, value, bias)
  best = jnp.argmax(jnp.einsum("bhnd,bhmd->bhnm", query, key) + bias, axis=-1)
  expected = jnp.take_along_axis(value, best[..., None], axis=-2)
  np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_with_everything_hidden_it_stays_finite():
  query, key, value, bias = heads()
  hidden = jnp.full_like(bias, layers.MASKED)

  def total(query):
    return jnp.sum(layers.attend(query, key, value, hidden))

  result, gradient = jax.jit(jax.value_and_grad(total))(query)
  assert np.isfinite(result)
  assert np.all(np.isfinite(gradient))


def test_softmax_of_bfloat16_attention_is_float32():
  # Both logits round to 100 in bfloat16: the answer would be a half.
  zeros = jnp.zeros((1, 2, 4), jnp.bfloat16)
  value = jnp.array([[[0.0] * 4, [1.0] * 4]], jnp.bfloat16)
  bias = jnp.array([[[100.0, 100.3]]], jnp.float32)
  outputs = layers.attend(zeros, zeros, value, bias)
  assert outputs.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    outputs.astype(jnp.float32), 1.0 / (1.0 + np.exp(-0.3)), atol=4e-3
  )


@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 5, 4)])
def test_linear_on_any_leading_axes(shape):
  linear = layers.Linear(4, 3, rngs=nnx.Rngs(0))
  linear.bias[...] = jnp.arange(3.0)
  inputs = jax.random.normal(jax.random.key(1), shape)
  outputs = linear(inputs)
  expected = np.asarray(inputs) @ np.asarray(linear.kernel[...]) + np.arange(3)
  np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_layer_norm_far_from_the_origin():
  # In float32 E[x^2] - E[x]^2 would lose half of the digits here.
  inputs = 1e3 + np.random.default_rng(0).normal(size=(6, 32))
  norm = layers.layer_norm(32, rngs=nnx.Rngs(0))
  exact = inputs.astype(np.float32).astype(np.float64)
  variance = exact.var(-1, keepdims=True)
  expected = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(variance + 1e-5)
  np.testing.assert_allclose(
    norm(jnp.asarray(inputs, jnp.float32)), expected, atol=2e-4
  )


def test_mlp_is_gpt2s():
  mlp = layers.MLP(
    8,
    output_init=nnx.initializers.normal(0.5),
    dtype=jnp.float32,
    rngs=nnx.Rngs(0),
  )
  inputs = 40.0 * jax.random.normal(jax.random.key(1), (5, 8))
  weights = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(mlp)))
  hidden = inputs @ weights["hidden"]["kernel"]
  cubic = np.sqrt(2.0 / np.pi) * (hidden + 0.044715 * hidden**3)
  hidden = 0.5 * hidden * (1.0 + np.tanh(cubic))
  expected = hidden @ weights["output"]["kernel"]
  np.testing.assert_allclose(mlp(inputs), expected, atol=1e-5)
