"""EM against a float64 NumPy EM, and what must hold for any good data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests.solvers.em import problems as em_problems
from tgmm_jax import gmm, types
from tgmm_jax.solvers import em, k_means
from tgmm_jax.solvers.em import batches
from tgmm_jax.tasks import mixtures

K, DIM, NUM_POINTS = 3, 4, 40


def numpy_em(points, sample_weight, weights, means, num_steps):
  """The textbook, one point and component at a time."""
  for _ in range(num_steps):
    joint = np.empty((len(points), len(means)))
    for n, point in enumerate(points):
      for k, mean in enumerate(means):
        density = np.exp(-0.5 * np.sum((point - mean) ** 2))
        joint[n, k] = weights[k] * density
    share = joint / joint.sum(axis=1, keepdims=True)
    share = share * sample_weight[:, None]
    mass = share.sum(axis=0)
    weights = mass / mass.sum()
    means = share.T @ points / mass[:, None]
  return weights, means


def numpy_log_likelihood(points, sample_weight, weights, means):
  density = sum(
    weight * scipy.stats.multivariate_normal(mean).pdf(points)
    for weight, mean in zip(weights, means, strict=True)
  )
  return np.average(np.log(density), weights=sample_weight)


def make_points():
  return em_problems.clusters((K, DIM), NUM_POINTS)


def make_start(points, seed=1):
  generator = np.random.default_rng(seed)
  means = points[generator.choice(len(points), K, replace=False)]
  weights = generator.uniform(0.2, 0.8, K)
  return types.Mixture(jnp.asarray(weights / weights.sum()), jnp.asarray(means))


@functools.partial(jax.jit, static_argnames="dim")
def sample_batch(key, dim):
  config = mixtures.TaskConfig(
    dim=dim, num_components=(2, 3, 4), min_points=20, max_points=NUM_POINTS
  )
  return mixtures.sample_batch(key, config, 50)


def make_batch(dim=8, num_tasks=12, seed=0):
  batch = sample_batch(jax.random.key(seed), dim)
  return jax.tree.map(lambda leaf: leaf[:num_tasks], batch)


@pytest.mark.parametrize("num_steps", [1, 5, 30])
def test_steps_equal_a_numpy_em_in_float64(num_steps):
  with jax.enable_x64(True):
    points = make_points()
    weight = np.random.default_rng(2).uniform(0.5, 2.0, NUM_POINTS)
    start = make_start(points)
    result = em.fit(
      jax.random.key(0),
      jnp.asarray(points),
      K,
      sample_weight=jnp.asarray(weight),
      init=start,
      max_iter=num_steps,
      tol=0.0,
    )
    weights, means = numpy_em(
      points,
      weight,
      np.asarray(start.weights),
      np.asarray(start.means),
      num_steps,
    )
    np.testing.assert_allclose(result.mixture.weights, weights, rtol=1e-10)
    np.testing.assert_allclose(result.mixture.means, means, atol=1e-10)
    np.testing.assert_allclose(
      result.log_likelihood,
      numpy_log_likelihood(points, weight, weights, means),
      rtol=1e-12,
    )
    assert result.num_iters == num_steps
    assert result.status == types.Status.MAX_ITER
    step = start
    for _ in range(num_steps):
      step = em.step(
        jnp.asarray(points), step, sample_weight=jnp.asarray(weight)
      )
    np.testing.assert_allclose(step.means, means, atol=1e-10)
    np.testing.assert_allclose(step.weights, weights, rtol=1e-10)


def test_it_stops_where_a_step_changes_the_likelihood_by_less_than_tol():
  with jax.enable_x64(True):
    points, tol = make_points(), 1e-4
    start = make_start(points)
    result = em.fit(
      jax.random.key(0), jnp.asarray(points), K, init=start, tol=tol
    )
    assert result.status == types.Status.CONVERGED
    values = []
    for num_steps in range(int(result.num_iters)):
      weights, means = numpy_em(
        points,
        np.ones(NUM_POINTS),
        np.asarray(start.weights),
        np.asarray(start.means),
        num_steps,
      )
      values.append(
        numpy_log_likelihood(points, np.ones(NUM_POINTS), weights, means)
      )
    changes = np.diff(values)
    assert changes[-1] < tol
    assert np.all(changes[:-1] >= tol)


def test_no_step_lowers_the_likelihood():
  points = jnp.asarray(make_points(), jnp.float32)

  def advance(mixture, _):
    return em.step(points, mixture), gmm.log_likelihood(points, mixture)

  start = types.Mixture(jnp.full(K, 1 / K), points[:K])
  _, values = jax.lax.scan(advance, start, length=50)
  assert np.all(np.diff(values) > -2e-6)
  assert values[-1] - values[0] > 0.5


@pytest.mark.parametrize(
  ("init", "is_projected"),
  [
    ("k-means++", False),
    pytest.param("normal", True, marks=pytest.mark.slow),
  ],
)
def test_fit_batch_is_vmap_of_fit(init, is_projected):
  batch = make_batch(num_tasks=13)
  keys = jax.random.split(jax.random.key(1), 13)
  options = {
    "max_components": 4,
    "init": init,
    "num_init": 3,
    "is_projected": is_projected,
  }

  def fit(key, points, num_components, sample_weight):
    return em.fit(
      key, points, num_components, sample_weight=sample_weight, **options
    )

  one_by_one = jax.vmap(fit)(
    keys, batch.points, batch.num_components, batch.sample_weight
  )
  queued = em.fit_batch(
    keys,
    batch.points,
    batch.num_components,
    sample_weight=batch.sample_weight,
    batch_size=8,
    **options,
  )
  # The queue's batched products round otherwise, which may cost a step.
  np.testing.assert_allclose(
    queued.log_likelihood, one_by_one.log_likelihood, rtol=1e-4
  )
  np.testing.assert_array_equal(queued.status, one_by_one.status)
  close = np.isclose(queued.mixture.means, one_by_one.mixture.means, atol=1e-2)
  assert np.mean(np.all(close, axis=(1, 2))) > 0.9
  for result in (one_by_one, queued):
    expected = jax.vmap(
      lambda points, mixture, weight: gmm.log_likelihood(
        points, mixture, sample_weight=weight
      )
    )(batch.points, result.mixture, batch.sample_weight)
    np.testing.assert_allclose(result.log_likelihood, expected, rtol=1e-5)


@pytest.mark.slow
def test_the_most_likely_of_several_starts_is_returned():
  # With the sizes and static options of the test before.
  batch = make_batch(num_tasks=13)
  fit = functools.partial(
    em.fit_batch,
    points=batch.points,
    num_components=batch.num_components,
    sample_weight=batch.sample_weight,
    max_components=4,
    batch_size=8,
  )
  keys = jax.random.split(jax.random.key(5), 13)
  starts_of = jax.jit(
    jax.vmap(
      lambda key, points, num_components, weight: jax.vmap(
        lambda key: k_means.k_means_plus_plus(
          key,
          points,
          num_components,
          sample_weight=weight,
          max_components=4,
        )
      )(jax.random.split(key, 3))
    )
  )
  starts = starts_of(
    keys, batch.points, batch.num_components, batch.sample_weight
  )
  is_component = np.arange(4) < np.asarray(batch.num_components)[:, None]
  weights = is_component / batch.num_components[:, None]
  each = np.stack(
    [
      fit(keys, init=types.Mixture(weights, starts[:, i])).log_likelihood
      for i in range(3)
    ]
  )
  best = fit(keys, num_init=3).log_likelihood
  assert np.ptp(each, axis=0).max() > 0.05
  np.testing.assert_allclose(best, each.max(axis=0), atol=1e-3)


def fit_weighted(points, sample_weight, start, **options):
  return em.fit(
    jax.random.key(0),
    points,
    K,
    sample_weight=sample_weight,
    init=start,
    tol=0.0,
    max_iter=10,
    **options,
  )


def test_a_weight_of_two_is_a_point_given_twice():
  points = make_points().astype(np.float32)
  start = make_start(points)
  weight = np.ones(NUM_POINTS, np.float32)
  weight[:7] = 2.0
  weighted = fit_weighted(points, weight, start)
  doubled = fit_weighted(np.concatenate([points, points[:7]]), None, start)
  np.testing.assert_allclose(
    weighted.mixture.means, doubled.mixture.means, atol=1e-4
  )
  np.testing.assert_allclose(
    weighted.log_likelihood, doubled.log_likelihood, rtol=1e-5
  )


@pytest.mark.parametrize("filling", [0.0, np.nan, np.inf, 1e30])
@pytest.mark.parametrize("init", ["k-means++", "normal"])
def test_padding_has_no_effect(init, filling):
  points = make_points().astype(np.float32)
  padded = np.full((NUM_POINTS + 9, DIM), filling, np.float32)
  padded[:NUM_POINTS] = points
  weight = np.zeros(NUM_POINTS + 9, np.float32)
  weight[:NUM_POINTS] = 1.0
  plain = em.fit(jax.random.key(2), points, K, init=init, max_iter=20)
  result = em.fit(
    jax.random.key(2),
    padded,
    jnp.asarray(K),
    sample_weight=weight,
    max_components=K + 2,
    init=init,
    max_iter=20,
  )
  np.testing.assert_allclose(
    result.mixture.means[:K], plain.mixture.means, atol=1e-3
  )
  np.testing.assert_array_equal(result.mixture.means[K:], 0.0)
  np.testing.assert_array_equal(result.mixture.weights[K:], 0.0)
  assert result.status == plain.status


@pytest.mark.parametrize(
  ("init", "is_projected"), [("k-means++", False), ("random_points", True)]
)
def test_shifted_points_shift_the_means(init, is_projected):
  # The shift and the points are on a grid that float32 holds exactly.
  points = np.round(make_points() * 64) / 64
  points = points.astype(np.float32)
  fit = functools.partial(
    em.fit, jax.random.key(2), init=init, is_projected=is_projected
  )
  near, far = fit(points, K), fit(points + np.float32(1e4), K)
  np.testing.assert_allclose(
    far.mixture.means, near.mixture.means + 1e4, atol=5e-3
  )
  np.testing.assert_allclose(far.log_likelihood, near.log_likelihood, rtol=1e-4)


def test_items_do_not_depend_on_their_neighbours():
  batch = make_batch(num_tasks=50)
  points = batch.points.at[3].set(jnp.nan).at[17, 0, 0].set(jnp.inf)
  # A slow item instead: a grid without any clusters.
  points = points.at[30].set(jnp.linspace(-1.0, 1.0, 8))
  fit = functools.partial(
    em.fit_batch,
    jax.random.key(0),
    num_components=batch.num_components,
    sample_weight=batch.sample_weight,
    max_components=4,
    num_init=2,
    batch_size=16,
  )
  clean, poisoned = fit(points=batch.points), fit(points=points)
  others = np.delete(np.arange(50), [3, 17, 30])
  for one, other in zip(
    jax.tree.leaves(clean), jax.tree.leaves(poisoned), strict=True
  ):
    np.testing.assert_array_equal(one[others], other[others])
  assert poisoned.status[3] == types.Status.INVALID_INPUT
  assert poisoned.status[17] == types.Status.INVALID_INPUT
  assert np.all(np.isfinite(poisoned.mixture.means))


def test_two_batches_compile_once():
  batches._fit_batch.clear_cache()
  for seed in (0, 1):
    batch = make_batch(seed=seed)
    em.fit_batch(
      jax.random.key(seed),
      batch.points,
      batch.num_components,
      sample_weight=batch.sample_weight,
      max_components=4,
    )
  assert batches._fit_batch._cache_size() == 1


def test_projected_means_leave_the_overall_mean_outside_the_subspace():
  batch = make_batch(num_tasks=1)
  points = batch.points[0]
  result = em.fit(
    jax.random.key(0),
    points,
    batch.num_components[0],
    sample_weight=batch.sample_weight[0],
    max_components=4,
    num_init=5,
    is_projected=True,
  )
  real = points[batch.sample_weight[0] > 0]
  centre = real.mean(axis=0)
  _, _, directions = np.linalg.svd(real - centre, full_matrices=False)
  inside = directions[:3].T @ directions[:3]
  means = result.mixture.means[: int(batch.num_components[0])] - centre
  np.testing.assert_allclose(means @ inside, means, atol=0.05)
