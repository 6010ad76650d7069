"""Regression, clusters and entropy from a fit, and from the estimator."""

import functools

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.special

from tests.compile_counts import compiled
from tests.fitting import made_fits
from tests.gmm import test_conditionals, test_merging
from tgmm_jax import gmm
from tgmm_jax.fitting.estimator.gaussian_mixture import GaussianMixture

VALUES = 3.0 * np.random.default_rng(2).normal(size=(50, 1))
POINTS = 3.0 * np.random.default_rng(1).normal(size=(50, 2))


def estimator_of(fit, dtype=np.float64):
  """A fitted estimator with the same mixture."""
  found = GaussianMixture(made_fits.K, covariance_type=fit.covariance_type)
  found.n_features_in_ = made_fits.DIM
  weights, means, covariances = fit.mixture
  found.weights_, found.means_ = weights.astype(dtype), means.astype(dtype)
  found.covariances_ = np.ones((), dtype)
  if covariances is not None:
    found.covariances_ = np.asarray(covariances, dtype)
  return found


def moments(mixture, values, covariance_type):
  """Mean and deviation of the first coordinate, the second being known."""
  weights, means, matrices = test_conditionals.numpy_condition(
    mixture, values, [1], [0], covariance_type
  )
  mean = weights @ means
  second = weights @ (np.einsum("kii->ki", matrices) + means**2)
  return mean, np.sqrt(second - mean**2)


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_regression_is_that_of_the_textbook(covariance_type):
  fit = made_fits.one(covariance_type)
  expected = [moments(fit.mixture, row, covariance_type) for row in VALUES]
  means, deviations = map(np.array, zip(*expected, strict=True))
  for own in (fit, estimator_of(fit)):
    found = own.predict_conditional(VALUES, 1, return_std=True)
    assert [leaf.dtype for leaf in found] == [np.float64] * 2
    np.testing.assert_allclose(found[0], means, rtol=1e-10)
    np.testing.assert_allclose(found[1], deviations, rtol=1e-9)
    np.testing.assert_array_equal(
      own.predict_conditional(VALUES, [1]), found[0]
    )


def test_many_points_take_a_few_programs_and_little_memory():
  fit = made_fits.one("full")
  values = np.tile(VALUES, (400, 1))
  whole = fit.predict_conditional(values, 1)
  few = fit.predict_conditional(VALUES, 1)
  np.testing.assert_allclose(whole, np.tile(few, (400, 1)), rtol=1e-12)
  with compiled() as names:
    for size in (3, 60, 101, 17_000):
      fit.predict_conditional(values[:size], 1)
  assert not names


def test_coordinates_by_name():
  fit = made_fits.one("full", columns=("length", "width"))
  expected = fit.predict_conditional(VALUES, 1)
  table = pd.DataFrame({"other": 0.0, "width": VALUES[:, 0]})
  estimator = estimator_of(fit)
  estimator.feature_names_in_ = np.array(["length", "width"], object)
  for own in (fit, estimator):
    for given in ("width", ["width"], 1):
      found = own.predict_conditional(VALUES, given)
      np.testing.assert_array_equal(found, expected)
      found = own.predict_conditional(table[["width", "other"]], given)
      np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="given has 'depth', takes names"):
      own.predict_conditional(VALUES, "depth")
    with pytest.raises(ValueError, match="has no column 'width'"):
      own.predict_conditional(table[["other"]], "width")


@pytest.mark.parametrize(
  ("values", "given", "message"),
  [
    (VALUES, [0, 1], "takes less than all of 2"),
    (VALUES, 2, "given is 2, takes indices from 0 to 1"),
    (VALUES, "width", "given is .*width.*, takes indices"),
    (POINTS, 1, "has 2 columns, takes 1"),
    (VALUES[:, 0], 1, "has shape"),
    (np.where(VALUES > 0, np.nan, VALUES), 1, "contains"),
    ([["a"]], 1, "takes real numbers"),
  ],
)
def test_what_cannot_be_given_is_refused(values, given, message):
  fit = made_fits.one()
  for own in (fit, estimator_of(fit)):
    with pytest.raises(ValueError, match=message):
      own.predict_conditional(values, given)


def test_float32_stays_float32():
  fit = made_fits.one(dtype=np.float32)
  found = fit.predict_conditional(VALUES.astype(np.float32), 1)
  assert found.dtype == np.float32
  estimator = estimator_of(fit, np.float32)
  assert estimator.predict_conditional(VALUES, 1).dtype == np.float64


def test_clusters_are_those_of_numpy():
  fit = made_fits.one("full")
  weight = np.linspace(0.0, 2.0, len(POINTS))
  shares = fit.predict_proba(POINTS)
  expected = test_merging.numpy_merge(shares, weight)
  for found in (
    fit.merge(POINTS, sample_weight=weight),
    estimator_of(fit).merge(POINTS, weight),
  ):
    assert isinstance(found.entropies, np.ndarray)
    for number, (clusters, entropy) in expected.items():
      own = found.assignments[number - 1]
      groups = [{k for k in range(3) if own[k] == m} for m in range(number)]
      assert groups == clusters
      assert found.entropies[number - 1] == pytest.approx(entropy, abs=1e-12)
  entropy = scipy.special.entr(shares).sum(axis=1)
  found = fit.merge(POINTS)
  assert found.entropies[-1] == pytest.approx(entropy.mean(), rel=1e-12)


@pytest.mark.parametrize("covariance_type", ["unit", "tied", "diag"])
def test_entropy_bounds_are_those_of_the_core(covariance_type):
  fit = made_fits.one(covariance_type)
  with jax.enable_x64(True):
    expected = gmm.entropy_bounds(fit.mixture, covariance_type=covariance_type)
  for own in (fit, estimator_of(fit)):
    found = own.entropy_bounds()
    assert all(isinstance(value, float) for value in found)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_batch_and_no_mixture_are_refused():
  batch = made_fits.batch()
  for call in (
    functools.partial(batch.predict_conditional, VALUES, 1),
    functools.partial(batch.merge, POINTS),
    batch.entropy_bounds,
  ):
    with pytest.raises(ValueError, match=r"take one of them, fit\[i\]"):
      call()
  invalid = batch[1]
  with pytest.raises(ValueError, match="there is no mixture"):
    invalid.entropy_bounds()
