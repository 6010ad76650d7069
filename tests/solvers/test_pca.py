"""Leading eigenpairs against NumPy's eigendecomposition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import linalg, types
from tgmm_jax.solvers import pca

GOOD, SLOW, POOR, BAD = (
  types.Status.CONVERGED,
  types.Status.MAX_ITER,
  types.Status.DEGENERATE,
  types.Status.INVALID_INPUT,
)
STATIC = ("num_directions", "method", "max_iter", "tol")
SOLVE = jax.jit(pca.leading_eigenpairs, static_argnames=STATIC)
FIT = jax.jit(pca.fit, static_argnames=(*STATIC, "ddof"))
KEY = functools.partial(jax.random.key, 3)
SPECTRA = {
  "geometric": (2.0 ** -np.arange(12), 4),
  "wide block": (np.r_[9.0, 5.0, 3.0, np.linspace(1.0, 0.5, 27)], 3),
  "one": (np.array([2.0]), 1),
  "all": (np.array([5.0, 4.0, 2.5, 1.0]), 4),
}


def make_matrix(values, seed=0):
  """Symmetric `[d, d]` with these eigenvalues, and its eigenvectors."""
  square = np.random.default_rng(seed).normal(size=(len(values),) * 2)
  vectors = np.linalg.qr(square)[0]
  return (vectors * values) @ vectors.T, vectors


def projector(vectors):
  vectors = np.asarray(vectors, np.float64)
  return vectors @ vectors.T


@pytest.mark.parametrize("method", pca.METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize(
  "name",
  ["geometric", "all"]
  + [
    pytest.param(name, marks=pytest.mark.slow) for name in ("wide block", "one")
  ],
)
def test_the_leading_pairs_are_numpys(name, scale, dtype, method):
  values, kept = SPECTRA[name]
  matrix, vectors = make_matrix(values)
  tol = {"float32": 3e-6, "float64": 1e-12}[dtype]
  with jax.enable_x64(dtype == "float64"):
    matrix = (scale * matrix).astype(dtype)
    found = SOLVE(KEY(), matrix, kept, method=method, tol=tol)
    expected = linalg.fix_signs(vectors[:, :kept].astype(dtype))
  found = jax.tree.map(np.asarray, found)
  assert found.status == GOOD
  assert found.vectors.dtype == found.eigenvalues.dtype == dtype
  np.testing.assert_allclose(
    found.eigenvalues / scale, values[:kept], atol=3 * tol * values[0]
  )
  np.testing.assert_allclose(found.vectors, expected, atol=100 * tol)
  assert np.all(found.residuals <= tol)
  errors = matrix @ found.vectors - found.eigenvalues * found.vectors
  # The residual is of the deflated matrix, and so within that of the earlier.
  assert np.all(
    np.linalg.norm(errors, axis=0) <= 3 * tol * kept * scale * values[0]
  )


@pytest.mark.parametrize("method", pca.METHODS)
@pytest.mark.parametrize(
  ("values", "kept", "is_gap"),
  [
    ([3.0, 3.0, 1.0, 0.5, 0.2, 0.1, 0.1], 2, True),
    pytest.param(
      [3.0, 2.0, 2.0, 2.0, 0.2, 0.1, 0.1], 4, True, marks=pytest.mark.slow
    ),
    ([3.0, 2.0, 2.0, 1.0, 0.2, 0.1, 0.1], 2, False),
    pytest.param([1.0] * 7, 3, False, marks=pytest.mark.slow),
    ([1.0] * 7, 7, True),
  ],
)
def test_repeated_eigenvalues_are_degenerate(values, kept, is_gap, method, x64):
  matrix, vectors = make_matrix(np.array(values))
  found = SOLVE(KEY(), matrix, kept, method=method, tol=1e-9)
  assert found.status == POOR
  np.testing.assert_allclose(found.eigenvalues, values[:kept], atol=1e-8)
  np.testing.assert_allclose(
    found.vectors.T @ found.vectors, np.eye(kept), atol=1e-7
  )
  if is_gap:  # Single vectors are not determined, but their span is.
    np.testing.assert_allclose(
      projector(found.vectors), projector(vectors[:, :kept]), atol=1e-7
    )


@pytest.mark.parametrize("method", pca.METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
  "rank", [0, 3, pytest.param(1, marks=pytest.mark.slow)]
)
def test_a_rank_below_k_is_degenerate_and_orthonormal(rank, dtype, method):
  values = np.r_[np.arange(rank, 0, -1.0), np.zeros(9 - rank)]
  matrix, vectors = make_matrix(values)
  with jax.enable_x64(dtype == "float64"):
    found = SOLVE(KEY(), matrix.astype(dtype), 5, method=method)
  found = jax.tree.map(np.asarray, found)
  assert found.status == POOR
  np.testing.assert_allclose(found.eigenvalues, values[:5], atol=2e-5)
  assert np.all(found.eigenvalues >= 0)
  np.testing.assert_allclose(
    found.vectors.T @ found.vectors, np.eye(5), atol=1e-4
  )
  np.testing.assert_allclose(
    projector(found.vectors[:, :rank]),
    projector(vectors[:, :rank]),
    atol=1e-4,
  )


def test_close_eigenvalues_end_by_the_number_of_steps():
  matrix, _ = make_matrix(np.linspace(1.0, 0.999, 30))
  for method in pca.METHODS:
    found = SOLVE(KEY(), jnp.asarray(matrix), 2, method=method, max_iter=7)
    assert found.status == SLOW
    assert found.num_iters == {"block": 7, "deflation": 14}[method]


def test_a_power_step_shrinks_the_angle_by_the_eigenvalues_ratio(x64):
  values = np.array([2.0, 1.6, 0.5, 0.1])
  matrix, vectors = make_matrix(values)
  vector = vectors @ np.array([0.3, 1.0, 0.0, 0.0])
  vector /= np.linalg.norm(vector)
  tangents, errors = [], []
  for _ in range(20):
    vector = pca.power_step(matrix, vector)
    along, across = vectors[:, 0] @ vector, vectors[:, 1] @ vector
    tangents.append(abs(across / along))
    errors.append(values[0] - vector @ matrix @ vector)
  ratio = values[1] / values[0]
  rates = np.array(tangents[1:]) / tangents[:-1]
  np.testing.assert_allclose(rates, ratio, rtol=1e-9)
  # The eigenvalue's error is (value_1 - value_2) sin^2 of the angle.
  expected = (values[0] - values[1]) / (1 + np.array(tangents) ** -2.0)
  np.testing.assert_allclose(errors, expected, rtol=1e-9)
  assert errors[-1] / errors[-2] == pytest.approx(ratio**2, rel=0.02)


def test_a_fixed_number_of_steps_is_that_many_public_steps(x64):
  matrix, vectors = make_matrix(np.array([4.0, 3.0, 2.0, 1.0, 0.5, 0.2, 0.1]))
  start = jax.random.normal(KEY(), (7, 2))
  found = SOLVE(
    KEY(), matrix, 2, method="deflation", start=start, max_iter=5, tol=0.0
  )
  assert found.status == SLOW
  assert found.num_iters == 10
  left = matrix
  for column in range(2):
    vector = start[:, column]
    for _ in range(5):
      vector = pca.power_step(left, vector)
    value = vector @ left @ vector
    left = pca.deflate(left, value, vector)
    np.testing.assert_allclose(found.eigenvalues[column], value, rtol=1e-12)
    np.testing.assert_allclose(
      found.vectors[:, column],
      linalg.fix_signs(vector[:, None])[:, 0],
      rtol=1e-9,
    )


def test_a_deflated_matrix_has_a_zero_for_the_eigenvalue(x64):
  values = np.array([4.0, 3.0, 2.0, 1.0])
  matrix, vectors = make_matrix(values)
  left = pca.deflate(matrix, values[1], vectors[:, 1])
  np.testing.assert_allclose(
    np.linalg.eigvalsh(left), [0.0, 1.0, 2.0, 4.0], atol=1e-12
  )


def test_the_first_columns_of_a_block_step_are_its_own(x64):
  matrix, _ = make_matrix(np.array([4.0, 3.0, 2.0, 1.0, 0.5]))
  basis = jnp.linalg.qr(jax.random.normal(KEY(), (5, 3)))[0]
  stepped = pca.block_step(matrix, basis)
  np.testing.assert_allclose(
    stepped[:, 0], pca.power_step(matrix, basis[:, 0]), rtol=1e-9
  )
  np.testing.assert_allclose(
    stepped[:, :2], pca.block_step(matrix, basis[:, :2]), atol=1e-12
  )
  np.testing.assert_allclose(stepped.T @ stepped, np.eye(3), atol=1e-12)


def test_the_blocks_fixed_steps_end_with_rayleigh_ritz(x64):
  matrix, _ = make_matrix(np.linspace(5.0, 1.0, 12))
  start = jax.random.normal(KEY(), (12, 8))
  found = SOLVE(KEY(), matrix, 8, start=start, max_iter=6, tol=0.0)
  # All 12 columns: the block is the whole space and the answer exact.
  np.testing.assert_allclose(found.eigenvalues, np.linspace(5, 1, 12)[:8])
  found = SOLVE(KEY(), matrix, 2, start=start[:, :2], max_iter=6, tol=0.0)
  extra = jax.random.normal(KEY(), (12, 6))[:, 2:]
  extra = extra / jnp.linalg.norm(extra, axis=0)
  lengths = jnp.linalg.norm(start[:, :2], axis=0)
  basis = jnp.linalg.qr(jnp.concatenate([start[:, :2] / lengths, extra], 1))[0]
  for _ in range(6):
    basis = pca.block_step(matrix, basis)
  expected = np.linalg.eigvalsh(basis.T @ matrix @ basis)[::-1][:2]
  np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-10)
  assert found.num_iters == 6


def test_the_sign_rule():
  vectors = np.array([[0.6, -0.8, 0.5, 0.0], [-0.8, 0.6, -0.5, 0.0]])
  expected = [[-0.6, 0.8, 0.5, 0.0], [0.8, -0.6, -0.5, 0.0]]
  np.testing.assert_allclose(linalg.fix_signs(vectors), expected, rtol=1e-6)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_covariance_is_numpys(ddof, dtype):
  generator = np.random.default_rng(0)
  points = 100.0 + generator.normal(size=(30, 4))
  weight = generator.integers(0, 4, size=30)
  points[weight == 0] = np.nan
  kept = weight > 0
  expected = np.cov(points[kept].T, fweights=weight[kept], ddof=ddof)
  with jax.enable_x64(dtype == "float64"):
    found = FIT(KEY(), points.astype(dtype), 4, sample_weight=weight, ddof=ddof)
    filled = np.nan_to_num(points).astype(dtype)
    matrix = pca.covariance(
      filled, sample_weight=weight.astype(dtype), ddof=ddof
    )
  tol = {"float32": 1e-4, "float64": 1e-12}[dtype]
  np.testing.assert_allclose(matrix, expected, atol=tol)
  values = np.linalg.eigvalsh(expected)[::-1]
  np.testing.assert_allclose(found.eigenvalues, values, rtol=10 * tol)
  assert found.status == GOOD


@pytest.mark.parametrize("method", pca.METHODS)
@pytest.mark.parametrize(
  "num_points", [6, pytest.param(50, marks=pytest.mark.slow)]
)
def test_points_of_the_spectral_paper(num_points, method, x64):
  """L Z with L a random matrix: d = 20, fewer points than dimensions too."""
  generator = np.random.default_rng(1)
  factor = generator.normal(size=(20, 20)) + 0.1 * np.eye(20)
  points = generator.normal(size=(num_points, 20)) @ factor.T
  found = FIT(KEY(), points, 4, ddof=1, method=method, tol=1e-8)
  values, vectors = np.linalg.eigh(np.cov(points.T))
  np.testing.assert_allclose(found.eigenvalues, values[::-1][:4], rtol=1e-7)
  cosines = np.sum(np.asarray(found.vectors) * vectors[:, ::-1][:, :4], axis=0)
  np.testing.assert_allclose(np.abs(cosines), 1.0, atol=1e-10)
  assert found.status == GOOD
  more = FIT(KEY(), points, 6, ddof=1, method=method)
  assert more.status == (POOR if num_points == 6 else GOOD)


@pytest.mark.parametrize("method", pca.METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bad_input_gets_a_status_and_does_not_touch_its_neighbours(
  dtype, method
):
  matrix, _ = make_matrix(np.array([3.0, 2.0, 1.0, 0.5]))
  with_nan, with_inf, askew = matrix.copy(), matrix.copy(), matrix.copy()
  with_nan[0, 1], with_inf[2, 2], askew[0, 3] = np.nan, np.inf, 7.0
  indefinite, _ = make_matrix(np.array([-3.0, 2.0, 1.0, 0.5]))
  cases = [
    (matrix, GOOD),
    (with_nan, BAD),
    (with_inf, BAD),
    (askew, BAD),
    (indefinite, BAD),
    (-matrix, BAD),
    (0.0 * matrix, POOR),
    (1e-30 * matrix, GOOD),
    (1e30 * matrix, GOOD),
  ]
  with jax.enable_x64(dtype == "float64"):
    solve = functools.partial(
      pca.leading_eigenpairs, KEY(), num_directions=2, method=method
    )
    solve = jax.jit(jax.vmap(solve))
    batch = np.stack([matrix for matrix, _ in cases]).astype(dtype)
    found = solve(batch)
    alone = solve(np.tile(batch[:1], (len(cases), 1, 1)))
  np.testing.assert_array_equal(found.status, [status for _, status in cases])
  for leaf, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(alone), strict=True
  ):
    assert np.all(np.isfinite(leaf))
    np.testing.assert_array_equal(leaf[0], other[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bad_points_get_a_status(dtype):
  points = np.random.default_rng(0).normal(size=(20, 3)) * [3.0, 2.0, 1.0]
  ones = np.ones(20)
  with_nan = points.copy()
  with_nan[1, 1] = np.nan
  huge = 1e30 if dtype == "float32" else 1e200
  cases = [
    (points, ones, GOOD),
    (points + 1e4, ones, GOOD),
    (1e-12 * points, ones, GOOD),
    (1e12 * points, ones, GOOD),
    (with_nan, ones, BAD),
    (huge * points, ones, BAD),
    (points / huge, ones, BAD),
    (points, 0.0 * ones, BAD),
    (points, ones - 2.0 * (np.arange(20) < 1), BAD),
    (points, 1.0 * (np.arange(20) < 1), BAD),  # ddof is the whole weight.
    (points, 1.0 * (np.arange(20) < 2), POOR),
    (np.full_like(points, 3.3), ones, POOR),
    (np.full_like(points, 1e6 / 3), ones, POOR),
  ]
  with jax.enable_x64(dtype == "float64"):
    fit = jax.jit(
      jax.vmap(lambda p, w: pca.fit(KEY(), p, 2, sample_weight=w, ddof=1))
    )
    found = fit(
      np.stack([case[0] for case in cases]).astype(dtype),
      np.stack([case[1] for case in cases]).astype(dtype),
    )
  np.testing.assert_array_equal(found.status, [case[2] for case in cases])
  for leaf in jax.tree.leaves(found):
    assert np.all(np.isfinite(leaf))
  squares = np.array([1.0, 1.0, 1e-24, 1e24])[:, None]
  np.testing.assert_allclose(
    np.asarray(found.eigenvalues)[:4] / squares,
    np.tile(np.linalg.eigvalsh(np.cov(points.T))[:0:-1], (4, 1)),
    rtol={"float32": 2e-3, "float64": 1e-9}[dtype],
  )


def test_many_equal_points_have_no_direction():
  """Though the rounding of their mean is that of a thousand sums."""
  found = FIT(KEY(), np.full((1000, 3), 0.825, np.float32), 1)
  assert found.status == POOR
  assert found.eigenvalues[0] < 1e-12


@pytest.mark.parametrize(
  ("options", "match"),
  [
    ({"num_directions": 0}, "num_directions is 0, takes 1 ... 3"),
    ({"num_directions": 4}, "num_directions is 4, takes 1 ... 3"),
    ({"method": "lanczos"}, "method is 'lanczos', takes"),
    ({"start": np.ones((2, 1))}, r"start has shape \(2, 1\), takes \(3, 1\)"),
    ({"matrix": np.ones((3, 2))}, r"matrix has shape \(3, 2\), takes"),
    ({"max_iter": 0}, "max_iter is 0, takes"),
    ({"tol": -1.0}, "tol is -1.0, takes"),
  ],
)
def test_what_no_data_can_make_right_is_refused(options, match):
  options = {"matrix": np.eye(3), "num_directions": 1} | options
  with pytest.raises(ValueError, match=match):
    pca.leading_eigenpairs(KEY(), **options)


def test_a_start_that_is_no_start_is_invalid():
  start = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
  found = SOLVE(KEY(), jnp.eye(3), 2, start=start)
  assert found.status == BAD
  assert np.all(np.isfinite(found.vectors))
