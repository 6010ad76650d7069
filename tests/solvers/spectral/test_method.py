"""The spectral method: exact recovery, statuses, padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import gmm, metrics, types
from tgmm_jax.solvers import spectral
from tgmm_jax.solvers.spectral import moments
from tgmm_jax.tasks import mixtures

FIT = jax.jit(
  spectral.fit, static_argnames=("max_components", "variance", "about")
)
sample_batch = jax.jit(mixtures.sample_batch, static_argnums=(1, 2))
l2_error = jax.jit(metrics.l2_error)
log_likelihood = jax.jit(gmm.log_likelihood, static_argnames="covariance_type")


def fit(points, num_components, **options):
  return FIT(
    jax.random.key(0),
    points,
    num_components,
    max_components=num_components,
    **options,
  )


def make_task(dim, num_components, num_points=4000):
  """One task of the paper, its noise of variance 1."""
  config = mixtures.TaskConfig(
    dim=dim,
    num_components=(num_components,),
    min_points=num_points,
    max_points=num_points,
  )
  task = sample_batch(jax.random.key(4), config, 1)
  # In NumPy, so that no small operation is compiled for each size.
  return jax.tree.map(lambda leaf: np.asarray(leaf)[0], task)


@pytest.mark.parametrize(
  ("dim", "num_components", "variance", "about"),
  [
    (6, 4, None, "origin"),
    (2, 3, 1.0, "mean"),
    pytest.param(20, 3, 1.0, "origin", marks=pytest.mark.slow),
    pytest.param(6, 4, None, "mean", marks=pytest.mark.slow),
  ],
)
def test_many_points_give_the_parameters(dim, num_components, variance, about):
  task = make_task(dim, num_components)
  result = FIT(
    jax.random.key(0),
    task.points,
    num_components,
    sample_weight=task.sample_weight,
    max_components=5,
    variance=variance,
    about=about,
  )
  truth = np.pad(task.mixture.means, ((0, 5 - num_components), (0, 0)))
  error = l2_error(result.mixture.means, truth, num_components)
  assert error < 0.02
  np.testing.assert_allclose(
    np.sort(result.mixture.weights)[-num_components:],
    task.mixture.weights,
    atol=0.03,
  )
  np.testing.assert_array_equal(result.mixture.means[num_components:], 0.0)
  np.testing.assert_allclose(
    result.log_likelihood,
    log_likelihood(
      task.points,
      result.mixture,
      covariance_type="unit" if variance else "tied_spherical",
    ),
    rtol=1e-5,
  )
  if variance is None:
    np.testing.assert_allclose(result.mixture.covariances, 1.0, atol=0.05)
  else:
    assert result.mixture.covariances is None
  assert result.status == types.Status.CONVERGED


@pytest.mark.parametrize("filling", [0.0, np.nan, 1e30])
def test_padding_has_no_effect(filling):
  task = make_task(6, 3, num_points=100)
  padded = np.pad(task.points, ((0, 20), (0, 0)), constant_values=filling)
  weight = np.pad(np.full(100, 2.0, np.float32), (0, 20))
  plain = FIT(jax.random.key(0), task.points, 3, max_components=3)
  result = FIT(
    jax.random.key(0), padded, 3, sample_weight=weight, max_components=5
  )
  np.testing.assert_allclose(
    result.mixture.means[:3], plain.mixture.means, atol=2e-3
  )


def test_statuses_and_finite_parameters():
  points = np.asarray(make_task(3, 3, num_points=60).points)
  with_nan = points.copy()
  with_nan[1, 1] = np.nan
  # Two dimensions of hardly any spread: less than the noise alone has.
  flat = points * np.array([1.0, 1e-3, 1e-3], np.float32)
  cases = [
    (points, 3, types.Status.CONVERGED),
    (points, 4, types.Status.DEGENERATE),
    (flat, 3, types.Status.DEGENERATE),
    (np.zeros_like(points), 2, types.Status.DEGENERATE),
    (with_nan, 3, types.Status.INVALID_INPUT),
    (points, 0, types.Status.INVALID_INPUT),
    (points, 6, types.Status.INVALID_INPUT),
  ]
  batch, num_components, status = (
    np.stack(column) for column in zip(*cases, strict=True)
  )
  solve = functools.partial(spectral.fit, max_components=5)
  result = jax.jit(jax.vmap(solve))(
    jax.random.split(jax.random.key(0), len(cases)), batch, num_components
  )
  np.testing.assert_array_equal(result.status, status)
  for leaf in jax.tree.leaves(result.mixture):
    assert np.all(np.isfinite(leaf))
  assert not np.any(np.isnan(result.log_likelihood))
  np.testing.assert_allclose(
    np.sum(result.mixture.weights, axis=1), 1.0, rtol=1e-5
  )
  # With K > d every component is the overall mean.
  np.testing.assert_allclose(
    result.mixture.means[1, :4],
    np.tile(points.mean(axis=0), (4, 1)),
    atol=1e-5,
  )
  np.testing.assert_allclose(result.mixture.weights[1, :4], 0.25, rtol=1e-6)


@pytest.mark.parametrize(
  "num_points", [1, pytest.param(60, marks=pytest.mark.slow)]
)
def test_one_component_is_the_mean_and_the_covariance(num_points):
  points = np.asarray(make_task(3, 2, num_points=60).points)[:num_points]
  for about in spectral.ABOUT:
    result = fit(points, 1, variance=None, about=about)
    np.testing.assert_allclose(
      result.mixture.means[0], points.mean(axis=0), rtol=1e-5
    )
    np.testing.assert_array_equal(result.mixture.weights, [1.0])
    if num_points == 1:
      assert result.status == types.Status.DEGENERATE
    else:
      assert result.status == types.Status.CONVERGED
      np.testing.assert_allclose(
        result.mixture.covariances, points.var(axis=0).mean(), rtol=1e-5
      )
    known = fit(points, 1, about=about)
    assert known.status == types.Status.CONVERGED


def test_the_variance_given_is_that_of_the_mixture():
  points = 3.0 * make_task(5, 3).points
  for variance in (9.0, jnp.asarray(9.0)):
    solve = functools.partial(spectral.fit, max_components=3)
    result = jax.jit(solve)(jax.random.key(0), points, 3, variance=variance)
    np.testing.assert_allclose(result.mixture.covariances, 9.0, rtol=1e-6)
    np.testing.assert_allclose(
      result.log_likelihood,
      log_likelihood(points, result.mixture, covariance_type="tied_spherical"),
      rtol=1e-5,
    )
  plain = fit(points / 3.0, 3)
  np.testing.assert_allclose(
    result.mixture.means / 3.0, plain.mixture.means, atol=1e-4
  )


def test_about_the_mean_moved_points_give_the_moved_mixture():
  points = make_task(4, 3, num_points=200).points
  options = {"variance": None, "about": "mean"}
  plain = fit(points, 3, **options)
  moved = fit(points + 1e4, 3, **options)
  np.testing.assert_allclose(
    moved.mixture.means - 1e4, plain.mixture.means, atol=0.01
  )
  np.testing.assert_allclose(
    moved.mixture.covariances, plain.mixture.covariances, rtol=0.01
  )
  np.testing.assert_allclose(
    moved.log_likelihood, plain.log_likelihood, atol=0.01
  )
  assert moved.status == plain.status == types.Status.CONVERGED
  # About the origin centred means are dependent: that is said.
  centred = points - points.mean(axis=0)
  assert fit(centred, 3).status == types.Status.DEGENERATE


@pytest.mark.slow
def test_about_the_mean_few_points_suffice_at_two_dimensions():
  """Where the moments about the origin fail for one task in five."""
  config = mixtures.TaskConfig(
    dim=2, num_components=(2,), min_points=128, max_points=128
  )
  tasks = sample_batch(jax.random.key(0), config, 200)
  errors, statuses = {}, {}
  for about in spectral.ABOUT:
    solve = functools.partial(spectral.fit, max_components=2, about=about)
    result = jax.jit(jax.vmap(solve))(
      jax.random.split(jax.random.key(1), 200),
      tasks.points,
      tasks.num_components,
    )
    errors[about] = np.asarray(
      jax.vmap(l2_error)(
        result.mixture.means, tasks.mixture.means, tasks.num_components
      )
    )
    statuses[about] = np.asarray(result.status)
  assert np.mean(errors["mean"] > 0.5) < 0.01
  assert np.median(errors["mean"]) < 0.025
  assert np.mean(errors["origin"] > 0.5) > 0.1
  # What is not said to be degenerate is right, but for a few.
  is_wrong = (errors["origin"] > 0.5) & (statuses["origin"] == 0)
  assert np.mean(is_wrong) < 0.05


def population(dim, num_components, seed, variance):
  """Random parameters and the raw moments of their mixture, written out."""
  generator = np.random.default_rng(seed)
  means = generator.uniform(-5.0, 5.0, (num_components, dim))
  weights = generator.uniform(0.2, 0.8, num_components)
  weights /= weights.sum()
  mean = weights @ means
  second = np.einsum("k,ki,kj->ij", weights, means, means)
  third = np.einsum("k,ki,kj,kl->ijl", weights, means, means, means)
  noise = variance * np.einsum("i,jk->ijk", mean, np.eye(dim))
  third += noise + noise.transpose(1, 0, 2) + noise.transpose(1, 2, 0)
  second += variance * np.eye(dim)
  return weights, means, mean, second, third


@pytest.mark.parametrize(
  ("dim", "num_components"),
  [(5, 3)]
  + [
    pytest.param(*shape, marks=pytest.mark.slow)
    for shape in [(2, 2), (3, 1), (8, 8), (30, 4)]
  ],
)
@pytest.mark.parametrize("variance", [0.0, 1.7])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_population_moments_give_the_parameters_back(
  dim, num_components, variance, dtype
):
  atol = {"float32": 2e-3, "float64": 1e-6}[dtype]
  with jax.enable_x64(dtype == "float64"):
    solve = jax.jit(
      functools.partial(
        spectral.fit_moments, num_components=num_components, max_components=8
      )
    )
    for seed in range(5):
      weights, means, *raw = population(dim, num_components, seed, variance)
      mean, second, third = (array.astype(dtype) for array in raw)
      noise = {"mean": mean, "variance": variance} if variance else {}
      found = solve(jax.random.key(0), second, third, **noise)
      found = jax.tree.map(np.asarray, found)
      estimate = found.mixture.means[:num_components]
      distance = np.sum((means[:, None] - estimate) ** 2, axis=-1)
      order = distance.argmin(axis=1)
      assert sorted(order) == list(range(num_components))
      np.testing.assert_allclose(estimate[order], means, atol=atol)
      np.testing.assert_allclose(
        found.mixture.weights[order], weights, atol=atol
      )
      np.testing.assert_array_equal(found.mixture.means[num_components:], 0.0)
      assert found.status == types.Status.CONVERGED
      assert found.rank == num_components
      assert found.residual < atol


def test_the_mean_and_the_variance_go_together():
  with pytest.raises(ValueError, match="takes both or neither"):
    spectral.fit_moments(
      jax.random.key(0), np.eye(2), np.zeros((2, 2, 2)), 2, variance=1.0
    )


def test_recovered_from_exact_eigenpairs_of_whitened_moments():
  weights = np.array([0.2, 0.3, 0.5])
  means = np.array([[3.0, 0.0, 1.0], [-1.0, 2.0, 0.0], [0.5, -1.0, 2.0]])
  with jax.enable_x64(True):
    second = np.einsum("k,ki,kj->ij", weights, means, means)
    third = np.einsum("k,ki,kj,kl->ijl", weights, means, means, means)
    whitened = moments.whiten(second, third, 3, max_components=3)
    # Whitened, sqrt(w_k) m_k are orthonormal, and the eigenvalue is w_k^-1/2.
    vectors = np.linalg.lstsq(
      np.asarray(whitened.unwhitening), (np.sqrt(weights) * means.T)
    )[0].T
    recover = functools.partial(
      spectral.recover,
      vectors=vectors,
      status=jnp.asarray(types.Status.MAX_ITER),
      whitened=whitened,
      mean=jnp.full(3, 7.0),
    )
    values = jnp.asarray(weights**-0.5)
    mixture, status = recover(values, num_components=3, max_rank=3)
    assert status == types.Status.MAX_ITER
    np.testing.assert_allclose(mixture.weights, weights, rtol=1e-12)
    np.testing.assert_allclose(mixture.means, means, atol=1e-12)
    for change in ({"max_rank": 2}, {"eigenvalues": values.at[1].set(0.0)}):
      options = {"eigenvalues": values, "max_rank": 3} | change
      mixture, status = recover(num_components=3, **options)
      assert status == types.Status.DEGENERATE
      np.testing.assert_allclose(mixture.means, 7.0)
      np.testing.assert_allclose(mixture.weights, 1 / 3)
    # One component is the mean, whatever the pairs are.
    mixture, status = recover(values, num_components=1, max_rank=3)
    assert status == types.Status.CONVERGED
    np.testing.assert_array_equal(
      mixture.means, [[7.0] * 3, [0.0] * 3, [0.0] * 3]
    )
    # Eigenvalues whose weights add up to a ninth tell of other moments.
    assert recover(3.0 * values, num_components=3, max_rank=3)[1] == (
      types.Status.DEGENERATE
    )
