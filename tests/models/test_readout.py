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
def make(has_scales=False, pooling="scaled"):
  module = readout.AttentiveReadout(
    WIDTH,
    DIM,
    SERVED,
    has_scales=has_scales,
    pooling=pooling,
    rngs=nnx.Rngs(0),
  )
  if pooling == "scaled":
    shape = module.bias[...].shape
    module.bias[...] = jax.random.normal(jax.random.key(5), shape)
  return module


def read_out(module, *arguments):
  return jax.jit(lambda *a: module(*a))(*arguments)


def hidden_states(batch=()):
  return jax.random.normal(jax.random.key(1), (*batch, 11, WIDTH))


def of_module(module, count, *names):
  """Parameters of the module of a K."""
  index = SERVED.index(count)
  return [
    np.asarray(getattr(module, name)[...], np.float64)[index] for name in names
  ]


def numpy_readout(module, hidden, num_points, count):
  """One problem, by the definition, in float64."""
  queries, kernel = of_module(module, count, "queries", "kernel")
  hidden = np.asarray(hidden, np.float64)[:num_points]
  outputs = []
  for query in queries:
    if module.pooling == "released":
      (key_kernel,) = of_module(module, count, "key_kernel")
      weights = np.exp((hidden @ key_kernel) @ query)
      outputs.append(weights / weights.sum() @ (hidden @ kernel))
    else:
      (bias,) = of_module(module, count, "bias")
      weights = np.exp(hidden @ query / np.sqrt(WIDTH))
      outputs.append(weights / weights.sum() @ hidden @ kernel + bias)
  outputs = np.array(outputs)
  logits = outputs[:, :4].mean(0)[:count]
  return (
    logits - np.log(np.exp(logits).sum()),
    outputs[:count, 4 : 4 + DIM],
    np.log1p(np.exp(outputs[:count, 4 + DIM :])),
  )


@pytest.mark.parametrize("pooling", readout.POOLINGS)
@pytest.mark.parametrize("has_scales", [False, True])
@pytest.mark.parametrize("count", SERVED)
def test_readout_is_its_definition(count, has_scales, pooling):
  module, hidden = make(has_scales, pooling), hidden_states()
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


@pytest.mark.parametrize("has_scales", [False, True])
def test_released_maps_are_as_wide_as_what_a_query_gives(has_scales):
  _, params = nnx.split(make(has_scales, "released"), nnx.Param)
  outputs = 4 + DIM * (2 if has_scales else 1)
  shapes = jax.tree.map(np.shape, nnx.to_pure_dict(params))
  assert shapes == {
    "queries": (3, 4, outputs),
    "key_kernel": (3, WIDTH, outputs),
    "kernel": (3, WIDTH, outputs),
  }


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


@pytest.mark.parametrize("pooling", readout.POOLINGS)
def test_only_the_module_of_k_learns(pooling):
  graphdef, params = nnx.split(make(pooling=pooling), nnx.Param)

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


@pytest.mark.parametrize("pooling", readout.POOLINGS)
def test_queries_start_apart(pooling):
  # Components that start alike would stay alike.
  prediction = read_out(
    make(pooling=pooling), hidden_states(), jnp.ones(11, bool), jnp.asarray(4)
  )
  means = np.asarray(prediction.means)
  distances = np.abs(means[:, None] - means[None]).max(-1)
  assert distances[~np.eye(4, dtype=bool)].min() > 0.05
