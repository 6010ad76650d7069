"""Which components have collapsed, and which only seem to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.solvers.made_covariances import DIM, TYPES, K, make_full, shaped
from tgmm_jax import types
from tgmm_jax.solvers import covariance

pytestmark = pytest.mark.usefixtures("x64")


def collapsed(full, covariance_type, *, means=None, ridge=None):
  """Which components `[K]` are, with weights that are all the same."""
  if means is None:
    means = np.random.default_rng(3).normal(size=(K, DIM))
  if ridge is None:
    ridge = covariance.Ridge(jnp.array([1.0, 2.0, 1.0, 2.0]), 0.0)
  mixture = types.Mixture(
    jnp.full(K, 1.0 / K),
    jnp.asarray(means),
    jnp.asarray(shaped(full, np.ones(K), covariance_type)),
  )
  is_collapsed = jax.jit(
    covariance.is_collapsed, static_argnames="covariance_type"
  )
  found = is_collapsed(mixture, ridge, covariance_type=covariance_type)
  assert found.shape == (() if "tied" in covariance_type else (K,))
  return np.broadcast_to(found, K)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_is_collapsed(covariance_type):
  ridge = np.array([1.0, 2.0, 1.0, 2.0])
  is_tied = "tied" in covariance_type
  second = is_tied | (np.arange(K) == 1)
  wide = make_full() + 40.0 * np.eye(DIM)
  assert not np.any(collapsed(wide, covariance_type))
  thin = wide.copy()
  thin[1] = 1.01 * np.diag(ridge)
  # The points together vary in every direction.
  means = 20.0 * np.eye(DIM)[1:]
  if is_tied:
    thin[:] = thin[1]
  np.testing.assert_array_equal(
    collapsed(thin, covariance_type, means=means), second
  )
  if covariance_type in ("full", "tied", "diag"):
    # One direction is enough.
    thin = wide.copy()
    thin[1] = np.diag([50.0, 50.0, 50.0, 2.02])
    if is_tied:
      thin[:] = thin[1]
    np.testing.assert_array_equal(
      collapsed(thin, covariance_type, means=means), second
    )
  if covariance_type in ("full", "tied"):
    # So is one that no coordinate shows.
    line = np.full((DIM, DIM), 50.0) + 1e-3 * np.eye(DIM)
    thin = wide.copy()
    thin[1] = line
    if is_tied:
      thin[:] = line
    np.testing.assert_array_equal(
      collapsed(thin, covariance_type, means=means), second
    )


@pytest.mark.parametrize("covariance_type", TYPES)
def test_other_components_do_not_make_one_collapse(covariance_type):
  ridge = covariance.Ridge(jnp.full(DIM, 1e-12), 1e-6)
  means = np.random.default_rng(3).normal(size=(K, DIM))
  for distance in (1.0, 1e4, 1e8):
    found = collapsed(
      make_full(), covariance_type, means=distance * means, ridge=ridge
    )
    assert not np.any(found), distance


@pytest.mark.parametrize("covariance_type", ["diag", "tied", "full"])
def test_where_no_point_varies_none_collapses(covariance_type):
  ridge = covariance.Ridge(jnp.full(DIM, 1e-12), 1e-6)
  means = np.random.default_rng(3).normal(size=(K, DIM))
  added = 1e-12 * np.eye(DIM)
  constant, flat_means = make_full(), means.copy()
  constant[:, 2, :] = constant[:, :, 2] = 0.0
  flat_means[:, 2] = 5.0
  assert not np.any(
    collapsed(constant + added, covariance_type, means=flat_means, ridge=ridge)
  )
  # The same column in one component alone, or with means that differ.
  one = make_full()
  one[1] = constant[1]
  found = collapsed(one + added, covariance_type, means=means, ridge=ridge)
  assert np.any(found) == (covariance_type != "tied")
  found = collapsed(constant + added, covariance_type, means=means, ridge=ridge)
  assert np.all(found)
  if covariance_type == "diag":
    return
  # The last column is the sum of two others.
  root = np.eye(DIM)
  root[3] = [1.0, 1.0, 0.0, 0.0]
  sums, within = root @ make_full() @ root.T, make_full().mean(axis=0)
  added = 1e-6 * np.diag(np.diag(root @ within @ root.T)) + added
  found = collapsed(
    sums + added, covariance_type, means=means @ root.T, ridge=ridge
  )
  assert not np.any(found)


@pytest.mark.parametrize("covariance_type", ["tied", "full"])
@pytest.mark.parametrize("share", [0.4, 0.7])
def test_constant_columns_do_not_move_the_bound(covariance_type, share):
  """What was added is so much of one direction: below a half it is sound."""
  fixed = 1e-12
  matrices = np.stack([np.eye(2)] * K)
  matrices[:, 0, 0] = fixed / share
  means = np.random.default_rng(3).normal(size=(K, 2))
  for num_constant in (0, 1, 6):
    dim = 2 + num_constant
    wide = np.zeros((K, dim, dim))
    wide[:, :2, :2] = matrices
    wide[:, range(2, dim), range(2, dim)] = fixed
    found = collapsed(
      wide,
      covariance_type,
      means=np.pad(means, ((0, 0), (0, num_constant))),
      ridge=covariance.Ridge(jnp.full(dim, fixed), 0.0),
    )
    assert np.all(found == (share > 0.5)), num_constant
