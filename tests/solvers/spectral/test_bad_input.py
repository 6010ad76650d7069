"""The spectral method on problems that have no answer, or hardly one.

Every case runs in one `vmap` under `jit`, in both precisions, about the origin
and about the mean: a bad problem gets a status, and nothing is ever NaN.
"""

import functools

import jax
import numpy as np
import pytest

from tgmm_jax import types
from tgmm_jax.solvers import spectral

DIM, NUM_POINTS, MAX_COMPONENTS = 4, 200, 6
GOOD, POOR, BAD = (
  types.Status.CONVERGED,
  types.Status.DEGENERATE,
  types.Status.INVALID_INPUT,
)
MEANS = np.array([[6.0, 0, 0, 1], [0, 5, 0, 2], [0, 1, 7, 0]])
SETTINGS = [
  pytest.param(
    about,
    variance,
    dtype,
    marks=pytest.mark.slow if variance and dtype == "float64" else (),
  )
  for about in spectral.ABOUT
  for variance in (1.0, None)
  for dtype in ("float32", "float64")
]


def draw(means, weights=None, seed=0, num_points=NUM_POINTS):
  generator = np.random.default_rng(seed)
  labels = generator.choice(len(means), num_points, p=weights)
  return means[labels] + generator.normal(size=(num_points, means.shape[1]))


def few(count):
  """Weight of the first points alone."""
  return (np.arange(NUM_POINTS) < count).astype(float)


def cases(dtype):
  """Name, points `[N, d]`, weight `[N]`, K, and the statuses that are right."""
  plain = draw(MEANS)
  ones = np.ones(NUM_POINTS)
  equal = draw(np.repeat(MEANS[:1], 3, axis=0))
  two_equal = draw(MEANS[[0, 1, 1]])
  on_a_line = draw(np.outer([1.0, 2.0, 3.0], MEANS[0]))
  with_nan, with_inf = plain.copy(), plain.copy()
  with_nan[3, 1], with_inf[3, 1] = np.nan, -np.inf
  huge = 1e30 if dtype == "float32" else 1e200
  flat = plain * np.array([1.0, 1e-9, 1e-9, 1e-9])
  two = np.repeat(MEANS[:2], NUM_POINTS // 2, axis=0)
  return [
    ("plain", plain, ones, 3, {GOOD}),
    ("equal weights", draw(MEANS, [1 / 3] * 3, 7), ones, 3, {GOOD}),
    ("one component", plain, ones, 1, {GOOD}),
    ("K > d + 1", plain, ones, 6, {POOR}),
    ("equal means", equal, ones, 3, {POOR}),
    ("two equal means", two_equal, ones, 3, {POOR}),
    ("means on a line", on_a_line, ones, 3, {POOR}),
    ("noise alone", draw(0.0 * MEANS), ones, 3, {POOR}),
    ("one direction", flat, ones, 3, {POOR}),
    ("two places, K = 3", two, ones, 3, {POOR}),
    ("constant", np.full_like(plain, 3.3), ones, 2, {POOR}),
    ("zero", np.zeros_like(plain), ones, 2, {POOR}),
    ("constant columns", plain * [1, 1, 0, 0] + 2.0, ones, 4, {POOR}),
    ("one point, K = 2", plain, few(1), 2, {POOR}),
    ("two points, K = 3", plain, few(2), 3, {POOR}),
    ("three points", plain, few(3), 3, {POOR}),
    ("one heavy point", plain, ones + 1e6 * few(1), 3, {POOR}),
    ("tiny", 1e-6 * plain, ones, 3, {GOOD, POOR}),
    ("large", 1e6 * plain, ones, 3, {GOOD}),
    ("too large", huge * plain, ones, 3, {BAD}),
    ("NaN", with_nan, ones, 3, {BAD}),
    ("inf", with_inf, ones, 3, {BAD}),
    ("NaN in padding", with_nan, 1.0 - few(4), 3, {GOOD}),
    ("no weight", plain, 0.0 * ones, 3, {BAD}),
    ("negative weight", plain, ones - 2.0 * few(1), 3, {BAD}),
    ("NaN weight", plain, ones * np.where(few(1), np.nan, 1.0), 3, {BAD}),
    ("K = 0", plain, ones, 0, {BAD}),
    ("K > max_components", plain, ones, 7, {BAD}),
  ]


def fit_all(points, weight, num_components, **options):
  """Fits problems, as many as there are cases: one program for all."""
  count = len(points)
  index = np.minimum(np.arange(len(cases("float32"))), count - 1)
  results = _fit_all(
    points[index], weight[index], num_components[index], **options
  )
  return jax.tree.map(lambda leaf: leaf[:count], results)


@functools.partial(jax.jit, static_argnames=("about", "variance"))
def _fit_all(points, weight, num_components, *, about, variance):
  def fit(points, weight, num_components):
    return spectral.fit(
      jax.random.key(0),
      points,
      num_components,
      sample_weight=weight,
      max_components=MAX_COMPONENTS,
      about=about,
      variance=variance,
    )

  return jax.vmap(fit)(points, weight, num_components)


@pytest.mark.parametrize(("about", "variance", "dtype"), SETTINGS)
def test_a_status_for_every_case_and_never_nan(about, variance, dtype):
  names, points, weight, num_components, statuses = zip(
    *cases(dtype), strict=True
  )
  points, weight = np.stack(points).astype(dtype), np.stack(weight)
  solve = functools.partial(fit_all, about=about, variance=variance)
  with jax.enable_x64(dtype == "float64"):
    result = solve(points, weight.astype(dtype), np.array(num_components))
    # The same first problem among others: a batch of nothing but it.
    alone = solve(
      np.repeat(points[:1], len(names), axis=0),
      np.ones_like(weight, dtype),
      np.full(len(names), num_components[0]),
    )
  result, alone = jax.tree.map(np.asarray, (result, alone))
  for leaf in jax.tree.leaves(result.mixture):
    assert leaf.dtype == dtype  # Real, that is, and as wide as the points.
    assert np.all(np.isfinite(leaf))
  assert not np.any(np.isnan(result.log_likelihood))
  np.testing.assert_allclose(result.mixture.weights.sum(axis=1), 1.0, 1e-5)
  assert wrong_ones(names, result.status, statuses) == {}
  for leaf, other in zip(
    jax.tree.leaves(result), jax.tree.leaves(alone), strict=True
  ):
    np.testing.assert_array_equal(leaf[0], other[0])


def wrong_ones(names, found, statuses):
  return {
    name: types.Status(status).name
    for name, status, allowed in zip(names, found, statuses, strict=True)
    if status not in allowed
  }


@pytest.mark.parametrize("about", spectral.ABOUT)
@pytest.mark.parametrize(
  ("dtype", "scales"),
  [("float32", [1e-15, 1e-3, 1e15]), ("float64", [1e-140, 1e30, 1e140])],
)
def test_scaled_points_give_the_scaled_mixture(about, dtype, scales):
  factors = np.array([1.0, *scales])
  count = len(factors)
  with jax.enable_x64(dtype == "float64"):
    result = fit_all(
      (factors[:, None, None] * draw(MEANS)).astype(dtype),
      np.ones((count, NUM_POINTS), dtype),
      np.full(count, 3),
      about=about,
      variance=None,
    )
  result = jax.tree.map(np.asarray, result)
  mixture, log_likelihood, status = (
    result.mixture,
    result.log_likelihood,
    result.status,
  )
  np.testing.assert_array_equal(status, GOOD)
  rtol = {"float32": 1e-3, "float64": 1e-8}[dtype]
  squares = mixture.covariances / factors / factors
  np.testing.assert_allclose(squares, squares[0], rtol=rtol)
  means = mixture.means / factors[:, None, None]
  np.testing.assert_allclose(means, [means[0]] * count, rtol=rtol, atol=rtol)
  np.testing.assert_allclose(
    mixture.weights, [mixture.weights[0]] * count, rtol=rtol
  )
  np.testing.assert_allclose(
    log_likelihood + DIM * np.log(factors), [log_likelihood[0]] * count, rtol
  )


@pytest.mark.parametrize("about", spectral.ABOUT)
def test_a_variance_out_of_the_range_of_the_dtype_is_invalid(about):
  points = np.float32(1e-25) * draw(MEANS).astype(np.float32)
  result = fit_all(
    points[None], np.ones((1, 200)), np.array([3]), about=about, variance=None
  )
  assert result.status == BAD
  assert np.all(np.isfinite(result.mixture.means))
  assert np.isfinite(result.mixture.covariances)


def test_a_variance_that_is_none_is_invalid():
  points = draw(MEANS).astype(np.float32)

  @jax.jit
  @jax.vmap
  def fit(variance):
    return spectral.fit(jax.random.key(0), points, 3, variance=variance)

  result = fit(np.float32([1.0, np.nan, np.inf, -1.0]))
  np.testing.assert_array_equal(result.status, [GOOD, BAD, BAD, BAD])
  assert all(np.all(np.isfinite(leaf)) for leaf in result.mixture)
  for variance in (np.nan, np.inf, -1.0):
    with pytest.raises(ValueError, match="variance is .*, takes a number >="):
      spectral.fit(jax.random.key(0), points, 3, variance=variance)


@pytest.mark.parametrize(
  ("options", "match"),
  [
    ({"about": "median"}, "about is 'median', takes"),
    ({"num_steps": 3}, "option is 'num_steps', takes 'num_restarts', "),
    ({"min_eigenvalue": -1.0}, "min_eigenvalue is -1.0, takes >= 0"),
    ({"num_restarts": 0}, "num_restarts is 0, takes an integer >= 1"),
    ({"num_iters": 0}, "num_iters is 0, takes an integer >= 1"),
  ],
)
def test_what_no_data_can_make_right_is_refused(options, match):
  with pytest.raises(ValueError, match=match):
    spectral.fit(jax.random.key(0), draw(MEANS), 3, **options)


def moment_cases():
  """Name, second, third, K, and the statuses that are right."""
  weights = np.array([0.2, 0.3, 0.5])

  def moments_of(means):
    second = np.einsum("k,ki,kj->ij", weights, means, means)
    return second, np.einsum("k,ki,kj,kl->ijl", weights, means, means, means)

  second, third = moments_of(MEANS)
  askew, crooked, with_nan = second.copy(), third.copy(), third.copy()
  askew[0, 1], crooked[0, 1, 2], with_nan[0, 0, 0] = 9.0, 99.0, np.nan
  return [
    ("plain", second, third, 3, {GOOD}),
    ("equal means", *moments_of(MEANS[[0, 1, 1]]), 3, {POOR}),
    ("one mean", *moments_of(MEANS[[0, 0, 0]]), 1, {GOOD}),
    ("means on a line", *moments_of(np.outer(weights, MEANS[0])), 2, {POOR}),
    ("zero", 0 * second, 0 * third, 3, {POOR}),
    ("no third moment", second, 0 * third, 3, {POOR}),
    ("too large a third moment", second, 9.0 * third, 3, {POOR}),
    ("too small a third moment", second, 0.2 * third, 3, {POOR}),
    ("negative", -second, third, 3, {POOR}),
    ("K > d", second, third, 5, {POOR}),
    ("NaN", second, with_nan, 3, {BAD}),
    ("inf", np.full((4, 4), np.inf), third, 3, {BAD}),
    ("second askew", askew, third, 3, {BAD}),
    ("third askew", second, crooked, 3, {BAD}),
    ("K = 0", second, third, 0, {BAD}),
    ("K > max_components", second, third, 6, {BAD}),
    ("small", 1e-20 * second, 1e-30 * third, 3, {GOOD}),
    ("large", 1e20 * second, 1e30 * third, 3, {GOOD}),
  ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_given_moments_get_a_status_too(dtype):
  names, second, third, num_components, statuses = zip(
    *moment_cases(), strict=True
  )
  with jax.enable_x64(dtype == "float64"):
    result = jax.jit(
      jax.vmap(
        lambda *inputs: spectral.fit_moments(
          jax.random.key(0), *inputs, max_components=5
        )
      )
    )(
      np.stack(second).astype(dtype),
      np.stack(third).astype(dtype),
      np.array(num_components),
    )
  result = jax.tree.map(np.asarray, result)
  for leaf in jax.tree.leaves(result):
    assert np.all(np.isfinite(leaf))
  np.testing.assert_allclose(result.mixture.weights.sum(axis=1), 1.0, 1e-5)
  status = np.asarray(result.status)
  assert wrong_ones(names, status, statuses) == {}
