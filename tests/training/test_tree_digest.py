import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tgmm_jax.training import tree_digest


def _digest(array):
  return tree_digest.digests({"x": jnp.asarray(array)})["x"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8"])
def test_every_flipped_bit_changes_the_digest(dtype):
  values = jnp.arange(1, 13, dtype=dtype).reshape(3, 4)
  stored = np.asarray(values)
  seen = {_digest(stored)}
  num_bits = 8 * stored.nbytes
  for bit in range(num_bits):
    raw = bytearray(stored.tobytes())
    raw[bit // 8] ^= 1 << (bit % 8)
    flipped = np.frombuffer(bytes(raw), stored.dtype).reshape(stored.shape)
    try:
      seen.add(_digest(flipped))
    except tree_digest.NotFiniteError:
      num_bits -= 1
  assert len(seen) == num_bits + 1


def test_position_and_sign_of_zero_count():
  array = np.arange(12, dtype=np.float32).reshape(3, 4)
  others = [array[[1, 0, 2]], array.T.copy(), array[:, ::-1], array.ravel()]
  assert len({_digest(other) for other in [array, *others[:1], others[2]]}) == 3
  assert _digest(np.float32(0.0)) != _digest(np.float32(-0.0))
  assert _digest(np.zeros((2, 3), bool)) != _digest(np.eye(2, 3, dtype=bool))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(bad):
  leaves = {"good": jnp.ones(3), "bad": jnp.ones((2, 2)).at[1, 0].set(bad)}
  with pytest.raises(tree_digest.NotFiniteError, match=r"in bad \(1 of 2"):
    tree_digest.digests(leaves)


@pytest.mark.parametrize(
  "leaf", [np.ones(3), 1.0, jax.random.key(0), jnp.ones(2, complex)]
)
def test_what_has_no_digest_is_refused(leaf):
  with pytest.raises(ValueError, match="the leaf x is"):
    tree_digest.digests({"x": leaf})


def test_names_are_paths():
  params = {"layers": {"0": {"w": jnp.ones(2)}}, "b": jnp.ones(1)}
  state = {"params": params, "opt_state": optax.adam(0.1).init(params)}
  names = list(tree_digest.named_leaves(state))
  assert "params.layers.0.w" in names
  assert "opt_state.0.mu.b" in names
  assert len(names) == len(jax.tree.leaves(state))
  assert list(tree_digest.named_leaves(params, prefix="params")) == [
    "params.b",
    "params.layers.0.w",
  ]


def test_colliding_names_are_refused_with_both_paths():
  tree = {"a.b": jnp.ones(1), "a": {"b": jnp.zeros(1)}}
  with pytest.raises(ValueError, match=r"\['a'\]\['b'\].*\['a.b'\]"):
    tree_digest.named_leaves(tree)


@pytest.mark.parametrize("key", ["../up", "a/b", "", "a b", "ü", "a\0b"])
def test_keys_that_are_no_names_are_refused(key):
  with pytest.raises(ValueError, match="cannot be named"):
    tree_digest.named_leaves({key: jnp.ones(1)})
