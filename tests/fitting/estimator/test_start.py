"""Starts of the class: given, drawn, and refused."""

import numpy as np
import pytest

from tgmm_jax.fitting.estimator.gaussian_mixture import GaussianMixture

K = 3


def groups(num_points=150):
  """Three groups that stand apart."""
  rng = np.random.default_rng(1)
  labels = np.arange(num_points) % 3
  centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
  return centres[labels] + rng.normal(size=(num_points, 2))


def start_alone(points, **options):
  """What a fit of no steps starts from."""
  found = GaussianMixture(K, max_iter=0, random_state=0, **options).fit(points)
  assert (found.n_iter_, found.lower_bound_) == (0, -np.inf)
  assert not found.converged_
  return found


@pytest.mark.parametrize(
  "covariance_type", ["full", pytest.param("diag", marks=pytest.mark.slow)]
)
def test_random_responsibilities_make_up_all_of_the_data(covariance_type):
  points = groups()
  points += 100.0
  weight = np.random.default_rng(0).uniform(size=len(points))
  found = GaussianMixture(
    K,
    covariance_type=covariance_type,
    init_params="random",
    max_iter=0,
    random_state=0,
    reg_covar=0.5,
  ).fit(points, sample_weight=weight)
  assert len(np.unique(found.weights_)) == K
  mean = np.average(points, axis=0, weights=weight)
  np.testing.assert_allclose(found.weights_ @ found.means_, mean, rtol=1e-10)
  shifts = found.means_ - mean
  covariances = found.covariances_
  if covariance_type == "diag":
    covariances = np.stack([np.diag(row) for row in covariances])
  within = covariances - 0.5 * np.eye(2)
  between = shifts[:, :, None] * shifts[:, None, :]
  total = np.tensordot(found.weights_, within + between, axes=1)
  expected = np.cov(points.T, aweights=weight, ddof=0)
  if covariance_type == "diag":
    total, expected = np.diag(total), np.diag(expected)
  np.testing.assert_allclose(total, expected, rtol=1e-8)


def test_what_is_given_of_a_start_is_kept_and_the_rest_drawn():
  points = groups()
  given = {
    "weights_init": np.array([0.2, 0.3, 0.5]),
    "means_init": points[:K],
    "precisions_init": np.stack([np.diag([1.0, 2.0])] * K),
  }
  drawn = start_alone(points)
  for name, attribute in [
    ("weights_init", "weights_"),
    ("precisions_init", "precisions_"),
    ("means_init", "means_"),
  ]:
    found = start_alone(points, **{name: given[name]})
    np.testing.assert_allclose(getattr(found, attribute), given[name])
    for other in {"weights_", "precisions_", "means_"} - {attribute}:
      if name != "means_init":
        np.testing.assert_allclose(
          getattr(found, other), getattr(drawn, other), rtol=1e-10
        )
  np.testing.assert_allclose(found.weights_, 1.0 / K)


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_generators_of_numpy_decide_and_move_on(make):
  points = groups()
  options = {"init_params": "random", "max_iter": 0}
  state = make(0)
  one, other = (
    GaussianMixture(K, random_state=state, **options).fit(points).means_
    for _ in range(2)
  )
  assert not np.array_equal(one, other)
  again = GaussianMixture(K, random_state=make(0), **options).fit(points)
  np.testing.assert_array_equal(again.means_, one)


NOT_POSITIVE = np.stack([np.diag([1.0, -1.0])] * K)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"random_state": "a"}, "random_state is 'a', takes an integer"),
    ({"random_state": -1}, "random_state is -1, takes an integer from 0"),
    ({"weights_init": [0.5, 0.5]}, r"weights_init has shape \(2,\), takes"),
    ({"weights_init": [0.5, 0.5, 0.5]}, "weights_init is .*that sum to 1"),
    ({"weights_init": [1.5, -0.5, 0.0]}, "weights_init is .*that sum to 1"),
    ({"means_init": np.zeros((2, 2))}, r"means_init has shape \(2, 2\), takes"),
    ({"means_init": np.full((K, 2), np.nan)}, "means_init has NaN or inf"),
    ({"precisions_init": np.eye(2)}, r"precisions_init has shape \(2, 2\)"),
    ({"precisions_init": NOT_POSITIVE}, "precisions_init has a matrix"),
    (
      {"precisions_init": -np.ones(K), "covariance_type": "spherical"},
      "precisions_init has values down to -1.0, takes numbers > 0",
    ),
    (
      {"precisions_init": 1.0, "covariance_type": "unit"},
      "precisions_init is given, takes None",
    ),
  ],
)
def test_starts_that_cannot_be_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    GaussianMixture(**({"n_components": K} | options)).fit(groups())
