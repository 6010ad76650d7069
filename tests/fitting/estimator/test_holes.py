"""`GaussianMixture(missing="observed")`: every method takes NaN."""

import numpy as np
import pytest
import scipy.special
from sklearn import base

from tests.solvers.em import observed
from tgmm_jax import GaussianMixture
from tgmm_jax.solvers import selection


@pytest.fixture(scope="module")
def fitted():
  points, weight = observed.holed_points(150)
  estimator = GaussianMixture(
    3, missing="observed", random_state=0, n_init=2, max_iter=50
  )
  return points, weight, estimator.fit(points, sample_weight=weight)


def test_methods_are_those_of_what_is_seen(fitted):
  points, weight, estimator = fitted
  mixture = (estimator.weights_, estimator.means_, estimator.covariances_)
  log_joint, latent, _ = observed.posteriors(
    points, np.zeros((150, 3, 3)), *mixture
  )
  log_density = scipy.special.logsumexp(log_joint, axis=1)
  share = scipy.special.softmax(log_joint, axis=1)
  found = estimator.score_samples(points)
  np.testing.assert_allclose(found, log_density, atol=1e-8)
  np.testing.assert_allclose(estimator.predict_proba(points), share, atol=1e-8)
  np.testing.assert_array_equal(
    estimator.predict(points), np.argmax(share, axis=1)
  )
  # Of nothing the label is the heaviest component.
  assert estimator.predict(points)[5] == np.argmax(estimator.weights_)
  expected = np.einsum("nk,nkd->nd", share, latent)
  np.testing.assert_allclose(estimator.impute(points), expected, atol=1e-7)
  is_row = np.arange(150) != 5
  score = np.average(log_density[is_row], weights=weight[is_row])
  assert abs(score - estimator.lower_bound_) < 1e-2
  count = selection.num_parameters(3, 3, covariance_type="full")
  deviance = -2.0 * np.sum(log_density)
  bic = deviance + count * np.log(149)
  np.testing.assert_allclose(estimator.bic(points), bic, rtol=1e-9)


def test_means_are_near_the_centres_of_the_clusters(fitted):
  _, _, estimator = fitted
  centres = np.array([[0.0, 0.0, 0.0], [4.0, 1.0, 0.0], [0.0, 5.0, 3.0]])
  distances = np.linalg.norm(estimator.means_[:, None] - centres, axis=-1)
  assert np.all(distances.min(axis=0) < 1.0)


def test_without_holes_nothing_changes():
  points = np.nan_to_num(observed.holed_points(60)[0])
  plain = GaussianMixture(3, random_state=0).fit(points)
  seen = base.clone(plain).set_params(missing="observed").fit(points)
  for name in ("weights_", "means_", "covariances_", "lower_bound_"):
    np.testing.assert_array_equal(getattr(plain, name), getattr(seen, name))
  np.testing.assert_array_equal(
    plain.score_samples(points), seen.score_samples(points)
  )
  with pytest.raises(ValueError, match="NaN"):
    plain.predict(np.where(points > 3, np.nan, points))


@pytest.mark.parametrize(
  "init_params",
  ["random", pytest.param("network", marks=pytest.mark.slow)],
)
def test_starts_that_look_at_the_points_take_holes(init_params):
  points, _ = observed.holed_points(60)
  estimator = GaussianMixture(
    2,
    covariance_type="diag",
    init_params=init_params,
    missing="observed",
    random_state=0,
  )
  if init_params == "network":
    points = points[:, :2]
  estimator.fit(points)
  assert np.all(np.isfinite(estimator.means_))
  with pytest.raises(ValueError, match="NaN"):
    estimator.set_params(missing="refused").fit(points)
  with pytest.raises(ValueError, match="missing is 'no', takes 'refused'"):
    estimator.set_params(missing="no").fit(np.nan_to_num(points))
