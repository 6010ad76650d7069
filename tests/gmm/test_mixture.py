import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tgmm_jax import gmm, types

# As many as d: shapes alone cannot tell diag from tied.
K = DIM = 3
SAMPLE = jax.jit(
  gmm.sample, static_argnums=2, static_argnames="covariance_type"
)


def covariances_of(covariance_type, seed=0):
  rng = np.random.default_rng(seed)
  factors = rng.normal(size=(K, DIM, DIM)) + np.eye(DIM)
  full = factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(DIM)
  return {
    "unit": None,
    "tied_spherical": np.float64(1.7),
    "spherical": rng.uniform(0.3, 3.0, K),
    "diag": rng.uniform(0.3, 3.0, (K, DIM)),
    "tied": full[0],
    "full": full,
  }[covariance_type]


def full_covariances(covariance_type, covariances):
  """`[K, d, d]` of any type, written out."""
  match covariance_type:
    case "unit":
      return [np.eye(DIM)] * K
    case "tied_spherical":
      return [covariances * np.eye(DIM)] * K
    case "spherical":
      return [value * np.eye(DIM) for value in covariances]
    case "diag":
      return [np.diag(row) for row in covariances]
    case "tied":
      return [covariances] * K
    case "full":
      return list(covariances)


def mixture_of(covariance_type, weights=(0.5, 0.2, 0.3)):
  means = 2.0 * np.random.default_rng(1).normal(size=(K, DIM))
  return types.Mixture(
    np.array(weights), means, covariances_of(covariance_type)
  )


def points_of(num_points=20):
  return 3.0 * np.random.default_rng(2).normal(size=(num_points, DIM))


def scipy_joint(points, mixture, covariance_type):
  """Density times weight, `[N, K]`."""
  densities = [
    stats.multivariate_normal(mean, covariance).pdf(points)
    for mean, covariance in zip(
      mixture.means,
      full_covariances(covariance_type, mixture.covariances),
      strict=True,
    )
  ]
  return np.stack(densities, axis=-1) * mixture.weights


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_densities_are_those_of_scipy(covariance_type):
  points, mixture = points_of(), mixture_of(covariance_type)
  joint = scipy_joint(points, mixture, covariance_type)
  sample_weight = np.linspace(0.0, 2.0, 20)

  @jax.jit
  def evaluate(points, mixture, sample_weight):
    options = {"covariance_type": covariance_type}
    return (
      gmm.component_log_density(points, mixture, **options),
      gmm.log_joint(points, mixture, **options),
      gmm.log_density(points, mixture, **options),
      gmm.responsibilities(points, mixture, **options),
      gmm.log_likelihood(points, mixture, **options),
      gmm.log_likelihood(
        points, mixture, sample_weight=sample_weight, **options
      ),
    )

  total = joint.sum(-1)
  expected = (
    np.log(joint / mixture.weights),
    np.log(joint),
    np.log(total),
    joint / total[:, None],
    np.log(total).mean(),
    np.average(np.log(total), weights=sample_weight),
  )
  mixture = jax.tree.map(jnp.asarray, mixture)
  actual = evaluate(jnp.asarray(points), mixture, sample_weight)
  for value, reference in zip(actual, expected, strict=True):
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_prediction_is_the_most_probable_component(covariance_type):
  points, mixture = points_of(200), mixture_of(covariance_type)
  labels = gmm.predict(
    points,
    jax.tree.map(jnp.asarray, mixture),
    covariance_type=covariance_type,
  )
  assert labels.dtype == jnp.int32
  joint = scipy_joint(points, mixture, covariance_type)
  np.testing.assert_array_equal(labels, joint.argmax(axis=1))


def test_prediction_is_never_a_component_of_weight_zero():
  mixture = mixture_of("unit", (0.0, 1.0, 0.0))
  np.testing.assert_array_equal(
    gmm.predict(jnp.asarray(points_of()), mixture), 1
  )


def test_density_far_away_is_finite():
  mixture = jax.tree.map(jnp.asarray, mixture_of("unit"))
  points = jnp.full((1, DIM), 1e4)
  log_density = gmm.log_density(points, mixture)
  assert np.isfinite(log_density).all()
  np.testing.assert_allclose(
    gmm.responsibilities(points, mixture).sum(-1), 1.0, rtol=1e-6
  )


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e30])
def test_padding_may_hold_anything(junk):
  mixture = jax.tree.map(jnp.asarray, mixture_of("diag"))
  points = jnp.asarray(points_of(6), jnp.float32)
  sample_weight = jnp.array([1.0, 0.0, 2.0, 1.0, 0.0, 1.0])
  is_point = np.asarray(sample_weight) > 0

  @jax.jit
  @jax.value_and_grad
  def value_and_gradient(means, points, sample_weight):
    return gmm.log_likelihood(
      points,
      mixture._replace(means=means),
      sample_weight=sample_weight,
      covariance_type="diag",
    )

  padded, gradient = value_and_gradient(
    mixture.means,
    jnp.where(is_point[:, None], points, junk),
    sample_weight,
  )
  expected, expected_gradient = value_and_gradient(
    mixture.means, points[is_point], sample_weight[is_point]
  )
  np.testing.assert_allclose(padded, expected, rtol=1e-6)
  np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


@jax.jit
def describe(points, mixture):
  gradient = jax.grad(
    lambda means: gmm.log_likelihood(points, mixture._replace(means=means))
  )(mixture.means)
  return (
    gmm.log_density(points, mixture),
    gmm.responsibilities(points, mixture),
    gradient,
  )


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_component_of_weight_zero_is_absent(absent):
  weights = np.insert([0.4, 0.6], absent, 0.0)
  mixture = mixture_of("unit", weights)
  others = types.Mixture(
    np.array([0.4, 0.6]), np.delete(mixture.means, absent, axis=0)
  )
  points = points_of()
  log_density, posterior, gradient = describe(points, mixture)
  expected, expected_posterior, expected_gradient = describe(points, others)
  np.testing.assert_allclose(log_density, expected, rtol=1e-5)
  np.testing.assert_array_equal(posterior[:, absent], 0.0)
  np.testing.assert_allclose(
    np.delete(posterior, absent, axis=1), expected_posterior, atol=1e-6
  )
  np.testing.assert_array_equal(gradient[absent], 0.0)
  np.testing.assert_allclose(
    np.delete(gradient, absent, axis=0), expected_gradient, atol=1e-5
  )
  _, labels = SAMPLE(jax.random.key(0), mixture, 5000)
  assert np.unique(labels).tolist() == [i for i in range(K) if i != absent]


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_samples_have_the_moments_of_their_component(covariance_type):
  num_points = 60_000
  mixture = mixture_of(covariance_type)
  points, labels = SAMPLE(
    jax.random.key(3),
    mixture,
    num_points,
    covariance_type=covariance_type,
  )
  points, labels = np.asarray(points), np.asarray(labels)
  assert points.shape == (num_points, DIM)
  assert labels.dtype == np.int32
  counts = np.bincount(labels, minlength=K)
  assert stats.chisquare(counts, num_points * mixture.weights).pvalue > 1e-3
  expected = full_covariances(covariance_type, mixture.covariances)
  for component in range(K):
    whitened = np.linalg.solve(
      np.linalg.cholesky(expected[component]),
      (points[labels == component] - mixture.means[component]).T,
    )
    # Five standard errors of a mean and of a covariance of unit normals.
    error = 5.0 / np.sqrt(counts[component])
    np.testing.assert_allclose(whitened.mean(1), 0.0, atol=error)
    np.testing.assert_allclose(
      np.cov(whitened), np.eye(DIM), atol=np.sqrt(2.0) * error
    )
    assert stats.kstest(whitened[0], "norm").pvalue > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_standard_deviations_are_the_roots_of_the_diagonal(covariance_type):
  mixture = mixture_of(covariance_type)
  expected = [
    np.sqrt(np.diag(covariance))
    for covariance in full_covariances(covariance_type, mixture.covariances)
  ]
  np.testing.assert_allclose(
    gmm.standard_deviations(mixture, covariance_type=covariance_type),
    expected,
    rtol=1e-5,
  )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_every_type_has_its_matrices(covariance_type):
  mixture = mixture_of(covariance_type)
  np.testing.assert_allclose(
    gmm.covariance_matrices(mixture, covariance_type=covariance_type),
    np.stack(list(full_covariances(covariance_type, mixture.covariances))),
  )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
@pytest.mark.parametrize("num_points", [2, 128, 129, 1000])
def test_many_points_are_taken_in_blocks(
  covariance_type, num_points, monkeypatch
):
  monkeypatch.setattr("tgmm_jax.gmm.mixture._BLOCK_SIZE", 1)
  # So near that no density of SciPy's underflows.
  points, mixture = 0.3 * points_of(num_points), mixture_of(covariance_type)
  joint = scipy_joint(points, mixture, covariance_type)
  mixture = jax.tree.map(jnp.asarray, mixture)
  options = {"covariance_type": covariance_type}
  given = (jnp.asarray(points), mixture)
  np.testing.assert_allclose(
    gmm.log_joint(*given, **options), np.log(joint), rtol=1e-9
  )
  total = joint.sum(-1)
  np.testing.assert_allclose(
    gmm.log_density(*given, **options), np.log(total), rtol=1e-9
  )
  np.testing.assert_allclose(
    gmm.responsibilities(*given, **options), joint / total[:, None], rtol=1e-9
  )
  np.testing.assert_array_equal(
    gmm.predict(*given, **options), joint.argmax(axis=1)
  )


def test_gradients_and_vmap_go_through_blocks(monkeypatch):
  points, mixture = jnp.asarray(points_of(500)), mixture_of("unit")
  points = jnp.stack([points, points + 1.0])

  def value(means, points):
    own = types.Mixture(mixture.weights, means)
    return gmm.log_likelihood(points, own)

  def of_both():
    gradient = jax.vmap(jax.value_and_grad(value), in_axes=(None, 0))
    return gradient(jnp.asarray(mixture.means), points)

  whole = of_both()
  monkeypatch.setattr("tgmm_jax.gmm.mixture._BLOCK_SIZE", 1)
  for found, expected in zip(of_both(), whole, strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("call", [gmm.log_density, gmm.sample])
def test_unknown_covariance_type_is_refused(call):
  mixture = jax.tree.map(jnp.asarray, mixture_of("unit"))
  arguments = {
    gmm.log_density: (jnp.zeros((4, DIM)), mixture),
    gmm.sample: (jax.random.key(0), mixture, 4),
  }[call]
  with pytest.raises(ValueError, match="covariance_type is 'round', takes"):
    call(*arguments, covariance_type="round")


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_a_mixture_of_numpy_in_float64_is_read_without_64_bits(covariance_type):
  rng = np.random.default_rng(0)
  mixture = types.Mixture(
    np.full(K, 1 / K),
    rng.normal(size=(K, DIM)),
    covariances_of(covariance_type),
  )
  points = rng.normal(size=(5, DIM))
  options = {"covariance_type": covariance_type}
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    found = gmm.log_density(points, mixture, **options)
    labels = gmm.predict(points, mixture, **options)
    draw = jax.vmap(lambda key: gmm.sample(key, mixture, 4, **options))
    drawn, _ = draw(jax.random.split(jax.random.key(0), 2))
  full = full_covariances(covariance_type, mixture.covariances)
  joint = [
    np.log(1 / K) + stats.multivariate_normal(mean, own).logpdf(points)
    for mean, own in zip(mixture.means, full, strict=True)
  ]
  np.testing.assert_allclose(found, np.logaddexp.reduce(joint), rtol=1e-4)
  np.testing.assert_array_equal(labels, np.argmax(joint, axis=0))
  assert found.dtype == drawn.dtype == np.float32
  assert drawn.shape == (2, 4, DIM)


def test_means_that_float32_loses_are_told():
  mixture = types.Mixture(
    np.ones(1), np.full((1, 2), 5_400_000.3), np.full(1, 0.01)
  )
  points = np.full((3, 2), 5_400_000.5, np.float32)
  with pytest.warns(UserWarning, match="rounded by up to 0.2 to float32"):
    gmm.predict(points, mixture, covariance_type="spherical")
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    near = mixture._replace(means=mixture.means - 5_400_000.0)
    gmm.predict(points, near, covariance_type="spherical")
    with jax.enable_x64(True):
      gmm.predict(points, mixture, covariance_type="spherical")
