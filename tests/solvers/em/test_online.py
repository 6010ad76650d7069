"""EM for points that arrive: against NumPy, and against the batch fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.solvers.em import problems as em_problems
from tgmm_jax import gmm, types
from tgmm_jax.solvers import em

K, DIM, SIZE = 3, 2, 40
TYPES = pytest.mark.parametrize(
  "covariance_type",
  em_problems.fast_only(("full", "unit", "spherical"), gmm.COVARIANCE_TYPES),
)


def blocks_of(num_blocks, seed=0):
  """Blocks of points about three centres, and their weights."""
  points = em_problems.clusters((K, DIM), num_blocks * SIZE, seed, spread=3.0)
  weight = np.random.default_rng(seed).uniform(0.5, 2.0, len(points))
  return points.reshape(-1, SIZE, DIM), weight.reshape(-1, SIZE)


def numpy_stepwise(blocks, weights, start, decay, covariance_type):
  """Cappe and Moulines with raw moments; what is remembered at the end."""
  mixture = start
  mass, sums, squares = np.zeros(K), np.zeros((K, DIM)), np.zeros((K, DIM, DIM))
  for points, weight in zip(blocks, weights, strict=True):
    matrices = em_problems.expand(mixture.covariances, K, DIM, covariance_type)
    normals = map(scipy.stats.multivariate_normal, mixture.means, matrices)
    logs = np.log(mixture.weights) + np.stack(
      [normal.logpdf(points) for normal in normals], axis=-1
    )
    share = scipy.special.softmax(logs, axis=1) * weight[:, None]
    kept = decay ** weight.sum()
    mass = kept * mass + share.sum(axis=0)
    sums = kept * sums + share.T @ points
    squares = kept * squares + np.einsum("nk,ni,nj->kij", share, points, points)
    means = sums / mass[:, None]
    found = squares / mass[:, None, None]
    found -= means[:, :, None] * means[:, None, :]
    share_of = mass / mass.sum()
    mixture = types.Mixture(
      share_of, means, em_problems.restrict(found, share_of, covariance_type)
    )
  return mixture, mass.sum()


def assert_same(found, expected, **tolerance):
  for one, other in zip(found, expected, strict=True):
    if other is not None:
      np.testing.assert_allclose(one, other, **tolerance)


def run(state, blocks, weights, covariance_type, decay):
  for points, weight in zip(blocks, weights, strict=True):
    state, result = em.absorb(
      state,
      points,
      sample_weight=weight,
      covariance_type=covariance_type,
      decay=decay,
    )
  return state, result


@TYPES
@pytest.mark.parametrize("decay", [1.0, 0.99])
@pytest.mark.usefixtures("x64")
def test_blocks_are_stepwise_em_in_numpy(covariance_type, decay):
  blocks, weights = blocks_of(6)
  start = em_problems.make_start(blocks[0], K, covariance_type)
  state = em.begin_online(
    blocks[0], start, covariance_type=covariance_type, reg_share=0.0
  )
  state, result = run(state, blocks, weights, covariance_type, decay)
  expected, remembered = numpy_stepwise(
    blocks, weights, start, decay, covariance_type
  )
  assert_same(result.mixture, expected, rtol=1e-10, atol=1e-10)
  assert float(state.remembered) == pytest.approx(remembered, rel=1e-12)
  assert result.num_iters == state.num_iters == 6
  assert result.status == types.Status.MAX_ITER


@TYPES
@pytest.mark.usefixtures("x64")
def test_one_block_that_forgets_nothing_is_one_step_of_em(covariance_type):
  (points,), (weight,) = blocks_of(1)
  start = em_problems.make_start(points, K, covariance_type)
  options = {"covariance_type": covariance_type, "sample_weight": weight}
  regular = {"reg_share": 1e-3, "reg_covar": 1e-2}
  # In the frame of other points, and far from the origin.
  state = em.begin_online(
    points[:7] + 5.0,
    start,
    covariance_type=covariance_type,
    **regular,
  )
  _, found = em.absorb(state, points, decay=1.0, **options)
  expected = em.fit(
    jax.random.key(0), points, K, init=start, max_iter=1, **options, **regular
  )
  assert_same(found.mixture, expected.mixture, rtol=1e-12, atol=1e-12)
  before = gmm.log_likelihood(
    points, jax.tree.map(jnp.asarray, start), **options
  )
  assert float(found.log_likelihood) == pytest.approx(float(before), rel=1e-12)


@pytest.mark.usefixtures("x64")
def test_many_passes_approach_the_batch_fit():
  generator = np.random.default_rng(0)
  centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
  blocks = centres[generator.integers(K, size=(4, SIZE))]
  blocks = blocks + generator.normal(size=blocks.shape)
  weights = np.ones((4, SIZE))
  start = types.Mixture(np.full(K, 1 / K), centres[::-1] + 1.0, None)
  options = {"covariance_type": "full"}
  points = blocks.reshape(-1, DIM)
  batch = em.fit(
    jax.random.key(0), points, K, init=start, max_iter=999, tol=1e-13, **options
  )
  assert batch.status == types.Status.CONVERGED
  distances = []
  for memory, passes in ((3, 30), (30, 300)):  # of all the points
    decay = em.decay_of(memory * len(points))
    state = em.begin_online(points, start, **options)
    for _ in range(passes):
      state, result = run(state, blocks, weights, "full", decay)
    gaps = result.mixture.means - batch.mixture.means
    distances.append(np.max(np.abs(gaps)))
  # Of the last block a little more is known than of the first: by a tenth of
  # what it was with a tenth of the memory.
  assert distances[1] < 0.003
  assert distances[0] / distances[1] == pytest.approx(10.0, rel=0.05)


@TYPES
@pytest.mark.usefixtures("x64")
def test_what_a_mixture_stands_for_counts_as_its_points(covariance_type):
  blocks, weights = blocks_of(2)
  points, weight = blocks.reshape(-1, DIM), weights.ravel()
  options = {"covariance_type": covariance_type}
  fitted = em.fit(
    jax.random.key(0),
    points,
    K,
    sample_weight=weight,
    init=em_problems.make_start(points, K, covariance_type),
    max_iter=2000,
    tol=1e-14,
    reg_share=0.0,
    **options,
  ).mixture
  # At rest the sums of the fit are its parameters: another look at the same
  # points changes nothing.
  state = em.begin_online(
    points, fitted, remembered=weight.sum(), reg_share=0.0, **options
  )
  state, result = em.absorb(state, points, sample_weight=weight, **options)
  assert_same(result.mixture, fitted, rtol=1e-5, atol=1e-5)
  assert float(state.remembered) == pytest.approx(2 * weight.sum())
  # And one point among so many moves them by no more than its share.
  far = np.full((1, DIM), 20.0)
  state = em.begin_online(far, fitted, remembered=weight.sum(), **options)
  _, result = em.absorb(state, far, **options)
  most = 40.0 / (np.min(result.mixture.weights) * weight.sum())
  moved = np.max(np.abs(result.mixture.means - fitted.means))
  assert 0.01 < moved < most


def test_a_bad_block_leaves_the_state_as_it_was():
  blocks, weights = blocks_of(2)
  blocks = blocks.astype(np.float32)
  weights = weights.astype(np.float32)
  start = em_problems.make_start(blocks[0], K, "diag")
  start = jax.tree.map(np.float32, start)
  absorb = functools.partial(em.absorb, covariance_type="diag")
  state = em.begin_online(blocks[0], start, covariance_type="diag")
  state, good = absorb(state, blocks[0], sample_weight=weights[0])
  bad = blocks[1].copy()
  bad[3, 0] = np.nan
  for points, weight in (
    (bad, weights[1]),
    (np.where(np.isnan(bad), np.inf, bad), weights[1]),
    (np.where(np.isnan(bad), np.float32(1e30), bad), weights[1]),
    (blocks[1], -weights[1]),
    (blocks[1], 0 * weights[1]),
  ):
    after, result = absorb(state, points, sample_weight=weight)
    assert result.status == types.Status.INVALID_INPUT
    assert result.log_likelihood == -np.inf
    assert_same(result.mixture, good.mixture)
    for one, other in zip(
      jax.tree.leaves(after), jax.tree.leaves(state), strict=True
    ):
      np.testing.assert_array_equal(one, other)
  # Of weight 0 it is padding.
  padding = np.where(np.arange(SIZE) == 3, 0, weights[1])
  after, result = absorb(state, bad, sample_weight=padding)
  assert result.status == types.Status.MAX_ITER
  clean = np.where(np.isnan(bad), 0, bad)
  _, expected = absorb(state, clean, sample_weight=padding)
  assert_same(result.mixture, expected.mixture)


def test_a_component_without_points_is_told_and_comes_back_to_its_start():
  points = em_problems.clusters((2, DIM), SIZE).astype(np.float32)
  means = np.array([points[0], points[1], [500.0, 500.0]], np.float32)
  start = types.Mixture(np.full(3, 1 / 3, np.float32), means)
  state = em.begin_online(points, start)
  state, result = em.absorb(state, points)
  assert result.status == types.Status.DEGENERATE
  np.testing.assert_allclose(result.mixture.means[2], [500.0, 500.0], rtol=1e-5)
  state, result = em.absorb(state, points + 490.0, decay=0.5)
  assert np.all(np.isfinite(result.mixture.means))
  assert result.mixture.weights[2] > 0.9


def test_padded_components_stay_and_problems_are_a_batch():
  blocks, weights = blocks_of(2)
  blocks, weights = blocks.astype(np.float32), weights.astype(np.float32)
  starts = [
    jax.tree.map(np.float32, em_problems.make_start(own, K, "spherical"))
    for own in blocks
  ]
  starts = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)

  @jax.vmap
  def both(points, weight, start):
    options = {"covariance_type": "spherical", "sample_weight": weight}
    state = em.begin_online(points, start, **options)
    return em.absorb(state, points, **options)[1]

  plain = both(blocks, weights, starts)
  wide = types.Mixture(
    np.pad(starts.weights, ((0, 0), (0, 1))),
    np.pad(starts.means, ((0, 0), (0, 1), (0, 0))),
    np.pad(starts.covariances, ((0, 0), (0, 1))),
  )
  found = both(blocks, weights, wide)
  np.testing.assert_array_equal(found.status, plain.status)
  np.testing.assert_array_equal(found.mixture.weights[:, K], 0.0)
  np.testing.assert_array_equal(found.mixture.means[:, K], 0.0)
  np.testing.assert_allclose(
    found.mixture.means[:, :K], plain.mixture.means, rtol=1e-4, atol=1e-5
  )


def test_a_long_memory_is_not_rounded_in_float32():
  points = em_problems.clusters((K, DIM), SIZE).astype(np.float32)
  start = types.Mixture(np.full(K, 1 / K, np.float32), points[:K])
  decay = em.decay_of(1e6)
  state = em.begin_online(points, start, remembered=1e6)
  state, _ = em.absorb(state, points, decay=decay)
  expected = decay**SIZE * 1e6 + SIZE
  # By the float32 next to it 2.7 would be lost.
  assert float(state.remembered) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.5, np.nan, True])
def test_decay_out_of_range_is_refused(decay):
  points = np.zeros((4, DIM), np.float32)
  start = types.Mixture(np.ones(1, np.float32), np.zeros((1, DIM), np.float32))
  state = em.begin_online(points, start)
  with pytest.raises(ValueError, match=f"decay is {decay!r}, takes a number"):
    em.absorb(state, points, decay=decay)
  with pytest.raises(ValueError, match=r"points has shape \(4, 3\), takes"):
    em.absorb(state, np.zeros((4, 3), np.float32))
  with pytest.raises(ValueError, match="num_points is 0.5, takes"):
    em.decay_of(0.5)
