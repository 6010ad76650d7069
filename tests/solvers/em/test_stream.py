"""One problem read in blocks: the answer of the fit in memory."""

import functools
import itertools
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.solvers.em import problems as em_problems
from tgmm_jax import gmm, types
from tgmm_jax.solvers import em
from tgmm_jax.solvers.em import sharded, stream
from tgmm_jax.solvers.execution import cores

NUM_POINTS, DIM, K = 60, 3, 3
# Compiled once for each covariance type; does not divide the points.
BLOCK_SIZE = 16


def make_weights():
  """Some are 0."""
  weight = np.random.default_rng(1).uniform(0.2, 2.0, NUM_POINTS)
  weight[::7] = 0.0
  return weight


WIDE = em_problems.long_clusters(np.random.default_rng(0), NUM_POINTS)
POINTS = WIDE.astype(np.float32)
WEIGHTS = make_weights()
SPOILED = np.where(WEIGHTS[:, None] > 0, WIDE, np.nan)


def options_of(covariance_type, max_iter=6):
  return {
    "covariance_type": covariance_type,
    "init": em_problems.start_of_long_clusters(covariance_type),
    "max_iter": max_iter,
    "tol": 0.0,
  }


FAST = (("unit", "float64"), ("diag", "float32"), ("full", "float64"))
every_way = pytest.mark.parametrize(
  ("covariance_type", "dtype"),
  [
    pytest.param(*way, marks=() if way in FAST else pytest.mark.slow)
    for way in itertools.product(gmm.COVARIANCE_TYPES, ("float32", "float64"))
    # The others in float32 tell nothing that these do not.
    if way[1] == "float64" or way[0] in ("diag", "full")
  ],
)


@functools.cache
def in_memory(covariance_type, dtype, is_weighted):
  with jax.enable_x64(dtype == "float64"):
    result = em.fit(
      jax.random.key(0),
      jnp.asarray(SPOILED if is_weighted else WIDE, dtype),
      K,
      sample_weight=jnp.asarray(
        WEIGHTS if is_weighted else np.ones(NUM_POINTS), dtype
      ),
      **options_of(covariance_type),
    )
    return jax.tree.map(np.asarray, result)


def fit(blocks, covariance_type="diag", dtype="float32", **options):
  with jax.enable_x64(dtype == "float64"):
    options = options_of(covariance_type) | {"block_size": BLOCK_SIZE} | options
    result = stream.fit_stream(jax.random.key(0), blocks, K, **options)
    assert dtype is None or result.mixture.means.dtype == dtype
    return jax.tree.map(np.asarray, result)


def assert_same(found, expected, tolerance=1e-5):
  for mine, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


def cut(sizes, dtype="float32"):
  """Blocks of the given sizes, with weights."""
  ends = np.cumsum(sizes)
  assert ends[-1] == NUM_POINTS
  return [
    (SPOILED[end - size : end].astype(dtype), WEIGHTS[end - size : end])
    for end, size in zip(ends, sizes, strict=True)
  ]


def in_file(tmp_path, points, dtype):
  file = np.memmap(
    tmp_path / "points", dtype=dtype, mode="w+", shape=points.shape
  )
  file[:] = points
  file.flush()
  return np.memmap(
    tmp_path / "points", dtype=dtype, mode="r", shape=points.shape
  )


@every_way
def test_a_file_gives_the_fit_in_memory(tmp_path, covariance_type, dtype):
  result = fit(in_file(tmp_path, WIDE, dtype), covariance_type, dtype)
  tolerance = {"float32": 1e-5, "float64": 1e-9}[dtype]
  assert_same(result, in_memory(covariance_type, dtype, False), tolerance)
  assert result.num_iters == 6
  assert result.status == types.Status.MAX_ITER


@every_way
def test_unequal_blocks_with_weights_give_it_too(covariance_type, dtype):
  tolerance = {"float32": 1e-5, "float64": 1e-9}[dtype]
  blocks = cut([1, 20, 0, 2, 37], dtype)
  result = fit(blocks, covariance_type, dtype)
  assert_same(result, in_memory(covariance_type, dtype, True), tolerance)


@pytest.mark.parametrize(
  "blocks",
  [
    pytest.param(lambda: iter(cut([20, 40])), id="a function"),
    pytest.param(lambda: cut([5, 16, 16, 16, 7]), id="a function of a list"),
    pytest.param(cut([1] * NUM_POINTS), id="points one by one"),
    pytest.param(tuple(cut([30, 30])), id="a tuple"),
    pytest.param(
      [(jnp.asarray(x, "float32"), w.tolist()) for x, w in cut([30, 30])],
      id="JAX arrays, weights in a list",
    ),
  ],
)
def test_what_can_be_read_again_is_taken(blocks):
  assert_same(fit(blocks), in_memory("diag", "float32", True))


@pytest.mark.parametrize("block_size", [1, NUM_POINTS, 10_000])
def test_the_size_of_blocks_does_not_matter(block_size):
  result = fit(POINTS, block_size=block_size)
  assert_same(result, in_memory("diag", "float32", False))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "bool"])
def test_other_dtypes_are_taken(dtype):
  points = np.round(POINTS).astype(jnp.dtype(dtype))
  expected = em.fit(
    jax.random.key(0),
    jnp.asarray(points.astype(np.float32)),
    K,
    **options_of("diag"),
  )
  assert_same(fit(points, dtype=None), expected, 1e-4)


def test_there_is_one_pass_for_each_step():
  calls, steps = [], []

  def blocks():
    calls.append(0)
    for block in cut([20, 30, 10]):
      calls[-1] += 1
      yield block

  result = fit(blocks, on_step=lambda *step: steps.append(step))
  assert calls == [3] * (6 + 2)
  numbers, values = zip(*steps, strict=True)
  assert numbers == tuple(range(1, 7))
  assert np.all(np.diff([*values, result.log_likelihood]) > 0)
  # The value before the step is that of the mixture it starts from.
  before = fit(blocks, max_iter=4)
  np.testing.assert_allclose(values[4], before.log_likelihood, rtol=1e-6)


def test_it_stops_by_tol():
  steps = []
  result = fit(
    POINTS,
    max_iter=200,
    tol=1e-3,
    on_step=lambda _, value: steps.append(value),
  )
  assert result.status == types.Status.CONVERGED
  changes = np.diff(steps)
  assert changes[-1] < 1e-3
  assert np.all(changes[:-1] >= 1e-3)


class Tracked(np.ndarray):
  """An array that weak references can point to."""


def test_no_more_blocks_are_held_than_cores_and_one():
  alive, most = weakref.WeakSet(), []

  def blocks():
    for first in range(0, NUM_POINTS, 6):
      block = POINTS[first : first + 6].copy().view(Tracked)
      alive.add(block)
      most.append(len(alive))
      yield block
      del block

  # Arrays cannot be compared, so they are told apart by identity.
  Tracked.__hash__, Tracked.__eq__ = object.__hash__, object.__eq__
  assert_same(fit(blocks), in_memory("diag", "float32", False))
  assert len(most) == 10 * 8
  assert max(most) <= 1 + cores.num_cores()


@pytest.mark.parametrize("spread", [1.0, 2.0**-10])
def test_points_far_from_the_origin(tmp_path, spread):
  # In float32 all points of the narrow kind are the same number, in float64
  # they have five digits left.
  file = in_file(tmp_path, 1e8 + spread * WIDE, "float64")
  start = em_problems.start_of_long_clusters("diag")
  start = start._replace(
    means=1e8 + spread * np.asarray(start.means, np.float64),
    covariances=spread**2 * start.covariances,
  )
  result = fit(file, dtype="float64", init=start)
  (weights, means, covariances), log_likelihood, *_ = in_memory(
    "diag", "float32", False
  )
  assert_same(result.mixture.weights, weights, 1e-4)
  assert_same(result.mixture.covariances / spread**2, covariances, 1e-4)
  found = result.log_likelihood + DIM * np.log(spread)
  assert_same(found, log_likelihood, 1e-4)
  np.testing.assert_allclose(
    result.mixture.means, 1e8 + spread * means, rtol=1e-7
  )


def test_a_constant_column_says_nothing():
  points = POINTS.copy()
  points[:, 1] = 3.3
  result = fit(points)
  assert result.status != types.Status.DEGENERATE
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(result))
  np.testing.assert_allclose(result.mixture.means[:, 1], 3.3, rtol=1e-6)


@pytest.mark.parametrize(
  "init", ["k-means++", pytest.param("normal", marks=pytest.mark.slow)]
)
def test_the_start_is_that_of_em_fit(init):
  key = jax.random.key(11)
  options = {"covariance_type": "diag", "init": init, "max_iter": 0}
  weight = WEIGHTS.astype(np.float32)
  result = stream.fit_stream(
    key, cut([13, 47]), K, block_size=BLOCK_SIZE, **options
  )
  expected = em.fit(
    key, jnp.asarray(SPOILED), K, sample_weight=weight, **options
  )
  assert_same(result, expected)


def test_a_start_from_some_of_the_points(monkeypatch):
  monkeypatch.setattr(sharded, "NUM_START_POINTS", 20)
  # All but 20 points have no weight: these are the sample.
  weight = np.zeros(NUM_POINTS)
  chosen = np.sort(np.random.default_rng(2).permutation(NUM_POINTS)[:20])
  weight[chosen] = 1.0
  key = jax.random.key(12)
  options = {"covariance_type": "diag", "max_iter": 0}
  blocks = [(POINTS[:25], weight[:25]), (POINTS[25:], weight[25:])]
  result = stream.fit_stream(key, blocks, K, block_size=BLOCK_SIZE, **options)
  expected = em.fit(key, POINTS[chosen], K, **options)
  assert_same(result.mixture, expected.mixture)
  # Otherwise the sample depends on the key, and on nothing else.
  starts = [
    stream.fit_stream(jax.random.key(seed), POINTS, K, **options).mixture.means
    for seed in (1, 1, 2)
  ]
  assert_same(starts[0], starts[1], 0.0)
  assert not np.allclose(starts[0], starts[2])


def spoiled_at(row, column, value):
  points = POINTS.copy()
  points[row, column] = value
  return [points[:25], points[25:27], points[27:]]


def only_once():
  iterator = iter(cut([30, 30]))
  return lambda: iterator


@pytest.mark.parametrize(
  ("blocks", "error", "named"),
  [
    (iter(cut([60])), ValueError, "blocks is a list_iterator, which cannot be"),
    ((x for x in cut([60])), ValueError, "blocks is a generator, which cannot"),
    (only_once(), ValueError, "60 points in the first pass and 0 in a later"),
    (7, ValueError, r"blocks has shape \(\), takes \[N, d\]"),
    ([POINTS, POINTS[:, :2]], ValueError, r"1 has shape \(60, 2\), takes \[n,"),
    ([POINTS[0]], ValueError, r"block 0 has shape \(3,\), takes \[n, d\]"),
    (POINTS[0], ValueError, r"blocks has shape \(3,\), takes \[N, d\]"),
    (POINTS[:0], ValueError, r"blocks has shape \(0, 3\), takes \[N, d\]"),
    ([[1.0, 2.0]], ValueError, r"block 0 has shape \(2,\), takes \[n, d\]"),
    ([], ValueError, "blocks has 0 points"),
    ([POINTS[:0]], ValueError, "blocks has 0 points"),
    (spoiled_at(26, 1, np.nan), ValueError, r"contains nan .*\[26, 1\]"),
    (spoiled_at(59, 2, -np.inf), ValueError, r"contains -inf .*\[59, 2\]"),
    (
      [(POINTS, WEIGHTS[1:])],
      ValueError,
      r"block 0's weight has shape \(59,\)",
    ),
    ([(POINTS, 0 * WEIGHTS)], ValueError, "60 points and no weight"),
    ([POINTS[:9], (POINTS, WEIGHTS - 1)], ValueError, "at 9, takes finite"),
    ([(POINTS, WEIGHTS * np.nan)], ValueError, "sample_weight is nan at 0"),
    ([(POINTS, 1e307 * WEIGHTS)], ValueError, "weights that sum to inf"),
    ([POINTS[:2]], ValueError, "num_components is 3, .* from 1 to 2"),
    (1e30 * POINTS, ValueError, "squares are within the range of float32"),
    (1e200 * WIDE, ValueError, "squares are within the range of float64"),
    (1e-30 * POINTS, ValueError, "squares are within the range of float32"),
    (POINTS.astype(str), ValueError, "blocks has dtype <U"),
    (POINTS.astype(complex), ValueError, "blocks has dtype complex128"),
    (
      np.ma.masked_array(POINTS, POINTS > 4),
      ValueError,
      "blocks is a masked array with",
    ),
  ],
)
def test_blocks_that_cannot_be_are_refused_by_name(blocks, error, named):
  with pytest.raises(error, match=named):
    fit(blocks)


@pytest.mark.parametrize(
  ("options", "named"),
  [
    ({"num_components": 0}, "num_components is 0"),
    ({"num_components": 2.0}, "num_components is 2.0"),
    ({"covariance_type": "round"}, "covariance_type is 'round'"),
    ({"init": "best"}, "init is 'best'"),
    ({"block_size": 0}, "block_size is 0"),
    ({"tol": -1.0}, "tol is -1.0"),
    ({"max_iter": -1}, "max_iter is -1"),
  ],
)
def test_options_that_cannot_be_are_refused_by_name(options, named):
  options = {"num_components": K} | options
  with pytest.raises(ValueError, match=named):
    stream.fit_stream(jax.random.key(0), POINTS, **options)
