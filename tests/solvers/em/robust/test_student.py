"""EM with Student t components against SciPy."""

import itertools

import jax
import numpy as np
import pytest
import scipy.stats

from tests.solvers.em import problems as em_problems
from tests.solvers.em.robust import robust_in_numpy
from tests.solvers.em.robust.test_noise import (
  KEY,
  NUM_STEPS,
  assert_same,
  options_of,
  spread_problem,
)
from tgmm_jax import gmm, types
from tgmm_jax.solvers import em

RANGE = (1.5, 50.0)


@pytest.mark.parametrize(
  ("covariance_type", "is_estimated"),
  [
    ("full", True),
    ("unit", False),
    *(
      pytest.param(name, own, marks=pytest.mark.slow)
      for name, own in itertools.product(gmm.COVARIANCE_TYPES, [False, True])
    ),
  ],
)
@pytest.mark.usefixtures("x64")
def test_one_and_many_equal_em_in_numpy(covariance_type, is_estimated):
  points, weight, start = spread_problem(covariance_type)
  start = jax.tree.map(np.asarray, start)
  degrees = [3.0, 4.5, 20.0]
  own = {"degrees": degrees}
  if is_estimated:
    degrees, own = [5.0] * 3, {"degrees_range": RANGE}
  own |= options_of(covariance_type)
  one = em.student.fit(KEY, points, 3, init=start, sample_weight=weight, **own)
  many = em.student.fit_batch(
    KEY,
    np.stack([points[::-1], points]),
    3,
    init=jax.tree.map(lambda leaf: np.stack([leaf, leaf]), start),
    sample_weight=np.stack([weight[::-1], weight]),
    **own,
  )
  mixture, degrees, value = robust_in_numpy.student(
    points[:50],
    weight[:50],
    start,
    degrees,
    NUM_STEPS,
    covariance_type,
    RANGE if is_estimated else None,
  )
  for found in (one, jax.tree.map(lambda leaf: leaf[1], many)):
    result = found.result
    if covariance_type == "unit":
      mixture = mixture._replace(covariances=result.mixture.covariances)
    assert_same(result.mixture, mixture)
    np.testing.assert_allclose(found.degrees, degrees, rtol=1e-7)
    np.testing.assert_allclose(result.log_likelihood, value, atol=1e-9)
    assert result.status == types.Status.MAX_ITER
  if is_estimated:
    assert np.ptp(degrees) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.usefixtures("x64")
def test_many_degrees_are_the_normal_mixture(dim):
  points = em_problems.clusters((3, dim), 50, seed=4, spread=4.0)
  start = em_problems.make_start(points, 3, "full", seed=3)
  options = options_of("full") | {"init": start}
  plain = em.fit(KEY, points, 3, **options)
  for degrees, tolerance in ((1e4, 0.05), (1e12, 1e-7)):
    found = em.student.fit(KEY, points, 3, degrees=degrees, **options)
    assert_same(found.result, plain, tolerance)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.usefixtures("x64")
def test_densities_are_those_of_scipy(dim):
  generator = np.random.default_rng(dim)
  means = generator.normal(size=(4, dim))
  variances = generator.uniform(0.5, 2.0, (4, dim))
  degrees = np.array([0.7, 3.0, 47.9, 1e9])
  points = 5.0 * generator.normal(size=(30, dim))
  mixture = types.Mixture(np.full(4, 0.25), means, variances)
  zero = np.zeros(())
  fit = em.student.StudentFit(
    types.SolverResult(mixture, zero, zero, zero), degrees
  )
  joint = 0.25 * np.stack(
    [
      scipy.stats.multivariate_t(mean, np.diag(variance), own).pdf(points)
      for mean, variance, own in zip(means, variances, degrees, strict=True)
    ],
    axis=1,
  ).reshape(30, 4)
  options = {"covariance_type": "diag"}
  np.testing.assert_allclose(
    em.student.log_density(points, fit, **options),
    np.log(joint.sum(axis=1)),
    # SciPy takes the difference of log gammas, of 1e10.
    rtol=1e-6,
  )
  share = joint / joint.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(
    em.student.responsibilities(points, fit, **options), share, atol=1e-6
  )
  np.testing.assert_array_equal(
    em.student.predict(points, fit, **options), share.argmax(axis=1)
  )


@pytest.mark.slow
def test_a_fixed_mean_stays_and_outliers_weigh_little():
  points, _, start = spread_problem("full", num_padding=0)
  points, start = points.astype(np.float32), jax.tree.map(np.float32, start)
  fixed = em.Fixed(means=np.array([True, False, False]))
  found = em.student.fit(
    KEY, points, 3, init=start, fixed=fixed, covariance_type="full"
  )
  np.testing.assert_array_equal(found.result.mixture.means[0], start.means[0])
  bad = np.stack(
    [points, np.where(np.arange(50)[:, None] == 3, np.inf, points)]
  )
  found = em.student.fit_batch(
    KEY, bad, 3, covariance_type="full", max_iter=500
  )
  assert found.result.status[0] in (
    types.Status.CONVERGED,
    types.Status.MAX_ITER,
  )
  assert found.result.status[1] == types.Status.INVALID_INPUT
  assert all(np.all(np.isfinite(leaf)) for leaf in found.result.mixture)
  assert np.min(found.degrees[0]) < 5.0


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"degrees": 0.0}, "degrees is 0.0, takes a number > 0"),
    ({"degrees": [1.0, 2.0, 3.0]}, r"degrees has shape \(3,\), takes"),
    ({"degrees_range": (5.0, 1.0)}, "degrees_range is .*, takes two numbers"),
    ({"trimmed_share": 1.0}, "trimmed_share is 1.0, takes a number >= 0"),
  ],
)
def test_what_no_data_could_make_right_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    em.student.fit(KEY, np.zeros((5, 2)), 2, **options)
  with pytest.raises(ValueError, match=message):
    em.student.fit_batch(KEY, np.zeros((2, 5, 2)), 2, **options)
