import numpy as np
import pytest
from sklearn import mixture as sklearn_mixture

import tgmm_jax
from tgmm_jax import gmm
from tgmm_jax.fitting import networks

CENTRES = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0], [7.0, 7.0]])


def clusters(num_points=200, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(4, size=num_points)
  return CENTRES[labels] + rng.normal(size=(num_points, 2)), labels


def estimator(covariance_type="full", num_components=4, **options):
  return tgmm_jax.GaussianMixture(
    num_components,
    covariance_type=covariance_type,
    init_params="network",
    random_state=0,
    **options,
  )


@pytest.mark.parametrize("covariance_type", ["spherical", "diag", "full"])
def test_em_from_a_network_is_as_likely_as_many_starts(covariance_type):
  points, _ = clusters()
  found = estimator(covariance_type).fit(points)
  peer = sklearn_mixture.GaussianMixture(
    4, covariance_type=covariance_type, n_init=10, random_state=0
  ).fit(points)
  assert found.converged_
  assert found.score(points) > peer.score(points) - 1e-3
  assert found.means_.dtype == np.float64


@pytest.mark.slow
@pytest.mark.parametrize("covariance_type", ["unit", "tied_spherical", "tied"])
def test_the_other_types_have_a_network_too(covariance_type):
  points, labels = clusters()
  found = estimator(covariance_type).fit(points).predict(points)
  # Hardly a point of a cluster has another label than the rest.
  table = np.zeros((4, 4))
  np.add.at(table, (labels, found), 1)
  assert np.sum(table.max(axis=1)) >= 196


@pytest.mark.parametrize(("scale", "offset"), [(1e-5, 0.0), (1e4, 1e9)])
def test_units_and_origin_do_not_matter(scale, offset):
  points, _ = clusters()
  one = estimator(reg_covar=0.0).fit(points).predict(points)
  own = scale * points + offset
  found = estimator(reg_covar=0.0).fit(own).predict(own)
  # The same groups, whatever their order.
  np.testing.assert_array_equal(found[:, None] == found, one[:, None] == one)


def test_no_steps_leave_what_the_network_proposes():
  points, _ = clusters()
  found = estimator(max_iter=0).fit(points)
  distances = np.linalg.norm(found.means_[:, None] - CENTRES, axis=-1)
  assert np.max(np.min(distances, axis=0)) < 0.5
  assert sorted(np.argmin(distances, axis=0)) == [0, 1, 2, 3]


def test_of_many_points_a_sample_is_shown_and_weight_zero_is_no_point():
  points, _ = clusters(3000)
  junk = np.concatenate([points, np.full((500, 2), 1e6)])
  weight = np.concatenate([np.ones(3000), np.zeros(500)])
  found = estimator(max_iter=0).fit(junk, sample_weight=weight)
  distances = np.linalg.norm(found.means_[:, None] - CENTRES, axis=-1)
  assert np.max(np.min(distances, axis=0)) < 0.5
  again = estimator(max_iter=0).fit(junk, sample_weight=weight)
  np.testing.assert_array_equal(again.means_, found.means_)


@pytest.mark.parametrize(
  ("num_components", "dim", "message"),
  [
    (7, 2, r"n_components = 7 and d = 2, takes .* K from 1 to 5"),
    (9, 9, r"n_components = 9 and d = 9, takes .*d up to 8 \(full\)"),
  ],
)
def test_what_no_network_covers_is_one_line(num_components, dim, message):
  points = np.random.default_rng(0).normal(size=(40, dim))
  with pytest.raises(ValueError, match=message) as error:
    estimator(num_components=num_components).fit(points)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_coverage_is_what_the_networks_take(covariance_type):
  text = networks.coverage(covariance_type=covariance_type)
  for dim in (2, 8, 9):
    name = networks.network_for(dim, [5], covariance_type=covariance_type)
    if name is not None:
      assert f"({name})" in text
      assert "any d" in text or dim <= 8
  assert networks.network_for(2, [6], covariance_type=covariance_type) is None
