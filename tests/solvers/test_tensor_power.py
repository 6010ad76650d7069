"""The tensor power method on tensors whose decomposition is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.solvers import tensor_power


def orthogonal_tensor(values, seed=0):
  generator = np.random.default_rng(seed)
  vectors = np.linalg.qr(generator.normal(size=(len(values),) * 2))[0]
  tensor = np.einsum("r,ri,rj,rk->ijk", values, vectors, vectors, vectors)
  return tensor.astype(np.float32), vectors


@pytest.mark.parametrize("values", [[1.5], [3.0, 1.2], [2.0, 1.9, 1.4, 1.0]])
def test_an_orthogonal_tensor_is_taken_apart(values):
  tensor, vectors = orthogonal_tensor(values)
  size = len(values)
  found = tensor_power.decompose(jax.random.key(0), tensor, size)
  np.testing.assert_allclose(np.sort(found.eigenvalues), np.sort(values), 1e-5)
  overlap = np.asarray(found.vectors) @ vectors.T
  np.testing.assert_allclose(overlap.max(axis=1), 1.0, atol=1e-5)
  assert sorted(overlap.argmax(axis=1)) == list(range(size))


def test_padding_changes_nothing_and_is_zero():
  tensor, _ = orthogonal_tensor([2.0, 1.5, 1.1])
  key = jax.random.key(1)
  plain = tensor_power.decompose(key, tensor, 3)
  padded = tensor_power.decompose(
    key, np.pad(tensor, ((0, 2),) * 3), jnp.asarray(3)
  )
  np.testing.assert_allclose(
    padded.eigenvalues[:3], plain.eigenvalues, rtol=1e-5
  )
  np.testing.assert_allclose(padded.vectors[:3, :3], plain.vectors, atol=1e-5)
  np.testing.assert_array_equal(padded.eigenvalues[3:], 0.0)
  np.testing.assert_array_equal(padded.vectors[3:], 0.0)


def test_a_zero_tensor_gives_zero_eigenvalues_and_no_nan():
  found = tensor_power.decompose(jax.random.key(0), jnp.zeros((3, 3, 3)), 3)
  np.testing.assert_array_equal(found.eigenvalues, 0.0)
  np.testing.assert_allclose(
    np.linalg.norm(found.vectors, axis=1), 1.0, rtol=1e-5
  )
