"""Layers against NumPy loops, the builder, schedules and counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.constructed import piecewise_linear, primitives

SLOTS = primitives.Slots.of(x=3, y=2, z=2, one=1)


def random_rows(seed, *counts):
  rng = np.random.default_rng(seed)
  return [rng.normal(size=(count, SLOTS.width)) for count in counts]


def random_layer(seed):
  layer = primitives.LayerBuilder(SLOTS)
  for number in range(2):
    keys, queries, reads, writes, inputs, outputs = random_rows(
      seed + number, 2, 2, 3, 3, 4, 4
    )
    layer.head(
      f"{seed}.head.{number}",
      keys=[keys[:1], keys[1:]],
      queries=[queries],
      reads=reads,
      writes=writes,
    )
    layer.units(f"{seed}.mlp.{number}", 0.1 * inputs, 0.1 * outputs)
  return layer


def random_state(seed, num_tokens=6):
  rng = np.random.default_rng(seed)
  state = rng.normal(size=(SLOTS.width, num_tokens))
  state[SLOTS["one"]] = 1.0
  return state


def build(activation, *seeds, dtype=jnp.float64):
  layers = [random_layer(seed) for seed in seeds]
  return primitives.build(SLOTS, layers, activation=activation, dtype=dtype)


def attend_by_loops(layer, state, activation):
  """The papers' formula, one query token after the other."""
  result = state.copy()
  for head in layer.heads:
    keys, queries = np.asarray(head.keys), np.asarray(head.queries)
    values = np.asarray(head.writes) @ np.asarray(head.reads)
    for query in range(state.shape[1]):
      scores = (keys @ state).T @ (queries @ state[:, query])
      if activation == "softmax":
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
      else:
        shares = np.maximum(scores, 0.0)
      result[:, query] += values @ state @ shares
  return result


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("activation", primitives.ACTIVATIONS)
def test_layers_are_those_of_the_papers(activation):
  network, state = build(activation, 0), random_state(1)
  layer = network.layers[0]
  found = primitives.attend(layer, jnp.asarray(state), activation)
  expected = attend_by_loops(layer, state, activation)
  np.testing.assert_allclose(found, expected, atol=1e-12)
  found = primitives.feed_forward(layer, jnp.asarray(expected))
  hidden = np.maximum(np.asarray(layer.hidden) @ expected, 0.0)
  expected = expected + np.asarray(layer.output) @ hidden
  np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_schedule_is_its_layers_one_after_the_other():
  network, state = build("softmax", 0, 10, 20), jnp.asarray(random_state(1))
  schedule = (primitives.Run((2,)), primitives.Run((0, 1), 3))
  expected = [state]
  for index in (2, 0, 1, 0, 1, 0, 1):
    layer = network.layers[index]
    attended = primitives.attend(layer, expected[-1], "softmax")
    expected.append(primitives.feed_forward(layer, attended))
  apply = functools.partial(primitives.apply, schedule=schedule)
  found = apply(network, state, return_states=True)
  np.testing.assert_allclose(found, np.stack(expected), atol=1e-10)
  # One problem is one state; a batch is vmap.
  batch = jnp.stack([state, 2.0 * state])
  found = jax.jit(jax.vmap(apply, in_axes=(None, 0)))(network, batch)
  np.testing.assert_allclose(found[0], expected[-1], atol=1e-10)


def test_repeats_are_scanned_over_not_unrolled():
  network, state = build("relu", 0, dtype=jnp.float32), random_state(1)

  def length(repeats):
    schedule = (primitives.Run((0,), repeats),)
    run = functools.partial(primitives.apply, schedule=schedule)
    return len(jax.jit(run).lower(network, jnp.asarray(state)).as_text())

  assert abs(length(200) - length(2)) < 20


@pytest.mark.usefixtures("x64")
def test_each_block_is_what_zeroing_it_takes_away():
  network, state = build("softmax", 0, 10), jnp.asarray(random_state(1))
  names = network.block_names
  assert len(set(names)) == len(names) == 8
  layer = network.layers[1]
  for number, part in enumerate(("head", "head", "mlp", "mlp")):
    name = f"10.{part}.{number % 2}"
    cut = primitives.zero_block(network, name)
    same = cut.layers[0]
    jax.tree.map(np.testing.assert_array_equal, same, network.layers[0])
    if part == "head":
      rest = layer._replace(heads=(layer.heads[1 - number],))
      found = primitives.attend(cut.layers[1], state, "softmax")
      expected = primitives.attend(rest, state, "softmax")
    else:
      keep = slice(4, 8) if number == 2 else slice(0, 4)
      rest = layer._replace(
        hidden=layer.hidden[keep], output=layer.output[:, keep]
      )
      found = primitives.feed_forward(cut.layers[1], state)
      expected = primitives.feed_forward(rest, state)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_writers_do_what_they_say():
  state = random_state(3)
  x, y, z = (state[SLOTS[name]] for name in ("x", "y", "z"))
  rows = SLOTS.select

  def run(fill, activation="relu"):
    layer = primitives.LayerBuilder(SLOTS)
    fill(layer)
    network = primitives.build(
      SLOTS, [layer], activation=activation, dtype=jnp.float64
    )
    schedule = (primitives.Run((0,)),)
    return primitives.apply(network, jnp.asarray(state), schedule)

  after = run(lambda layer: layer.move("move", "y", "z"))
  np.testing.assert_allclose(SLOTS.read(after, "y"), 0.0, atol=1e-15)
  np.testing.assert_allclose(SLOTS.read(after, "z"), y + z, atol=1e-15)
  after = run(lambda layer: layer.clear("clear", "x", "z"))
  np.testing.assert_array_equal(SLOTS.read(after, "x"), 0.0)
  np.testing.assert_array_equal(SLOTS.read(after, "z"), 0.0)
  np.testing.assert_array_equal(SLOTS.read(after, "y"), y)
  after = run(lambda layer: layer.clear("clear", "y", is_positive=True))
  np.testing.assert_array_equal(SLOTS.read(after, "y"), np.minimum(y, 0.0))
  after = run(
    lambda layer: layer.linear("linear", rows("x")[:2], 3.0 * rows("y"))
  )
  np.testing.assert_allclose(SLOTS.read(after, "y"), y + 3.0 * x[:2])
  curve = piecewise_linear.half_square(4.0, 8)
  for gate, kept in ((None, 1.0), (9.0 * rows("one"), 0.0)):
    fill = functools.partial(
      primitives.LayerBuilder.curve,
      name="curve",
      inputs=rows("x")[:2],
      curve=curve,
      outputs=rows("y"),
      gate=gate,
    )
    after = run(fill)
    expected = y + kept * (curve(x[:2]) - curve.offset)
    np.testing.assert_allclose(SLOTS.read(after, "y"), expected, atol=1e-14)


@pytest.mark.usefixtures("x64")
def test_signed_heads_multiply():
  state, rows = random_state(4), SLOTS.select
  mask = [rows("one")], [-1e3 * rows("one")]
  for masks, kept in ((((), ()), 1.0), (mask, 0.0)):
    layer = primitives.LayerBuilder(SLOTS)
    layer.signed_heads(
      "product",
      keys=[rows("x")],
      queries=[rows("x")],
      reads=rows("z"),
      writes=rows("y"),
      masks=masks,
    )
    network = primitives.build(
      SLOTS, [layer], activation="relu", dtype=jnp.float64
    )
    assert network.block_names == ("product.plus", "product.minus")
    found = primitives.attend(network.layers[0], jnp.asarray(state), "relu")
    x, z = state[SLOTS["x"]], state[SLOTS["z"]]
    expected = state[SLOTS["y"]] + kept * (z @ (x.T @ x))
    np.testing.assert_allclose(SLOTS.read(found, "y"), expected, atol=1e-12)


def test_slots():
  assert SLOTS.width == 8
  assert SLOTS["z"] == slice(5, 7)
  assert SLOTS.size("x") == 3
  identity = np.eye(8)
  np.testing.assert_array_equal(SLOTS.select("y"), identity[3:5])
  np.testing.assert_array_equal(SLOTS.select("y", 1), identity[4:5])
  np.testing.assert_array_equal(SLOTS.select("x", slice(1, 3)), identity[1:3])
  with pytest.raises(KeyError, match="'w'"):
    SLOTS.select("w")


def test_sizes_are_counted_from_the_weights():
  network = build("softmax", 0, 10, dtype=jnp.float32)
  schedule = (primitives.Run((0, 1), 3), primitives.Run((1,), 2))
  found = primitives.sizes(network, schedule)
  # A head: keys and queries 2 x 8, reads and writes 3 x 8; MLP 2 x (8 x 8).
  one = 2 * (2 * 16 + 2 * 24) + 2 * 64
  assert found.num_parameters == 8 * one
  assert found.num_distinct == 2 * one == primitives.count_parameters(network)
  assert found.num_dense == 8 * (2 * 3 * 64 + 2 * 64)
  assert found[:4] == (8, 2, 8, 8)
  assert found.nonzero_share == 1.0
  cut = primitives.zero_block(network, "0.mlp.1")
  lost = primitives.count_nonzero(network) - primitives.count_nonzero(cut)
  assert lost == 4 * 8
  share = primitives.sizes(cut, schedule).nonzero_share
  assert share == pytest.approx(1.0 - 3 * 32 / (8 * one))


def test_what_does_not_fit_is_refused():
  layer = primitives.LayerBuilder(SLOTS)
  rows = SLOTS.select
  with pytest.raises(ValueError, match="outputs of 'a'"):
    layer.units("a", rows("x"), rows("y"))
  with pytest.raises(ValueError, match="queries of 'b'"):
    layer.head(
      "b",
      keys=[rows("x")],
      queries=[rows("y")],
      reads=rows("x"),
      writes=rows("x"),
    )
  with pytest.raises(ValueError, match="width 8"):
    layer.units("c", np.ones((2, 7)), np.ones((2, 7)))
  layer.units("d", rows("x"), rows("x"))
  with pytest.raises(ValueError, match="'d' is there twice"):
    primitives.build(SLOTS, [layer, layer], activation="relu")
  with pytest.raises(ValueError, match="activation is 'tanh'"):
    primitives.build(SLOTS, [layer], activation="tanh")
