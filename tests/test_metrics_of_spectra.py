"""Errors of eigenvalues, vectors and spaces against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from tgmm_jax import metrics

SIZES = [(4, 1), (6, 4), (3, 3)]

abs_cosine = jax.jit(metrics.abs_cosine)
projector_distance = jax.jit(metrics.projector_distance)
projector_loss = jax.jit(metrics.projector_loss)


def matrix(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def orthonormal(seed, dim, num_columns):
  return np.linalg.qr(matrix(seed, dim, dim))[0][:, :num_columns]


def test_relative_squared_error_of_each_eigenvalue():
  truth = np.array([4.0, 2.0, 0.5], np.float32)
  estimate = np.array([5.0, 2.0, -0.5], np.float32)
  actual = metrics.relative_squared_error(estimate, truth)
  np.testing.assert_allclose(actual, [0.0625, 0.0, 4.0])


@pytest.mark.parametrize(("dim", "num_columns"), SIZES)
@pytest.mark.parametrize("length", [1.0, 1e-25, 1e25])
def test_cosine_is_numpys_whatever_sign_and_length(dim, num_columns, length):
  estimate = matrix(0, dim, num_columns)
  truth = orthonormal(1, dim, num_columns)
  dots = np.sum(estimate.astype(np.float64) * truth, axis=0)
  expected = np.abs(dots) / np.linalg.norm(estimate.astype(np.float64), axis=0)
  signs = np.where(np.arange(num_columns) % 2, -length, length)
  actual = abs_cosine(jnp.asarray(estimate * signs, jnp.float32), truth)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_cosine_is_never_above_one():
  truth = matrix(0, 40, 500)
  truth /= np.linalg.norm(truth, axis=0)
  cosines = abs_cosine(-3.7 * truth, truth)
  assert np.max(cosines) <= 1.0
  np.testing.assert_allclose(cosines, 1.0, atol=1e-6)


def test_vector_of_zeros_has_cosine_zero_and_a_finite_gradient():
  truth = orthonormal(0, 4, 2)
  estimate = jnp.asarray(matrix(1, 4, 2)).at[:, 0].set(0.0)
  cosines = abs_cosine(estimate, truth)
  assert cosines[0] == 0.0
  assert cosines[1] > 0.0
  gradient = jax.grad(lambda estimate: jnp.sum(abs_cosine(estimate, truth)))(
    estimate
  )
  assert np.all(np.isfinite(gradient))
  assert np.any(gradient[:, 1])


def test_gradient_of_the_cosine_is_that_of_its_formula():
  estimate, truth = matrix(0, 5, 3), orthonormal(1, 5, 3)
  actual = jax.grad(lambda estimate: jnp.sum(abs_cosine(estimate, truth)))(
    jnp.asarray(estimate)
  )
  norms = np.linalg.norm(estimate, axis=0)
  unit = estimate / norms
  cosine = np.sum(unit * truth, axis=0)
  expected = np.sign(cosine) * (truth - cosine * unit) / norms
  np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(("dim", "num_columns"), SIZES)
def test_distance_is_the_sum_of_scipys_squared_sines(dim, num_columns):
  estimate = matrix(0, dim, num_columns)
  truth = orthonormal(1, dim, num_columns)
  angles = linalg.subspace_angles(
    estimate.astype(np.float64), truth.astype(np.float64)
  )
  actual = projector_distance(estimate, truth)
  np.testing.assert_allclose(actual, np.sum(np.sin(angles) ** 2), atol=2e-6)


def test_distance_does_not_depend_on_the_basis():
  estimate, truth = matrix(0, 6, 3), orthonormal(1, 6, 3)
  expected = projector_distance(estimate, truth)
  assert 0.1 < expected < 2.9
  for mixing in (
    matrix(2, 3, 3),
    np.diag([-1.0, 1.0, -1.0]),
    np.eye(3)[[2, 0, 1]],
    np.diag([1e-9, 1.0, 1e9]),
  ):
    mixed = jnp.asarray(estimate @ mixing, jnp.float32)
    actual = projector_distance(mixed, truth)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_distance_of_the_same_and_of_an_orthogonal_space():
  basis = orthonormal(0, 6, 6)
  mixing = matrix(1, 3, 3)
  same = projector_distance(basis[:, :3] @ mixing, basis[:, :3])
  np.testing.assert_allclose(same, 0.0, atol=5e-6)
  assert same >= 0.0
  orthogonal = projector_distance(basis[:, 3:] @ mixing, basis[:, :3])
  np.testing.assert_allclose(orthogonal, 3.0, atol=5e-6)
  assert orthogonal <= 3.0


@pytest.mark.parametrize(
  "columns",
  [
    (0, 0, 1),
    (0, 1, 0),
    (1, None, 0),
    (None, 0, 1),
    (0, 0, 0),
    (None, None, None),
  ],
)
def test_what_dependent_columns_do_not_span_is_missing(columns):
  vectors = {0: matrix(0, 5), 1: matrix(1, 5), None: np.zeros(5, np.float32)}
  # Multiples differ: none of the columns is another one's copy.
  estimate = np.stack(
    [
      (1.0 + 0.7 * place) * vectors[column]
      for place, column in enumerate(columns)
    ],
    axis=1,
  ).astype(np.float32)
  truth = orthonormal(2, 5, 3)
  spanned = [vectors[column] for column in {*columns} - {None}]
  expected = 3.0
  if spanned:
    basis = np.linalg.qr(np.stack(spanned, axis=1))[0]
    expected -= np.sum((basis.T @ truth) ** 2)
  actual = projector_distance(jnp.asarray(estimate), truth)
  np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_has_no_finite_error(bad):
  truth = orthonormal(0, 4, 2)
  estimate = matrix(1, 4, 2)
  estimate[2, 1] = bad
  for metric in (abs_cosine, projector_distance, projector_loss):
    assert not np.all(np.isfinite(metric(jnp.asarray(estimate), truth)))


@pytest.mark.parametrize(("dim", "num_columns"), SIZES)
def test_loss_is_the_dense_formula(dim, num_columns):
  estimate = matrix(0, dim, num_columns)
  truth = orthonormal(1, dim, num_columns)
  dense = estimate @ estimate.T - truth @ truth.T
  actual = projector_loss(estimate, truth)
  np.testing.assert_allclose(actual, 0.5 * np.sum(dense**2), rtol=1e-5)


def test_loss_and_its_gradient_are_zero_at_any_orthonormal_basis():
  truth = orthonormal(0, 6, 3)
  for rotation in (
    np.eye(3),
    orthonormal(1, 3, 3),
    np.diag([1.0, -1.0, 1.0])[[1, 2, 0]],
  ):
    estimate = jnp.asarray(truth @ rotation, jnp.float32)
    loss, gradient = jax.value_and_grad(projector_loss)(estimate, truth)
    np.testing.assert_allclose(loss, 0.0, atol=1e-5)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
  # Neither another length of the same space nor another space is.
  assert projector_loss(0.9 * truth, truth) > 0.01
