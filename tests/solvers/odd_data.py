"""Odd problems that every solver must survive, and their fits.

All have the same shape, so that one program fits them as a batch: what has
fewer points is padded by weight 0, and padding is NaN.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import types
from tgmm_jax.solvers import em

NUM_POINTS, DIM, MAX_COMPONENTS = 30, 3, 3

# By how much points are multiplied and what is added to them; the last of
# the scales leaves no room for squares.
SCALES = {
  "float32": (1e-15, 1e-6, 1e-3, 1e3, 1e10, 1e15),
  "float64": (1e-150, 1e-30, 1e-6, 1e-3, 1e3, 1e10, 1e15, 1e150),
}
TOO_SMALL = {"float32": 1e-30, "float64": 1e-200}
TOO_LARGE = {"float32": 1e30, "float64": 1e200}
OFFSETS = {"float32": (1e4, 1e6), "float64": (1e4, 1e6, 1e8)}


class Odd(NamedTuple):
  """One problem; `is_valid` says whether it can be fitted at all."""

  points: np.ndarray
  sample_weight: np.ndarray
  num_components: int = 3
  is_valid: bool = True


def plain_points(seed=0):
  """Three clusters, on a grid that float32 holds even far from the origin."""
  generator = np.random.default_rng(seed)
  labels = np.arange(NUM_POINTS) % 3
  centres = np.array([[0.0, 0.0, 0.0], [6.0, 1.0, 0.0], [0.0, 7.0, 4.0]])
  points = centres[labels] + generator.normal(size=(NUM_POINTS, DIM))
  return np.round(points * 16.0) / 16.0


def first(count):
  """Weights that leave the first points and take the others for padding."""
  return (np.arange(NUM_POINTS) < count).astype(float)


def nonfinite():
  """NaN and inf in one element of the points, in padding, in a weight."""
  points, ones = plain_points(), first(NUM_POINTS)
  cases = {}
  for name, value in (("nan", np.nan), ("inf", np.inf), ("-inf", -np.inf)):
    one = points.copy()
    one[7, 1] = value
    cases[f"{name} in a point"] = Odd(one, ones, is_valid=False)
    cases[f"{name} in padding"] = Odd(one, np.where(np.arange(30) == 7, 0, 1.0))
    weight = ones.copy()
    weight[7] = value
    cases[f"{name} weight"] = Odd(points, weight, is_valid=False)
  all_nan = np.full_like(points, np.nan)
  return cases | {"all nan": Odd(all_nan, ones, is_valid=False)}


def repeated():
  """Points that coincide."""
  points, ones = plain_points(), first(NUM_POINTS)
  two = points[np.arange(NUM_POINTS) % 2]
  return {
    "all equal": Odd(np.full_like(points, 2.5), ones),
    "all zero": Odd(np.zeros_like(points), ones),
    "all equal, K = 1": Odd(np.full_like(points, 2.5), ones, 1),
    "all equal, far away": Odd(np.full_like(points, 1e10), ones),
    "two distinct": Odd(two, ones),
    "two distinct, K = 2": Odd(two, ones, 2),
    "twice": Odd(np.concatenate([points[:15], points[:15]]), ones),
    "all equal but one": Odd(
      np.where(np.arange(NUM_POINTS)[:, None] == 4, 9.0, np.ones((1, DIM))),
      ones,
      2,
    ),
  }


def flat():
  """Points that do not fill the space."""
  points, ones = plain_points(), first(NUM_POINTS)
  constant, collinear = points.copy(), points.copy()
  constant[:, 1] = 3.25
  collinear[:, 2] = 2.0 * points[:, 0] - points[:, 1]
  line = points[:, :1] * np.array([[1.0, -2.0, 0.5]])
  return {
    "constant column": Odd(constant, ones),
    "constant column, K = 1": Odd(constant, ones, 1),
    "zero column": Odd(points * [1.0, 1.0, 0.0], ones),
    "collinear columns": Odd(collinear, ones),
    "a line": Odd(line, ones),
    "a line, K = 1": Odd(line, ones, 1),
    "d > N": Odd(points, first(2), 1),
    "integers": Odd(np.round(points / 3.0), ones),
  }


def few():
  """As many points as components, or fewer; one component."""
  points = plain_points()
  return {
    "N = K = 3": Odd(points, first(3)),
    "N = K = 1": Odd(points, first(1), 1),
    "N = 2, K = 3": Odd(points, first(2)),
    "N = 1, K = 3": Odd(points, first(1)),
    "N = 4, K = 3": Odd(points, first(4)),
    "K = 1": Odd(points, first(NUM_POINTS), 1),
  }


def wrong():
  """K out of range, weights that are none."""
  points, ones = plain_points(), first(NUM_POINTS)
  negative = ones.copy()
  negative[3] = -1.0
  return {
    "K = 0": Odd(points, ones, 0, is_valid=False),
    "K = -2": Odd(points, ones, -2, is_valid=False),
    "K = 4": Odd(points, ones, 4, is_valid=False),
    "no weight": Odd(points, 0.0 * ones, is_valid=False),
    "negative weight": Odd(points, negative, is_valid=False),
  }


def uneven():
  """Outliers, and columns and weights of very unlike size."""
  points, ones = plain_points(), first(NUM_POINTS)
  outlier, farther = points.copy(), points.copy()
  outlier[11] = 1e6
  farther[11, 0] = 1e15
  generator = np.random.default_rng(1)
  return {
    "outlier 1e6": Odd(outlier, ones),
    "outlier 1e15": Odd(farther, ones),
    "columns": Odd(points * [1e-6, 1.0, 1e6], ones),
    "heavy tails": Odd(generator.standard_cauchy((30, 3)), ones),
    "weights": Odd(points, 10.0 ** generator.uniform(-12, 12, 30)),
    "one heavy point": Odd(points, np.where(np.arange(30) == 2, 1e12, 1e-12)),
    "small weights": Odd(points, 1e-30 * ones),
    "large weights": Odd(points, 1e30 * ones),
  }


def scaled_and_shifted(dtype, covariance_type):
  """The plain points in other units and about another origin."""
  points, ones = plain_points(), first(NUM_POINTS)
  cases = {"plain": Odd(points, ones)}
  for scale in SCALES[dtype]:
    cases[f"times {scale:g}"] = Odd(scale * points, ones)
  for offset in OFFSETS[dtype]:
    cases[f"plus {offset:g}"] = Odd(points + offset, ones)
  small, large = TOO_SMALL[dtype], TOO_LARGE[dtype]
  is_known = covariance_type == "unit"
  return cases | {
    "too small": Odd(small * points, ones, is_valid=is_known),
    "too large": Odd(large * points, ones, is_valid=False),
  }


def table(dtype, covariance_type):
  """Every problem by its name."""
  cases = scaled_and_shifted(dtype, covariance_type)
  for make in (nonfinite, repeated, flat, few, wrong, uneven):
    cases |= make()
  return cases


def stack(cases, dtype):
  """Points `[B, N, d]`, weights `[B, N]` and K `[B]`; padding is NaN."""
  points, weight, num_components, _ = map(
    np.stack, zip(*cases.values(), strict=True)
  )
  points = np.where(weight[..., None] == 0, np.nan, points)
  return points.astype(dtype), weight.astype(dtype), num_components


# Covariance type, dtype, and how the problems are fitted: all at once, one
# by one under `jit`, or under `jit` and `vmap`.
FAST = (
  ("full", "float32", "fit_batch"),
  ("diag", "float32", "vmap"),
  ("spherical", "float64", "jit"),
)
EVERY = FAST + (
  ("unit", "float32", "fit_batch"),
  ("unit", "float64", "vmap"),
  ("tied_spherical", "float32", "vmap"),
  ("spherical", "float32", "fit_batch"),
  ("diag", "float64", "fit_batch"),
  ("tied", "float32", "fit_batch"),
  ("tied", "float64", "vmap"),
  ("full", "float64", "vmap"),
)
every_way = pytest.mark.parametrize(
  "way",
  [
    pytest.param(
      way, id="-".join(way), marks=() if way in FAST else pytest.mark.slow
    )
    for way in EVERY
  ],
)


@functools.cache
def fit_table(covariance_type, dtype, door):
  """The whole table fitted: `{name: SolverResult}` of NumPy arrays."""
  cases = table(dtype, covariance_type)
  with jax.enable_x64(dtype == "float64"):
    results = _fit(
      door,
      *map(jnp.asarray, stack(cases, dtype)),
      covariance_type=covariance_type,
      max_components=MAX_COMPONENTS,
      num_init=2,
    )
    results = jax.tree.map(np.asarray, results)
  return {
    name: jax.tree.map(lambda leaf, i=i: leaf[i], results)
    for i, name in enumerate(cases)
  }


def _fit(door, points, weight, num_components, **options):
  # One key for all: what differs by its units only starts alike.
  key = jax.random.key(3)

  def fit(points, weight, num_components):
    return em.fit(key, points, num_components, sample_weight=weight, **options)

  inputs = (points, weight, num_components)
  if door == "vmap":
    return jax.jit(jax.vmap(fit))(*inputs)
  if door == "jit":
    fit = jax.jit(fit)
    results = [fit(*one) for one in zip(*inputs, strict=True)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
  keys = jnp.broadcast_to(key, num_components.shape)
  return em.fit_batch(
    keys, points, num_components, sample_weight=weight, **options
  )


def assert_sane(result, num_components=None):
  """What holds of every result whatever the data."""
  for leaf in jax.tree.leaves(result.mixture):
    assert np.all(np.isfinite(leaf))
  assert result.status in list(types.Status)
  assert not np.isnan(result.log_likelihood)
  is_invalid = result.status == types.Status.INVALID_INPUT
  assert is_invalid == np.isneginf(result.log_likelihood)
  assert np.isfinite(result.log_likelihood) or is_invalid
  weights = result.mixture.weights
  assert np.all(weights >= 0)
  np.testing.assert_allclose(np.sum(weights), 1.0, rtol=1e-5)
  if num_components is not None and not is_invalid:
    np.testing.assert_array_equal(weights[num_components:], 0.0)
    np.testing.assert_array_equal(result.mixture.means[num_components:], 0.0)


def assert_above_floor(odd, result, covariance_type):
  """No variance is less than the share of that within that is added to it."""
  if covariance_type == "unit":
    return
  covariances = np.asarray(result.mixture.covariances, np.float64)
  if covariance_type in ("full", "tied"):
    skew = covariances - np.swapaxes(covariances, -1, -2)
    assert np.max(np.abs(skew)) <= 1e-6 * np.max(np.abs(covariances))
    variances = np.linalg.eigvalsh(covariances)
    diagonals = np.diagonal(covariances, axis1=-2, axis2=-1)
  else:
    variances = diagonals = covariances
  if "tied" not in covariance_type:
    variances = variances[: odd.num_components]
    diagonals = np.tensordot(result.mixture.weights, diagonals, axes=1)
  assert np.all(diagonals > 0)
  rounding = 2.0 * np.finfo(result.log_likelihood.dtype).eps
  floor = 1e-6 * np.min(diagonals)
  assert np.min(variances) >= 0.5 * floor - rounding * np.max(variances)


def results_of(way, make):
  """Name, problem and fit of the cases that `make` names."""
  results = fit_table(*way)
  return [(name, odd, results[name]) for name, odd in make().items()]


def front_door(points, num_components=3, **options):
  """`fit_batch` with some key."""
  return em.fit_batch(jax.random.key(0), points, num_components, **options)
