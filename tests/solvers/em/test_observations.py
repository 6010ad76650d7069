"""EM of points with holes and noise against the textbook in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tests.solvers.em import observed
from tests.solvers.em import problems as em_problems
from tgmm_jax import gmm, types
from tgmm_jax.solvers import em

KEY = jax.random.key(0)
NUM_STEPS = 8
OPTIONS = {"missing": "observed", "reg_share": 0.0, "reg_covar": 1e-6}
FAST = {("full", "none"), ("full", "matrices"), ("unit", "none")}
FAST |= {("diag", "none"), ("diag", "variances"), ("tied", "none")}
CASES = [
  pytest.param(*case, marks=() if case in FAST else pytest.mark.slow)
  for name in gmm.COVARIANCE_TYPES
  for case in ((name, "none"), (name, "variances"), (name, "matrices"))
]


@pytest.mark.parametrize(("covariance_type", "kind"), CASES)
@pytest.mark.usefixtures("x64")
def test_steps_equal_a_numpy_em_and_only_climb(covariance_type, kind):
  points, weight = observed.holed_points()
  noise = observed.noise_of(kind)
  start = em_problems.start_of_long_clusters(covariance_type)
  expected, history = observed.numpy_em(
    points, noise, weight, start, NUM_STEPS, covariance_type, 1e-6
  )
  # Padding may hold anything, noise too.
  padded, weight = (
    np.r_[points, np.full((4, 3), np.inf)],
    np.r_[weight, [0] * 4],
  )
  if noise is not None:
    padding = np.full((4, *noise.shape[1:]), np.nan)
    noise = np.concatenate([noise, padding])
  found = em.unroll(
    KEY,
    padded,
    3,
    num_steps=NUM_STEPS,
    covariance_type=covariance_type,
    sample_weight=weight,
    init=start,
    point_covariances=noise,
    **OPTIONS,
  )
  assert found.status == types.Status.MAX_ITER
  for one, other in zip(found.mixture, expected, strict=True):
    if other is not None:
      np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
  np.testing.assert_allclose(found.history, history[:-1], rtol=1e-10)
  np.testing.assert_allclose(found.log_likelihood, history[-1], rtol=1e-10)
  # Up to what the ridge takes.
  assert np.min(np.diff(found.history)) > -1e-7
  assert history[-1] - history[0] > 0.01


@pytest.mark.usefixtures("x64")
def test_without_noise_and_holes_it_is_plain_em():
  points = em_problems.long_clusters(np.random.default_rng(0), 60)
  start = em_problems.start_of_long_clusters("full")
  fit = functools.partial(
    em.fit, KEY, points, 3, covariance_type="full", init=start, max_iter=8
  )
  plain = fit()
  seen = fit(missing="observed")
  for one, other in zip(
    jax.tree.leaves(plain), jax.tree.leaves(seen), strict=True
  ):
    np.testing.assert_array_equal(one, other)
  quiet = fit(point_covariances=np.zeros((60, 3, 3)))
  for one, other in zip(
    jax.tree.leaves(plain), jax.tree.leaves(quiet), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@functools.cache
def fitted():
  """A program that takes any 24 points of d = 2, so that it compiles once."""

  @jax.jit
  def fit(points, weight, noise):
    return em.fit(
      KEY,
      points,
      2,
      covariance_type="full",
      sample_weight=weight,
      point_covariances=noise,
      missing="observed",
      max_iter=20,
    )

  return fit


def two_clusters():
  generator = np.random.default_rng(0)
  points = generator.normal(size=(24, 2)) + 8.0 * (np.arange(24) % 2)[:, None]
  return points.astype(np.float32)


def edited(place, value):
  points = two_clusters()
  points[place] = value
  return points


def never_together():
  """The first cluster has no row with both cells, the other has all."""
  points = two_clusters()
  points[::4, 0], points[2::4, 1] = np.nan, np.nan
  return points


STATUSES = {
  "a few holes": (edited((slice(0, 4), 1), np.nan), None),
  "a column of nobody": (edited((slice(None), 1), np.nan), "DEGENERATE"),
  "of one component": (edited((slice(0, None, 2), 1), np.nan), "DEGENERATE"),
  "a pair of nobody": (never_together(), "DEGENERATE"),
  "nothing at all": (np.full((24, 2), np.nan), "INVALID_INPUT"),
  "infinite": (edited((3, 0), np.inf), "INVALID_INPUT"),
}


@pytest.mark.parametrize("name", STATUSES)
def test_what_nobody_has_seen_is_degenerate(name):
  points, expected = STATUSES[name]
  noise = np.zeros((24, 2), np.float32)
  found = fitted()(points, np.ones(24, np.float32), noise)
  status = types.Status(int(found.status)).name
  assert status == expected or (expected is None and found.status <= 1)
  for leaf in jax.tree.leaves(found.mixture):
    assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_noise_that_cannot_be_is_invalid(value):
  noise = np.full((24, 2), 0.1, np.float32)
  weight = np.ones(24, np.float32)
  points = edited((7, 1), np.nan)
  good = fitted()(points, weight, noise)
  assert good.status <= types.Status.MAX_ITER
  noise[7, 1] = value  # of a cell that is missing
  same = fitted()(points, weight, noise)
  np.testing.assert_array_equal(same.mixture.means, good.mixture.means)
  noise[7, 0] = value
  found = fitted()(points, weight, noise)
  assert found.status == types.Status.INVALID_INPUT
  assert np.all(np.isfinite(found.mixture.means))


def test_a_row_without_cells_counts_for_nothing():
  points = edited((3,), np.nan)
  weight = np.ones(24, np.float32)
  noise = np.zeros((24, 2), np.float32)
  one = fitted()(points, weight, noise)
  weight[3] = 0.0
  other = fitted()(points, weight, noise)
  for leaf, expected in zip(
    jax.tree.leaves(one), jax.tree.leaves(other), strict=True
  ):
    np.testing.assert_array_equal(leaf, expected)


@pytest.mark.usefixtures("x64")
def test_starts_are_from_means_under_one_normal():
  points, _ = observed.holed_points()
  # With one component the mean is one of the points, filled in the tenth step.
  options = {"init": "k-means++", "missing": "observed"}
  found = em.start(KEY, points, 1, covariance_type="full", **options)
  centre = np.nanmean(points, axis=0)
  start = types.Mixture(
    np.ones(1), centre[None], np.diag(np.nanvar(points, axis=0))[None]
  )
  normal, _ = observed.numpy_em(
    points, None, np.ones(60), start, 9, "full", 0.0
  )
  _, filled, _ = observed.posteriors(points, np.zeros((60, 3, 3)), *normal)
  distances = np.abs(filled[:, 0] - found.means[0]).max(axis=1)
  assert np.min(distances) < 1e-4


def test_a_batch_is_fits_of_its_problems():
  points = np.stack([two_clusters(), edited((slice(0, 5), 0), np.nan)] * 2)
  points[3] = np.nan
  noise = np.zeros((4, 24, 2), np.float32)
  fit = functools.partial(em.fit_batch, KEY, covariance_type="diag", num_init=2)
  plain = fit(points[::2], 2)
  found = fit(points, 2, missing="observed")
  names = [types.Status(int(one)).name for one in found.status]
  assert names == ["CONVERGED"] * 3 + ["INVALID_INPUT"]
  # What is complete is as if there was nothing else, bit for bit.
  for leaf, own in zip(
    jax.tree.leaves(found.mixture), jax.tree.leaves(plain.mixture), strict=True
  ):
    np.testing.assert_array_equal(leaf[0], own[0])
  one = em.fit(
    jax.random.fold_in(KEY, 1),
    points[1],
    2,
    covariance_type="diag",
    num_init=2,
    missing="observed",
  )
  # Two starts may be as likely but for rounding: the order is open.
  np.testing.assert_allclose(
    np.sort(found.mixture.means[1], axis=0),
    np.sort(one.mixture.means, axis=0),
    rtol=1e-3,
  )
  assert np.all(fit(points, 2).status[1::2] == types.Status.INVALID_INPUT)
  quiet = fit(points[:1], 2, point_covariances=noise[:1])
  np.testing.assert_allclose(
    quiet.mixture.means, plain.mixture.means[:1], rtol=1e-4
  )


@pytest.mark.slow
@pytest.mark.usefixtures("optimized", "x64")
def test_gradients_through_the_steps_are_central_differences():
  points, _ = observed.holed_points(9)
  is_missing, filled = np.isnan(points), np.nan_to_num(points)
  noise = observed.noise_of("matrices", 9)
  start = em_problems.start_of_long_clusters("full")

  @jax.jit
  @jax.value_and_grad
  def final(scale):
    found = em.unroll(
      KEY,
      # NaN times a factor would make the factor's gradient NaN.
      jnp.where(is_missing, jnp.nan, filled * scale[0]),
      3,
      num_steps=2,
      covariance_type="full",
      init=start._replace(means=start.means * scale[1]),
      point_covariances=noise * scale[2],
      missing="observed",
      reg_share=1e-2,
    )
    return found.log_likelihood

  at = jnp.ones(3)
  _, gradient = final(at)
  steps = 1e-5 * np.eye(3)
  expected = [
    (final(at + step)[0] - final(at - step)[0]) / 2e-5 for step in steps
  ]
  np.testing.assert_allclose(gradient, expected, rtol=1e-5)


REFUSED = [
  ({"missing": "yes"}, "missing is 'yes', takes 'refused', 'observed'"),
  (
    {"missing": "observed", "is_projected": True},
    "takes 'refused' with is_proj",
  ),
  (
    {"point_covariances": np.ones((24, 2)), "is_projected": True},
    "is_projected is True with point_covariances, takes False",
  ),
  ({"point_covariances": np.ones((24, 3))}, r"takes \(24, 2\) or \(24, 2, 2\)"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    em.fit(KEY, two_clusters(), 2, **options)


def test_a_stream_takes_no_holes():
  with pytest.raises(ValueError, match="takes 'refused' with fit_stream"):
    em.fit_stream(KEY, two_clusters(), 2, missing="observed")


def test_a_mean_log_likelihood_is_that_of_what_is_seen():
  points = edited((slice(0, 4), 1), np.nan)
  noise = np.full((24, 2), 0.5, np.float32)
  found = fitted()(points, np.ones(24, np.float32), noise)
  log_joint, _, _ = observed.posteriors(
    points, observed.matrices_of(noise, points), *map(np.asarray, found.mixture)
  )
  expected = scipy.special.logsumexp(log_joint, axis=1).mean()
  np.testing.assert_allclose(found.log_likelihood, expected, rtol=1e-5)
