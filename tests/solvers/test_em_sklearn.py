"""EM against scikit-learn's and a NumPy EM, from the same start."""

import functools
import warnings

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import threadpoolctl
from sklearn import datasets, decomposition, mixture

from tgmm_jax import gmm, types
from tgmm_jax.solvers import em

SKLEARN_TYPES = ("full", "tied", "diag", "spherical")
REG_COVAR = 1e-6


def fast_only(fast, names):
  """All the names, slow all but some."""
  slow = pytest.mark.slow
  return [
    pytest.param(name, marks=() if name in fast else slow) for name in names
  ]


def restrict(covariances, weights, covariance_type):
  """Covariances `[K, d, d]` of the components, shaped as the type."""
  dim = covariances.shape[-1]
  tied = np.einsum("k,kij->ij", weights, covariances)
  return {
    "unit": None,
    "tied_spherical": np.trace(tied) / dim,
    "spherical": np.trace(covariances, axis1=1, axis2=2) / dim,
    "diag": np.einsum("kii->ki", covariances),
    "tied": tied,
    "full": covariances,
  }[covariance_type]


def expand(covariances, num_components, dim, covariance_type):
  """The inverse of `restrict`."""
  identity = np.eye(dim)
  if covariance_type == "unit":
    return np.broadcast_to(identity, (num_components, dim, dim))
  covariances = np.asarray(covariances)
  return {
    "tied_spherical": lambda: covariances * np.stack([identity] * 3),
    "spherical": lambda: covariances[:, None, None] * identity,
    "diag": lambda: covariances[:, :, None] * identity,
    "tied": lambda: np.stack([covariances] * num_components),
    "full": lambda: covariances,
  }[covariance_type]()


def numpy_em(points, sample_weight, start, num_steps, covariance_type):
  """The textbook with full matrices; the log-likelihood before each step."""
  weights, means = np.asarray(start.weights), np.asarray(start.means)
  num_components, dim = means.shape
  covariances = expand(start.covariances, *means.shape, covariance_type)
  history = []
  for step in range(num_steps + 1):
    normals = map(scipy.stats.multivariate_normal, means, covariances)
    log_joint = np.log(weights) + np.stack(
      [normal.logpdf(points) for normal in normals], axis=-1
    )
    log_density = scipy.special.logsumexp(log_joint, axis=-1)
    history.append(np.average(log_density, weights=sample_weight))
    if step == num_steps:
      break
    share = np.exp(log_joint - log_density[:, None]) * sample_weight[:, None]
    weights = share.sum(axis=0) / sample_weight.sum()
    means = share.T @ points / share.sum(axis=0)[:, None]
    estimates = []
    for k in range(num_components):
      centred = points - means[k]
      scatter = (share[:, k, None] * centred).T @ centred
      estimates.append(scatter / share[:, k].sum() + REG_COVAR * np.eye(dim))
    restricted = restrict(np.stack(estimates), weights, covariance_type)
    covariances = expand(restricted, *means.shape, covariance_type)
  restricted = restrict(covariances, weights, covariance_type)
  return types.Mixture(weights, means, restricted), np.array(history)


def make_start(points, num_components, covariance_type, seed=0):
  """Random weights, random points as means, the covariance of all points."""
  generator = np.random.default_rng(seed)
  weights = generator.uniform(0.3, 1.0, num_components)
  index = generator.choice(len(points), num_components, replace=False)
  pooled = np.stack([np.cov(points.T)] * num_components) / num_components
  weights /= weights.sum()
  covariances = restrict(pooled, weights, covariance_type)
  return types.Mixture(weights, points[index], covariances)


def fit_sklearn(points, start, covariance_type, *, max_iter, tol):
  precisions = {
    "full": np.linalg.inv,
    "tied": np.linalg.inv,
    "diag": np.reciprocal,
    "spherical": np.reciprocal,
  }[covariance_type](start.covariances)
  model = mixture.GaussianMixture(
    len(start.weights),
    covariance_type=covariance_type,
    tol=tol,
    reg_covar=REG_COVAR,
    max_iter=max_iter,
    weights_init=start.weights,
    means_init=start.means,
    precisions_init=precisions,
  )
  # Threads cost such small products more than they give.
  with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return model.fit(points)


def units(covariances, spread, covariance_type):
  """Covariances in units of the standard deviations of the points."""
  if covariance_type in ("full", "tied"):
    return covariances / (spread[:, None] * spread)
  if covariance_type == "diag":
    return covariances / spread**2
  return covariances / np.mean(spread**2)


def assert_same_mixture(found, model, points, covariance_type, tolerance):
  spread = points.std(axis=0)
  np.testing.assert_allclose(found.weights, model.weights_, rtol=tolerance)
  np.testing.assert_allclose(
    found.means / spread, model.means_ / spread, rtol=tolerance, atol=tolerance
  )
  np.testing.assert_allclose(
    units(np.asarray(found.covariances), spread, covariance_type),
    units(model.covariances_, spread, covariance_type),
    rtol=tolerance,
    atol=tolerance * 1e-2,
  )


def faithful_like():
  """Minutes of eruption and of waiting, of two correlated clusters."""
  generator = np.random.default_rng(1)
  short = generator.multivariate_normal(
    [2.0, 54.0], [[0.07, 0.44], [0.44, 34.0]], 97
  )
  long = generator.multivariate_normal(
    [4.3, 80.0], [[0.17, 0.94], [0.94, 36.0]], 175
  )
  return np.concatenate([short, long]), 2


def digits():
  points = datasets.load_digits().data
  return decomposition.PCA(10).fit_transform(points), 10


DATA = {
  "faithful": faithful_like,
  "iris": lambda: (datasets.load_iris().data, 3),
  "wine": lambda: (datasets.load_wine().data, 3),
  "digits": digits,
}


@pytest.mark.parametrize("covariance_type", SKLEARN_TYPES)
@pytest.mark.parametrize(
  "name",
  [
    "faithful",
    pytest.param("iris", marks=pytest.mark.slow),
    pytest.param("wine", marks=pytest.mark.slow),
    pytest.param("digits", marks=pytest.mark.slow),
  ],
)
@pytest.mark.usefixtures("x64")
def test_real_data_are_fitted_as_by_scikit_learn(name, covariance_type):
  points, num_components = DATA[name]()
  start = make_start(points, num_components, covariance_type, seed=4)
  for max_iter, tol in ((1, 0.0), (7, 0.0), (200, 1e-3)):
    model = fit_sklearn(
      points, start, covariance_type, max_iter=max_iter, tol=tol
    )
    result = em.fit(
      jax.random.key(0),
      jnp.asarray(points),
      num_components,
      covariance_type=covariance_type,
      init=start,
      max_iter=max_iter,
      tol=tol,
      reg_covar=REG_COVAR,
      reg_share=0.0,
    )
    assert_same_mixture(result.mixture, model, points, covariance_type, 1e-8)
    np.testing.assert_allclose(
      result.log_likelihood, model.score(points), rtol=1e-8
    )
    assert result.num_iters == model.n_iter_
    assert (result.status == types.Status.CONVERGED) == (tol > 0)
    assert model.converged_ == (tol > 0)


def random_problems(num_problems, spread=2.0, roughness=1.0, distance=0.0):
  """`[B, 60, 3]` points of three clusters of unlike shapes, and centres."""
  generator = np.random.default_rng(5)
  centres = generator.normal(size=(num_problems, 3, 3))
  centres = spread * centres + distance * np.eye(3)
  shapes = roughness * generator.normal(size=(num_problems, 3, 3, 3))
  shapes += 2.0 * np.eye(3)
  labels = generator.integers(3, size=(num_problems, 60))
  noise = generator.normal(size=(num_problems, 60, 3))
  index = np.arange(num_problems)[:, None]
  noise = np.einsum("bnij,bnj->bni", shapes[index, labels], noise)
  return centres[index, labels] + noise, centres


def compare_random(
  covariance_type, dtype, tolerance, *, max_iter, tol, is_easy=False
):
  points, centres = random_problems(100)
  if is_easy:
    points, centres = random_problems(100, roughness=0.2, distance=15.0)
  points = points.astype(dtype)
  starts = [
    make_start(one.astype(np.float64), 3, covariance_type, seed)
    for seed, one in enumerate(points)
  ]
  if is_easy:
    starts = [
      start._replace(means=means)
      for start, means in zip(starts, centres, strict=True)
    ]
  stacked = types.Mixture(
    *(np.stack(leaf) for leaf in zip(*starts, strict=True))
  )
  result = em.fit_batch(
    jax.random.key(0),
    points,
    3,
    covariance_type=covariance_type,
    init=jax.tree.map(jnp.asarray, stacked),
    max_iter=max_iter,
    tol=tol,
    reg_covar=REG_COVAR,
    reg_share=0.0,
  )
  assert result.log_likelihood.dtype == dtype
  result = jax.tree.map(np.asarray, result)
  for i, (one, start) in enumerate(zip(points, starts, strict=True)):
    one = one.astype(np.float64)
    model = fit_sklearn(one, start, covariance_type, max_iter=max_iter, tol=tol)
    item = jax.tree.map(lambda leaf, i=i: leaf[i], result)
    assert_same_mixture(item.mixture, model, one, covariance_type, tolerance)
    np.testing.assert_allclose(
      item.log_likelihood, model.score(one), rtol=tolerance
    )
    assert item.num_iters == model.n_iter_


@pytest.mark.parametrize("covariance_type", fast_only(("full",), SKLEARN_TYPES))
@pytest.mark.usefixtures("x64")
def test_100_random_problems_are_fitted_as_by_scikit_learn(covariance_type):
  compare_random(covariance_type, np.float64, 1e-8, max_iter=60, tol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("covariance_type", SKLEARN_TYPES)
def test_float32_follows_scikit_learn(covariance_type):
  # From afar EM amplifies rounding on its way; near its end it does not.
  compare_random(
    covariance_type,
    np.float32,
    1e-4,
    max_iter=10,
    tol=0.0,
    is_easy=True,
  )


NUM_STEPS = 40


def small_problem(covariance_type, seed=3):
  """40 points and 7 of padding, their weights, and a start."""
  points = random_problems(seed + 1)[0][seed, :40]
  start = make_start(points, 3, covariance_type, seed)
  weight = np.random.default_rng(seed).uniform(0.5, 2.0, len(points))
  points = np.concatenate([points, np.full((7, 3), np.nan)])
  return points, np.concatenate([weight, np.zeros(7)]), start


@pytest.mark.parametrize(
  "covariance_type", fast_only(("full", "spherical"), gmm.COVARIANCE_TYPES)
)
@pytest.mark.usefixtures("x64")
def test_fit_unroll_and_step_equal_a_numpy_em(covariance_type):
  points, weight, start = small_problem(covariance_type)
  expected, history = numpy_em(
    points[:40], weight[:40], start, NUM_STEPS, covariance_type
  )
  options = {"covariance_type": covariance_type, "reg_covar": REG_COVAR}
  inputs = (jax.random.key(0), points, 3)
  frame = {
    "sample_weight": weight,
    "init": start,
    "reg_share": 0.0,
    "tol": 0.0,
  }
  fitted = em.fit(*inputs, max_iter=NUM_STEPS, **frame, **options)
  unrolled = em.unroll(*inputs, num_steps=NUM_STEPS, **frame, **options)
  stepped = jax.tree.map(jnp.asarray, start)
  step = jax.jit(
    functools.partial(em.step, sample_weight=weight[:40], **options)
  )
  for _ in range(NUM_STEPS):
    stepped = step(points[:40], stepped)
  for found in (fitted.mixture, unrolled.mixture, stepped):
    for one, other in zip(found, expected, strict=True):
      if one is not None and other is not None:
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)
  for result in (fitted, unrolled):
    assert result.num_iters == NUM_STEPS
    assert result.status == types.Status.MAX_ITER
    np.testing.assert_allclose(result.log_likelihood, history[-1], rtol=1e-11)
  np.testing.assert_allclose(unrolled.history, history[:-1], rtol=1e-11)
  assert history[-1] - history[0] > 0.01


@pytest.mark.parametrize(
  "covariance_type", fast_only(("full", "spherical"), gmm.COVARIANCE_TYPES)
)
@pytest.mark.usefixtures("x64")
def test_a_weight_of_two_is_a_row_given_twice(covariance_type):
  points, _, start = small_problem(covariance_type)
  # Seven rows twice, or seven of weight 2 and as many of padding.
  points = np.concatenate([points[:40], points[:7]])
  weight = np.concatenate([np.full(7, 2.0), np.ones(33), np.zeros(7)])
  fit = functools.partial(
    em.fit,
    jax.random.key(0),
    points,
    3,
    covariance_type=covariance_type,
    init=start,
    max_iter=20,
    tol=0.0,
  )
  one = fit(sample_weight=weight)
  other = fit(sample_weight=np.ones(47))
  for found, expected in zip(
    jax.tree.leaves(one), jax.tree.leaves(other), strict=True
  ):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
  plain = fit(sample_weight=np.where(weight > 0, 1.0, 0.0))
  assert abs(plain.log_likelihood - one.log_likelihood) > 1e-3


@pytest.mark.parametrize(
  "covariance_type", fast_only(("full", "spherical"), gmm.COVARIANCE_TYPES)
)
@pytest.mark.usefixtures("x64")
def test_a_converged_run_is_frozen(covariance_type):
  points, weight, start = small_problem(covariance_type)
  tol = 3e-3
  inputs = (jax.random.key(0), points, 3)
  options = {
    "covariance_type": covariance_type,
    "sample_weight": weight,
    "init": start,
    "tol": tol,
  }
  fitted = em.fit(*inputs, max_iter=NUM_STEPS, **options)
  unrolled = em.unroll(*inputs, num_steps=NUM_STEPS, **options)
  steps = int(fitted.num_iters)
  assert 2 < steps < NUM_STEPS - 5
  assert fitted.status == unrolled.status == types.Status.CONVERGED
  assert unrolled.num_iters == steps
  for one, other in zip(
    jax.tree.leaves((fitted.mixture, fitted.log_likelihood)),
    jax.tree.leaves((unrolled.mixture, unrolled.log_likelihood)),
    strict=True,
  ):
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
  changes = np.diff(unrolled.history)
  np.testing.assert_array_equal(changes[steps - 1 :], 0.0)
  assert np.all(changes[: steps - 2] >= tol)
  assert 0 < changes[steps - 2] < tol


@pytest.mark.parametrize(
  "covariance_type", fast_only(("diag",), gmm.COVARIANCE_TYPES)
)
@pytest.mark.usefixtures("x64")
def test_gradients_through_the_steps_are_central_differences(covariance_type):
  points, weight, start = small_problem(covariance_type)
  flat, unflatten = jax.flatten_util.ravel_pytree(
    (points[:15] / 2.0, weight[:15], start.means / 2.0)
  )

  @jax.jit
  @jax.value_and_grad
  def final(flat):
    points, weight, means = unflatten(flat)
    result = em.unroll(
      jax.random.key(0),
      points,
      3,
      num_steps=3,
      covariance_type=covariance_type,
      sample_weight=weight,
      init=start._replace(means=means),
      reg_share=1e-2,
    )
    return result.log_likelihood + 0.3 * result.mixture.means[0, 1]

  _, gradient = final(flat)
  expected = []
  for shift in 1e-6 * np.eye(flat.size):
    (ahead, _), (behind, _) = final(flat + shift), final(flat - shift)
    expected.append((ahead - behind) / 2e-6)
  np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)
  for leaf in unflatten(gradient):
    assert np.max(np.abs(leaf)) > 1e-3
