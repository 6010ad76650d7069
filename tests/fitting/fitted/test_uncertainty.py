"""How sure a fit is, at the doors: as the solvers say, in NumPy."""

import jax
import numpy as np
import pytest

import tgmm_jax
from tests.fitting import made_fits
from tests.solvers.em import problems
from tgmm_jax import fitting, types
from tgmm_jax.solvers import em

POINTS = problems.clusters((2, 2), 100, seed=5, spread=6.0)
WEIGHT = np.random.default_rng(0).integers(1, 3, 100)
METHODS = ("bootstrap", "information")


@pytest.fixture(scope="module")
def estimator():
  own = tgmm_jax.GaussianMixture(2, random_state=0, tol=1e-8, reg_covar=0.0)
  return own.fit(POINTS, sample_weight=WEIGHT)


def fit_of(mixture):
  """The record that `tgmm_jax.fit` makes, with a padded component."""
  padded = jax.tree.map(
    lambda leaf: np.pad(leaf, [(0, 1)] + [(0, 0)] * (leaf.ndim - 1)), mixture
  )
  return fitting.Fit(
    mixture=padded,
    num_components=np.int32(2),
    log_likelihood=np.float64(0),
    labels=np.zeros(100, np.int32),
    status=np.int32(0),
    method_index=np.int32(0),
    is_outside_range=np.False_,
    covariance_type="full",
    methods=("EM",),
  )


@pytest.mark.parametrize("method", METHODS)
def test_doors_say_what_the_solvers_do(estimator, method):
  own = estimator.uncertainty(POINTS, WEIGHT, method=method)
  mixture = types.Mixture(
    estimator.weights_, estimator.means_, estimator.covariances_
  )
  found = fit_of(mixture)
  other = found.uncertainty(
    POINTS.tolist(), sample_weight=WEIGHT, method=method, seed=1
  )
  with jax.enable_x64(True):
    options = {"covariance_type": "full", "sample_weight": WEIGHT.astype(float)}
    if method == "information":
      expected = em.information(POINTS, mixture, **options)
    else:
      # Of the same seed as the fit's.
      key = jax.random.key(1)
      expected = em.bootstrap(key, POINTS, mixture, **options)
    expected = jax.tree.map(np.asarray, expected)
  for name in ("standard_errors", "lower", "upper", "mean_covariances"):
    jax.tree.map(
      lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5),
      getattr(other, name),
      getattr(expected, name),
    )
  for leaf in jax.tree.leaves((own, other)):
    assert isinstance(leaf, np.ndarray)
  assert other.standard_errors.means.dtype == np.float64
  assert other.standard_errors.means.shape == (2, 2)
  # Of other draws, for the bootstrap.
  rtol = 1e-5 if method == "information" else 0.4
  np.testing.assert_allclose(
    own.standard_errors.means, other.standard_errors.means, rtol=rtol
  )
  errors = estimator.standard_errors(POINTS, WEIGHT, method=method)
  np.testing.assert_array_equal(errors.means, own.standard_errors.means)


def test_float32_stays_float32():
  points = POINTS.astype(np.float32)
  own = tgmm_jax.GaussianMixture(2, random_state=0).fit(points)
  errors = own.standard_errors(points, method="information")
  assert errors.covariances.dtype == np.float32


def test_what_cannot_be_is_refused_by_name(estimator):
  takes = "method is 'jackknife', takes 'bootstrap', 'information'"
  with pytest.raises(ValueError, match=takes):
    estimator.uncertainty(POINTS, method="jackknife")
  with pytest.raises(ValueError, match="X has NaN|Input X contains NaN"):
    estimator.uncertainty(np.full_like(POINTS, np.nan))
  found = fit_of(made_fits.mixture_of("full"))
  with pytest.raises(ValueError, match="seed is -1, takes an integer from 0"):
    found.uncertainty(POINTS, seed=-1)
  batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], found)
  with pytest.raises(ValueError, match=r"fit of a batch.*; take one of them"):
    batch.uncertainty(POINTS[None])
  invalid = found._replace(status=np.int32(types.Status.INVALID_INPUT))
  with pytest.raises(ValueError, match="status is INVALID_INPUT"):
    invalid.uncertainty(POINTS)
