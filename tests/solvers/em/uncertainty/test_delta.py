"""Standard errors by the information, against differences and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from tests.solvers.em import problems
from tgmm_jax import gmm, types
from tgmm_jax.solvers import em
from tgmm_jax.solvers.em.uncertainty import record

N, DIM, K = 60, 2, 3
LOWER = np.tril_indices(DIM)
POINTS = problems.clusters((K, DIM), N, seed=3)
COUNTS = np.random.default_rng(0).integers(1, 4, N).astype(float)


def fitted(covariance_type, points=POINTS, weight=COUNTS, size=K):
  """A maximum of the likelihood, as near as float64 comes to it."""
  found = em.fit(
    jax.random.key(0),
    points,
    size,
    covariance_type=covariance_type,
    sample_weight=weight,
    num_init=3,
    max_iter=20_000,
    tol=1e-16,
    reg_share=0.0,
  )
  return jax.tree.map(np.asarray, found.mixture)


def pack(mixture, covariance_type):
  """All weights but the first, means and lower triangles."""
  weights, means, covariances = mixture
  flat = [weights[1:], means.ravel()]
  if covariances is not None:
    is_matrix = covariance_type in ("full", "tied")
    own = covariances[..., *LOWER] if is_matrix else covariances
    flat.append(np.ravel(own))
  return np.concatenate(flat)


def log_likelihood(flat, covariance_type):
  """In SciPy, of the points as often as they count."""
  rest = flat[: K - 1]
  means = flat[K - 1 : K - 1 + K * DIM].reshape(K, DIM)
  own = flat[K - 1 + K * DIM :]
  shape = gmm.COVARIANCE_TYPES[covariance_type].shape(K, DIM)
  covariances = None
  if covariance_type in ("full", "tied"):
    covariances = np.zeros((*shape[:-2], DIM, DIM))
    own = own.reshape(*shape[:-2], -1)
    covariances[..., *LOWER] = own
    covariances[..., *LOWER[::-1]] = own
  elif covariance_type != "unit":
    covariances = own.reshape(shape)
  matrices = problems.expand(covariances, K, DIM, covariance_type)
  joint = np.log([1.0 - rest.sum(), *rest])[:, None] + [
    stats.multivariate_normal(mean, matrix).logpdf(POINTS)
    for mean, matrix in zip(means, matrices, strict=True)
  ]
  return COUNTS @ special.logsumexp(joint, axis=0)


def numeric_hessian(function, place, step=1e-4):
  """By central differences."""
  size = len(place)
  hessian = np.zeros((size, size))
  steps = step * np.eye(size)
  for i in range(size):
    for j in range(i + 1):
      hessian[i, j] = hessian[j, i] = sum(
        a * b * function(place + a * steps[i] + b * steps[j])
        for a in (1, -1)
        for b in (1, -1)
      ) / (4.0 * step**2)
  return hessian


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  "covariance_type",
  problems.fast_only(("full", "tied", "diag"), gmm.COVARIANCE_TYPES),
)
def test_errors_are_those_of_a_numeric_hessian(covariance_type):
  mixture = fitted(covariance_type)
  found = em.information(
    POINTS, mixture, covariance_type=covariance_type, sample_weight=COUNTS
  )
  assert found.is_valid
  assert found.distance < 1e-5
  hessian = numeric_hessian(
    functools.partial(log_likelihood, covariance_type=covariance_type),
    pack(mixture, covariance_type),
  )
  variance = np.linalg.inv(-hessian)
  errors = jax.tree.map(np.asarray, found.standard_errors)
  np.testing.assert_allclose(
    pack(errors, covariance_type), np.sqrt(np.diag(variance)), rtol=1e-3
  )
  # The weight that is 1 less the others.
  first = np.sqrt(variance[: K - 1, : K - 1].sum())
  np.testing.assert_allclose(errors.weights[0], first, rtol=1e-3)
  for index, own in enumerate(found.mean_covariances):
    place = K - 1 + index * DIM + np.arange(DIM)
    np.testing.assert_allclose(own, variance[np.ix_(place, place)], rtol=1e-2)


@pytest.mark.usefixtures("x64")
def test_counts_are_repeated_points_and_padding_is_nothing():
  mixture = fitted("full")
  found = em.information(
    POINTS, mixture, covariance_type="full", sample_weight=COUNTS
  )
  repeated = np.repeat(POINTS, COUNTS.astype(int), axis=0)
  same = em.information(repeated, mixture, covariance_type="full")
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10),
    found._replace(distance=None),
    same._replace(distance=None),
  )
  padded = jax.tree.map(
    lambda leaf: np.pad(leaf, [(0, 1)] + [(0, 0)] * (leaf.ndim - 1)), mixture
  )
  wide = em.information(
    np.pad(POINTS, ((0, 7), (0, 0)), constant_values=np.nan),
    padded,
    jnp.asarray(K),
    covariance_type="full",
    sample_weight=np.pad(COUNTS, (0, 7)),
  )
  for name in ("standard_errors", "lower", "upper", "mean_covariances"):
    for own, other in zip(
      jax.tree.leaves(getattr(found, name)),
      jax.tree.leaves(getattr(wide, name)),
      strict=True,
    ):
      np.testing.assert_allclose(other[:K], own, rtol=1e-8, atol=1e-10)
      assert np.all(other[K:] == 0)


def normal_points(num_points=50):
  """Points in units far apart, far from the origin."""
  generator = np.random.default_rng(1)
  points = generator.normal(size=(num_points, DIM)) @ [[2.0, 1.0], [0.0, 0.5]]
  return points * [1.0, 1e4] + [1e3, -1e6]


@pytest.mark.usefixtures("x64")
def test_of_one_component_errors_have_closed_forms():
  points = normal_points()
  count = len(points)
  covariance = np.cov(points.T, bias=True)
  variances = np.diag(covariance)
  mixture = types.Mixture(np.ones(1), points.mean(0)[None], covariance[None])
  found = em.information(points, mixture, covariance_type="full")
  errors = found.standard_errors
  assert errors.weights == 0
  assert found.lower.weights == found.upper.weights == 1
  np.testing.assert_allclose(errors.means[0], np.sqrt(variances / count))
  products = np.sqrt((np.outer(variances, variances) + covariance**2) / count)
  np.testing.assert_allclose(errors.covariances[0], products)
  np.testing.assert_allclose(
    np.diag(errors.covariances[0]), variances * np.sqrt(2.0 / count)
  )
  np.testing.assert_allclose(found.mean_covariances[0], covariance / count)
  # With the variance of the scores: by the points' own fourth moments.
  weight = np.random.default_rng(2).uniform(0.5, 2.0, count)
  share = weight / weight.sum()
  mean = share @ points
  gaps = points - mean
  covariance = (gaps * share[:, None]).T @ gaps
  mixture = types.Mixture(np.ones(1), mean[None], covariance[None])
  robust = em.information(
    points,
    mixture,
    covariance_type="full",
    sample_weight=7.0 * weight,
    is_robust=True,
  )
  products = gaps[:, :, None] * gaps[:, None] - covariance
  np.testing.assert_allclose(
    robust.standard_errors.covariances[0],
    np.sqrt(np.einsum("n,nij->ij", share**2, products**2)),
  )
  np.testing.assert_allclose(
    robust.standard_errors.means[0], np.sqrt(share**2 @ gaps**2)
  )


@pytest.mark.usefixtures("x64")
def test_ball_and_distance_of_one_component():
  points = normal_points() / [1.0, 1e4]
  count, centre = len(points), points.mean(axis=0)
  variance = np.mean((points - centre) ** 2)
  mixture = types.Mixture(np.ones(1), centre[None], np.array([variance]))
  found = em.information(points, mixture, covariance_type="spherical")
  np.testing.assert_allclose(
    found.standard_errors.covariances, variance * np.sqrt(2 / (count * DIM))
  )
  np.testing.assert_allclose(found.distance, 0.0, atol=1e-6)
  # The intervals, by the logarithm.
  ends = np.log([found.lower.covariances[0], found.upper.covariances[0]])
  width = stats.norm.ppf(0.95) * np.sqrt(2 / (count * DIM))
  np.testing.assert_allclose(ends - np.log(variance), [-width, width])
  # Moved by half a standard error, and a variance that is not the best.
  known = types.Mixture(np.ones(1), centre[None] + [0.5 / count**0.5, 0.0])
  found = em.information(points, known, covariance_type="unit")
  np.testing.assert_allclose(found.distance, 0.5)
  np.testing.assert_allclose(found.standard_errors.means, count**-0.5)


def test_intervals_of_weights_stay_within_their_range():
  weights = np.array([0.02, 0.98], np.float32)
  mixture = types.Mixture(weights, np.zeros((2, 1), np.float32))
  errors = types.Mixture(np.full(2, 0.02, np.float32), np.ones((2, 1)))
  lower, upper = record.normal_interval(
    mixture,
    errors,
    record.widths(mixture, 0.9, covariance_type="unit"),
    covariance_type="unit",
  )
  width = stats.norm.ppf(0.95)
  odds = special.logit(weights) + width * 0.02 / (weights * (1 - weights))
  np.testing.assert_allclose(upper.weights, special.expit(odds), rtol=1e-5)
  np.testing.assert_allclose(lower.weights, 1 - upper.weights[::-1], rtol=1e-5)
  np.testing.assert_allclose(upper.means, width, rtol=1e-5)


@pytest.mark.parametrize(
  ("covariance_type", "freedom"),
  [("full", 50 / 7), ("spherical", 50 * 2 / 8), ("tied", 200 / 7)],
)
def test_widths_are_those_of_students_t(covariance_type, freedom):
  shape = gmm.COVARIANCE_TYPES[covariance_type].shape(2, 2)
  mixture = types.Mixture(
    np.array([0.25, 0.75], np.float32),
    np.zeros((2, 2), np.float32),
    np.ones(shape, np.float32),
  )
  found = record.widths(mixture, 0.9, 200.0, covariance_type=covariance_type)
  stretch = np.sqrt(51 / 49)
  expected = stretch * stats.t.ppf(0.95, 50)
  np.testing.assert_allclose(found.means[0], expected, rtol=1e-3)
  stretch = np.sqrt(201 / 199) if covariance_type == "tied" else stretch
  expected = stretch * stats.t.ppf(0.95, freedom)
  np.testing.assert_allclose(
    np.ravel(found.covariances)[0], expected, rtol=1e-3
  )


def test_where_nothing_can_be_said_errors_are_infinite():
  points = POINTS.astype(np.float32)
  # Two components that are one: a ridge of the likelihood.
  covariance = np.cov(points.T, bias=True)
  twice = types.Mixture(
    np.full(2, 0.5, np.float32),
    np.stack([points.mean(axis=0)] * 2),
    np.stack([covariance] * 2).astype(np.float32),
  )
  spoiled = points.copy()
  spoiled[3, 1] = np.nan
  for given in (points, spoiled):
    found = em.information(given, twice, covariance_type="full")
    assert not found.is_valid
    assert found.distance == np.inf
    for leaf in jax.tree.leaves(found.standard_errors):
      assert np.all(leaf == np.inf)
    for leaf in jax.tree.leaves((found.lower, found.upper)):
      assert np.all(np.isinf(leaf))
    assert not np.any(np.isnan(found.mean_covariances))


def test_what_no_data_could_make_right_is_refused():
  points = POINTS.astype(np.float32)
  mixture = types.Mixture(np.ones(1), points[:1], None)
  with pytest.raises(ValueError, match="mixture has covariances None, takes"):
    em.information(points, mixture, covariance_type="full")
  with pytest.raises(ValueError, match=r"level is 1.0, takes a number betw"):
    em.information(points, mixture, level=1.0)
  with pytest.raises(ValueError, match="init has means of shape"):
    em.information(points[:, :1], mixture)
