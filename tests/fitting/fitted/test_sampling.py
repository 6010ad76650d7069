import jax
import numpy as np
import pytest
from scipy import stats

from tests.fitting import made_fits
from tgmm_jax import gmm, types


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_draws_have_the_law_of_the_mixture(covariance_type):
  fit = made_fits.one(covariance_type)
  points, labels = fit.sample(3, 40_000)
  assert points.shape == (40_000, 2)
  assert points.dtype == np.float64
  assert labels.dtype == np.int32
  counts = np.bincount(labels, minlength=3)
  expected = 40_000 * fit.mixture.weights
  assert stats.chisquare(counts, expected).pvalue > 1e-3
  covariances = made_fits.matrices(covariance_type, fit.mixture)
  for index, covariance in enumerate(covariances):
    own = points[labels == index] - fit.mixture.means[index]
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), own.T)
    # Five standard errors.
    error = 5.0 / np.sqrt(counts[index])
    np.testing.assert_allclose(whitened.mean(axis=1), 0.0, atol=error)
    np.testing.assert_allclose(
      np.cov(whitened), np.eye(2), atol=np.sqrt(2.0) * error
    )
    assert stats.kstest(whitened[0], "norm").pvalue > 1e-3


def test_a_longer_draw_begins_as_a_shorter_one():
  fit = made_fits.one()
  short, long = fit.sample(0, 700), fit.sample(0, 1300)
  for before, after in zip(short, long, strict=True):
    np.testing.assert_array_equal(before, after[:700])
  assert not np.array_equal(fit.sample(1, 700)[0], short[0])
  # Blocks are draws of their own.
  assert not np.array_equal(long[0][:512], long[0][512:1024])


def test_a_seed_is_the_key_that_it_makes():
  fit = made_fits.one(dtype=np.float32)
  of_seed, of_key = fit.sample(4, 20), fit.sample(jax.random.key(4), 20)
  np.testing.assert_array_equal(of_seed[0], of_key[0])
  assert of_seed[0].dtype == np.float32


def test_each_problem_of_a_batch_has_its_own_draw():
  fit = made_fits.batch(count=3)
  fit = fit._replace(status=np.zeros(3, np.int32))
  points, labels = fit.sample(0, 600)
  assert points.shape == (3, 600, 2)
  assert labels.shape == (3, 600)
  assert not np.array_equal(labels[0], labels[1])
  # It does not depend on the others.
  fewer = jax.tree.map(lambda leaf: leaf[:2], fit)
  np.testing.assert_array_equal(fewer.sample(0, 600)[1], labels[:2])


@pytest.mark.parametrize(
  ("key", "count", "message"),
  [
    (-1, 3, "key is -1, takes an integer from 0 to 4294967295"),
    (2**32, 3, "key is 4294967296"),
    (1.5, 3, "key is 1.5"),
    (0, 0, "num_points is 0, takes an integer >= 1"),
  ],
)
def test_errors_are_one_line(key, count, message):
  with pytest.raises(ValueError, match=message):
    made_fits.one().sample(key, count)


def test_where_there_is_no_mixture_nothing_is_drawn():
  fit = made_fits.one(status=np.int32(types.Status.INVALID_INPUT))
  with pytest.raises(ValueError, match="no mixture to draw from"):
    fit.sample(0, 3)
