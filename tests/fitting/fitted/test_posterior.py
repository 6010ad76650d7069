import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from tests.compile_counts import compiled
from tests.fitting import made_fits
from tgmm_jax import gmm, types

POINTS = 3.0 * np.random.default_rng(1).normal(size=(50, 2))


def scipy_joint(mixture, covariance_type, points=POINTS):
  """Logarithms of weight times density, `[N, K]`."""
  covariances = made_fits.matrices(covariance_type, mixture)
  densities = [
    stats.multivariate_normal(mean, covariance).logpdf(points)
    for mean, covariance in zip(mixture.means, covariances, strict=True)
  ]
  return np.stack(densities, axis=-1) + np.log(mixture.weights)


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_what_a_fit_says_of_points_is_what_scipy_says(covariance_type):
  fit = made_fits.one(covariance_type)
  joint = scipy_joint(fit.mixture, covariance_type)
  total = special.logsumexp(joint, axis=1)
  labels, shares = fit.predict(POINTS), fit.predict_proba(POINTS)
  density = fit.score_samples(POINTS)
  assert labels.dtype == np.int32
  assert shares.dtype == density.dtype == np.float64
  np.testing.assert_array_equal(labels, joint.argmax(axis=1))
  # What float32 could not.
  np.testing.assert_allclose(density, total, rtol=1e-11)
  np.testing.assert_allclose(
    shares, np.exp(joint - total[:, None]), rtol=1e-9, atol=1e-14
  )
  assert fit.score(POINTS) == pytest.approx(total.mean(), rel=1e-11)
  weight = np.linspace(0.0, 2.0, len(POINTS))
  assert fit.score(POINTS, sample_weight=weight) == pytest.approx(
    np.average(total, weights=weight), rel=1e-11
  )


def test_answers_have_the_wider_precision_of_points_and_mixture():
  narrow = made_fits.one(dtype=np.float32)
  for dtype, expected in (
    (np.float32, np.float32),
    (np.float64, np.float64),
    (np.int64, np.float64),
    (jnp.bfloat16, np.float32),
  ):
    found = narrow.score_samples(POINTS.astype(dtype))
    assert found.dtype == expected, dtype
  wide = made_fits.one(dtype=np.float64)
  assert wide.score_samples(POINTS.astype(np.float32)).dtype == np.float64
  assert narrow.score_samples(jnp.asarray(POINTS)).dtype == np.float32


def test_each_problem_of_a_batch_is_as_alone():
  fit = made_fits.batch(count=3)
  points = np.stack([POINTS + shift for shift in range(3)])
  for method in ("predict", "predict_proba", "score_samples"):
    found = getattr(fit, method)(points)
    for index in range(2):
      alone = getattr(fit[index], method)(points[index])
      np.testing.assert_allclose(found[index], alone, rtol=1e-12)
  # The last has no mixture.
  np.testing.assert_array_equal(fit.predict(points)[2], -1)
  np.testing.assert_array_equal(fit.predict_proba(points)[2], 0.0)
  np.testing.assert_array_equal(fit.score_samples(points)[2], -np.inf)


def test_what_has_no_weight_may_hold_anything():
  fit = made_fits.one()
  spoilt, weight = POINTS.copy(), np.ones(50)
  spoilt[7], weight[7] = np.nan, 0.0
  labels = fit.predict(spoilt, sample_weight=weight)
  assert labels[7] == -1
  np.testing.assert_array_equal(
    np.delete(labels, 7), np.delete(fit.predict(POINTS), 7)
  )
  assert fit.score_samples(spoilt, sample_weight=weight)[7] == 0.0
  assert np.all(fit.predict_proba(spoilt, sample_weight=weight)[7] == 0.0)


def test_far_from_everything_the_shares_are_the_weights():
  fit = made_fits.one()
  far = np.full((1, 2), 1e200)
  np.testing.assert_allclose(fit.predict_proba(far)[0], [0.2, 0.3, 0.5])
  assert fit.predict(far) == [2]
  assert fit.score_samples(far) == [-np.inf]


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_within_jit_the_answer_is_the_same(method):
  fit = made_fits.one(dtype=np.float32)
  points = POINTS.astype(np.float32)
  weight = np.ones(50, np.float32)
  weight[3] = 0.0

  @jax.jit
  def ask(fit, points, weight):
    return getattr(fit, method)(points, sample_weight=weight)

  np.testing.assert_allclose(
    ask(fit, points, weight),
    getattr(fit, method)(points, sample_weight=weight),
    rtol=1e-4,
    atol=1e-6,
  )


def test_many_points_are_those_of_their_blocks():
  fit = made_fits.one("diag")
  points = 3.0 * np.random.default_rng(2).normal(size=(20_001, 2))
  joint = scipy_joint(fit.mixture, "diag", points)
  np.testing.assert_array_equal(fit.predict(points), joint.argmax(axis=1))
  np.testing.assert_allclose(
    fit.score_samples(points), special.logsumexp(joint, axis=1), rtol=1e-10
  )


def test_sets_of_all_sizes_share_a_few_programs():
  jax.clear_caches()
  fit = made_fits.one("spherical", seed=5)
  rng = np.random.default_rng(0)
  with compiled() as counts:
    for count in (1, 2, 77, 128, 129, 300, 511, 900, 2048, 5000, 8193, 30_000):
      points = rng.normal(size=(count, 2))
      assert len(fit.predict(points)) == count
      assert fit.predict_proba(points).shape == (count, 3)
      fit.score_samples(points)
  assert 1 <= len(counts) <= 5
  with compiled() as counts:
    for count in (2, 3, 4):
      batch = made_fits.batch("spherical", count)
      assert batch.predict(np.zeros((count, 5, 2))).shape == (count, 5)
  assert len(counts) == 1


# The largest memory of a fresh process before and after 200,000 points.
_MEASURED = """
import resource, sys
import jax, numpy as np
from tgmm_jax import fitting, types
rng = np.random.default_rng(0)
K = dim = 16
mixture = types.Mixture(
  np.full(K, 1 / K),
  5.0 * rng.normal(size=(K, dim)),
  np.stack(K * [np.eye(dim)]),
)
none = np.int32(0)
fit = fitting.Fit(
  mixture=mixture, num_components=np.int32(K), log_likelihood=np.float64(0),
  labels=np.zeros(1, np.int32), status=none, method_index=none,
  is_outside_range=np.bool_(False), covariance_type="full", methods=("EM",),
)
points = 5.0 * rng.normal(size=(200_000, dim))
method = getattr(fit, sys.argv[1])
method(points[:9000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = method(points)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 - found.nbytes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_memory_does_not_grow_with_the_number_of_points(method):
  root = pathlib.Path(__file__).parents[3]
  found = subprocess.run(
    [sys.executable, "-c", _MEASURED, method],
    cwd=root,
    capture_output=True,
    text=True,
    check=True,
  )
  assert int(found.stdout) < 100e6


def test_status_is_read_of_the_fit_and_not_of_the_points():
  fit = made_fits.one(status=np.int32(types.Status.INVALID_INPUT))
  np.testing.assert_array_equal(fit.predict(np.full((2, 2), np.nan)), -1)
