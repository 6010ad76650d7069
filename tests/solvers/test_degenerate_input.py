"""EM on what is hard to fit: few, equal, flat, tiny, huge and far points."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.solvers import odd_data
from tgmm_jax import gmm, types
from tgmm_jax.solvers import em

Status = types.Status
NUM_POINTS, DIM = odd_data.NUM_POINTS, odd_data.DIM


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_in_one_dimension_the_types_agree():
  points = odd_data.plain_points()[:, :1]
  full, diag, spherical = (
    em.fit(jax.random.key(0), points, 2, covariance_type=name)
    for name in ("full", "diag", "spherical")
  )
  for other in (diag, spherical):
    for leaf, expected in zip(
      jax.tree.leaves(other), jax.tree.leaves(full), strict=True
    ):
      np.testing.assert_allclose(np.ravel(leaf), np.ravel(expected), rtol=1e-10)


@pytest.mark.parametrize(
  "covariance_type", ["diag", pytest.param("full", marks=pytest.mark.slow)]
)
def test_every_point_twice_is_every_point_once(covariance_type):
  points = odd_data.plain_points().astype(np.float32)
  weight = odd_data.first(15).astype(np.float32)
  start = types.Mixture(np.full(3, 1 / 3, np.float32), points[:3])
  fit = functools.partial(
    em.fit,
    jax.random.key(0),
    num_components=3,
    covariance_type=covariance_type,
    init=start,
    max_iter=10,
    tol=0.0,
  )
  once = fit(points, sample_weight=weight)
  doubled = np.concatenate([points[:15], points[:15]])
  twice = fit(doubled, sample_weight=np.ones_like(weight))
  for one, other in zip(
    jax.tree.leaves(once), jax.tree.leaves(twice), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_variances_keep_their_floor():
  cases = odd_data.repeated() | odd_data.flat() | odd_data.few()
  points, weight, num_components = odd_data.stack(cases, np.float32)
  for floor in ({"reg_covar": 0.25}, {"min_variance": 0.25}):
    result = odd_data.front_door(
      points,
      num_components,
      sample_weight=weight,
      covariance_type="full",
      max_components=3,
      reg_share=0.0,
      **floor,
    )
    result = jax.tree.map(np.asarray, result)
    for i, name in enumerate(cases):
      item = jax.tree.map(lambda leaf, i=i: leaf[i], result)
      odd_data.assert_sane(item, num_components[i])
      found = item.mixture.covariances[: num_components[i]]
      variances = np.linalg.eigvalsh(found)
      assert np.all(variances >= 0.25 * (1 - 1e-4)), name


def given_starts(covariance_type, dtype):
  """Starts by name, whether each is valid, and what component is lost."""
  points = odd_data.plain_points().astype(dtype)
  shape = gmm.COVARIANCE_TYPES[covariance_type].shape(3, DIM)
  one = np.ones(3)[:, None, None] * np.eye(DIM)
  covariances = None
  if covariance_type != "unit":
    covariances = {
      "diag": np.ones(shape),
      "tied": np.eye(DIM),
      "full": one,
    }.get(covariance_type, np.ones(shape))
    covariances = np.asarray(covariances, dtype)
  plain = types.Mixture(np.full(3, 1 / 3, dtype), points[:3], covariances)
  huge = {"float32": 1e20, "float64": 1e160}[dtype]

  def replaced(index, value):
    means = plain.means.copy()
    means[index] = value
    return plain._replace(means=means)

  starts = {
    "plain": (plain, True),
    "far mean": (replaced(2, 1e6), True),
    "farther mean": (replaced(2, 1e15), True),
    "huge mean": (replaced(2, huge), False),
    "nan mean": (replaced(2, np.nan), False),
    "equal means": (replaced(slice(3), 1.0), True),
    "zero weight": (
      plain._replace(weights=np.array([0.5, 0.5, 0.0], dtype)),
      True,
    ),
    "no weight": (plain._replace(weights=np.zeros(3, dtype)), False),
    "negative weight": (
      plain._replace(weights=np.array([0.9, 0.4, -0.3], dtype)),
      False,
    ),
    "weights of any sum": (
      plain._replace(weights=np.array([3.0, 3.0, 3.0], dtype)),
      True,
    ),
  }
  if covariances is not None:
    for name, value, is_valid in (
      ("zero covariance", 0.0, True),
      ("small covariance", 1e-20, True),
      ("large covariance", 1e6, True),
      ("negative covariance", -1.0, False),
      ("nan covariance", np.nan, False),
      ("inf covariance", np.inf, False),
    ):
      with np.errstate(invalid="ignore"):
        changed = np.where(covariances == 0, covariances, value * covariances)
      starts[name] = (plain._replace(covariances=changed), is_valid)
  return points, starts


@pytest.mark.parametrize(
  ("covariance_type", "dtype"),
  [
    ("diag", "float32"),
    pytest.param("unit", "float32", marks=pytest.mark.slow),
    pytest.param("full", "float32", marks=pytest.mark.slow),
    pytest.param("full", "float64", marks=pytest.mark.slow),
  ],
)
def test_empty_component(covariance_type, dtype):
  with jax.enable_x64(dtype == "float64"):
    points, starts = given_starts(covariance_type, dtype)
    stacked = jax.tree.map(
      lambda *leaves: jnp.stack(leaves),
      *(start for start, _ in starts.values()),
    )
    result = odd_data.front_door(
      jnp.broadcast_to(points, (len(starts), *points.shape)),
      init=stacked,
      covariance_type=covariance_type,
    )
    result = jax.tree.map(np.asarray, result)
  items = {
    name: jax.tree.map(lambda leaf, i=i: leaf[i], result)
    for i, name in enumerate(starts)
  }
  for name, (_, is_valid) in starts.items():
    odd_data.assert_sane(items[name], 3)
    assert (items[name].status != Status.INVALID_INPUT) == is_valid, name
  assert items["plain"].status == Status.CONVERGED
  for name in ("far mean", "farther mean", "zero weight", "equal means"):
    assert items[name].status == Status.DEGENERATE, name
  # A component without points keeps its start, and next to no weight.
  for name in ("far mean", "farther mean"):
    start, item = starts[name][0], items[name]
    np.testing.assert_allclose(item.mixture.means[2], start.means[2], rtol=1e-5)
    assert 0 < item.mixture.weights[2] < 1e-6
  assert items["zero weight"].mixture.weights[2] == 0.0
  np.testing.assert_allclose(
    items["weights of any sum"].log_likelihood,
    items["plain"].log_likelihood,
    rtol=1e-5,
  )
