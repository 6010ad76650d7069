"""`GaussianMixture` with outliers, and with parameters that stay."""

import functools
import warnings

import jax
import numpy as np
import pytest
import scipy.stats
from sklearn import base, exceptions

from tgmm_jax import GaussianMixture
from tgmm_jax.solvers import em

CENTRES = np.array([[0.0, 0.0], [8.0, 3.0]])


@functools.cache
def points():
  """Two groups, the last 12 of 120 points anywhere in a box."""
  generator = np.random.default_rng(0)
  grouped = np.repeat(CENTRES, 54, axis=0) + generator.normal(size=(108, 2))
  return np.concatenate([grouped, generator.uniform(-30, 30, size=(12, 2))])


@functools.cache
def fitted(**options):
  return GaussianMixture(2, random_state=0, tol=1e-6, **options).fit(points())


def test_outliers_get_the_label_of_noise_and_move_no_mean():
  found = fitted(noise=True)
  order = np.argsort(found.means_[:, 0])
  assert np.abs(found.means_[order] - CENTRES).max() < 0.4
  assert found.converged_
  labels = found.predict(points())
  assert np.mean(labels[108:] == -1) > 0.8
  assert np.mean(labels[:108] == np.repeat(order, 54)) > 0.95
  assert 0.05 < found.noise_weight_ < 0.15
  np.testing.assert_allclose(found.weights_.sum(), 1.0)
  assert np.abs(fitted().means_[:, 0] - [0.0, 8.0]).max() > 0.5
  assert fitted().noise_weight_ == 0.0


def test_what_it_says_of_points_is_that_of_mixture_and_uniform():
  found = fitted(noise=True)
  joint = [
    (1.0 - found.noise_weight_)
    * weight
    * scipy.stats.multivariate_normal(mean, covariance).pdf(points())
    for weight, mean, covariance in zip(
      found.weights_, found.means_, found.covariances_, strict=True
    )
  ]
  outside = found.noise_weight_ * np.exp(found.noise_log_density_)
  density = np.sum(joint, axis=0) + outside
  np.testing.assert_allclose(
    found.score_samples(points()), np.log(density), rtol=1e-10
  )
  share = np.stack(joint, axis=1) / density[:, None]
  np.testing.assert_allclose(found.predict_proba(points()), share, atol=1e-12)
  np.testing.assert_allclose(found.score(points()), found.lower_bound_)
  # 11 parameters of two full components, and two of the noise.
  deviance = -2.0 * np.sum(np.log(density))
  np.testing.assert_allclose(found.aic(points()), deviance + 2.0 * 13)
  bic = deviance + 13 * np.log(120)
  np.testing.assert_allclose(found.bic(points()), bic)
  every = np.c_[share, outside / density]
  entropy = scipy.stats.entropy(every, axis=1).sum()
  np.testing.assert_allclose(found.icl(points()), bic + 2.0 * entropy)
  # Far from everything there is noise, and no NaN.
  far = np.full((1, 2), 1e6)
  assert found.predict(far) == [-1]
  np.testing.assert_allclose(found.predict_proba(far), 0.0, atol=1e-12)


def test_parameters_stay_as_they_are_given():
  means = np.array([[0.1, 0.2], [1.0 / 3.0, 7.0]])
  fixed = em.Fixed(
    weights=np.array([True, False]), means=np.array([False, True])
  )
  options = {"weights_init": [0.3, 0.7], "means_init": means, "fixed": fixed}
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    found = GaussianMixture(2, random_state=0, **options)
    found = base.clone(found).fit(points())
    plain = GaussianMixture(2, min_weight=0.4, random_state=0).fit(points())
  np.testing.assert_array_equal(found.means_[1], means[1])
  assert found.weights_[0] == 0.3
  assert np.all(found.means_[0] != means[0])
  assert plain.weights_.min() >= 0.4 - 1e-12


def test_what_cannot_be_is_refused():
  for options, message in (
    ({"noise": 1.0}, "noise is 1.0, takes a bool or a share below 1"),
    ({"noise": "some"}, "noise is 'some', takes a number >= 0"),
    ({"fixed": [True]}, r"fixed is \[True\], takes an em.Fixed or None"),
    (
      {"fixed": em.Fixed(means=np.ones(2, bool))},
      "fixed has means, takes None without means_init",
    ),
    ({"min_weight": 0.6}, "min_weight is 0.6, takes at most 1 / K = 0.5"),
  ):
    with pytest.raises(ValueError, match=message):
      GaussianMixture(2, random_state=0, **options).fit(points())


def test_a_prior_is_named_or_given():
  X = np.concatenate(
    [np.random.default_rng(0).normal(size=(60, 2)), np.full((4, 2), 20.0)]
  )
  options = {"means_init": [[0.0, 0.0], [20.0, 20.0]], "random_state": 0}
  with pytest.warns(exceptions.ConvergenceWarning):
    GaussianMixture(2, **options).fit(X)
  named = GaussianMixture(2, prior="fraley-raftery", **options).fit(X)
  assert named.converged_
  with jax.enable_x64(True):
    prior = em.fraley_raftery(X, 2, covariance_type="full")
  given = GaussianMixture(2, prior=prior, **options).fit(X)
  np.testing.assert_allclose(given.covariances_, named.covariances_, rtol=1e-9)
  for wrong, message in (
    ("mclust", "prior is 'mclust', takes 'fraley-raftery' or an em.Prior"),
    (3.0, "prior is 3.0, takes an em.Prior or None"),
  ):
    with pytest.raises(ValueError, match=message):
      GaussianMixture(2, prior=wrong).fit(X)
