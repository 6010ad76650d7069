"""`partial_fit`: steps of EM on what is remembered, behind the estimator."""

import pickle
import warnings

import numpy as np
import pytest
import sklearn.base
import sklearn.exceptions

from tgmm_jax import types
from tgmm_jax.fitting.estimator.gaussian_mixture import GaussianMixture
from tgmm_jax.solvers import em

CENTRES = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
SAME = ("weights_", "means_", "covariances_", "precisions_")


def groups(num_points=320, dtype=np.float64, seed=0):
  generator = np.random.default_rng(seed)
  points = CENTRES[generator.integers(3, size=num_points)]
  points = points + generator.normal(size=points.shape)
  return points.astype(dtype)


def given(**options):
  return GaussianMixture(
    3,
    weights_init=[0.2, 0.3, 0.5],
    means_init=CENTRES + 0.5,
    precisions_init=np.stack([np.eye(2)] * 3),
    **options,
  )


def assert_same(one, other, **tolerance):
  for name in SAME:
    np.testing.assert_allclose(
      getattr(one, name), getattr(other, name), **tolerance
    )


def test_one_call_from_a_given_start_is_one_step_of_fit():
  X = groups()
  weight = np.random.default_rng(1).uniform(0.0, 2.0, len(X))
  online = given().partial_fit(X, sample_weight=weight)
  with pytest.warns(sklearn.exceptions.ConvergenceWarning):
    batch = given(max_iter=1).fit(X, sample_weight=weight)
  assert_same(online, batch, rtol=1e-10, atol=1e-10)
  assert online.lower_bound_ == pytest.approx(batch.lower_bound_, rel=1e-12)
  assert online.remembered_ == pytest.approx(weight.sum())
  assert (online.n_iter_, online.converged_) == (1, False)
  assert online.status_ == types.Status.MAX_ITER


def test_calls_are_the_blocks_of_the_core():
  X, decay = groups(), em.decay_of(100)
  online = given(decay=decay)
  for block in np.split(X, 4):
    online.partial_fit(block)
  remembered = sum(decay ** (80 * age) * 80 for age in range(4))
  assert online.remembered_ == pytest.approx(remembered)
  assert online.n_iter_ == 4
  # As well through a pickle in the middle, and with other sizes.
  other = given(decay=decay)
  for block in np.split(X, 4):
    other = pickle.loads(pickle.dumps(other.partial_fit(block)))
  assert_same(online, other, rtol=1e-13)


def test_many_passes_come_to_what_fit_finds():
  X = groups()
  batch = given(tol=1e-10, max_iter=500).fit(X)
  online = given(decay=em.decay_of(20 * len(X)))
  for _ in range(120):
    for block in np.split(X, 2):
      online.partial_fit(block)
  assert_same(online, batch, rtol=0.01, atol=0.01)
  assert online.remembered_ == pytest.approx(20 * len(X), rel=0.05)


def test_after_fit_what_was_fitted_is_remembered():
  X = groups()
  fitted = GaussianMixture(3, random_state=0, tol=1e-10).fit(X)
  assert fitted.remembered_ == len(X)
  means, largest = fitted.means_.copy(), fitted.weights_.max()
  new = CENTRES[:1] + 3.0
  fitted.partial_fit(new)
  assert fitted.remembered_ == pytest.approx(len(X) + 1)
  own = int(np.argmax(fitted.predict_proba(new)))
  moved = np.max(np.abs(fitted.means_[own] - means[own]))
  assert 0.001 < moved < 10.0 / (len(X) / 3)
  assert fitted.weights_.max() == pytest.approx(largest, abs=0.01)
  # `fit` begins anew.
  again = fitted.fit(X)
  assert again.remembered_ == len(X)
  np.testing.assert_allclose(
    np.sort(again.means_, axis=0), np.sort(means, axis=0), rtol=1e-4, atol=1e-4
  )


def test_attributes_that_were_set_are_where_it_goes_on():
  X = groups()
  online = given().partial_fit(X)
  online.means_ = online.means_ + 1.0
  online.remembered_ = 0.0
  other = GaussianMixture(
    3,
    weights_init=online.weights_,
    means_init=online.means_,
    precisions_init=online.precisions_,
  )
  assert_same(online.partial_fit(X), other.partial_fit(X), rtol=1e-8)


@pytest.mark.parametrize("init_params", ["kmeans", "random"])
def test_a_drawn_start_comes_from_the_first_block(init_params):
  X = groups(dtype=np.float32)
  online = GaussianMixture(3, init_params=init_params, random_state=0)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    for block in np.split(X, 10):
      online.partial_fit(block)
  assert online.means_.dtype == np.float32
  assert online.weights_.sum() == pytest.approx(1.0, rel=1e-5)
  again = sklearn.base.clone(online)
  assert not hasattr(again, "weights_")
  if init_params == "kmeans":
    gaps = np.abs(online.means_[:, None] - CENTRES).max(axis=-1)
    assert np.all(gaps.min(axis=0) < 0.6)


def test_what_cannot_be_is_refused():
  X = groups()
  online = given().partial_fit(X)
  means = online.means_.copy()
  for call, message in (
    (lambda: online.partial_fit(X[:, :1]), "features"),
    (lambda: online.partial_fit(np.full((3, 2), np.nan)), "NaN"),
    (
      lambda: online.partial_fit(X, sample_weight=-np.ones(len(X))),
      "sample_weight is -1.0",
    ),
    (lambda: online.partial_fit(np.full((3, 2), 1e200)), "X has values from"),
    (lambda: GaussianMixture(5).partial_fit(X[:4]), "no more than n_samples"),
    (lambda: given(decay=1.1).partial_fit(X), "decay is 1.1, takes"),
    (lambda: given(decay="1").fit(X), "decay is '1', takes"),
    (
      lambda: online.set_params(n_components=2).partial_fit(X),
      "n_components is 2, takes 3",
    ),
    (
      lambda: online.set_params(
        n_components=3, covariance_type="diag"
      ).partial_fit(X),
      "covariance_type is 'diag' with covariances_ of shape",
    ),
  ):
    with pytest.raises(ValueError, match=message):
      call()
  np.testing.assert_array_equal(online.means_, means)


def test_a_degenerate_mixture_is_warned_of():
  X = groups()
  far = GaussianMixture(
    2, covariance_type="unit", means_init=[[0.0, 0.0], [1e4, 1e4]]
  )
  with pytest.warns(sklearn.exceptions.ConvergenceWarning) as caught:
    far.partial_fit(X)
  assert caught[0].filename == __file__
  assert far.status_ == types.Status.DEGENERATE
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    far.partial_fit(X)  # told already
  assert far.status_ == types.Status.DEGENERATE
