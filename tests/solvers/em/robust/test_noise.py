"""EM with a noise component against NumPy, and on points with outliers."""

import functools

import jax
import numpy as np
import pytest
import scipy.spatial
import scipy.stats

from tests.solvers.em import problems as em_problems
from tests.solvers.em.robust import robust_in_numpy
from tgmm_jax import gmm, metrics, types
from tgmm_jax.solvers import em
from tgmm_jax.tasks import mixtures

KEY = jax.random.key(0)
NUM_STEPS = 12


def spread_problem(covariance_type, num_padding=7):
  """Three clusters, some points far out, weights and padding; a start."""
  points = em_problems.clusters((3, 2), 50, seed=4, spread=4.0)
  generator = np.random.default_rng(1)
  points[:6] = generator.uniform(-20, 20, size=(6, 2))
  weight = generator.uniform(0.5, 2.0, 50)
  start = em_problems.make_start(points[6:], 3, covariance_type, seed=3)
  points = np.concatenate([points, np.full((num_padding, 2), np.nan)])
  return points, np.concatenate([weight, np.zeros(num_padding)]), start


def options_of(covariance_type):
  return {
    "covariance_type": covariance_type,
    "tol": 0.0,
    "max_iter": NUM_STEPS,
    "reg_share": 0.0,
    "reg_covar": em_problems.REG_COVAR,
  }


def assert_same(found, expected, tolerance=1e-8):
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
  "covariance_type",
  em_problems.fast_only(("full",), gmm.COVARIANCE_TYPES),
)
@pytest.mark.usefixtures("x64")
def test_one_and_many_equal_em_in_numpy(covariance_type):
  points, weight, start = spread_problem(covariance_type)
  options = options_of(covariance_type)
  start = jax.tree.map(np.asarray, start)
  one = em.noise.fit(
    KEY, points, 3, init=start, noise_share=0.2, sample_weight=weight, **options
  )
  volume = 1234.5
  many = em.noise.fit_batch(
    KEY,
    np.stack([points, points]),
    3,
    init=jax.tree.map(lambda leaf: np.stack([leaf, leaf]), start),
    noise_share=[0.2, 0.3],
    volume=volume,
    sample_weight=np.stack([weight, weight]),
    **options,
  )
  own = np.exp(-float(one.noise_log_density))
  centred = points[:50] - np.average(points[:50], axis=0, weights=weight[:50])
  moment = (weight[:50, None] * centred).T @ centred
  along = centred @ np.linalg.eigh(moment)[1]
  boxes = [np.ptp(box, axis=0).prod() for box in (points[:50], along)]
  np.testing.assert_allclose(own, min(boxes))
  for found, size, share in (
    (one, own, 0.2),
    (jax.tree.map(lambda leaf: leaf[1], many), volume, 0.3),
  ):
    mixture, noise, value = robust_in_numpy.with_noise(
      points[:50], weight[:50], start, share, size, NUM_STEPS, covariance_type
    )
    assert 0.02 < noise < 0.5
    own_mixture = found.result.mixture
    if covariance_type == "unit":
      mixture = mixture._replace(covariances=own_mixture.covariances)
    assert_same(own_mixture, mixture)
    np.testing.assert_allclose(found.noise_weight, noise, atol=1e-10)
    np.testing.assert_allclose(found.result.log_likelihood, value, atol=1e-9)
    assert found.result.num_iters == NUM_STEPS
    assert found.result.status == types.Status.MAX_ITER


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_without_noise_it_is_the_plain_fit():
  points, weight, start = spread_problem("full")
  options = options_of("full") | {"init": start, "sample_weight": weight}
  found = em.noise.fit(KEY, points, 3, noise_share=0.0, **options)
  plain = em.fit(KEY, points, 3, **options)
  assert found.noise_weight == 0.0
  assert_same(found.result, plain, 1e-10)


def test_the_volume_is_that_of_the_smaller_box():
  generator = np.random.default_rng(0)
  turned = generator.uniform(-1, 1, size=(4000, 2)) * [10.0, 1.0]
  angle = 0.7
  turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
  points = (turned @ np.transpose(turn)).astype(np.float32) + 1000.0
  hull = scipy.spatial.ConvexHull(points.astype(float)).volume
  found = np.exp(em.volume.log_volume(points))
  assert hull <= found < 1.1 * hull
  assert np.ptp(points, axis=0).prod() > 2.0 * found
  square = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0], [2.0, 3.0]])
  np.testing.assert_allclose(em.volume.log_volume(square), np.log(6.0), 1e-6)


# Draws, starts and queues of some hundred tasks.
@pytest.mark.usefixtures("optimized")
def test_outliers_take_no_component():
  """10% in a box three times as wide as that of the means."""
  law = mixtures.TaskConfig(2, min_points=128)
  tasks = [
    mixtures.sample_batch(jax.random.key(7), own, 320)
    for own in (
      law,
      mixtures.TaskConfig(2, min_points=128, shift=0.1, shift_kind="outliers"),
    )
  ]
  plain = functools.partial(em.fit_batch, KEY, max_components=5)
  robust = functools.partial(em.noise.fit_batch, KEY, max_components=5)
  results = [
    plain(task.points, task.num_components, sample_weight=task.sample_weight)
    for task in tasks
  ]
  found = robust(
    tasks[1].points,
    tasks[1].num_components,
    sample_weight=tasks[1].sample_weight,
  )
  clean, dirty, robust = (
    jax.vmap(metrics.l2_error)(
      result.mixture.means, task.mixture.means, task.num_components
    )
    for result, task in (
      (results[0], tasks[0]),
      (results[1], tasks[1]),
      (found.result, tasks[1]),
    )
  )
  error = np.std(robust) / np.sqrt(robust.size)
  assert np.mean(dirty) > 10.0 * np.mean(clean)
  assert np.mean(robust) < 1.5 * np.mean(clean) + error
  assert abs(np.mean(found.noise_weight) - 0.11) < 0.02


def test_labels_densities_and_statuses():
  points, weight, start = spread_problem("full", num_padding=0)
  points = points.astype(np.float32)
  options = {"covariance_type": "full"}
  found = em.noise.fit(KEY, points, 3, init=start, **options)
  share = em.noise.responsibilities(points, found, **options)
  labels = em.noise.predict(points, found, **options)
  noise = 1.0 - np.sum(share, axis=1)
  outside = found.noise_weight * np.exp(found.noise_log_density)
  density = np.exp(em.noise.log_density(points, found, **options))
  np.testing.assert_allclose(noise, outside / density, atol=1e-5)
  every = np.c_[share, noise]
  expected = np.where(every.argmax(axis=1) == 3, -1, every.argmax(axis=1))
  np.testing.assert_array_equal(labels, expected)
  assert np.sum(labels == -1) >= 3
  # Bad ones beside good ones; all noise is no mixture.
  bad = points.copy()
  bad[3] = np.nan
  stacked = em.noise.fit_batch(
    KEY,
    np.stack([points, bad, points]),
    3,
    volume=[1e3, 1e3, 1e-30],
    sample_weight=np.ones((3, 50)),
    covariance_type="full",
  )
  assert stacked.result.status[0] == types.Status.CONVERGED
  assert stacked.result.status[1] == types.Status.INVALID_INPUT
  assert stacked.result.status[2] == types.Status.DEGENERATE
  assert all(np.all(np.isfinite(leaf)) for leaf in stacked.result.mixture)
  assert np.all(np.isfinite(stacked.noise_weight))


@pytest.mark.slow
def test_a_column_without_extent_changes_no_label():
  points, _, _ = spread_problem("full", num_padding=0)
  flat = np.concatenate([points, np.full((50, 1), 3.0)], axis=1)
  start = em_problems.make_start(flat, 3, "full", seed=3)
  options = {"covariance_type": "full"}
  labels = []
  for own, dim in ((points, 2), (flat, 3)):
    begin = types.Mixture(start.weights, start.means[:, :dim])
    with jax.enable_x64(True):
      found = em.noise.fit(KEY, own, 3, init=begin, **options)
      labels.append(em.noise.predict(own, found, **options))
  assert np.mean(labels[0] == labels[1]) > 0.9


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"noise_share": 1.0}, "noise_share is 1.0, takes a number >= 0 and below"),
    ({"volume": 0.0}, "volume is 0.0, takes a number > 0"),
    ({"trimmed_share": -0.1}, "trimmed_share is -0.1, takes a number >= 0"),
    ({"is_projected": True}, "is_projected is True, takes False with outliers"),
    ({"prior_if_degenerate": 1.0}, "prior_if_degenerate is 1.0, takes 0.0"),
  ],
)
def test_what_no_data_could_make_right_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    em.noise.fit(KEY, np.zeros((5, 2)), 2, **options)
  with pytest.raises(ValueError, match=message):
    em.noise.fit_batch(KEY, np.zeros((2, 5, 2)), 2, **options)
  with pytest.raises(
    ValueError, match=r"volume has shape \(3,\), takes \(2,\)"
  ):
    em.noise.fit_batch(KEY, np.zeros((2, 5, 2)), 2, volume=[1.0, 2.0, 3.0])
