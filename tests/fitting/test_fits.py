import functools
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets, mixture

import tgmm_jax
from tgmm_jax import fitting, metrics, types
from tgmm_jax.fitting import networks, search
from tgmm_jax.solvers import em
from tgmm_jax.tasks import mixtures

CENTRES = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])


def clusters(scale=1.0, offset=0.0, seed=0, size=40):
  """Three round groups far apart, and their labels."""
  rng = np.random.default_rng(seed)
  labels = np.repeat(np.arange(3), size)
  points = CENTRES[labels] + rng.normal(size=(3 * size, 2))
  return scale * points + offset, labels


def is_same_grouping(found, truth):
  """Whether labels are the same but for their names."""
  return any(
    np.array_equal(np.asarray(order)[np.asarray(found)], truth)
    for order in itertools.permutations(range(3))
  )


@pytest.mark.parametrize("covariance_type", ["unit", "full"])
def test_groups_that_stand_apart_are_found(covariance_type):
  points, labels = clusters()
  found = tgmm_jax.fit(points, 3, covariance_type=covariance_type)
  assert is_same_grouping(found.labels, labels)
  assert found.status == types.Status.CONVERGED
  assert str(found.method).startswith("network")
  assert found.mixture.means.shape == (3, 2)
  assert np.all(np.diff(found.mixture.weights) >= 0)
  # The mixture that EM ends with from the true groups.
  truth = types.Mixture(jnp.full(3, 1 / 3), jnp.asarray(CENTRES, jnp.float32))
  best = em.fit(
    jax.random.key(0),
    jnp.asarray(points, jnp.float32),
    3,
    covariance_type=covariance_type,
    init=truth,
  )
  np.testing.assert_allclose(
    found.log_likelihood, best.log_likelihood, rtol=1e-4
  )


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0.0), (1e4, 3e4)])
def test_units_and_origin_do_not_matter_where_variances_are_estimated(
  scale, offset
):
  points, labels = clusters(scale, offset)
  found = tgmm_jax.fit(points, 3, covariance_type="spherical")
  assert is_same_grouping(found.labels, labels)
  assert not found.is_outside_range


def test_one_problem_is_the_batch_of_one_and_padding_has_no_say():
  points, _ = clusters()
  one = tgmm_jax.fit(points, 3)
  batch = tgmm_jax.fit(points[None], 3)
  np.testing.assert_array_equal(one.mixture.means, batch.mixture.means[0])
  padded = np.concatenate([points, np.full((8, 2), np.nan)])
  weight = np.concatenate([np.ones(len(points)), np.zeros(8)])
  found = tgmm_jax.fit(padded, 3, sample_weight=weight)
  np.testing.assert_allclose(
    found.mixture.means, one.mixture.means, rtol=1e-3, atol=1e-3
  )
  np.testing.assert_array_equal(found.labels[-8:], -1)


@pytest.mark.slow
def test_number_of_components_is_found_with_a_probability():
  points = np.stack([clusters(seed=seed)[0] for seed in range(3)])
  found = tgmm_jax.fit(points, covariance_type="spherical")
  np.testing.assert_array_equal(found.num_components, [3, 3, 3])
  np.testing.assert_array_equal(found.candidates, [1, 2, 3, 4, 5])
  np.testing.assert_allclose(np.sum(found.probabilities, axis=1), 1, rtol=1e-5)
  assert np.all(found.probabilities[:, 2] > 0.5)


@pytest.mark.slow
def test_probabilities_are_those_of_the_bic_of_the_fits():
  # So near each other that neither one group nor two are out of the question.
  rng = np.random.default_rng(3)
  points = np.array([[0.0, 0.0], [4.5, 0.0]])[np.repeat([0, 1], 30)]
  points = points + rng.normal(size=points.shape)
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "max_components is 2")
    found = tgmm_jax.fit(points, covariance_type="full", max_components=2)
  assert found.candidates == (1, 2)
  one, two = (
    mixture.GaussianMixture(count, n_init=10, random_state=0, tol=1e-7)
    .fit(points)
    .bic(points)
    for count in (1, 2)
  )
  # Two components have two orders, and BIC is that of one.
  expected = 1.0 / (1.0 + np.exp(0.5 * (one - two) + np.log(2.0)))
  assert 0.02 < expected < 0.98
  np.testing.assert_allclose(found.probabilities[0], expected, atol=1e-3)
  # One problem has no padded components.
  assert found.num_components == 1
  assert found.mixture.means.shape == (1, 2)
  assert found.mixture.covariances.shape == (1, 2, 2)


@pytest.mark.parametrize(
  ("covariance_type", "dim", "name"),
  [
    ("unit", 300, "unit"),
    ("tied_spherical", 300, "tied_spherical"),
    ("spherical", 2, "unit"),
    ("diag", 8, "diag"),
    ("diag", 9, "unit"),
    ("tied", 8, "full"),
    ("full", 8, "full"),
    ("full", 9, "unit"),
  ],
)
def test_each_type_has_its_network(covariance_type, dim, name):
  network_for = functools.partial(
    fitting.network_for, covariance_type=covariance_type
  )
  assert network_for(dim, [1, 5]) == name
  assert network_for(dim, [1, 6]) is None


@pytest.mark.slow
def test_what_no_network_covers_is_fitted_by_em():
  rng = np.random.default_rng(0)
  centres = 20.0 * rng.normal(size=(7, 3))
  points = np.repeat(centres, 20, axis=0) + rng.normal(size=(140, 3))
  found = tgmm_jax.fit(points, 7, covariance_type="spherical")
  assert found.method == "EM"
  assert fitting.network_for(3, [7], covariance_type="spherical") is None


@pytest.mark.slow
def test_a_restart_is_kept_where_it_is_clearly_likelier(monkeypatch):
  law = mixtures.TaskConfig(dim=2, num_components=(5,), min_points=64)
  batch = jax.jit(lambda key: mixtures.sample_batch(key, law, 32))(
    jax.random.key(0)
  )
  fit = functools.partial(
    tgmm_jax.fit,
    batch.points,
    5,
    covariance_type="full",
    sample_weight=batch.sample_weight,
  )
  both = fit()
  monkeypatch.setattr(networks, "network_for", lambda *_, **__: None)
  alone = fit()
  assert set(alone.method) <= {"EM", "EM, with a prior"}
  counts = np.sum(batch.sample_weight > 0, axis=1)
  gain = (alone.log_likelihood - both.log_likelihood) * counts
  is_drawn = np.char.startswith(both.method.astype(str), "EM")
  assert np.any(is_drawn)
  assert not np.all(is_drawn)
  # The one that is kept may be a run that is not among the finals of the other.
  assert np.mean(gain[is_drawn] < 1e-2) > 0.9
  assert np.mean(gain < search.HEAD_START + 1e-2) > 0.9


@pytest.mark.slow
def test_components_are_nearer_than_by_ten_draws_on_the_papers_tasks():
  law = mixtures.TaskConfig(dim=2, num_components=(4,), min_points=128)
  batch = jax.jit(lambda key: mixtures.sample_batch(key, law, 200))(
    jax.random.key(1)
  )
  found = tgmm_jax.fit(batch.points, 4, covariance_type="spherical")
  peer = em.fit_batch(
    *(jax.random.key(0), batch.points, 4),
    covariance_type="spherical",
    init="k-means++",
    num_init=10,
  )
  errors = [
    np.mean(
      jax.vmap(metrics.l2_error, in_axes=(0, 0, None))(
        means, batch.mixture.means, 4
      )
    )
    for means in (found.mixture.means, peer.mixture.means)
  ]
  assert errors[0] < errors[1]


@pytest.mark.slow
def test_iris_has_its_known_fit():
  points = datasets.load_iris().data
  found = tgmm_jax.fit(points, 3, num_restarts=10)
  # The usual solution: 50, 45 and 55 flowers.
  assert sorted(np.bincount(found.labels)) == [45, 50, 55]
  peer = mixture.GaussianMixture(3, n_init=10, random_state=0).fit(points)
  assert found.log_likelihood > peer.score(points) - 1e-3


def test_points_outside_the_trained_range_are_flagged():
  points, _ = clusters(20.0)
  with pytest.warns(UserWarning, match="unlike those"):
    found = tgmm_jax.fit(points, 3, covariance_type="unit")
  assert found.is_outside_range


def test_bad_problem_among_good_ones():
  points = np.stack([clusters(seed=seed)[0] for seed in range(3)])
  spoilt = points.copy()
  spoilt[1, 4] = np.nan
  found = tgmm_jax.fit(spoilt, 3)
  assert found.status[1] == types.Status.INVALID_INPUT
  assert found.status[0] == found.status[2] == types.Status.CONVERGED
  good = tgmm_jax.fit(points, 3)
  rows = np.array([0, 2])
  np.testing.assert_allclose(
    found.log_likelihood[rows], good.log_likelihood[rows], atol=1e-3
  )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"num_components": "all"}, "num_components is 'all', takes 'auto' or an"),
    ({"num_components": 0}, "num_components is 0"),
    ({"covariance_type": "round"}, "covariance_type is 'round', takes"),
    ({"num_views": 0}, "num_views is 0, takes an integer >= 1"),
    ({"num_restarts": 0}, "num_restarts is 0, takes an integer >= 1"),
    ({"max_iter": -1}, "max_iter is -1, takes an integer >= 0"),
    ({"tol": -1.0}, "tol is -1.0, takes a number >= 0"),
    ({"min_variance": np.nan}, "min_variance is nan, takes a number >= 0"),
    ({"max_components": 0}, "max_components is 0, takes an integer >= 1"),
    ({"points": np.zeros(3)}, "points has shape"),
    ({"sample_weight": np.ones(3)}, "sample_weight has shape"),
  ],
)
def test_errors_are_one_line(options, message):
  values = {"points": clusters()[0], "num_components": 3} | options
  with pytest.raises(ValueError, match=message) as error:
    tgmm_jax.fit(**values)
  assert "\n" not in str(error.value)
