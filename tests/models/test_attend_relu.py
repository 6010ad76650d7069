"""ReLU attention against a NumPy loop, and what its rows see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.models import layers

attend_relu = jax.jit(layers.attend_relu, static_argnames="is_mean")


def heads(seed=0):
  """Query, key, value `[2, 3, 6, 4]` and a bias that hides two keys."""
  query, key, value = jax.random.normal(jax.random.key(seed), (3, 2, 3, 6, 4))
  bias = jnp.where(jnp.arange(6) < 4, 0.0, layers.MASKED)
  return query, key, value, jnp.broadcast_to(bias, (2, 1, 1, 6))


@pytest.mark.parametrize("is_mean", [False, True])
def test_relu_attention_is_a_numpy_loop(is_mean):
  query, key, value, bias = heads()
  actual = attend_relu(query, key, value, bias, is_mean=is_mean)
  query, key, value = (np.float64(array) for array in (query, key, value))
  expected = np.zeros((2, 3, 6, 4))
  for batch, head, row in np.ndindex(2, 3, 6):
    for column in range(4):
      score = query[batch, head, row] @ key[batch, head, column] / 2.0
      expected[batch, head, row] += max(score, 0) * value[batch, head, column]
  np.testing.assert_allclose(
    actual, expected / (4 if is_mean else 1), atol=2e-6
  )


def test_relu_attention_divides_by_the_keys_that_a_row_sees():
  query, key, value, _ = heads()
  # Causal: row n sees n + 1 keys, and the last bias hides everything.
  causal = jnp.where(jnp.tri(6, dtype=bool), 0.0, layers.MASKED)
  total, mean = (
    attend_relu(query, key, value, causal, is_mean=is_mean)
    for is_mean in (False, True)
  )
  np.testing.assert_allclose(mean * jnp.arange(1, 7)[:, None], total, rtol=1e-5)
  hidden = jnp.full((1, 1, 1, 6), layers.MASKED)
  nothing = attend_relu(query, key, value, hidden, is_mean=True)
  assert not np.any(nothing)


def test_hidden_keys_have_no_say_and_no_gradient_in_relu_attention():
  query, key, value, bias = heads()

  def total(key, value):
    answer = attend_relu(query, key, value, bias, is_mean=True)
    return jnp.sum(answer**2)

  by_key, by_value = jax.jit(jax.grad(total, (0, 1)))(key, value)
  for gradient in (by_key, by_value):
    assert not np.any(gradient[..., 4:, :])
    assert np.any(gradient[..., :4, :])


def test_two_heads_with_opposite_keys_are_linear_attention():
  query, key, value, bias = heads()
  straight, opposite = (
    attend_relu(query, sign * key, sign * value, bias, is_mean=False)
    for sign in (1.0, -1.0)
  )
  scores = np.einsum("...nd,...md->...nm", query, key)[..., :4] / 2.0
  expected = np.einsum("...nm,...md->...nd", scores, value[..., :4, :])
  np.testing.assert_allclose(straight + opposite, expected, atol=5e-6)
