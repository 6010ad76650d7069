import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tgmm_jax.models import readout

SERVED = (2, 4, 3)
WIDTH, DIM = 8, 3


@functools.cache
def make(has_scales=False):
  module = readout.AttentiveReadout(
    WIDTH, DIM, SERVED, has_scales=has_scales, rngs=nnx.Rngs(0)
  )
  shape = module.bias[...].shape
  module.bias[...] = jax.random.normal(jax.random.key(5), shape)
  return module


def read_out(module, *arguments):
  return jax.jit(lambda *a: module(*a))(*arguments)


def hidden_states(batch=()):
  return jax.random.normal(jax.random.key(1), (*batch, 11, WIDTH))


def numpy_readout(module, hidden, num_points, count):
  """One problem, by the definition, in float64."""
  index = SERVED.index(count)
  queries, kernel, bias = (
    np.asarray(parameter[...], np.float64)[index]
    for parameter in (module.queries, module.kernel, module.bias)
  )
  hidden = np.asarray(hidden, np.float64)[:num_points]
  outputs = []
  for query in queries:
    weights = np.exp(hidden @ query / np.sqrt(WIDTH))
    outputs.append(weights / weights.sum() @ hidden @ kernel + bias)
  outputs = np.array(outputs)
  logits = outputs[:, :4].mean(0)[:count]
  return (
    logits - np.log(np.exp(logits).sum()),
    outputs[:count, 4 : 4 + DIM],
    np.log1p(np.exp(outputs[:count, 4 + DIM :])),
  )


@pytest.mark.parametrize("has_scales", [False, True])
@pytest.mark.parametrize("count", SERVED)
def test_readout_is_its_definition(count, has_scales):
  module, hidden = make(has_scales), hidden_states()
  prediction = read_out(module, hidden, jnp.arange(11) < 9, jnp.asarray(count))
  log_weights, means, scales = numpy_readout(module, hidden, 9, count)
  np.testing.assert_allclose(
    prediction.log_weights[:count], log_weights, atol=2e-6
  )
  np.testing.assert_allclose(prediction.means[:count], means, atol=2e-6)
  if has_scales:
    np.testing.assert_allclose(prediction.scales[:count], scales, atol=2e-6)
    assert np.all(np.asarray(prediction.scales) > 0)
  else:
    assert prediction.scales is None


def test_padded_components_are_empty_and_finite():
  prediction = read_out(
    make(), hidden_states(), jnp.ones(11, bool), jnp.asarray(2)
  )
  assert np.all(np.isfinite(prediction.log_weights))
  np.testing.assert_array_equal(np.exp(prediction.log_weights[2:]), 0.0)
  np.testing.assert_array_equal(prediction.means[2:], 0.0)


def test_ragged_batch_is_its_problems_one_at_a_time():
  module, hidden = make(has_scales=True), hidden_states((4,))
  counts = jnp.array([3, 2, 4, 3])
  is_point = jnp.arange(11) < jnp.array([11, 4, 9, 1])[:, None]
  together = read_out(module, hidden, is_point, counts)
  mapped = read_out(jax.vmap(module), hidden, is_point, counts)
  for index in (0, 3):
    alone = read_out(module, hidden[index], is_point[index], counts[index])
    leaves = map(jax.tree.leaves, (alone, together, mapped))
    for one, other, third in zip(*leaves, strict=True):
      np.testing.assert_allclose(one, other[index], atol=2e-6)
      np.testing.assert_allclose(one, third[index], atol=2e-6)


def test_only_the_module_of_k_learns():
  graphdef, params = nnx.split(make(), nnx.Param)

  def total(params):
    prediction = nnx.merge(graphdef, params)(
      hidden_states(), jnp.ones(11, bool), jnp.asarray(4)
    )
    return jnp.sum(prediction.means**2) + prediction.log_weights[1]

  gradient = nnx.to_pure_dict(jax.grad(total)(params))
  for leaf in gradient.values():
    np.testing.assert_array_equal(
      np.any(leaf, axis=tuple(range(1, leaf.ndim))), [False, True, False]
    )


def test_queries_start_apart():
  # Components that start alike would stay alike.
  prediction = read_out(
    make(), hidden_states(), jnp.ones(11, bool), jnp.asarray(4)
  )
  means = np.asarray(prediction.means)
  distances = np.abs(means[:, None] - means[None]).max(-1)
  assert distances[~np.eye(4, dtype=bool)].min() > 0.05
