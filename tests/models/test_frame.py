import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tgmm_jax.models import frame as frame_lib

RANK = 4
FIT = jax.jit(frame_lib.fit, static_argnums=2)
# Below, at and above the rank, and where directions come by iteration.
DIMS = (1, 2, 4, 8, 32)


def flat_points(dim, num_points=40, seed=0):
  """Points of an affine subspace of at most four dimensions."""
  rng = np.random.default_rng(seed)
  size = min(dim, RANK)
  basis = (
    stats.ortho_group.rvs(dim, random_state=seed)[:, :size]
    if (dim > 1)
    else np.ones((1, 1))
  )
  scales = np.array([6.0, 4.0, 3.0, 2.0])[:size]
  points = (scales * rng.normal(size=(num_points, size))) @ basis.T
  return (points + 3.0).astype(np.float32)


def distances(points):
  return np.linalg.norm(points[:, None] - points[None], axis=-1)


@functools.cache
def fitted(dim):
  points = flat_points(dim)
  frame = FIT(
    jax.random.key(1), points, RANK, sample_weight=jnp.ones(len(points))
  )
  return points, frame


@pytest.mark.parametrize("dim", DIMS)
def test_frame_is_an_isometry(dim):
  points, frame = fitted(dim)
  coordinates = frame_lib.project(frame, points)
  assert coordinates.shape == (len(points), RANK)
  np.testing.assert_allclose(
    distances(np.asarray(coordinates)), distances(points), atol=2e-4
  )
  np.testing.assert_allclose(
    frame_lib.lift(frame, coordinates), points, atol=2e-4
  )
  np.testing.assert_allclose(np.mean(coordinates, axis=0), 0.0, atol=1e-5)
  np.testing.assert_array_equal(coordinates[:, dim:], 0.0)


@pytest.mark.parametrize("dim", DIMS)
def test_directions_and_variances_are_the_principal_ones(dim):
  rng = np.random.default_rng(3)
  points = flat_points(dim) + 0.3 * rng.normal(size=(40, dim))
  points = points.astype(np.float32)
  frame = FIT(jax.random.key(1), points, RANK, sample_weight=jnp.ones(40))
  size = min(dim, RANK)
  covariance = np.atleast_2d(np.cov(points.T, bias=True))
  eigenvalues, vectors = np.linalg.eigh(covariance)
  np.testing.assert_allclose(
    frame.variances[:size], eigenvalues[::-1][:size], rtol=2e-3
  )
  np.testing.assert_array_equal(frame.variances[size:], 0.0)
  directions = np.asarray(frame.directions)
  np.testing.assert_allclose(
    directions[:, :size].T @ directions[:, :size], np.eye(size), atol=1e-5
  )
  np.testing.assert_array_equal(directions[:, size:], 0.0)
  leading = vectors[:, ::-1][:, :size]
  np.testing.assert_allclose(
    directions @ directions.T, leading @ leading.T, atol=5e-3
  )
  np.testing.assert_allclose(frame.centre, points.mean(0), atol=1e-5)


@pytest.mark.parametrize("dim", DIMS)
def test_what_is_outside_the_coordinates_is_the_rest(dim):
  rng = np.random.default_rng(4)
  points = rng.normal(size=(40, dim)).astype(np.float32)
  weight = rng.uniform(0.5, 2.0, 40).astype(np.float32)
  frame = FIT(jax.random.key(1), points, RANK, sample_weight=weight)
  inside = frame_lib.lift(frame, frame_lib.project(frame, points))
  rest = np.average(np.sum((points - inside) ** 2, axis=1), weights=weight)
  np.testing.assert_allclose(frame.rest, rest, rtol=1e-3, atol=1e-5)
  assert (frame.rest > 0.1) == (dim > RANK)


def test_a_shift_moves_the_centre_only():
  points, frame = fitted(8)
  moved = FIT(
    jax.random.key(1), points + 20.0, RANK, sample_weight=jnp.ones(len(points))
  )
  np.testing.assert_allclose(moved.centre, frame.centre + 20.0, rtol=1e-5)
  np.testing.assert_allclose(
    np.abs(frame_lib.project(moved, points + 20.0)),
    np.abs(frame_lib.project(frame, points)),
    atol=1e-3,
  )
  np.testing.assert_allclose(moved.variances, frame.variances, rtol=1e-4)


@pytest.mark.parametrize("dim", [4, 8, 32])
def test_a_rotation_of_the_data_changes_nothing_but_the_view(dim):
  points, frame = fitted(dim)
  rotation = stats.ortho_group.rvs(dim, random_state=9).astype(np.float32)
  rotated = FIT(
    jax.random.key(1),
    points @ rotation.T,
    RANK,
    sample_weight=jnp.ones(len(points)),
  )
  one = np.asarray(frame_lib.project(frame, points))
  other = np.asarray(frame_lib.project(rotated, points @ rotation.T))
  np.testing.assert_allclose(other @ other.T, one @ one.T, atol=2e-3)
  np.testing.assert_allclose(rotated.variances, frame.variances, rtol=1e-3)
  np.testing.assert_allclose(rotated.centre, rotation @ frame.centre, atol=1e-4)


def test_padding_and_weights_count_as_they_should():
  points, frame = fitted(8)
  padded = np.concatenate([points, np.full((5, 8), 99.0, np.float32)])
  weight = (np.arange(45) < 40).astype(np.float32)
  other = FIT(jax.random.key(1), padded, RANK, sample_weight=weight)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-4), other, frame
  )
  # A weight of 2 is the point twice.
  twice = FIT(
    jax.random.key(1),
    np.concatenate([points, points[:9]]),
    RANK,
    sample_weight=jnp.ones(49),
  )
  weight = 1.0 + (np.arange(40) < 9)
  weighted = FIT(
    jax.random.key(1), points, RANK, sample_weight=jnp.asarray(weight)
  )
  np.testing.assert_allclose(weighted.centre, twice.centre, atol=1e-4)
  np.testing.assert_allclose(weighted.variances, twice.variances, rtol=1e-4)


def test_views_are_uniform_over_rotations_and_reflections():
  points = jnp.asarray(flat_points(2))
  keys = jax.random.split(jax.random.key(0), 2000)
  fit = jax.jit(
    jax.vmap(
      lambda key: frame_lib.fit(key, points, RANK, sample_weight=jnp.ones(40))
    )
  )
  frames = fit(keys)
  directions = np.asarray(frames.directions[:, :, :2])
  angle = np.arctan2(directions[:, 1, 0], directions[:, 0, 0])
  uniform = angle / (2.0 * np.pi) + 0.5
  assert stats.kstest(uniform, "uniform").pvalue > 1e-3
  is_reflected = np.linalg.det(directions) < 0
  assert abs(is_reflected.mean() - 0.5) < 0.05
  assert stats.kstest(uniform[is_reflected], "uniform").pvalue > 1e-3
  assert np.ptp(np.asarray(frames.variances), axis=0).max() == 0.0


@pytest.mark.parametrize("dim", [2, 32])
def test_points_that_span_nothing_are_survived(dim):
  points = np.full((6, dim), 2.5, np.float32)
  frame = FIT(jax.random.key(0), points, RANK, sample_weight=jnp.ones(6))
  for leaf in jax.tree.leaves(frame):
    assert np.all(np.isfinite(leaf))
  np.testing.assert_allclose(frame.centre, 2.5, atol=1e-6)
  np.testing.assert_allclose(frame.variances, 0.0, atol=1e-6)
  np.testing.assert_allclose(
    frame_lib.lift(frame, jnp.zeros(RANK)), 2.5, atol=1e-6
  )


AXES = jax.jit(frame_lib.fit_axes, static_argnums=2)


@functools.cache
def fitted_axes(dim):
  rng = np.random.default_rng(5)
  points = (rng.normal(size=(40, dim)) * (1.0 + np.arange(dim)) + 3.0).astype(
    np.float32
  )
  return points, AXES(
    jax.random.key(1), points, RANK, sample_weight=jnp.ones(40)
  )


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_axes_are_a_signed_permutation(dim):
  points, frame = fitted_axes(dim)
  directions = np.asarray(frame.directions)
  assert directions.shape == (dim, RANK)
  assert set(np.unique(directions)) <= {-1.0, 0.0, 1.0}
  np.testing.assert_array_equal(directions @ directions.T, np.eye(dim))
  np.testing.assert_array_equal(directions[:, dim:], 0.0)
  coordinates = np.asarray(frame_lib.project(frame, points))
  np.testing.assert_allclose(
    distances(coordinates), distances(points), atol=2e-4
  )
  np.testing.assert_allclose(
    frame_lib.lift(frame, coordinates), points, atol=1e-5
  )
  np.testing.assert_allclose(frame.centre, points.mean(0), atol=1e-5)
  # Each is that of its own coordinate.
  np.testing.assert_allclose(frame.variances, coordinates.var(0), rtol=1e-4)


def test_variances_are_permuted_as_the_points():
  points, frame = fitted_axes(3)
  variances = np.stack([points.var(0), 2.0 * points.var(0)])
  projected = frame_lib.project_covariances(
    frame, variances, covariance_type="diag"
  )
  np.testing.assert_allclose(projected[0, :3], frame.variances[:3], rtol=1e-4)
  np.testing.assert_array_equal(projected[:, 3:], 1.0)
  np.testing.assert_array_equal(
    frame_lib.lift_covariances(frame, projected, covariance_type="diag"),
    variances,
  )


def test_views_of_the_axes_are_all_equally_likely():
  points = jnp.asarray(flat_points(2))
  keys = jax.random.split(jax.random.key(0), 1600)
  fit = jax.jit(
    jax.vmap(
      lambda key: frame_lib.fit_axes(key, points, 2, sample_weight=jnp.ones(40))
    )
  )
  directions = np.asarray(fit(keys).directions).reshape(-1, 4)
  _, counts = np.unique(directions, axis=0, return_counts=True)
  assert len(counts) == 8
  assert stats.chisquare(counts).pvalue > 1e-3


def test_axes_leave_padding_out():
  points, frame = fitted_axes(4)
  padded = np.concatenate([points, np.full((5, 4), 99.0, np.float32)])
  weight = (np.arange(45) < 40).astype(np.float32)
  other = AXES(jax.random.key(1), padded, RANK, sample_weight=weight)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-4), other, frame
  )


def test_more_axes_than_the_rank_are_refused():
  with pytest.raises(ValueError, match="d = 5, takes d <= rank = 4"):
    frame_lib.fit_axes(
      jax.random.key(0), jnp.ones((6, 5)), RANK, sample_weight=jnp.ones(6)
    )


WHITENED = jax.jit(frame_lib.fit_whitened, static_argnums=2)


@functools.cache
def fitted_whitened(dim):
  rng = np.random.default_rng(6)
  points = rng.normal(size=(40, dim)) @ rng.normal(size=(dim, dim))
  points = (3.0 * points + 5.0).astype(np.float32)
  weight = rng.uniform(0.5, 2.0, 40).astype(np.float32)
  return (
    points,
    weight,
    WHITENED(jax.random.key(1), points, RANK, sample_weight=weight),
  )


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_whitened_points_have_the_identity_covariance(dim):
  points, weight, frame = fitted_whitened(dim)
  coordinates = np.asarray(frame_lib.project(frame, points))
  assert coordinates.shape == (40, RANK)
  covariance = np.cov(coordinates[:, :dim].T, aweights=weight, ddof=0)
  np.testing.assert_allclose(covariance, np.eye(dim), atol=1e-3)
  np.testing.assert_array_equal(coordinates[:, dim:], 0.0)
  np.testing.assert_allclose(
    frame_lib.lift(frame, coordinates), points, atol=2e-3
  )
  np.testing.assert_array_equal(frame.variances, np.arange(RANK) < dim)


def test_full_covariances_go_with_the_points_and_come_back():
  points, _, frame = fitted_whitened(2)
  covariance = np.cov(points.T).astype(np.float32)
  projected = frame_lib.project_covariances(
    frame, covariance[None], covariance_type="full"
  )
  coordinates = np.asarray(frame_lib.project(frame, points))
  np.testing.assert_allclose(
    projected[0, :2, :2], np.cov(coordinates[:, :2].T), rtol=1e-3, atol=1e-4
  )
  np.testing.assert_array_equal(projected[0, 2:, 2:], np.eye(RANK - 2))
  np.testing.assert_array_equal(projected[0, :2, 2:], 0.0)
  np.testing.assert_allclose(
    frame_lib.lift_covariances(frame, projected, covariance_type="full")[0],
    covariance,
    rtol=1e-3,
    atol=1e-3,
  )


def test_a_linear_map_only_turns_whitened_points():
  points, weight, frame = fitted_whitened(4)
  matrix = np.random.default_rng(2).normal(size=(4, 4)).astype(np.float32)
  mapped = points @ matrix.T - 3.0
  other = WHITENED(jax.random.key(1), mapped, RANK, sample_weight=weight)
  one = np.asarray(frame_lib.project(frame, points))
  two = np.asarray(frame_lib.project(other, mapped))
  np.testing.assert_allclose(two @ two.T, one @ one.T, atol=0.02)


def test_a_flat_direction_is_not_blown_up():
  rng = np.random.default_rng(7)
  points = rng.normal(size=(40, 2)) * np.array([2.0, 1e-9])
  frame = WHITENED(
    jax.random.key(0),
    points.astype(np.float32),
    RANK,
    sample_weight=jnp.ones(40),
  )
  coordinates = np.asarray(frame_lib.project(frame, points))
  variances = np.linalg.eigvalsh(np.cov(coordinates[:, :2].T))
  assert variances[0] < 1e-9
  assert variances[1] == pytest.approx(40 / 39, rel=1e-3)
  same = WHITENED(
    jax.random.key(0), jnp.ones((6, 2)), RANK, sample_weight=jnp.ones(6)
  )
  for leaf in jax.tree.leaves(same):
    assert np.all(np.isfinite(leaf))


def test_whitening_needs_all_coordinates():
  with pytest.raises(ValueError, match="d = 5, takes d <= rank = 4"):
    frame_lib.fit_whitened(
      jax.random.key(0), jnp.ones((6, 5)), RANK, sample_weight=jnp.ones(6)
    )
