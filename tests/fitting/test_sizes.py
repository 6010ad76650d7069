"""Problems of all sizes as arrays of a few."""

import numpy as np
import pytest
import scipy.stats

from tgmm_jax import gmm, types
from tgmm_jax.fitting import sizes


def problems_of(points, weight=None, seed=0):
  if weight is None:
    weight = np.ones(points.shape[:2])
  return sizes.problems_of(points, sample_weight=weight, seed=seed)


# Of more points a sample is taken.
MOST = sizes.num_rows_for(10**9)


@pytest.mark.parametrize("num_points", [1, 128, 512, 513, MOST, MOST + 1])
def test_there_is_a_row_for_each_point_or_a_sample(num_points):
  num_rows = sizes.num_rows_for(num_points)
  assert num_rows >= min(num_points, MOST)
  found = problems_of(np.ones((1, num_points, 2)))
  assert found.points.shape == (1, num_rows, 2)
  assert found.sample_weight.shape == (1, num_rows)
  assert found.is_sample == (num_points > MOST)


def test_few_numbers_of_rows_components_and_problems():
  assert len({sizes.num_rows_for(count) for count in range(1, 9999)}) <= 3
  # Of many problems each has little padding.
  for count in (1, 32, 33, 100, 1000, 5000):
    rows = sizes.num_rows_for(count, 1000)
    assert min(count, MOST) <= rows <= max(32, 2 * count)
  found = [sizes.max_components_for(number) for number in range(1, 61)]
  assert all(size >= number for number, size in enumerate(found, 1))
  assert found == sorted(found)
  assert len(set(found[:20])) <= 3
  assert len(set(found)) <= 5
  found = {sizes.num_problems_for(count) for count in range(1, 100)}
  assert len(found) == 2
  assert sizes.num_problems_for(1) == 1


def test_padding_has_no_weight_and_is_nothing():
  points = np.random.default_rng(0).normal(size=(2, 30, 3))
  weight = np.ones((2, 30))
  weight[1, :4] = 0.0
  points[1, :4] = np.nan
  found = problems_of(points, weight)
  np.testing.assert_array_equal(found.sample_weight[:, :30], weight)
  assert not np.any(found.sample_weight[:, 30:])
  assert not np.any(found.points[:, 30:])
  assert not np.any(found.points[1, :4])
  # The origin is a point with a weight.
  np.testing.assert_array_equal(found.origin, [points[0, 0], points[1, 4]])
  np.testing.assert_allclose(
    found.points[1, 4:30] + found.origin[1], points[1, 4:]
  )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_small_beside_the_distance_from_the_origin_stays(dtype):
  steps = np.arange(20.0)[None, :, None]
  far = 2.0 ** (20 if dtype == "float32" else 50)
  found = problems_of((far + steps).astype(dtype))
  assert found.points.dtype == found.sample_weight.dtype == dtype
  assert found.origin.dtype == np.float64
  np.testing.assert_array_equal(found.points[:, :20], steps)


def test_nan_and_inf_go_through():
  points = np.ones((2, 5, 1))
  points[0, 2], points[1, 0] = np.nan, np.inf
  found = problems_of(points)
  assert np.isnan(found.points[0, 2, 0])
  assert not np.all(np.isfinite(found.points[1, :5]))
  # A problem without any weight is handed on too.
  assert problems_of(points, np.zeros((2, 5))).sample_weight.sum() == 0.0


def test_a_sample_is_of_points_with_a_weight_and_in_their_order():
  points = np.arange(6000.0)[None, :, None]
  weight = np.ones((1, 6000))
  weight[:, ::2] = 0.0
  found = problems_of(points, weight, seed=3)
  rows = (found.points + found.origin[:, None])[0, :, 0]
  assert np.all(rows % 2 == 1)
  assert np.all(np.diff(rows) > 0)
  assert np.all(found.sample_weight == 1.0)
  # From everywhere alike: the mean of so many is known to a percent or two.
  assert abs(rows.mean() - 3000.0) < 4.0 * 6000.0 / np.sqrt(12 * 2048)
  same = problems_of(points, weight, seed=3)
  np.testing.assert_array_equal(found.points, same.points)
  other = problems_of(points, weight, seed=4)
  assert np.any(other.points != found.points)


def test_a_sample_takes_rows_without_weight_only_where_there_are_too_few():
  points = np.arange(3000.0)[None, :, None]
  weight = np.zeros((1, 3000))
  weight[:, 100:130] = 2.0
  found = problems_of(points, weight)
  is_point = found.sample_weight[0] > 0
  rows = (found.points + found.origin[:, None])[0, is_point, 0]
  np.testing.assert_array_equal(rows, np.arange(100.0, 130.0))


def test_a_sample_of_problems_and_some_of_them():
  points = np.arange(2 * 512.0).reshape(2, 512, 1)
  problems = problems_of(points)
  padded = problems.sampled(600, seed=0)
  np.testing.assert_array_equal(padded.points[:, :512], problems.points)
  assert padded.sample_weight.shape == (2, 600)
  assert not np.any(padded.sample_weight[:, 512:])
  assert not padded.is_sample
  found = problems.sampled(100, seed=0)
  assert found.points.shape == (2, 100, 1)
  assert found.is_sample
  assert len(np.unique(found.points[1])) == 100
  second = problems.take(np.array([1]))
  np.testing.assert_array_equal(second.points, problems.points[1:])
  np.testing.assert_array_equal(second.origin, problems.origin[1:])


@pytest.mark.parametrize(
  ("covariance_type", "shape"),
  [("unit", None), ("tied", (2, 2)), ("diag", (3, 2)), ("full", (3, 2, 2))],
)
def test_a_mixture_with_padding_and_without(covariance_type, shape):
  covariances = None if shape is None else np.full(shape, 2.0)
  mixture = types.Mixture(np.ones(3) / 3, np.ones((3, 2)), covariances)
  larger = sizes.resized(mixture, 5, covariance_type=covariance_type)
  assert larger.weights.tolist() == [*mixture.weights, 0.0, 0.0]
  assert larger.means.shape == (5, 2)
  if covariance_type in ("diag", "full"):
    assert larger.covariances.shape == (5, *shape[1:])
    np.testing.assert_array_equal(larger.covariances, 2.0)
  else:
    assert larger.covariances is covariances
  smaller = sizes.resized(larger, 3, covariance_type=covariance_type)
  for own, other in zip(smaller, mixture, strict=True):
    np.testing.assert_array_equal(own, other)
  # Problems and views stand before the components.
  many = types.Mixture(
    *(leaf if leaf is None else np.stack([[leaf]] * 4) for leaf in mixture)
  )
  for own, other in zip(
    sizes.resized(many, 5, covariance_type=covariance_type),
    larger,
    strict=True,
  ):
    if other is not None:
      assert own.shape == (4, 1, *other.shape)
      np.testing.assert_array_equal(own[3, 0], other)


def test_few_numbers_of_coordinates():
  generator = np.random.default_rng(0)
  found = []
  for dim in range(1, 21):
    problems = problems_of(generator.normal(size=(1, 6, dim)))
    points = problems.widened(covariance_type="full")
    np.testing.assert_array_equal(points[..., :dim], problems.points)
    assert not np.any(points[..., dim:])
    found.append(points.shape[-1])
  assert found == sorted(found)
  assert len(set(found)) <= 8
  many = problems_of(np.ones((1, 6, 45)))
  assert many.widened(covariance_type="full").shape[-1] == 45


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_one_variance_for_all_coordinates_sees_no_others(covariance_type):
  problems = problems_of(np.random.default_rng(0).normal(size=(1, 6, 5)))
  is_one = covariance_type in ("spherical", "tied_spherical")
  points = problems.widened(covariance_type=covariance_type)
  assert points.shape[-1] == (5 if is_one else 6)


def test_no_column_is_added_whose_variance_would_be_nothing():
  points = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
  for factor, dim in ((1.0, 6), (1e-11, 6), (1e-14, 5)):
    scaled = points * np.array([1.0, factor], np.float32)[:, None, None]
    found = problems_of(scaled).widened(covariance_type="full")
    assert found.shape[-1] == dim
  # Where there are zeros alone no rounding is lost.
  zeros = problems_of(0.0 * points).widened(covariance_type="full")
  assert zeros.shape[-1] == 6


@pytest.mark.parametrize("covariance_type", ["unit", "diag", "tied", "full"])
def test_without_the_added_coordinates_the_likelihood_is_that_of_the_others(
  covariance_type,
):
  generator = np.random.default_rng(1)
  points = generator.normal(size=(30, 3))
  shape = gmm.kind_of(covariance_type).shape(2, 3)
  covariances = None
  if covariance_type == "diag":
    covariances = generator.uniform(0.5, 2.0, shape)
  elif covariance_type != "unit":
    root = generator.normal(size=(*shape[:-1], 3))
    covariances = root @ np.swapaxes(root, -1, -2) + np.eye(3)
  mixture = types.Mixture(
    np.array([0.3, 0.7]), generator.normal(size=(2, 3)), covariances
  )
  expected = np.mean(log_density(points, mixture, covariance_type))
  wide = sizes.widened(
    types.Mixture(*(None if leaf is None else leaf[None] for leaf in mixture)),
    5,
    covariance_type=covariance_type,
  )
  # As EM leaves them: with what is added to variances of nothing.
  if covariances is not None:
    added = np.array([0.0, 0.0, 0.0, 1e-4, 3.0])
    if covariance_type != "diag":
      added = np.diag(added)
    wide = wide._replace(covariances=wide.covariances + added)
  one = types.Mixture(*(None if leaf is None else leaf[0] for leaf in wide))
  given = np.mean(
    log_density(np.pad(points, ((0, 0), (0, 2))), one, covariance_type)
  )
  found, value = sizes.narrowed(
    wide, np.array([given]), 3, covariance_type=covariance_type
  )
  np.testing.assert_allclose(value, expected, rtol=1e-12)
  for own, other in zip(found, mixture, strict=True):
    if own is not None:
      np.testing.assert_array_equal(own[0], other)


def log_density(points, mixture, covariance_type):
  """By SciPy."""
  dim = points.shape[1]
  total = 0.0
  for index, (weight, mean) in enumerate(zip(*mixture[:2], strict=True)):
    covariance = {
      "unit": lambda _: np.eye(dim),
      "diag": lambda k: np.diag(mixture.covariances[k]),
      "tied": lambda _: mixture.covariances,
      "full": lambda k: mixture.covariances[k],
    }[covariance_type](index)
    normal = scipy.stats.multivariate_normal(mean, covariance)
    total = total + weight * normal.pdf(points)
  return np.log(total)
