import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tgmm_jax.training import optim


def rates(num_steps, **config):
  schedule = optim.schedule(optim.OptimizerConfig(**config), num_steps)
  return [float(schedule(step)) for step in range(num_steps + 1)]


def test_constant_rate():
  np.testing.assert_allclose(rates(5, learning_rate=3e-4), 3e-4, rtol=1e-6)


def test_warmup_is_linear():
  actual = rates(8, learning_rate=1e-3, num_warmup_steps=4)
  start, peak = 2.5e-4, 1e-3
  expected = [start + (peak - start) * step / 4 for step in range(4)]
  np.testing.assert_allclose(actual, [*expected, *[peak] * 5], rtol=1e-6)
  assert actual[0] > 0.0


@pytest.mark.parametrize("num_warmup_steps", [0, 4])
def test_cosine_falls_to_a_hundredth(num_warmup_steps):
  actual = rates(
    20,
    learning_rate=2e-3,
    schedule="cosine",
    num_warmup_steps=num_warmup_steps,
  )
  span = 20 - num_warmup_steps
  expected = [
    2e-3 * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * step / span)))
    for step in range(span + 1)
  ]
  np.testing.assert_allclose(actual[num_warmup_steps:], expected, rtol=1e-5)
  assert actual[-1] == pytest.approx(2e-5, rel=1e-4)


def test_a_warmup_longer_than_the_run_is_harmless():
  actual = rates(3, learning_rate=1e-3, schedule="cosine", num_warmup_steps=10)
  assert np.all(np.diff(actual) > 0)
  assert actual[-1] < 1e-3


def numpy_adamw(gradients, start, rate_of, *, weight_decay, b2, max_norm):
  """Loshchilov and Hutter's algorithm 2, in float64."""
  values = np.array(start, np.float64)
  first = second = np.zeros_like(values)
  for step, gradient in enumerate(gradients):
    norm = np.linalg.norm(gradient)
    if max_norm and norm > max_norm:
      gradient = gradient * max_norm / norm
    first = 0.9 * first + 0.1 * gradient
    second = b2 * second + (1.0 - b2) * gradient**2
    corrected = first / (1.0 - 0.9 ** (step + 1))
    root = np.sqrt(second / (1.0 - b2 ** (step + 1)))
    update = corrected / (root + 1e-8) + weight_decay * values
    values = values - rate_of(step) * update
  return values


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.5])
def test_updates_are_those_of_adamw(max_grad_norm):
  config = optim.OptimizerConfig(
    learning_rate=0.05,
    schedule="cosine",
    num_warmup_steps=2,
    weight_decay=0.3,
    b2=0.98,
    max_grad_norm=max_grad_norm,
  )
  rng = np.random.default_rng(0)
  start = rng.normal(size=6).astype(np.float32)
  # Some are longer than the bound on the norm and some are not.
  scales = np.array([0.1, 3.0, 1.0, 5.0, 0.2, 2.0])[:, None]
  gradients = (scales * rng.normal(size=(6, 6)) / 2).astype(np.float32)
  transformation = optim.make(config, 6)

  @jax.jit
  def update(values, state, gradient):
    updates, state = transformation.update(gradient, state, values)
    return optax.apply_updates(values, updates), state

  values, state = jnp.asarray(start), transformation.init(jnp.asarray(start))
  for gradient in gradients:
    values, state = update(values, state, gradient)
  expected = numpy_adamw(
    gradients,
    start,
    optim.schedule(config, 6),
    weight_decay=0.3,
    b2=0.98,
    max_norm=max_grad_norm,
  )
  np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def tree_of(seed=0):
  rng = np.random.default_rng(seed)
  shapes = {"a": (3, 5), "b": {"c": (), "d": (7,)}, "e": {"0": (2, 2, 2)}}
  return jax.tree.map(
    lambda shape: rng.normal(size=shape).astype(np.float32),
    shapes,
    is_leaf=lambda entry: isinstance(entry, tuple),
  )


def test_a_tree_and_its_vector_hold_the_same_numbers():
  tree = tree_of()
  vector = jax.jit(optim.to_vector)(tree)
  assert vector.shape == (256,)
  assert vector.dtype == jnp.float32
  numbers = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
  np.testing.assert_array_equal(vector[: numbers.size], numbers)
  np.testing.assert_array_equal(vector[numbers.size :], 0.0)
  back = optim.from_vector(vector, tree)
  assert jax.tree.structure(back) == jax.tree.structure(tree)
  jax.tree.map(np.testing.assert_array_equal, back, tree)


@pytest.mark.parametrize(("size", "padded"), [(1, 256), (256, 256), (257, 512)])
def test_vectors_are_filled_up_to_a_multiple_of_256(size, padded):
  tree = {"a": jnp.arange(float(size))}
  vector = optim.to_vector(tree)
  assert vector.shape == (padded,)
  np.testing.assert_array_equal(optim.from_vector(vector, tree)["a"], tree["a"])


def test_shapes_may_be_abstract():
  tree = tree_of()
  like = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree
  )
  back = optim.from_vector(optim.to_vector(tree), like)
  jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_gradients_pass_through_the_vector():
  tree = tree_of()
  vector = optim.to_vector(tree)

  def loss(vector):
    leaves = jax.tree.leaves(optim.from_vector(vector, tree))
    return sum(jnp.sum(leaf**2) for leaf in leaves)

  np.testing.assert_allclose(jax.jit(jax.grad(loss))(vector), 2.0 * vector)


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("learning_rate", 0.0),
    ("learning_rate", -1e-3),
    ("learning_rate", float("nan")),
    ("learning_rate", float("inf")),
    ("schedule", "linear"),
    ("num_warmup_steps", -1),
    ("weight_decay", -0.1),
    ("weight_decay", float("nan")),
    ("b2", 0.0),
    ("b2", 1.0),
    ("max_grad_norm", -1.0),
    ("max_grad_norm", float("inf")),
  ],
)
def test_values_that_cannot_train_are_refused(name, value):
  with pytest.raises(ValueError, match=f"^{name} is {value!r}, takes") as error:
    optim.OptimizerConfig(**{name: value})
  assert "\n" not in str(error.value)
