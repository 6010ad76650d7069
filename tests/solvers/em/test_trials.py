"""Many starts of which most are given up: the best of those that were kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.solvers.em import problems as em_problems
from tgmm_jax import types
from tgmm_jax.solvers import em

KEY = jax.random.key(0)
NUM_POINTS, DIM, K = 60, 2, 3
POINTS = em_problems.clusters((K, DIM), NUM_POINTS).astype(np.float32)
NUM_GIVEN, NUM_INIT = 3, 4
OPTIONS = {
  "init": "k-means++",
  "covariance_type": "diag",
  "max_components": K,
  "tol": 1e-6,
}


@functools.partial(jax.jit, static_argnames=("num_finals", "num_init"))
def fit_trials(
  key, points, num_components=K, *, num_finals=2, num_init=NUM_INIT, **options
):
  return em.fit_trials(
    key,
    points,
    num_components,
    num_finals=num_finals,
    num_init=num_init,
    **OPTIONS | options,
  )


# With a second run or without: other programs.
fit_again = functools.partial(jax.jit, static_argnames="num_finals")(
  lambda points, starts, num_finals: em.fit_trials(
    KEY,
    points,
    K,
    starts=starts,
    num_finals=num_finals,
    prior_if_degenerate=1.0,
    **OPTIONS,
  )
)


@functools.partial(jax.jit, static_argnames="num_init")
def fit(key, num_init=1, init=None, max_iter=100):
  options = OPTIONS | {"max_iter": max_iter, "num_init": num_init}
  if init is not None:
    options["init"] = init
  return em.fit(key, POINTS, K, **options)


@functools.partial(jax.jit, static_argnames="count")
def make_starts(seed=0, count=NUM_GIVEN):
  """Mixtures `[S, ...]` as they are drawn, of other keys."""
  keys = jax.random.split(jax.random.key(seed + 100), count)
  return jax.vmap(lambda key: em.start(key, POINTS, K, **OPTIONS))(keys)


def take(tree, index):
  return jax.tree.map(lambda leaf: leaf[index], tree)


def assert_same(found, expected, tolerance=1e-3):
  for own, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(own, other, rtol=tolerance, atol=tolerance)


def test_with_all_as_finals_it_is_the_best_of_runs_to_their_end():
  # From a key both draw the same starts.
  for key in jax.random.split(KEY, 4):
    found = fit_trials(key, POINTS, num_finals=NUM_INIT)
    best = fit(key, num_init=NUM_INIT)
    assert_same(found.result.mixture, best.mixture)
    assert_same(found.result.log_likelihood, best.log_likelihood, 1e-5)
    assert found.result.status == best.status == types.Status.CONVERGED
    assert found.prior_size == 0.0


def test_given_starts_come_first_and_run_as_each_alone():
  for seed in range(4):
    starts = make_starts(seed)
    each = jax.vmap(lambda start: fit(KEY, init=start))(starts)
    drawn = fit(KEY, num_init=NUM_INIT)
    values = np.append(each.log_likelihood, drawn.log_likelihood)
    found = fit_trials(
      KEY, POINTS, starts=starts, num_finals=NUM_GIVEN + NUM_INIT
    )
    assert_same(found.result.log_likelihood, values.max(), 1e-5)
    best = found.start
    if best < NUM_GIVEN:
      assert_same(found.result.mixture, take(each, best).mixture)
    else:
      # None of those given was as good.
      assert values[:NUM_GIVEN].max() < values.max()


def test_of_equal_runs_the_first_is_kept():
  best = fit_trials(KEY, POINTS, num_finals=NUM_INIT).result.mixture
  equal = jax.tree.map(lambda leaf: jnp.stack([leaf] * NUM_GIVEN), best)
  for num_finals in (1, 2, NUM_GIVEN + NUM_INIT):
    found = fit_trials(KEY, POINTS, starts=equal, num_finals=num_finals)
    assert found.start == 0
    assert_same(found.result.mixture, best)


def test_the_likeliest_after_a_few_steps_is_the_one_that_goes_on():
  num_steps, starts_seen = 3, set()
  for seed in range(6):
    starts = make_starts(seed)
    # A step tells the likelihood before it.
    values = np.array(
      [
        fit(
          KEY, init=take(starts, index), max_iter=num_steps - 1
        ).log_likelihood
        for index in range(NUM_GIVEN)
      ]
    )
    found = fit_trials(
      KEY,
      POINTS,
      starts=starts,
      num_finals=1,
      num_init=1,
      num_trial_steps=num_steps,
    )
    # The first to go on is one of those given.
    assert found.start == np.argmax(values > values.max() - 1e-6)
    starts_seen.add(int(found.start))
    ended = fit(KEY, init=take(starts, found.start))
    # It goes on from where it waited: steps are counted once.
    assert abs(found.result.num_iters - ended.num_iters) <= 2
    assert_same(found.result.log_likelihood, ended.log_likelihood, 1e-5)
    assert_same(found.result.mixture, ended.mixture, 1e-2)
  assert len(starts_seen) > 1


def test_a_given_start_has_a_head_start():
  # Components that are almost the same: hardly likelier than one.
  point = jnp.mean(POINTS, axis=0)
  poor = types.Mixture(
    jnp.full((NUM_GIVEN, K), 1.0 / K),
    jnp.broadcast_to(point, (NUM_GIVEN, K, DIM)) + 0.3 * jnp.arange(K)[:, None],
    jnp.full((NUM_GIVEN, K, DIM), 5.0),
  )
  options = {"starts": poor, "num_finals": 2, "max_iter": 3}
  drawn = fit_trials(KEY, POINTS, **options)
  assert drawn.start >= NUM_GIVEN
  value = fit_trials(KEY, POINTS, **options, head_start=100.0)
  assert value.start < NUM_GIVEN
  gap = drawn.result.log_likelihood - value.result.log_likelihood
  assert gap > 0
  # By its mean likelihood, and no more than that.
  assert fit_trials(KEY, POINTS, **options, head_start=0.5 * gap).start >= 3


def with_spike():
  """A fifth of the points are one, far from the others; and starts at it."""
  points = POINTS.copy()
  points[::5] = [30.0, 30.0]
  start = types.Mixture(
    np.full(K, 1.0 / K), points[[0, 1, 2]], np.full((K, DIM), 4.0)
  )
  return points, jax.tree.map(
    lambda leaf: jnp.stack([leaf] * NUM_GIVEN).astype(jnp.float32), start
  )


def test_what_has_collapsed_is_tried_again_with_a_prior():
  points, starts = with_spike()
  lost = fit_trials(KEY, points, starts=starts, num_finals=1)
  assert lost.result.status == types.Status.DEGENERATE
  assert lost.prior_size == 0.0
  found = fit_again(points, starts, 1)
  assert found.result.status < types.Status.DEGENERATE
  assert found.prior_size == 1.0
  # The spike keeps some of the variance of the others.
  spike = np.argmax(np.asarray(found.result.mixture.means)[:, 0])
  np.testing.assert_allclose(found.result.mixture.means[spike], 30.0, rtol=1e-4)
  assert np.all(found.result.mixture.covariances[spike] > 0.01)
  # What has not collapsed has no second run.
  found = fit_again(POINTS, make_starts(), 2)
  assert found.prior_size == 0.0
  assert_same(
    found.result,
    fit_trials(KEY, POINTS, starts=make_starts(), num_init=1).result,
  )


def test_a_sound_run_goes_on_before_a_likelier_one_that_has_collapsed():
  # One component is about a single point, so narrow that it stays there.
  narrow = np.array([[1e-8] * DIM, [4.0] * DIM, [4.0] * DIM])
  lost = types.Mixture(np.array([0.02, 0.49, 0.49]), POINTS[:3], narrow)
  starts = jax.tree.map(
    lambda leaf: jnp.stack([leaf] * NUM_GIVEN).astype(jnp.float32), lost
  )
  found = fit_trials(
    KEY, POINTS, starts=starts, num_finals=2, num_trial_steps=100
  )
  assert found.start >= NUM_GIVEN
  assert found.result.status < types.Status.DEGENERATE
  alone = fit(KEY, init=take(starts, 0))
  assert alone.status == types.Status.DEGENERATE
  assert alone.log_likelihood > found.result.log_likelihood


def test_a_batch_is_its_problems_one_by_one():
  points, _ = em_problems.random_problems(3)
  points = jnp.asarray(points[..., :DIM], jnp.float32)
  counts = jnp.array([1, 2, 3])
  keys = jax.random.split(KEY, 3)
  found = jax.vmap(fit_trials)(keys, points, counts)
  for index in range(3):
    one = fit_trials(keys[index], points[index], counts[index])
    assert found.start[index] == one.start
    assert_same(take(found.result.mixture, index), one.result.mixture, 1e-2)
    assert_same(
      found.result.log_likelihood[index], one.result.log_likelihood, 1e-5
    )
    assert np.count_nonzero(one.result.mixture.weights) == counts[index]


def test_padding_has_no_say():
  padded = np.concatenate([POINTS, np.full((4, DIM), np.nan, np.float32)])
  weight = np.append(np.ones(NUM_POINTS), np.zeros(4)).astype(np.float32)
  # Drawn starts depend on the number of rows, given ones do not.
  best = fit_trials(KEY, POINTS, num_finals=NUM_INIT).result.mixture
  starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * NUM_GIVEN), best)
  found = fit_trials(KEY, padded, starts=starts, sample_weight=weight)
  assert_same(found.result.mixture, best)


def test_a_start_that_cannot_be_used_spoils_nothing():
  starts = make_starts()
  spoilt = starts._replace(means=starts.means.at[1].set(jnp.nan))
  found = fit_trials(
    KEY, POINTS, starts=spoilt, num_finals=NUM_GIVEN + NUM_INIT
  )
  assert found.result.status < types.Status.DEGENERATE
  expected = fit_trials(KEY, POINTS, num_finals=NUM_INIT).result
  assert found.result.log_likelihood > expected.log_likelihood - 1e-5


@pytest.mark.parametrize(
  "changes",
  [
    {"points": np.where(np.arange(NUM_POINTS)[:, None] == 4, np.inf, POINTS)},
    {"sample_weight": np.zeros(NUM_POINTS, np.float32)},
    {"sample_weight": np.full(NUM_POINTS, -1.0, np.float32)},
    {"num_components": K + 1},
    {"num_components": 0},
  ],
)
def test_bad_input_has_its_status_and_is_finite(changes):
  arguments = {"points": POINTS, "num_components": K} | changes
  found = fit_trials(KEY, **arguments)
  assert found.result.status == types.Status.INVALID_INPUT
  assert found.result.log_likelihood == -np.inf
  assert found.result.num_iters == 0
  assert all(np.all(np.isfinite(leaf)) for leaf in found.result.mixture)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"num_finals": 0}, "num_finals is 0, takes an integer >= 1"),
    ({"num_trial_steps": -1}, "num_trial_steps is -1, takes an integer >= 0"),
    ({"num_init": 0}, "num_init is 0, takes an integer >= 1"),
    ({"head_start": -1.0}, "head_start is -1.0, takes a number >= 0"),
    ({"tol": -1.0}, "tol is -1.0, takes a number >= 0"),
    ({"patience": 1}, "option is 'patience', takes"),
    ({"init": take(make_starts(), 0)}, "init is a Mixture, takes 'ward'"),
    ({"covariance_type": "round"}, "covariance_type is 'round', takes"),
    ({"points": POINTS[0]}, r"points has shape \(2,\), takes \[N, d\]"),
  ],
)
def test_errors_are_one_line(options, message):
  arguments = {"points": POINTS, "covariance_type": "diag"} | options
  with pytest.raises(ValueError, match=message) as caught:
    em.fit_trials(KEY, num_components=K, **arguments)
  assert "\n" not in str(caught.value)
