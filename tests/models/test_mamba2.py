import functools
import pathlib

import jax
import jax.numpy as jnp
import mamba2_jax
import numpy as np
import pytest
from flax import nnx

from tgmm_jax.models import mamba2

GOLDEN = pathlib.Path(__file__).with_name("golden") / "mamba2.npz"
SIZES = mamba2.Sizes(num_heads=4, head_dim=8, state_size=6, num_groups=2)
WIDTH, NUM_LAYERS = 16, 2


def build(is_causal, sizes=SIZES, dtype=jnp.float32):
  """The module taken apart, with a state of shapes."""
  module = nnx.eval_shape(
    lambda: mamba2.Mamba2(
      WIDTH,
      NUM_LAYERS,
      sizes,
      is_causal=is_causal,
      dtype=dtype,
      rngs=nnx.Rngs(0),
    )
  )
  return nnx.split(module, nnx.Param)


def compiled(graphdef, state):
  return jax.jit(
    lambda hidden, is_point: nnx.merge(graphdef, state)(hidden, is_point)
  )


@functools.cache
def make(is_causal=False, dtype=jnp.float32):
  """A compiled `(hidden, is_point) -> hidden` and its weights, drawn wide."""
  graphdef, state = build(is_causal, dtype=dtype)
  generator = np.random.default_rng(1)
  state = jax.tree.map(
    lambda leaf: jnp.asarray(0.4 * generator.normal(size=leaf.shape), "f4"),
    state,
  )
  return compiled(graphdef, state), nnx.to_pure_dict(state)


def hidden_states(num_points=9, batch=()):
  return jax.random.normal(jax.random.key(2), (*batch, num_points, WIDTH))


def softplus(logits):
  return np.logaddexp(logits, 0.0)


def silu(inputs):
  return inputs / (1.0 + np.exp(-inputs))


def recurrence(values, steps, rates, write, read, skip):
  """The state-space model one point after another: [N, H, P] from [N, H, *]."""
  outputs = np.zeros_like(values)
  state = np.zeros((*values.shape[1:], write.shape[-1]))
  for point in range(len(values)):
    kept = np.exp(-rates * steps[point])[:, None, None]
    added = steps[point][:, None] * values[point]
    state = kept * state + added[:, :, None] * write[point][:, None, :]
    outputs[point] = np.einsum("hps,hs->hp", state, read[point])
    outputs[point] += skip[:, None] * values[point]
  return outputs


@pytest.mark.parametrize("num_points", [1, 128, 300])
def test_kernel_is_the_recurrence(num_points):
  generator = np.random.default_rng(0)
  values = generator.normal(size=(num_points, 3, 4))
  logits = generator.normal(size=(num_points, 3))
  logits[num_points // 2] = -1e9  # a skipped point
  write, read = generator.normal(size=(2, num_points, 3, 5))
  rates, skip, bias = generator.uniform(0.1, 1.0, size=(3, 3))
  expected = recurrence(
    values, softplus(logits + bias), rates, write, read, skip
  )
  actual, _ = mamba2_jax.ssd_forward(
    *(jnp.asarray(array, "f4")[None] for array in (values, logits)),
    jnp.asarray(-rates, "f4"),
    *(jnp.asarray(array, "f4")[None] for array in (write, read)),
    128,
    jnp.asarray(skip, "f4"),
    jnp.asarray(bias, "f4"),
    0.0,
    np.inf,
  )
  # Sums of a chunk's steps have float32's rounding.
  scale = np.abs(expected).max()
  np.testing.assert_allclose(actual[0], expected, atol=1e-5 * scale)


def numpy_norm(inputs, scale, num_groups=1):
  groups = inputs.reshape(len(inputs), num_groups, -1)
  groups = groups / np.sqrt((groups**2).mean(-1, keepdims=True) + 1e-5)
  return groups.reshape(inputs.shape) * scale


def numpy_block(points, block):
  """A block on points without padding, in the order of reading, float64."""
  num_heads, head_dim, state_size, num_groups = SIZES
  mixer, inner = block["mixer"], num_heads * head_dim
  projected = (
    numpy_norm(points, block["norm"]["scale"]) @ mixer["input"]["kernel"]
  )
  gate, channels, logits = np.split(
    projected, [inner, projected.shape[1] - num_heads], axis=1
  )
  padded = np.concatenate([np.zeros((3, channels.shape[1])), channels])
  windows = [padded[point : point + 4] for point in range(len(channels))]
  channels = np.array([(mixer["kernel"] * w).sum(0) for w in windows])
  channels = silu(channels + mixer["bias"])
  values, write, read = np.split(
    channels, [inner, inner + num_groups * state_size], axis=1
  )

  def of_heads(grouped):
    grouped = grouped.reshape(-1, num_groups, state_size)
    groups = [head * num_groups // num_heads for head in range(num_heads)]
    return grouped[:, groups]

  outputs = recurrence(
    values.reshape(-1, num_heads, head_dim),
    softplus(logits + mixer["step_bias"]),
    np.exp(mixer["log_rate"]),
    of_heads(write),
    of_heads(read),
    mixer["skip"],
  )
  gated = outputs.reshape(values.shape) * silu(gate)
  normed = numpy_norm(gated, mixer["norm"]["scale"], num_groups)
  return points + normed @ mixer["output"]["kernel"]


def numpy_backbone(points, weights):
  """The bidirectional backbone of two blocks."""
  points = numpy_block(points, weights["blocks"][0])
  points = numpy_block(points[::-1], weights["blocks"][1])[::-1]
  return numpy_norm(points, weights["final_norm"]["scale"])


@pytest.mark.parametrize("num_points", [9, 150])
def test_bidirectional_backbone_is_a_numpy_loop(num_points):
  module, weights = make()
  weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights)
  inputs = hidden_states(num_points)
  is_point = np.arange(num_points) % 4 != 1
  expected = numpy_backbone(np.asarray(inputs, np.float64)[is_point], weights)
  actual = np.asarray(module(inputs, jnp.asarray(is_point)))[is_point]
  np.testing.assert_allclose(actual, expected, atol=5e-5)


def hugging_faces_weights(golden):
  """Hugging Face's names in the order of ours."""

  def layer(name):
    mixer = f"{name}.mixer"
    return {
      "norm": {"scale": golden[f"{name}.norm.weight"]},
      "mixer": {
        "input": {"kernel": golden[f"{mixer}.in_proj.weight"].T},
        "kernel": golden[f"{mixer}.conv1d.weight"][:, 0].T,
        "bias": golden[f"{mixer}.conv1d.bias"],
        "step_bias": golden[f"{mixer}.dt_bias"],
        "log_rate": golden[f"{mixer}.A_log"],
        "skip": golden[f"{mixer}.D"],
        "norm": {"scale": golden[f"{mixer}.norm.weight"]},
        "output": {"kernel": golden[f"{mixer}.out_proj.weight"].T},
      },
    }

  return {
    "blocks": {index: layer(f"layers.{index}") for index in range(NUM_LAYERS)},
    "final_norm": {"scale": golden["norm_f.weight"]},
  }


@pytest.mark.parametrize("num_groups", [1, 2])
def test_causal_backbone_is_hugging_faces_mamba2(num_groups):
  with np.load(GOLDEN) as arrays:
    assert str(arrays["transformers"]) == "5.23.0"
    golden = {
      name.removeprefix(f"{num_groups}/"): array
      for name, array in arrays.items()
      if name.startswith(f"{num_groups}/")
    }
  graphdef, state = build(
    is_causal=True, sizes=SIZES._replace(num_groups=num_groups)
  )
  weights = hugging_faces_weights(golden)
  assert jax.tree.map(jnp.shape, nnx.to_pure_dict(state)) == jax.tree.map(
    np.shape, weights
  )
  nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, weights))
  module = compiled(graphdef, state)
  inputs = jnp.asarray(golden["inputs"])
  is_point = golden["mask"] > 0
  whole = module(inputs, jnp.ones_like(is_point))
  np.testing.assert_allclose(whole, golden["whole"], atol=1e-5)
  masked = np.asarray(module(inputs, jnp.asarray(is_point)))
  np.testing.assert_allclose(
    masked[is_point], golden["masked"][is_point], atol=1e-5
  )


PADDINGS = [(), (0, 1), (7, 8), (2, 3, 4, 6), (0, 1, 2, 3, 4, 6, 7, 8)]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
def test_padding_anywhere_is_skipped(is_causal, padding):
  module, _ = make(is_causal)
  is_point = np.ones(9, bool)
  is_point[list(padding)] = False
  inputs = hidden_states()
  truncated = inputs[is_point]
  expected = module(truncated, jnp.ones(len(truncated), bool))
  actual = np.asarray(module(inputs, jnp.asarray(is_point)))
  np.testing.assert_allclose(actual[is_point], expected, atol=2e-6)
  # Bit for bit, wherever it stands and whatever is in it.
  for filling in (0.0, 1e30, np.nan):
    filled = jnp.where(is_point[:, None], inputs, filling)
    other = np.asarray(module(filled, jnp.asarray(is_point)))
    np.testing.assert_array_equal(other[is_point], actual[is_point])
    np.testing.assert_array_equal(other[~is_point], 0.0)
  moved = jnp.concatenate([truncated, jnp.ones((len(padding), WIDTH))])
  at_end = module(moved, jnp.arange(9) < len(truncated))
  np.testing.assert_array_equal(at_end[: len(truncated)], actual[is_point])


@pytest.mark.parametrize("is_causal", [False, True])
def test_which_points_a_point_sees(is_causal):
  module, _ = make(is_causal)
  is_point = jnp.arange(7) != 3
  jacobian = jax.jit(jax.jacobian(lambda x: module(x, is_point)))(
    hidden_states(7)
  )
  influence = np.abs(jacobian).sum((1, 3)) > 0  # [to, from]
  expected = np.tri(7, dtype=bool) if is_causal else np.ones((7, 7), bool)
  rows = np.asarray(is_point)
  expected[:, ~rows] = False
  np.testing.assert_array_equal(influence[rows], expected[rows])


def test_any_number_of_leading_axes():
  module, _ = make()
  inputs = hidden_states(batch=(2, 3))
  is_point = jax.random.bernoulli(jax.random.key(5), 0.7, (2, 3, 9))
  together = module(inputs, is_point)
  alone = module(inputs[1, 2], is_point[1, 2])
  np.testing.assert_allclose(together[1, 2], alone, atol=1e-5)


def test_gradients_are_finite_with_padding():
  graphdef, _ = build(is_causal=False)
  _, weights = make()
  is_point = jnp.stack([jnp.arange(9) % 3 != 0, jnp.zeros(9, bool)])

  def loss(weights, inputs):
    state = nnx.State(weights)
    return jnp.sum(jnp.sin(nnx.merge(graphdef, state)(inputs, is_point)))

  grads, of_inputs = jax.jit(jax.grad(loss, (0, 1)))(
    weights, hidden_states(batch=(2,))
  )
  for path, leaf in jax.tree.leaves_with_path(grads):
    assert np.all(np.isfinite(leaf)), jax.tree_util.keystr(path)
    assert np.any(leaf), jax.tree_util.keystr(path)
  np.testing.assert_array_equal(np.asarray(of_inputs)[~is_point], 0.0)


def test_initialisation_is_the_published_one():
  num_layers, sizes = 2, mamba2.Sizes(64, 4, 8, 2)
  module = mamba2.Mamba2(
    64, num_layers, sizes, is_causal=False, dtype=jnp.float32, rngs=nnx.Rngs(0)
  )
  mixer = module.blocks[1].mixer
  for parameter, fan_in in [
    (mixer.input.kernel, 64),
    (mixer.output.kernel, 256 * num_layers),
    (mixer.kernel, 4),
  ]:
    limit = fan_in**-0.5
    values = np.asarray(parameter[...])
    assert np.abs(values).max() < limit
    error = 4.0 * limit / np.sqrt(values.size)
    assert abs(values.std() - limit / np.sqrt(3.0)) < error
  steps = softplus(np.asarray(mixer.step_bias[...], np.float64))
  assert 0.99e-3 < steps.min() < 2e-3
  assert 0.05 < steps.max() < 0.1001
  rates = np.exp(mixer.log_rate[...])
  assert 1.0 <= rates.min() < 2.0
  assert 14.0 < rates.max() <= 16.0
  np.testing.assert_array_equal(mixer.skip[...], 1.0)
  np.testing.assert_array_equal(mixer.norm.scale[...], 1.0)


def test_steps_at_the_start_are_those_drawn(monkeypatch):
  monkeypatch.setattr(mamba2, "_MIN_STEP", mamba2._MAX_STEP)
  mixer = mamba2.Mixer(
    WIDTH,
    SIZES,
    output_init=nnx.initializers.zeros,
    dtype=jnp.float32,
    rngs=nnx.Rngs(0),
  )
  steps = softplus(np.asarray(mixer.step_bias[...], np.float64))
  np.testing.assert_allclose(steps, mamba2._MAX_STEP, rtol=1e-5)


def test_bfloat16_is_close_and_keeps_residuals_in_float32():
  module, _ = make(dtype=jnp.bfloat16)
  reference, _ = make()
  inputs, is_point = hidden_states(), jnp.ones(9, bool)
  actual = module(inputs, is_point)
  assert actual.dtype == jnp.float32
  expected = reference(inputs, is_point)
  difference = np.asarray(actual - expected)
  # bfloat16 has eight bits: some rounding shows, and no more than some.
  relative = np.sqrt(np.mean(difference**2)) / np.std(expected)
  assert 1e-4 < relative < 3e-2
