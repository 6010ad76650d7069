import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn import mixture as sklearn_mixture

from tests.fitting import made_fits
from tgmm_jax import fitting, gmm, types

POINTS = 3.0 * np.random.default_rng(1).normal(size=(60, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_the_estimator_says_what_the_fit_says(covariance_type, dtype):
  fit = made_fits.one(covariance_type, dtype=dtype)
  estimator = fit.to_sklearn()
  assert type(estimator) is sklearn_mixture.GaussianMixture
  np.testing.assert_allclose(
    estimator.predict_proba(POINTS), fit.predict_proba(POINTS), atol=1e-6
  )
  np.testing.assert_array_equal(estimator.predict(POINTS), fit.predict(POINTS))
  np.testing.assert_allclose(
    estimator.score_samples(POINTS), fit.score_samples(POINTS), rtol=1e-6
  )
  assert estimator.sample(10)[0].shape == (10, 2)
  if covariance_type in ("spherical", "diag", "tied", "full"):
    assert estimator.covariance_type == covariance_type
    # What scikit-learn makes of the same precisions.
    start = sklearn_mixture.GaussianMixture(
      3,
      covariance_type=covariance_type,
      weights_init=estimator.weights_,
      means_init=estimator.means_,
      precisions_init=estimator.precisions_,
    )
    start._initialize(POINTS, None)
    np.testing.assert_allclose(
      start.precisions_cholesky_, estimator.precisions_cholesky_, rtol=1e-9
    )
    assert start._n_parameters() == estimator._n_parameters()
    assert np.isfinite(estimator.bic(POINTS))


def test_the_estimator_goes_on_from_the_fit():
  fit = made_fits.one(columns=("a", "b"))
  estimator = fit.to_sklearn()
  assert estimator.converged_
  assert estimator.n_iter_ == 7
  assert estimator.lower_bound_ == pytest.approx(-3.25)
  assert estimator.feature_names_in_.tolist() == ["a", "b"]
  table = pd.DataFrame(POINTS, columns=["a", "b"])
  labels = fit.predict(table)
  copy = pickle.loads(pickle.dumps(estimator))
  np.testing.assert_array_equal(copy.predict(table), labels)
  estimator.set_params(warm_start=True, max_iter=200).fit(table)
  assert estimator.score(table) >= fit.score(table)


def test_of_a_real_fit_and_of_one_of_a_batch():
  rng = np.random.default_rng(0)
  points = rng.normal(size=(80, 2)) + 8.0 * (np.arange(80) % 2)[:, None]
  found = fitting.fit(points, 2)
  assert sorted(np.bincount(found.to_sklearn().predict(points))) == [40, 40]
  batch = made_fits.batch()
  with pytest.raises(ValueError, match=r"batch, .* becomes an estimator; take"):
    batch.to_sklearn()
  assert batch[0].to_sklearn().n_components == 3
  with pytest.raises(ValueError, match="no mixture to make an estimator of"):
    batch[1].to_sklearn()


def test_a_covariance_without_a_factor_is_no_error():
  mixture = made_fits.mixture_of("full")
  singular = np.stack(3 * [np.ones((2, 2))])
  fit = made_fits.one(
    mixture=types.Mixture(mixture.weights, mixture.means, singular)
  )
  assert np.all(np.isfinite(fit.to_sklearn().predict_proba(POINTS)))
