"""The mode of the posterior, against densities of SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import datasets

from tgmm_jax import gmm, types
from tgmm_jax.solvers import em
from tgmm_jax.training import sharding

N, DIM, K = 40, 2, 2
TYPES = tuple(gmm.COVARIANCE_TYPES)
SIZE, MEAN_SIZE = 5.0, 0.5

pytestmark = pytest.mark.usefixtures("x64")


def make_points(seed=0):
  generator = np.random.default_rng(seed)
  centres = np.array([[0.0, 0.0], [4.0, 2.0]])
  noise = generator.normal(size=(N, DIM)) @ [[1.0, 0.4], [0.0, 0.6]]
  return centres[generator.integers(K, size=N)] + noise


def make_prior(covariance_type):
  scale = {
    "identity": None,
    "ball": np.asarray(0.7),
    "axes": np.array([0.5, 0.9]),
    "matrix": np.array([[0.8, 0.2], [0.2, 0.5]]),
  }[gmm.kind_of(covariance_type).structure]
  return em.Prior(np.array([1.0, 0.5]), MEAN_SIZE, SIZE, scale)


def log_prior(mixture, prior, covariance_type):
  """With all constants, component by component."""
  kind = gmm.kind_of(covariance_type)
  matrices = gmm.covariance_matrices(mixture, covariance_type=covariance_type)
  total = 0.0
  for mean, matrix in zip(mixture.means, np.asarray(matrices), strict=True):
    total += stats.multivariate_normal.logpdf(
      mean, prior.mean, matrix / MEAN_SIZE
    )
  if kind.is_known:
    return total
  own = np.asarray(mixture.covariances)
  match kind.structure:
    case "ball" | "axes":
      law = stats.invgamma(SIZE / 2, scale=np.asarray(prior.scale) / 2)
      return total + np.sum(law.logpdf(own))
  for matrix in own.reshape(-1, DIM, DIM):
    total += stats.invwishart.logpdf(matrix, SIZE, prior.scale)
  return total


def objective(points, mixture, prior, covariance_type):
  """Likelihood times prior, its logarithm."""
  matrices = gmm.covariance_matrices(mixture, covariance_type=covariance_type)
  parts = zip(mixture.weights, mixture.means, np.asarray(matrices), strict=True)
  density = sum(
    weight * stats.multivariate_normal.pdf(points, mean, matrix)
    for weight, mean, matrix in parts
  )
  return np.sum(np.log(density)) + log_prior(mixture, prior, covariance_type)


def fit(points, covariance_type, **options):
  options = {"tol": 0.0, "max_iter": 300, "reg_share": 0.0} | options
  options = {"prior": make_prior(covariance_type)} | options
  return em.fit(
    jax.random.key(0),
    points,
    options.pop("num_components", K),
    covariance_type=covariance_type,
    **options,
  )


def moved(mixture, generator, size):
  """A mixture beside this one; covariances stay what they are."""
  weights = mixture.weights * np.exp(size * generator.normal(size=K))
  covariances = mixture.covariances
  if covariances is not None:
    change = size * generator.normal(size=np.shape(covariances))
    if np.shape(covariances)[-2:] == (DIM, DIM):
      change = change + np.swapaxes(change, -1, -2)
    covariances = covariances + change
  return types.Mixture(
    weights / weights.sum(),
    mixture.means + size * generator.normal(size=(K, DIM)),
    covariances,
  )


@pytest.mark.parametrize("covariance_type", TYPES)
def test_nothing_beside_the_fit_is_better(covariance_type):
  points, prior = make_points(), make_prior(covariance_type)
  found = fit(points, covariance_type).mixture
  found = jax.tree.map(np.asarray, found)
  best = objective(points, found, prior, covariance_type)
  generator = np.random.default_rng(1)
  for size in (2e-2, 5e-3, 1e-3):
    for _ in range(20):
      other = moved(found, generator, size)
      assert objective(points, other, prior, covariance_type) < best


@pytest.mark.parametrize("covariance_type", TYPES)
def test_each_step_climbs(covariance_type):
  points, prior = make_points(), make_prior(covariance_type)
  values = []
  for num_steps in range(8):
    found = fit(points, covariance_type, max_iter=num_steps).mixture
    found = jax.tree.map(np.asarray, found)
    values.append(objective(points, found, prior, covariance_type))
  # The start's weights are no part of it.
  assert np.all(np.diff(values[1:]) > -1e-9)


def test_one_component_has_a_closed_form():
  points, prior = make_points(), make_prior("full")
  found = fit(points, "full", num_components=1, max_iter=1).mixture
  mean = (points.sum(0) + MEAN_SIZE * prior.mean) / (N + MEAN_SIZE)
  gap = points.mean(0) - prior.mean
  share = MEAN_SIZE * N / (MEAN_SIZE + N)
  scatter = np.cov(points.T, bias=True) * N + share * np.outer(gap, gap)
  covariance = (prior.scale + scatter) / (SIZE + N + DIM + 2)
  np.testing.assert_allclose(found.means[0], mean, rtol=1e-12)
  np.testing.assert_allclose(found.covariances[0], covariance, rtol=1e-10)


def test_the_stopping_rule_is_that_of_what_is_climbed():
  """On the way the likelihood alone may stand still."""
  points = make_points()
  prior = make_prior("full")._replace(size=400.0)
  ended = fit(points, "full", prior=prior, tol=1e-9, max_iter=1000)
  assert ended.status == types.Status.CONVERGED
  further = fit(points, "full", prior=prior, tol=0.0, max_iter=1000)
  np.testing.assert_allclose(
    ended.mixture.covariances, further.mixture.covariances, rtol=1e-3
  )


@pytest.mark.parametrize("covariance_type", ["spherical", "diag", "full"])
def test_nothing_collapses(covariance_type):
  """Where the likelihood alone has no maximum."""
  points = np.concatenate([make_points(), np.full((4, DIM), 30.0)])
  given = types.Mixture(
    np.full(3, 1 / 3), np.array([[0.0, 0.0], [4.0, 2.0], [30.0, 30.0]])
  )
  options = {"num_components": 3, "init": given, "max_iter": 100}
  plain = fit(points, covariance_type, prior=None, **options)
  assert plain.status == types.Status.DEGENERATE
  prior = em.fraley_raftery(points, 3, covariance_type=covariance_type)
  found = fit(points, covariance_type, prior=prior, tol=1e-8, **options)
  assert found.status == types.Status.CONVERGED


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_named_prior_is_that_of_mclust(covariance_type):
  points = make_points()
  prior = em.fraley_raftery(points, 3, covariance_type=covariance_type)
  np.testing.assert_allclose(prior.mean, points.mean(0))
  assert (prior.mean_size, prior.size) == (0.01, DIM + 2)
  matrix = np.cov(points.T) / 3 ** (2 / DIM)
  expected = {
    "identity": None,
    "ball": np.trace(matrix) / DIM,
    "axes": np.diag(matrix),
    "matrix": matrix,
  }[gmm.kind_of(covariance_type).structure]
  if expected is None:
    assert prior.scale is None
  else:
    np.testing.assert_allclose(prior.scale, expected)
  # A point of weight 0 may be anything, and weights are counts.
  padded = np.concatenate([points, [[np.nan, 1.0]]])
  weight = np.append(np.ones(N), 0.0)
  again = em.fraley_raftery(
    padded, 3, covariance_type=covariance_type, sample_weight=weight
  )
  for leaf, other in zip(again, prior, strict=True):
    if leaf is not None:
      np.testing.assert_allclose(leaf, other)


@pytest.mark.parametrize("covariance_type", ["unit", "full", "tied"])
def test_units_padding_and_batches_change_nothing(covariance_type):
  points, options = make_points(), {"max_iter": 10}
  prior = em.fraley_raftery(points, K, covariance_type=covariance_type)
  given = types.Mixture(np.full(K, 0.5), np.array([[0.0, 0.0], [4.0, 2.0]]))
  alone = fit(points, covariance_type, prior=prior, init=given, **options)
  both = em.fit_batch(
    jax.random.key(0),
    np.stack([points, points + 1.0]),
    K,
    covariance_type=covariance_type,
    init=jax.tree.map(lambda leaf: np.stack([leaf, leaf]), given)._replace(
      means=np.stack([given.means, given.means + 1.0])
    ),
    prior=jax.tree.map(lambda leaf: np.stack([leaf, leaf]), prior)._replace(
      mean=np.stack([prior.mean, prior.mean + 1.0])
    ),
    tol=0.0,
    reg_share=0.0,
    **options,
  )
  for index in range(2):
    np.testing.assert_allclose(
      both.mixture.means[index], alone.mixture.means + index, rtol=1e-9
    )
  padded = fit(
    np.concatenate([points, np.full((3, DIM), np.nan)]),
    covariance_type,
    prior=prior,
    init=jax.tree.map(
      lambda leaf: np.concatenate([leaf, 0.0 * leaf[:1]]), given
    ),
    sample_weight=np.append(np.ones(N), np.zeros(3)),
    max_components=K + 1,
    **options,
  )
  np.testing.assert_allclose(
    padded.mixture.means[:K], alone.mixture.means, rtol=1e-9
  )
  if covariance_type != "unit":
    scaled = prior._replace(mean=3.0 * prior.mean, scale=9.0 * prior.scale)
    wide = fit(
      3.0 * points,
      covariance_type,
      prior=scaled,
      init=given._replace(means=3.0 * given.means),
      **options,
    )
    np.testing.assert_allclose(
      wide.mixture.means, 3.0 * alone.mixture.means, rtol=1e-9
    )


def test_a_large_problem_has_the_same_prior(monkeypatch):
  """Dealt out over the cores, and within one program."""
  monkeypatch.setattr("tgmm_jax.solvers.execution.cores.num_cores", lambda: 2)
  points = np.concatenate([make_points(seed) for seed in range(110)])
  prior = make_prior("full")._replace(size=1000.0)
  options = {"prior": prior, "max_iter": 5}
  dealt = fit(points, "full", **options)
  within = jax.jit(lambda points: fit(points, "full", **options))(
    jnp.asarray(points)
  )
  np.testing.assert_allclose(
    dealt.mixture.covariances, within.mixture.covariances, rtol=1e-8
  )


@pytest.mark.parametrize("name", ["fit_stream", "fit_sharded"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_files_and_devices_have_the_same_prior(name, dtype):
  """Far from the origin as well, where float32 must not round the gaps."""
  shift = 1000.0
  points = (make_points() + shift).astype(dtype)
  prior = make_prior("full")
  prior = prior._replace(mean=prior.mean + shift, mean_size=9.0, size=50.0)
  start = types.Mixture(np.ones(3) / 3, points[:3].astype(float), None)
  options = {"covariance_type": "full", "max_iter": 5, "tol": 0.0}
  options |= {"init": start, "prior": prior}
  with jax.enable_x64(True):
    expected = em.fit(jax.random.key(0), make_points() + shift, 3, **options)
  if name == "fit_sharded":
    options["mesh"] = sharding.make_mesh(1)
  found = getattr(em, name)(jax.random.key(0), points, 3, **options)
  tolerance = 1e-9 if dtype == "float64" else 1e-3
  np.testing.assert_allclose(
    found.mixture.covariances, expected.mixture.covariances, rtol=tolerance
  )


@pytest.mark.parametrize(
  ("prior", "message"),
  [
    ("mclust", "prior is 'mclust', takes an em.Prior or None"),
    (
      make_prior("full")._replace(mean=np.zeros(3)),
      r"prior has mean of shape \(3,\), takes \(2,\)",
    ),
    (make_prior("diag"), r"prior has scale of shape \(2,\), takes \(2, 2\)"),
  ],
)
def test_what_is_no_prior_is_refused(prior, message):
  with pytest.raises(ValueError, match=message):
    fit(make_points(), "full", prior=prior)


@pytest.mark.parametrize(
  "change",
  [{"mean_size": -1.0}, {"size": np.nan}, {"mean": np.array([np.inf, 0.0])}],
)
def test_a_prior_that_cannot_be_used_is_told(change):
  found = fit(
    make_points(), "full", prior=make_prior("full")._replace(**change)
  )
  assert found.status == types.Status.INVALID_INPUT


# Log-likelihood of iris where mclust 6.0.0 ends from the species:
# `me(data, modelName, unmap(species), prior = priorControl())`.
MCLUST = {
  "full": ("VVV", -192.6952839),
  "diag": ("VVI", -312.9040871),
  "spherical": ("VII", -384.4786762),
  "tied": ("EEE", -257.7393766),
}


@pytest.mark.parametrize("covariance_type", MCLUST)
def test_iris_is_fitted_as_by_mclust(covariance_type):
  points, species = datasets.load_iris(return_X_y=True)
  means = np.stack([points[species == one].mean(axis=0) for one in range(3)])
  prior = em.fraley_raftery(points, 3, covariance_type=covariance_type)
  if covariance_type == "diag":
    # mclust has one scale for all coordinates.
    prior = prior._replace(scale=np.full(4, np.mean(prior.scale)))
  found = em.fit(
    *(jax.random.key(0), points, 3),
    covariance_type=covariance_type,
    init=types.Mixture(np.ones(3) / 3, means),
    prior=prior,
    reg_share=0.0,
    tol=1e-13,
    max_iter=10_000,
  )
  _, expected = MCLUST[covariance_type]
  np.testing.assert_allclose(len(points) * found.log_likelihood, expected)
