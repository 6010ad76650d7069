"""What each covariance type asks of the points, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.solvers.made_covariances import DIM, TYPES, K, make_full, shaped
from tgmm_jax import gmm, types
from tgmm_jax.solvers import covariance

N = 20

pytestmark = pytest.mark.usefixtures("x64")


def make_covariances(covariance_type, seed=0):
  full = make_full(seed)
  return {
    "tied_spherical": np.asarray(full[0, 0, 0]),
    "spherical": full[:, 0, 0],
    "diag": np.stack([np.diag(one) for one in full]),
    "tied": full[0],
    "full": full,
  }[covariance_type]


def matrices_of(covariances, covariance_type):
  """The covariance matrix of each component, one after the other."""
  for k in range(K):
    match covariance_type:
      case "tied_spherical":
        yield covariances * np.eye(DIM)
      case "spherical":
        yield covariances[k] * np.eye(DIM)
      case "diag":
        yield np.diag(covariances[k])
      case "tied":
        yield covariances
      case "full":
        yield covariances[k]


def make_points(seed=1):
  """Points, means, shares `[K, N]` and the differences `[K, d, N]`."""
  generator = np.random.default_rng(seed)
  points = generator.normal(size=(N, DIM))
  means = generator.normal(size=(K, DIM))
  share = generator.uniform(size=(K, N))
  return points, means, share, (points[None] - means[:, None]).swapaxes(1, 2)


def scatter_matrices(points, means, share):
  """Sums of outer products about the means, by loops."""
  sums = np.zeros((K, DIM, DIM))
  for k in range(K):
    for n in range(N):
      gap = points[n] - means[k]
      sums[k] += share[k, n] * np.outer(gap, gap)
  return sums


@pytest.mark.parametrize("covariance_type", TYPES)
def test_distances(covariance_type):
  points, means, _, differences = make_points()
  covariances = make_covariances(covariance_type)
  mixture = types.Mixture(jnp.full(K, 1.0 / K), means, covariances)
  energies = jax.jit(gmm.component_energies, static_argnames="covariance_type")
  found, log_det = energies(points.T, mixture, covariance_type=covariance_type)
  log_det = np.broadcast_to(log_det, K)
  assert found.shape == (K, N)
  for k, matrix in enumerate(matrices_of(covariances, covariance_type)):
    np.testing.assert_allclose(log_det[k], np.linalg.slogdet(matrix)[1])
    for n in range(N):
      gap = points[n] - means[k]
      expected = gap @ np.linalg.solve(matrix, gap)
      np.testing.assert_allclose(found[k, n], expected, rtol=1e-10)


def test_inverse_factor():
  covariances = make_full()
  factors = jax.jit(gmm.inverse_factor)(covariances)
  for factor, matrix in zip(factors, covariances, strict=True):
    np.testing.assert_allclose(
      factor, np.linalg.inv(np.linalg.cholesky(matrix)), atol=1e-12
    )


def test_what_rounding_has_left_of_a_variance_is_some_roundings():
  """Coordinates that follow from others have a factor, as steep as it may."""
  generator = np.random.default_rng(0)
  points = generator.normal(size=(50, DIM))
  points[:, 2] = points[:, 0] + points[:, 1]
  singular = np.cov(points.T)
  singular[2, 2] *= 1.0 - 1e-15
  factor = np.asarray(jax.jit(gmm.inverse_factor)(jnp.asarray(singular)))
  least = gmm.roundings(singular.dtype) * singular[2, 2]
  np.testing.assert_allclose(factor[2, 2], least**-0.5, rtol=1e-6)
  # The coordinates before it are as they were.
  np.testing.assert_allclose(
    factor[:2, :2], np.linalg.inv(np.linalg.cholesky(singular[:2, :2]))
  )


def test_a_matrix_without_a_factor_gets_one():
  covariances = make_full()
  covariances[1] = [
    [4.0, 3.0, 0.0, 0.0],
    [3.0, 1.0, 0.0, 0.0],
    [0.0, 0.0, 9.0, 0.0],
    [0.0, 0.0, 0.0, 1.0],
  ]
  # Hardly too small in one direction: as much as rounding may do.
  covariances[2] = np.eye(DIM)
  covariances[2, 0, 1] = covariances[2, 1, 0] = 1.0
  given = jnp.asarray(covariances)
  positive_definite = jax.jit(
    covariance.positive_definite, static_argnames="covariance_type"
  )
  fixed = positive_definite(given, covariance_type="full")
  np.testing.assert_array_equal(fixed[0], covariances[0])
  np.testing.assert_array_equal(fixed[1], np.diag([4.0, 1.0, 9.0, 1.0]))
  growth = 1.0 + gmm.roundings(given.dtype)
  expected = covariances[2] + (growth - 1.0) * np.eye(DIM)
  np.testing.assert_allclose(fixed[2], expected, rtol=1e-15)
  tied = positive_definite(given[1], covariance_type="tied")
  np.testing.assert_array_equal(tied, fixed[1])
  diagonal = jnp.asarray([[1.0, 2.0]])
  assert (
    covariance.positive_definite(diagonal, covariance_type="diag") is diagonal
  )


@pytest.mark.parametrize("covariance_type", TYPES)
def test_scatter_and_estimate_are_moments_about_the_new_means(covariance_type):
  points, means, share, differences = make_points()
  share, differences = jnp.asarray(share), jnp.asarray(differences)
  scatters = covariance.scatter(
    share, differences, covariance_type=covariance_type
  )
  matrices = scatter_matrices(points, means, share)
  total = matrices.sum(axis=0)
  expected = {
    "tied_spherical": np.trace(total),
    "spherical": [np.trace(one) for one in matrices],
    "diag": [np.diag(one) for one in matrices],
    "tied": total,
    "full": matrices,
  }[covariance_type]
  np.testing.assert_allclose(scatters, expected, rtol=1e-12)
  mass = np.sum(share, axis=1)
  moved = share @ points / mass[:, None]
  matrices = scatter_matrices(points, moved, share) / mass[:, None, None]
  within = np.tensordot(mass / mass.sum(), matrices, axes=1)
  for fixed, of_within, prior_size in (
    (np.array([0.1, 0.2, 0.3, 0.4]), 0.0, 0.0),
    (np.zeros(DIM), 0.5, 0.0),
    (np.array([0.1, 0.2, 0.3, 0.4]), 0.5, 7.0),
  ):
    found = covariance.estimate(
      scatters,
      jnp.asarray(mass),
      jnp.asarray(moved - means),
      covariance.Ridge(jnp.asarray(fixed), of_within),
      covariance_type=covariance_type,
      prior_size=prior_size,
    )
    # The prior counts as so many points with the pooled covariance.
    own = mass / (mass + prior_size)
    drawn = own[:, None, None] * matrices
    if "tied" in covariance_type:
      drawn = matrices
    else:
      drawn = drawn + (1.0 - own)[:, None, None] * within
    added = np.diag(fixed + of_within * np.diag(within))
    expected = shaped(drawn + added, mass, covariance_type)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
  "covariance_type", ["spherical", "tied_spherical", "diag"]
)
def test_rounding_does_not_make_a_variance_negative(covariance_type):
  shape = gmm.COVARIANCE_TYPES[covariance_type].shape(K, DIM)
  found = covariance.estimate(
    jnp.full(shape, 1.0 - 1e-12),
    jnp.ones(K),
    jnp.zeros((K, DIM)).at[:, 0].set(1.0),
    covariance.Ridge(jnp.full(DIM, 1e-20), 0.0),
    covariance_type=covariance_type,
  )
  assert np.all(found >= 1e-20)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_pooled(covariance_type):
  points, means, share, differences = make_points()
  share /= share.sum()
  ridge = np.array([0.1, 0.2, 0.3, 0.4])
  scatters = covariance.scatter(
    jnp.asarray(share),
    jnp.asarray(differences),
    covariance_type=covariance_type,
  )
  found = covariance.pooled(
    scatters,
    K,
    DIM,
    covariance.Ridge(jnp.asarray(ridge), 0.5),
    covariance_type=covariance_type,
  )
  total = scatter_matrices(points, means, share).sum(axis=0)
  total = total + np.diag(ridge + 0.5 * np.diag(total))
  expected = shaped([total] * K, np.ones(K), covariance_type)
  assert found.shape == gmm.COVARIANCE_TYPES[covariance_type].shape(K, DIM)
  np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_raise_to(covariance_type):
  lowest = np.array([0.5, 1.0, 2.0, 4.0])
  covariances = make_covariances(covariance_type)
  found = covariance.raise_to(
    jnp.asarray(covariances),
    jnp.asarray(lowest),
    covariance_type=covariance_type,
  )
  pairs = zip(
    matrices_of(np.asarray(found), covariance_type),
    matrices_of(covariances, covariance_type),
    strict=True,
  )
  for after, before in pairs:
    if "spherical" in covariance_type:
      expected = max(before[0, 0], np.mean(lowest)) * np.eye(DIM)
    elif covariance_type == "diag":
      expected = np.diag(np.maximum(np.diag(before), lowest))
    else:
      root = np.sqrt(np.diag(lowest))
      inverse = np.linalg.inv(root)
      values, vectors = np.linalg.eigh(inverse @ before @ inverse)
      raised = vectors @ np.diag(np.maximum(values, 1.0)) @ vectors.T
      expected = root @ raised @ root
    np.testing.assert_allclose(after, expected, rtol=1e-10, atol=1e-12)
    assert np.linalg.eigvalsh(after)[0] >= 0.5 * (1 - 1e-10)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_lift(covariance_type):
  ridge = jnp.full(DIM, 0.25)
  shape = gmm.COVARIANCE_TYPES[covariance_type].shape(K, DIM)
  found, is_usable = covariance.lift(
    jnp.zeros(shape), ridge, covariance_type=covariance_type
  )
  expected = shaped([0.25 * np.eye(DIM)] * K, np.ones(K), covariance_type)
  np.testing.assert_allclose(found, expected)
  assert is_usable
  wide = make_full() + 9.0 * np.eye(DIM)
  wide = jnp.asarray(shaped(wide, np.ones(K), covariance_type))
  found, is_usable = covariance.lift(
    wide, ridge, covariance_type=covariance_type
  )
  np.testing.assert_array_equal(found, wide)
  assert is_usable
  if covariance_type in ("full", "spherical", "diag"):
    # What is collapsed is lifted, the others stay.
    found, _ = covariance.lift(
      wide.at[1].set(0.0), ridge, covariance_type=covariance_type
    )
    np.testing.assert_allclose(found[1], expected[1])
    np.testing.assert_array_equal(found[0], wide[0])


@pytest.mark.parametrize("covariance_type", TYPES)
def test_lift_tells_what_is_no_covariance(covariance_type):
  good = make_covariances(covariance_type)

  def ask(covariances):
    _, is_usable = covariance.lift(
      jnp.asarray(covariances),
      jnp.full(DIM, 1e-6),
      covariance_type=covariance_type,
    )
    assert is_usable.shape == ()
    return bool(is_usable)

  for factor in (1.0, 0.0, 1e-200, 1e-6, 1e6, 1e100):
    assert ask(factor * good), factor
  for value in (np.nan, np.inf, -np.inf, -1.0):
    bad = np.array(good)
    bad[(0,) * bad.ndim] = value
    assert not ask(bad), value
  assert not ask(-good)
  if covariance_type in ("full", "tied"):
    skew = np.array(good)
    skew[..., 0, 1] += 1.0
    assert not ask(skew)
    # Symmetric, with a positive diagonal, and no covariance.
    indefinite = np.array(good)
    indefinite[..., :2, :2] = [[1.0, 2.0], [2.0, 1.0]]
    assert not ask(indefinite)
    assert ask(np.ones_like(good))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_scaled(covariance_type):
  scale = np.array([2.0, 3.0, 4.0, 5.0])
  if "spherical" in covariance_type:
    scale = np.full(DIM, 3.0)
  covariances = make_covariances(covariance_type)
  found = covariance.scaled(
    jnp.asarray(covariances),
    jnp.asarray(scale),
    covariance_type=covariance_type,
  )
  for after, before in zip(
    matrices_of(np.asarray(found), covariance_type),
    matrices_of(covariances, covariance_type),
    strict=True,
  ):
    expected = np.diag(scale) @ before @ np.diag(scale)
    np.testing.assert_allclose(after, expected, rtol=1e-12)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_mean_variance(covariance_type):
  covariances = make_covariances(covariance_type)
  diagonals = [
    np.diag(one) for one in matrices_of(covariances, covariance_type)
  ]
  np.testing.assert_allclose(
    covariance.mean_variance(
      jnp.asarray(covariances), covariance_type=covariance_type
    ),
    np.mean(diagonals),
  )


@pytest.mark.parametrize("covariance_type", TYPES)
def test_is_alike(covariance_type):
  covariances = np.array(make_covariances(covariance_type))
  if "tied" not in covariance_type:
    covariances[2] = covariances[0] * (1 + 1e-4)
  found = covariance.is_alike(
    jnp.asarray(covariances), covariance_type=covariance_type
  )
  found = np.broadcast_to(found, (K, K))
  expected = np.eye(K, dtype=bool)
  expected[0, 2] = expected[2, 0] = True
  if "tied" in covariance_type:
    expected[:] = True
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_all_of_them_vmap(covariance_type):
  points, means, share, differences = make_points()
  covariances = np.stack([make_covariances(covariance_type, s) for s in (0, 1)])
  ridge = jnp.full(DIM, 0.1)

  def everything(covariances):
    mixture = types.Mixture(
      jnp.full(K, 1.0 / K), jnp.asarray(means), covariances
    )
    moved, _ = gmm.component_energies(
      jnp.asarray(points.T), mixture, covariance_type=covariance_type
    )
    scatters = covariance.scatter(
      jnp.asarray(share),
      jnp.asarray(differences),
      covariance_type=covariance_type,
    )
    return (
      moved,
      scatters
      * covariance.mean_variance(covariances, covariance_type=covariance_type),
      *covariance.lift(covariances, ridge, covariance_type=covariance_type),
      covariance.is_alike(covariances, covariance_type=covariance_type),
      covariance.raise_to(
        covariances, 5.0 * ridge, covariance_type=covariance_type
      ),
    )

  batched = jax.jit(jax.vmap(everything))(jnp.asarray(covariances))
  everything = jax.jit(everything)
  for i, one in enumerate(covariances):
    for leaf, expected in zip(
      batched, everything(jnp.asarray(one)), strict=True
    ):
      np.testing.assert_allclose(leaf[i], expected, rtol=1e-10, atol=1e-12)
