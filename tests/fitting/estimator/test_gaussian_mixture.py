"""The class, against scikit-learn's and by its own promises."""

import functools
import logging
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.base
import sklearn.datasets
import sklearn.exceptions
import sklearn.mixture
import sklearn.pipeline
import sklearn.preprocessing

from tgmm_jax import gmm, types
from tgmm_jax.fitting.estimator.gaussian_mixture import GaussianMixture
from tgmm_jax.solvers import selection

TYPES = ("full", "tied", "diag", "spherical")
K = 3
ATTRIBUTES = ("weights_", "means_", "covariances_", "precisions_")
ATTRIBUTES += ("precisions_cholesky_",)


@functools.cache
def data_of(name):
  points = getattr(sklearn.datasets, f"load_{name}")().data
  # Of the many columns of wine every other: more only compile longer.
  return points[:, ::2] if name == "wine" else points


def start_of(points, covariance_type):
  """Means at points, unequal weights, one precision for all."""
  index = np.random.default_rng(0).choice(len(points), K, replace=False)
  precision = 1.0 / points.var(axis=0)
  return {
    "weights_init": np.array([0.2, 0.3, 0.5]),
    "means_init": points[index],
    "precisions_init": {
      "full": np.stack([np.diag(precision)] * K),
      "tied": np.diag(precision),
      "diag": np.stack([precision] * K),
      "spherical": np.full(K, precision.mean()),
      "tied_spherical": precision.mean(),
      "unit": None,
    }[covariance_type],
  }


def groups(num_points=150, dtype=np.float64):
  """Three groups that stand apart."""
  rng = np.random.default_rng(1)
  labels = np.arange(num_points) % 3
  centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
  points = centres[labels] + rng.normal(size=(num_points, 2))
  return points.astype(dtype), labels


@pytest.mark.parametrize(
  ("name", "covariance_type"),
  [
    ("iris", "full"),
    ("iris", "spherical"),
    pytest.param("iris", "tied", marks=pytest.mark.slow),
    pytest.param("iris", "diag", marks=pytest.mark.slow),
    *(
      pytest.param("wine", covariance_type, marks=pytest.mark.slow)
      for covariance_type in TYPES
    ),
  ],
)
def test_same_start_gives_what_scikit_learn_gives(name, covariance_type):
  points = data_of(name)
  options = {"covariance_type": covariance_type}
  options |= start_of(points, covariance_type)
  ours = GaussianMixture(K, **options).fit(points)
  theirs = sklearn.mixture.GaussianMixture(K, **options).fit(points)
  assert ours.n_iter_ == theirs.n_iter_ > 1
  assert ours.converged_ == theirs.converged_
  assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, rel=1e-10)
  for attribute in ATTRIBUTES:
    expected = getattr(theirs, attribute)
    np.testing.assert_allclose(
      getattr(ours, attribute),
      expected,
      rtol=1e-8,
      atol=1e-8 * np.abs(expected).max(),
      err_msg=attribute,
    )
  np.testing.assert_array_equal(ours.predict(points), theirs.predict(points))
  np.testing.assert_allclose(
    ours.predict_proba(points), theirs.predict_proba(points), atol=1e-8
  )
  np.testing.assert_allclose(
    ours.score_samples(points), theirs.score_samples(points), rtol=1e-8
  )
  for method in ("score", "bic", "aic"):
    ours_value = getattr(ours, method)(points)
    theirs_value = getattr(theirs, method)(points)
    assert ours_value == pytest.approx(theirs_value, rel=1e-8)


def test_lower_bound_and_steps_without_convergence_are_scikit_learns():
  points = data_of("iris")
  options = start_of(points, "full") | {"max_iter": 4, "tol": 0.0}
  with pytest.warns(sklearn.exceptions.ConvergenceWarning, match="^4 steps"):
    ours = GaussianMixture(K, **options).fit(points)
  with pytest.warns(sklearn.exceptions.ConvergenceWarning):
    theirs = sklearn.mixture.GaussianMixture(K, **options).fit(points)
  assert (ours.n_iter_, ours.converged_) == (4, False)
  assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, rel=1e-10)
  np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-8)


@pytest.mark.parametrize("covariance_type", ["tied_spherical", "unit"])
def test_types_of_our_own(covariance_type):
  points = data_of("iris")
  options = start_of(points, covariance_type)
  found = GaussianMixture(K, covariance_type=covariance_type, **options)
  found.fit(points)
  assert found.covariances_.shape == found.precisions_cholesky_.shape == ()
  if covariance_type == "unit":
    assert found.covariances_ == 1.0
    scale = np.ones(K)
  else:
    share = found.predict_proba(points)
    distances = np.sum((points[:, None] - found.means_) ** 2, axis=-1)
    # A last step from the shares of the mixture itself changes little.
    variance = np.sum(share * distances) / points.size
    assert found.covariances_ == pytest.approx(variance + 1e-6, rel=1e-2)
    scale = np.full(K, found.covariances_)
  other = sklearn.mixture.GaussianMixture(K, covariance_type="spherical")
  other.weights_, other.means_ = found.weights_, found.means_
  other.precisions_cholesky_ = scale**-0.5
  np.testing.assert_allclose(
    found.score_samples(points), other.score_samples(points), rtol=1e-10
  )
  with jax.enable_x64(True):
    mixture = types.Mixture(found.weights_, found.means_, found.covariances_)
    icl = selection.icl(points, mixture, covariance_type="tied_spherical")
    icl = float(icl)
  if covariance_type == "unit":
    icl -= np.log(len(points))  # one parameter less
  assert found.icl(points) == pytest.approx(icl, rel=1e-10)


def test_weight_two_is_a_duplicate():
  points = data_of("iris")
  counts = np.random.default_rng(0).integers(0, 3, len(points))
  repeated = np.repeat(points, counts, axis=0)
  options = start_of(points, "full")
  one = GaussianMixture(K, **options).fit(repeated)
  other = GaussianMixture(K, **options).fit(points, sample_weight=counts)
  assert one.n_iter_ == other.n_iter_
  for attribute in ATTRIBUTES:
    np.testing.assert_allclose(
      getattr(one, attribute), getattr(other, attribute), rtol=1e-8, atol=1e-8
    )
  expected = one.score(repeated)
  found = other.score(points, sample_weight=counts)
  assert found == pytest.approx(expected, rel=1e-8)
  # Criteria are of as many points of equal weight as tell as much.
  expected = one.bic(points)
  found = one.bic(points, sample_weight=np.full(len(points), 7.0))
  assert found == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
  ("dtype", "expected"),
  [(np.float32, np.float32), (np.float64, np.float64), (int, np.float64)],
)
def test_dtype_is_that_of_the_data(dtype, expected):
  points = np.rint(10.0 * groups()[0]).astype(dtype)
  found = GaussianMixture(K, random_state=0).fit(points)
  for attribute in ATTRIBUTES:
    assert getattr(found, attribute).dtype == expected
    assert getattr(found, attribute).flags.writeable
  assert found.predict_proba(points).dtype == expected
  assert found.score_samples(points).dtype == expected
  assert found.sample(3)[0].dtype == expected
  assert found.predict(points).dtype == np.int64
  assert jnp.ones(()).dtype == np.float32


@pytest.mark.parametrize(
  "init_params", ["kmeans", "ward", "k-means++", "random_from_data"]
)
def test_drawn_starts_find_groups_that_stand_apart(init_params):
  points, labels = groups()
  options = {"n_init": 5, "init_params": init_params, "random_state": 3}
  found = GaussianMixture(K, **options)
  predicted = found.fit_predict(points)
  pairs = set(zip(labels.tolist(), predicted.tolist(), strict=True))
  assert len(pairs) == K
  assert found.converged_
  np.testing.assert_allclose(found.weights_, 1.0 / K, rtol=1e-3)
  again = GaussianMixture(K, **options).fit(points)
  np.testing.assert_array_equal(again.means_, found.means_)


def test_warm_start_goes_on():
  points = data_of("iris")
  options = start_of(points, "full") | {"tol": 0.0}
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    expected = GaussianMixture(K, max_iter=7, **options).fit(points)
    found = GaussianMixture(K, max_iter=3, warm_start=True, **options)
    found.fit(points).set_params(max_iter=4).fit(points)
  np.testing.assert_allclose(found.means_, expected.means_, rtol=1e-10)
  np.testing.assert_allclose(found.lower_bound_, expected.lower_bound_)


def test_best_start_is_kept():
  points = np.repeat(np.arange(K), 50)[:, None] * 10.0
  points = points + np.random.default_rng(0).normal(size=(150, 2))
  make = functools.partial(GaussianMixture, K, init_params="random_from_data")
  bounds = [
    make(random_state=seed).fit(points).lower_bound_ for seed in range(8)
  ]
  # Some starts end in a wrong maximum.
  assert max(bounds) > min(bounds) + 0.1
  worst = make(random_state=int(np.argmin(bounds)), n_init=8).fit(points)
  assert worst.lower_bound_ == pytest.approx(max(bounds), abs=1e-2)


def test_data_that_does_not_determine_the_components_is_told():
  points = np.repeat([[0.0, 0.0], [1.0, 1.0]], 75, axis=0)
  with pytest.warns(
    sklearn.exceptions.ConvergenceWarning,
    match="not determine n_components = 3",
  ):
    found = GaussianMixture(3, random_state=0).fit(points)
  assert found.status_ == types.Status.DEGENERATE
  assert not found.converged_
  for attribute in ATTRIBUTES:
    assert np.all(np.isfinite(getattr(found, attribute)))


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_samples_have_the_moments_of_the_mixture(covariance_type):
  rng = np.random.default_rng(0)
  factors = rng.normal(size=(K, 2, 2))
  full = factors @ factors.transpose(0, 2, 1) + np.eye(2)
  found = GaussianMixture(covariance_type=covariance_type)
  found.weights_ = np.array([0.2, 0.3, 0.5])
  found.means_ = 3.0 * rng.normal(size=(K, 2))
  found.covariances_ = {
    "unit": np.ones(()),
    "tied_spherical": np.array(2.0),
    "spherical": np.array([1.0, 2.0, 3.0]),
    "diag": rng.uniform(1.0, 3.0, (K, 2)),
    "tied": full[0],
    "full": full,
  }[covariance_type]
  found.random_state = 5
  drawn, labels = found.sample(20_000)
  assert np.all(np.diff(labels) >= 0)
  counts = np.bincount(labels) / len(labels)
  np.testing.assert_allclose(counts, found.weights_, atol=0.02)
  for component in range(K):
    mean = drawn[labels == component].mean(axis=0)
    deviation = drawn.std() / np.sqrt(np.sum(labels == component))
    np.testing.assert_allclose(
      mean, found.means_[component], atol=5 * deviation
    )
  np.testing.assert_array_equal(found.sample(20_000)[0], drawn)
  found.random_state = np.random.default_rng(0)
  assert not np.array_equal(found.sample(20_000)[0], found.sample(20_000)[0])


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"n_components": 0}, "n_components is 0, takes an integer >= 1"),
    ({"n_components": True}, "n_components is True, takes"),
    ({"n_components": 2.5}, "n_components is 2.5, takes"),
    ({"n_components": 151}, "is 151, takes no more than n_samples, 150"),
    ({"covariance_type": "ful"}, "covariance_type is 'ful', takes 'unit'"),
    ({"init_params": "spectral"}, "init_params is 'spectral', takes 'kmeans'"),
    ({"tol": -1.0}, "tol is -1.0, takes a number >= 0"),
    ({"reg_covar": np.nan}, "reg_covar is nan, takes"),
    ({"max_iter": -1}, "max_iter is -1, takes an integer >= 0"),
    ({"n_init": 0}, "n_init is 0, takes an integer >= 1"),
    ({"verbose": -1}, "verbose is -1, takes"),
    ({"verbose_interval": 0}, "verbose_interval is 0, takes"),
    ({"warm_start": 1}, "warm_start is 1, takes a bool"),
  ],
)
def test_parameters_that_cannot_be_are_refused(options, message):
  points, _ = groups()
  with pytest.raises(ValueError, match=message):
    GaussianMixture(**({"n_components": K} | options)).fit(points)


@pytest.mark.parametrize(
  ("points", "sample_weight", "message"),
  [
    (np.zeros(5), None, r"X has shape \(5,\), takes \[N, d\]. Reshape"),
    (np.zeros((5, 0)), None, "0 feature"),
    (np.array([[0.0, np.nan]] * 5), None, "NaN"),
    (groups()[0] * 1e200, None, "X has values from"),
    (np.ma.masked_equal(np.eye(5), 1.0), None, "5 masked values"),
    (np.eye(5), np.ones(4), r"sample_weight has shape \(4,\), takes \(5,\)"),
    (np.eye(5), [1, 1, -1, 1, 1], "sample_weight is -1.0 at 2, takes"),
    (np.eye(5), np.zeros(5), "sample_weight is zero for all of 5"),
  ],
)
def test_data_that_cannot_be_is_refused(points, sample_weight, message):
  found = GaussianMixture(K)
  with pytest.raises(ValueError, match=message):
    found.fit(points, sample_weight=sample_weight)
  with pytest.raises(sklearn.exceptions.NotFittedError):
    found.predict(np.eye(5))


def test_methods_check_the_data_as_well():
  points, _ = groups()
  found = GaussianMixture(K).fit(points)
  with pytest.raises(ValueError, match="3 features"):
    found.predict(np.zeros((4, 3)))
  with pytest.raises(ValueError, match="n_samples is 0, takes"):
    found.sample(0)


def test_verbose_tells_of_every_start(caplog):
  points, _ = groups()
  with caplog.at_level(logging.INFO, logger="tgmm_jax"):
    GaussianMixture(K, verbose=1).fit(points)
  assert "CONVERGED" in caplog.text
  assert len(caplog.records) == 1


def test_clones_and_pipelines_take_it():
  points, labels = groups()
  found = GaussianMixture(K, tol=1e-4, random_state=0)
  clone = sklearn.base.clone(found)
  assert clone.get_params() == found.get_params()
  pipeline = sklearn.pipeline.make_pipeline(
    sklearn.preprocessing.StandardScaler(), found
  )
  predicted = pipeline.fit_predict(points)
  assert len(set(zip(labels, predicted, strict=True))) == K
