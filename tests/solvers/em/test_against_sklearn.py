"""EM against scikit-learn's, from the same start."""

import warnings

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import threadpoolctl
from sklearn import datasets, decomposition, mixture

from tests.solvers.em import problems as em_problems
from tgmm_jax import types
from tgmm_jax.solvers import em

SKLEARN_TYPES = ("full", "tied", "diag", "spherical")


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
    reg_covar=em_problems.REG_COVAR,
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


def wine():
  """Every other column, of very unlike units: more only compile longer."""
  return datasets.load_wine().data[:, ::2], 3


DATA = {
  "faithful": faithful_like,
  "iris": lambda: (datasets.load_iris().data, 3),
  "wine": wine,
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
  start = em_problems.make_start(
    points, num_components, covariance_type, seed=4
  )
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
      reg_covar=em_problems.REG_COVAR,
      reg_share=0.0,
    )
    assert_same_mixture(result.mixture, model, points, covariance_type, 1e-8)
    np.testing.assert_allclose(
      result.log_likelihood, model.score(points), rtol=1e-8
    )
    assert result.num_iters == model.n_iter_
    assert (result.status == types.Status.CONVERGED) == (tol > 0)
    assert model.converged_ == (tol > 0)


def compare_random(
  covariance_type, dtype, tolerance, *, max_iter, tol, is_easy=False
):
  points, centres = em_problems.random_problems(100)
  if is_easy:
    points, centres = em_problems.random_problems(
      25, roughness=0.2, distance=15.0
    )
  points = points.astype(dtype)
  starts = [
    em_problems.make_start(one.astype(np.float64), 3, covariance_type, seed)
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
    reg_covar=em_problems.REG_COVAR,
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


@pytest.mark.parametrize(
  "covariance_type", em_problems.fast_only(("diag",), SKLEARN_TYPES)
)
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
