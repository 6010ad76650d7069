"""The tensor power method on tensors whose decomposition is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import types
from tgmm_jax.solvers.spectral import tensor_power

DECOMPOSE = jax.jit(tensor_power.decompose, static_argnames="options")


def orthogonal_tensor(values, seed=0):
  generator = np.random.default_rng(seed)
  vectors = np.linalg.qr(generator.normal(size=(len(values),) * 2))[0]
  tensor = np.einsum("r,ri,rj,rk->ijk", values, vectors, vectors, vectors)
  return tensor.astype(np.float32), vectors


@pytest.mark.parametrize("values", [[1.5], [3.0, 1.2], [2.0, 1.9, 1.4, 1.0]])
def test_an_orthogonal_tensor_is_taken_apart(values):
  tensor, vectors = orthogonal_tensor(values)
  size = len(values)
  found = DECOMPOSE(jax.random.key(0), tensor, size)
  np.testing.assert_allclose(np.sort(found.eigenvalues), np.sort(values), 1e-5)
  overlap = np.asarray(found.vectors) @ vectors.T
  np.testing.assert_allclose(overlap.max(axis=1), 1.0, atol=1e-5)
  assert sorted(overlap.argmax(axis=1)) == list(range(size))


def test_padding_changes_nothing_and_is_zero():
  tensor, _ = orthogonal_tensor([2.0, 1.5, 1.1])
  key = jax.random.key(1)
  plain = DECOMPOSE(key, tensor, 3)
  padded = DECOMPOSE(key, np.pad(tensor, ((0, 2),) * 3), jnp.asarray(3))
  np.testing.assert_allclose(
    padded.eigenvalues[:3], plain.eigenvalues, rtol=1e-5
  )
  np.testing.assert_allclose(padded.vectors[:3, :3], plain.vectors, atol=1e-5)
  np.testing.assert_array_equal(padded.eigenvalues[3:], 0.0)
  np.testing.assert_array_equal(padded.vectors[3:], 0.0)


def test_a_zero_tensor_gives_zero_eigenvalues_and_no_nan():
  found = DECOMPOSE(jax.random.key(0), jnp.zeros((3, 3, 3)), 3)
  np.testing.assert_array_equal(found.eigenvalues, 0.0)
  np.testing.assert_allclose(
    np.linalg.norm(found.vectors, axis=1), 1.0, rtol=1e-5
  )


def rebuild(found):
  values, vectors = np.asarray(found.eigenvalues), np.asarray(found.vectors)
  return np.einsum("r,ri,rj,rk->ijk", values, vectors, vectors, vectors)


def random_symmetric(size, generator):
  tensor = generator.normal(size=(size,) * 3)
  orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
  return sum(tensor.transpose(order) for order in orders) / 6.0


def test_negative_eigenvalues_are_found_with_the_opposite_vector():
  tensor, vectors = orthogonal_tensor([3.0, -2.5, -1.0, 0.5])
  found = DECOMPOSE(jax.random.key(0), tensor, 4)
  np.testing.assert_allclose(found.eigenvalues, [3.0, 2.5, 1.0, 0.5], 1e-4)
  signed = np.array([1.0, -1.0, -1.0, 1.0])[:, None] * vectors
  np.testing.assert_allclose(found.vectors, signed, atol=1e-4)
  assert found.status == types.Status.CONVERGED
  assert found.residual < 1e-5


@pytest.mark.parametrize("size", [2, 5, 12])
def test_equal_eigenvalues_determine_their_vectors(size):
  tensor, vectors = orthogonal_tensor(np.full(size, 2.0))
  found = DECOMPOSE(jax.random.key(1), tensor, size)
  np.testing.assert_allclose(found.eigenvalues, 2.0, rtol=1e-5)
  overlap = np.asarray(found.vectors) @ vectors.T
  assert sorted(overlap.argmax(axis=1)) == list(range(size))
  np.testing.assert_allclose(overlap.max(axis=1), 1.0, atol=1e-5)
  assert found.status == types.Status.CONVERGED


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e12, 1e30])
def test_the_scale_of_the_tensor_is_that_of_the_eigenvalues(scale):
  tensor, _ = orthogonal_tensor([3.0, 2.0, 1.0])
  plain = DECOMPOSE(jax.random.key(0), tensor, 3)
  scaled = DECOMPOSE(jax.random.key(0), np.float32(scale) * tensor, 3)
  np.testing.assert_allclose(
    np.float64(scaled.eigenvalues) / scale, plain.eigenvalues, rtol=1e-5
  )
  np.testing.assert_allclose(scaled.vectors, plain.vectors, atol=1e-4)
  assert scaled.status == types.Status.CONVERGED


def test_a_rank_below_the_size_is_degenerate():
  tensor, vectors = orthogonal_tensor([3.0, 2.0, 0.0, 0.0])
  found = DECOMPOSE(jax.random.key(0), tensor, 4)
  np.testing.assert_allclose(found.eigenvalues, [3, 2, 0, 0], atol=1e-5)
  np.testing.assert_allclose(found.vectors[:2], vectors[:2], atol=1e-4)
  np.testing.assert_allclose(
    np.linalg.norm(found.vectors, axis=1), 1.0, rtol=1e-5
  )
  assert found.status == types.Status.DEGENERATE
  assert found.residual < 1e-5
  fewer = DECOMPOSE(jax.random.key(0), tensor, 2)
  # Two are asked for, and the others' coordinates are not read.
  assert np.all(np.asarray(fewer.vectors)[:, 2:] == 0.0)


@pytest.mark.parametrize("size", [3, 8, 16])
def test_the_error_stays_within_that_of_the_tensor(size, x64):
  """Anandkumar et al. 2014, theorem 5.1: 8 eps / value, and 5 eps."""
  generator = np.random.default_rng(size)
  values = np.linspace(1.0, 2.0, size)
  square = generator.normal(size=(size, size))
  vectors = np.linalg.qr(square)[0]
  tensor = np.einsum("r,ir,jr,kr->ijk", values, vectors, vectors, vectors)
  noise = random_symmetric(size, generator)
  # The operator norm, by climbing from many starts.
  noise /= np.max(DECOMPOSE(jax.random.key(9), noise, size).eigenvalues)
  for eps in (1e-8, 1e-4, 1e-2):
    found = DECOMPOSE(jax.random.key(0), tensor + eps * noise, size)
    overlap = np.asarray(found.vectors) @ vectors
    order = overlap.argmax(axis=1)
    assert sorted(order) == list(range(size))
    distance = np.linalg.norm(found.vectors - vectors.T[order], axis=1)
    assert np.all(distance <= 8.0 * eps / values[order])
    assert np.all(np.abs(found.eigenvalues - values[order]) <= 5.0 * eps)
    assert found.residual < 10.0 * eps


def test_the_residual_tells_that_a_tensor_has_no_such_form(x64):
  tensor = random_symmetric(6, np.random.default_rng(0))
  found = DECOMPOSE(jax.random.key(0), tensor, 6)
  left = tensor - rebuild(found)
  expected = np.linalg.norm(left) / np.linalg.norm(tensor)
  np.testing.assert_allclose(found.residual, expected, rtol=1e-10)
  assert found.residual > 0.1
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


def test_the_first_value_is_the_maximum_on_the_sphere(x64):
  """A brute force over the directions of three dimensions."""
  for seed in range(3):
    noise = random_symmetric(3, np.random.default_rng(seed))
    tensor = orthogonal_tensor([2.0, 1.5, 1.0], seed)[0] + 0.1 * noise
    found = DECOMPOSE(jax.random.key(0), tensor, 3)
    polar, azimuth = np.meshgrid(
      np.linspace(0, np.pi, 400), np.linspace(0, 2 * np.pi, 800)
    )
    grid = np.stack(
      [
        np.sin(polar) * np.cos(azimuth),
        np.sin(polar) * np.sin(azimuth),
        np.cos(polar),
      ]
    ).reshape(3, -1)
    values = np.einsum("ijk,in,jn,kn->n", tensor, grid, grid, grid)
    assert found.eigenvalues[0] == pytest.approx(values.max(), rel=1e-3)
    vector = np.asarray(found.vectors)[0]
    mapped = np.einsum("ijk,j,k->i", tensor, vector, vector)
    np.testing.assert_allclose(
      np.linalg.norm(mapped - found.eigenvalues[0] * vector)
      / np.linalg.norm(tensor),
      found.errors[0],
      atol=1e-12,
    )


def test_too_few_steps_are_told():
  tensor, _ = orthogonal_tensor([2.0, 1.9, 1.8, 1.7])
  found = DECOMPOSE(
    jax.random.key(0), tensor, 4, options=tensor_power.Options(1, 1)
  )
  assert found.status == types.Status.MAX_ITER
  assert np.max(found.errors) > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bad_input_gets_a_status_and_does_not_touch_its_neighbours(dtype):
  tensor, _ = orthogonal_tensor([3.0, 2.0, 1.0])
  with_nan, with_inf, crooked = tensor.copy(), tensor.copy(), tensor.copy()
  with_nan[0, 1, 2], with_inf[0, 0, 0], crooked[0, 1, 2] = np.nan, np.inf, 9.0
  cases = [
    (tensor, 3, types.Status.CONVERGED),
    (with_nan, 3, types.Status.INVALID_INPUT),
    (with_inf, 3, types.Status.INVALID_INPUT),
    (crooked, 3, types.Status.INVALID_INPUT),
    (tensor, 0, types.Status.INVALID_INPUT),
    (tensor, 4, types.Status.INVALID_INPUT),
    (0.0 * tensor, 3, types.Status.DEGENERATE),
  ]
  with jax.enable_x64(dtype == "float64"):
    solve = jax.jit(
      jax.vmap(lambda t, k: tensor_power.decompose(jax.random.key(0), t, k))
    )
    found = solve(
      np.stack([case[0] for case in cases]).astype(dtype),
      np.array([case[1] for case in cases]),
    )
    alone = solve(np.stack(7 * [tensor]).astype(dtype), np.full(7, 3))
  found, alone = jax.tree.map(np.asarray, (found, alone))
  np.testing.assert_array_equal(found.status, [case[2] for case in cases])
  assert found.vectors.dtype == found.eigenvalues.dtype == dtype
  for leaf, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(alone), strict=True
  ):
    assert np.all(np.isfinite(leaf))
    np.testing.assert_array_equal(leaf[0], other[0])
