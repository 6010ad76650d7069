"""The choice of K, against scikit-learn, NumPy and known truths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.datasets
import sklearn.mixture

from tgmm_jax import gmm, types
from tgmm_jax.solvers import selection

TYPES = ("full", "tied", "diag", "spherical")
K, DIM = 3, 4


def iris_fit(covariance_type):
  points = sklearn.datasets.load_iris().data
  theirs = sklearn.mixture.GaussianMixture(
    K, covariance_type=covariance_type, random_state=0
  ).fit(points)
  mixture = types.Mixture(theirs.weights_, theirs.means_, theirs.covariances_)
  return points, theirs, mixture


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.usefixtures("x64")
def test_criteria_are_those_of_scikit_learn(covariance_type):
  points, theirs, mixture = iris_fit(covariance_type)
  options = {"covariance_type": covariance_type}
  bic = float(selection.bic(points, mixture, **options))
  aic = float(selection.aic(points, mixture, **options))
  assert bic == pytest.approx(theirs.bic(points), rel=1e-12)
  assert aic == pytest.approx(theirs.aic(points), rel=1e-12)
  share = theirs.predict_proba(points)
  entropy = scipy.stats.entropy(share, axis=1).sum()
  assert entropy > 0.1
  icl = float(selection.icl(points, mixture, **options))
  assert icl == pytest.approx(bic + 2.0 * entropy, rel=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_common_factor_does_not_count_and_padding_is_not_there():
  points, _, mixture = iris_fit("full")
  counts = np.random.default_rng(0).integers(0, 2, len(points))
  expected = selection.criteria(
    points[counts > 0], mixture, covariance_type="full"
  )
  padded = types.Mixture(
    np.append(mixture.weights, 0.0),
    np.append(mixture.means, np.zeros((1, DIM)), axis=0),
    np.append(mixture.covariances, np.eye(DIM)[None], axis=0),
  )
  for factor in (1.0, 2.0, 1.0 / len(points), 1e200, 1e-200):
    found = selection.criteria(
      np.where(counts[:, None] > 0, points, np.nan),
      padded,
      K,
      covariance_type="full",
      sample_weight=factor * counts,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_unequal_weights_are_those_of_fewer_points():
  points, _, mixture = iris_fit("full")
  weight = np.random.default_rng(0).exponential(size=len(points))
  found = selection.criteria(
    points, mixture, covariance_type="full", sample_weight=weight
  )
  # Kish 1965, section 8.2.
  size = weight.sum() ** 2 / (weight**2).sum()
  mean = gmm.log_likelihood(
    jnp.asarray(points), mixture, sample_weight=weight, covariance_type="full"
  )
  count = selection.num_parameters(K, DIM, covariance_type="full")
  bic = -2.0 * size * mean + count * np.log(size)
  assert float(found.bic) == pytest.approx(float(bic), rel=1e-10)


@pytest.mark.parametrize(
  ("covariance_type", "expected"),
  [
    ("unit", 14),
    ("tied_spherical", 15),
    ("spherical", 17),
    ("diag", 26),
    ("tied", 24),
    ("full", 44),
  ],
)
def test_number_of_parameters(covariance_type, expected):
  # K - 1 = 2 weights and K d = 12 means, and what is left by hand.
  count = functools.partial(
    selection.num_parameters, dim=DIM, covariance_type=covariance_type
  )
  assert count(K) == expected
  assert jax.jit(count)(K) == expected


def separated(num_components, seed=0, num_points=120, dim=2):
  """Points in groups of equal size that stand ten deviations apart."""
  rng = np.random.default_rng(seed)
  labels = np.arange(num_points) % num_components
  angle = 2.0 * np.pi * labels / num_components
  circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
  radius = 5.0 / np.sin(np.pi / max(num_components, 2))
  points = rng.normal(size=(num_points, dim))
  points[:, :2] += radius * circle
  return points.astype(np.float32)


TRUTH = np.array([1, 2, 3, 4, 2, 3, 4, 1, 2, 3, 4, 3])


def batch():
  return np.stack([separated(k, seed) for seed, k in enumerate(TRUTH)])


@functools.cache
def selected(criterion="bic", covariance_type="unit"):
  return selection.select(
    jax.random.key(0),
    batch(),
    (1, 2, 3, 4, 5),
    criterion=criterion,
    covariance_type=covariance_type,
    num_init=5,
  )


@pytest.mark.parametrize(
  ("criterion", "covariance_type"),
  [
    ("bic", "unit"),
    ("icl", "unit"),
    ("bic", "spherical"),
    ("icl", "full"),
  ],
)
def test_number_of_separated_groups_is_found(criterion, covariance_type):
  found = selected(criterion, covariance_type)
  assert np.sum(found.num_components == TRUTH) >= len(TRUTH) - 1
  values = getattr(found.criteria, criterion)
  is_sound = np.asarray(found.status) <= types.Status.MAX_ITER
  best = np.argmin(np.where(is_sound, values, np.inf), axis=1)
  np.testing.assert_array_equal(found.num_components, best + 1)
  row = np.arange(len(TRUTH))
  np.testing.assert_array_equal(
    found.result.log_likelihood, np.asarray(found.log_likelihood)[row, best]
  )
  counts = np.sum(np.asarray(found.result.mixture.weights) > 0, axis=1)
  np.testing.assert_array_equal(counts, found.num_components)


def test_aic_never_takes_fewer_components_than_bic():
  # Its penalty is smaller for more than e^2 points.
  aic, bic = selected("aic"), selected("bic")
  assert np.all(aic.num_components >= bic.num_components)
  np.testing.assert_array_equal(aic.criteria.bic, bic.criteria.bic)


def test_choice_does_not_depend_on_the_batch_or_the_other_candidates():
  keys = jax.random.split(jax.random.key(1), len(TRUTH))
  order = np.random.default_rng(0).permutation(len(TRUTH))
  select = functools.partial(selection.select, num_init=2)
  one = select(keys, batch(), (1, 2, 3, 4))
  other = select(keys[order], batch()[order], (4, 2, 1, 3))
  for left, right in zip(one.criteria, other.criteria, strict=True):
    np.testing.assert_array_equal(left[order][:, [3, 1, 0, 2]], right)
  np.testing.assert_array_equal(one.num_components[order], other.num_components)


def test_bad_item_is_told_and_the_others_are_as_without_it():
  points = batch()
  points[4, 3, 1] = np.nan
  found = selection.select(
    jax.random.key(0), points, (1, 2, 3, 4, 5), num_init=5
  )
  assert np.all(found.status[4] == types.Status.INVALID_INPUT)
  assert found.result.status[4] == types.Status.INVALID_INPUT
  assert np.all(np.isposinf(found.criteria.bic[4]))
  assert np.all(np.isfinite(found.result.mixture.means))
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(selected()), strict=True
  ):
    if one.shape[0] == len(TRUTH):
      np.testing.assert_array_equal(
        np.delete(one, 4, axis=0), np.delete(other, 4, axis=0)
      )


def test_degenerate_fits_are_a_last_resort():
  rng = np.random.default_rng(0)
  # Nine equal points, on which a component collapses: the likelihood of two
  # components has no bound but the ridge.
  spike = np.concatenate([rng.normal(size=(20, 1)), np.full((9, 1), 9.0)])
  points = np.stack([spike, np.zeros((29, 1))]).astype(np.float32)
  options = {"covariance_type": "spherical", "num_init": 5}
  found = selection.select(jax.random.key(0), points, (2, 1), **options)
  assert found.criteria.bic[0, 0] < found.criteria.bic[0, 1]
  assert found.status[0].tolist() == [
    types.Status.DEGENERATE,
    types.Status.CONVERGED,
  ]
  assert found.num_components[0] == 1
  assert np.all(found.status[1] == types.Status.DEGENERATE)
  assert found.result.status[1] == types.Status.DEGENERATE
  best = np.argmin(found.criteria.bic[1])
  assert found.num_components[1] == found.candidates[best]


@pytest.mark.parametrize("candidates", [(), (0, 1), (1, 2.0), (True,), ("2",)])
def test_candidates_are_checked(candidates):
  with pytest.raises(ValueError, match="candidates.* is .*takes"):
    selection.select(jax.random.key(0), batch(), candidates)


def test_criterion_and_rank_are_checked():
  with pytest.raises(ValueError, match="criterion is 'BIC', takes 'bic'"):
    selection.select(jax.random.key(0), batch(), (1,), criterion="BIC")
  with pytest.raises(ValueError, match=r"points has shape \(120, 2\), takes"):
    selection.select(jax.random.key(0), batch()[0], (1,))
