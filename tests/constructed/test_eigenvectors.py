"""Eigenpairs of points by the network against NumPy's and the library's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import linalg, types
from tgmm_jax.constructed import eigenvectors, power_method
from tgmm_jax.solvers import pca

KEY = jax.random.key(0)
FIT = jax.jit(
  functools.partial(eigenvectors.fit, num_directions=2, num_steps=40)
)


def sample(num_points=24, dim=4, seed=0):
  generator = np.random.default_rng(seed)
  scales = 0.6 ** (np.arange(dim) / 2)
  return generator.normal(size=(num_points, dim)) * scales + 3.0


def exact(points, weight=None, ddof=0):
  values, vectors = np.linalg.eigh(np.cov(points.T, fweights=weight, ddof=ddof))
  vectors = np.asarray(linalg.fix_signs(vectors[:, ::-1]))
  return values[::-1][:2], vectors[:, :2]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_it_agrees_with_numpy_and_with_the_classical_solver():
  points = sample()
  options = {"start": np.eye(4)[:, :2] + 0.2, "ddof": 1, "tol": 0.0}
  found = jax.jit(
    functools.partial(
      eigenvectors.fit, num_directions=2, num_steps=40, **options
    )
  )(KEY, points)
  other = jax.jit(
    functools.partial(
      pca.fit,
      num_directions=2,
      method="deflation",
      max_iter=40,
      **options,
    )
  )(KEY, points)
  np.testing.assert_allclose(found.eigenvalues, other.eigenvalues, rtol=1e-12)
  np.testing.assert_allclose(found.vectors, other.vectors, atol=1e-12)
  np.testing.assert_allclose(found.residuals, other.residuals, atol=1e-12)
  assert found.status == types.Status.MAX_ITER
  assert found.num_iters == 80
  values, vectors = exact(points, ddof=1)
  np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-3)
  np.testing.assert_allclose(found.vectors, vectors, atol=3e-2)


def test_weights_count_points_and_padding_may_hold_anything():
  points = sample()
  weight = np.r_[np.full(10, 2.0), np.ones(8), np.zeros(6)]
  spoilt = np.where(weight[:, None] > 0, points, np.nan).astype(np.float32)
  found = FIT(KEY, spoilt, sample_weight=jnp.asarray(weight))
  values, vectors = exact(points[:18], weight[:18].astype(int))
  np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-4)
  np.testing.assert_allclose(found.vectors, vectors, atol=1e-3)


@pytest.mark.parametrize("size", [1e-15, 1e15])
def test_the_unit_of_the_points_changes_nothing(size):
  points = sample().astype(np.float32)
  weight = jnp.ones(24)
  plain = FIT(KEY, points, sample_weight=weight)
  found = FIT(KEY, points * np.float32(size), sample_weight=weight)
  np.testing.assert_allclose(
    found.eigenvalues / size**2, plain.eigenvalues, rtol=1e-4
  )
  np.testing.assert_allclose(found.vectors, plain.vectors, atol=1e-3)


def status_of(points, weight=None):
  points = jnp.asarray(points, jnp.float32)
  weight = jnp.ones(24) if weight is None else jnp.asarray(weight)
  found = FIT(KEY, points, sample_weight=weight)
  for leaf in jax.tree.leaves(found):
    assert np.all(np.isfinite(leaf))
  return found.status


def test_statuses():
  points, ones = sample(), np.ones(24)
  generator = np.random.default_rng(3)
  rows = np.linalg.qr(generator.normal(size=(24, 5)) + [9, 0, 0, 0, 0])[0]
  rows = np.linalg.qr(rows - rows.mean(axis=0))[0][:, :4]
  rows -= rows.mean(axis=0)
  clear, tied, low = (
    rows * np.sqrt(values)
    for values in ([4, 1, 0.1, 0], [1, 1, 0, 0], [1, 1e-5, 0, 0])
  )
  assert status_of(clear) == types.Status.CONVERGED
  for degenerate in (0.0 * points, np.ones((24, 4)), tied, low):
    assert status_of(degenerate) == types.Status.DEGENERATE
  for bad in (np.nan, np.inf):
    spoilt = points.copy()
    spoilt[1, 2] = bad
    assert status_of(spoilt) == types.Status.INVALID_INPUT
  assert status_of(points, 0.0 * ones) == types.Status.INVALID_INPUT
  assert status_of(points, -ones) == types.Status.INVALID_INPUT
  assert status_of(points * 1e25) == types.Status.INVALID_INPUT


def test_the_gap_predicts_the_steps():
  steps = eigenvectors.num_steps_for
  # (1/2)^tau sqrt(4) / 0.001 <= sqrt(2e-6) from tau = 20.4 on.
  assert steps(0.5, 4) == 21
  assert steps(0.0, 4) == 1
  assert steps(0.25, 4) == 11
  assert steps(0.5, 4, tol=1e-12) > steps(0.5, 4)
  for ratio in (1.0, -0.1, np.nan):
    with pytest.raises(ValueError, match="ratio"):
      steps(ratio, 4)


def test_what_no_data_can_make_right_is_refused():
  points = jnp.ones((10, 3))

  def fit(num_directions, num_steps=2, **options):
    def solve(key, points):
      return eigenvectors.fit(
        key, points, num_directions, num_steps=num_steps, **options
      )

    jax.eval_shape(solve, KEY, points)

  for num_directions in (0, 4):
    with pytest.raises(ValueError, match=f"num_directions is {num_directions}"):
      fit(num_directions)
  with pytest.raises(ValueError, match="num_steps is 0"):
    fit(1, num_steps=0)
  with pytest.raises(ValueError, match=r"start has shape \(3, 1\)"):
    fit(2, start=jnp.ones((3, 1)))
  with pytest.raises(ValueError, match="max_dim = 2"):
    fit(1, network=power_method.build(2))
  with pytest.raises(ValueError, match="k = 2"):
    fit(2, network=power_method.build(3, 1))
