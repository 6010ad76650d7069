"""EM on bad and odd input: its front door `fit_batch`, and its core `fit`."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import odd_data
import pytest
import scipy.optimize
import scipy.sparse

from tgmm_jax import gmm, types
from tgmm_jax.solvers import em

Status = types.Status
NUM_POINTS, DIM = odd_data.NUM_POINTS, odd_data.DIM


def results_of(way, make):
  """Name, problem and fit of the cases that `make` names."""
  results = odd_data.fit_table(*way)
  return [(name, odd, results[name]) for name, odd in make().items()]


def front_door(points, num_components=3, **options):
  return em.fit_batch(jax.random.key(0), points, num_components, **options)


def aligned(result, reference):
  """The result with its components in the order of the reference."""
  means, others = result.mixture.means, reference.mixture.means
  gaps = np.sum((means[None] - others[:, None]) ** 2, axis=-1)
  _, order = scipy.optimize.linear_sum_assignment(gaps)
  covariances = result.mixture.covariances
  if np.ndim(covariances) and len(covariances) == len(order):
    is_per_component = covariances.ndim != 2 or covariances.shape[0] != DIM
    covariances = covariances[order] if is_per_component else covariances
  mixture = types.Mixture(
    result.mixture.weights[order], means[order], covariances
  )
  return result._replace(mixture=mixture)


@odd_data.every_way
def test_nonfinite(way):
  for _, odd, result in results_of(way, odd_data.nonfinite):
    expected = Status.CONVERGED if odd.is_valid else Status.INVALID_INPUT
    assert result.status == expected
  padded = [
    odd_data.fit_table(*way)[f"{name} in padding"]
    for name in ("nan", "inf", "-inf")
  ]
  for one, other in zip(*map(jax.tree.leaves, padded[:2]), strict=True):
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_at_the_front_door(value):
  points = odd_data.plain_points()[None].astype(np.float32)
  points[0, 7, 1] = value
  with pytest.raises(ValueError, match=rf"points contains {value}.*\[7, 1\]"):
    front_door(points)
  weight = np.ones((1, NUM_POINTS))
  weight[0, 4] = value
  with pytest.raises(ValueError, match=f"sample_weight is {value} at 4"):
    front_door(np.ones_like(points), sample_weight=weight)


@pytest.mark.parametrize(
  ("weight", "named"),
  [(0.0, "sample_weight is 0 for all of 30"), (-1.0, "sample_weight is -1")],
)
def test_useless_weights_at_the_front_door(weight, named):
  points = odd_data.plain_points()[None]
  with pytest.raises(ValueError, match=named):
    front_door(points, sample_weight=np.full((1, NUM_POINTS), weight))


@odd_data.every_way
def test_wrong_problems_are_marked_and_the_good_are_fitted(way):
  for _, _, result in results_of(way, odd_data.wrong):
    assert result.status == Status.INVALID_INPUT
    odd_data.assert_sane(result)
  assert odd_data.fit_table(*way)["plain"].status == Status.CONVERGED


@odd_data.every_way
def test_k_gt_n(way):
  for name in ("N = 2, K = 3", "N = 1, K = 3"):
    result = odd_data.fit_table(*way)[name]
    assert result.status == Status.DEGENERATE
    odd_data.assert_sane(result, 3)


@pytest.mark.parametrize("num_components", [5, np.array([5, 5])])
def test_k_gt_n_at_the_front_door(num_components):
  points = odd_data.plain_points()[:4]
  with pytest.raises(ValueError, match="num_components is 5, .*from 1 to 4"):
    front_door(np.stack([points, points]), num_components)


@odd_data.every_way
def test_small(way):
  covariance_type, dtype, _ = way
  for _, odd, result in results_of(way, odd_data.few):
    odd_data.assert_sane(result, odd.num_components)
    assert result.status in (Status.CONVERGED, Status.DEGENERATE)
  table = odd_data.fit_table(*way)
  points, result = odd_data.plain_points(), table["K = 1"]
  assert result.status == Status.CONVERGED
  expected = points.mean(axis=0)
  np.testing.assert_allclose(result.mixture.means[0], expected, rtol=1e-5)
  single = np.cov(points.T, bias=True)
  found = result.mixture.covariances
  if covariance_type != "unit":
    expected = {
      "tied_spherical": np.trace(single) / DIM,
      "spherical": np.trace(single) / DIM,
      "diag": np.diag(single),
      "tied": single,
      "full": single,
    }[covariance_type]
    found = found if "tied" in covariance_type else found[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)
  # As many components as points: the points.
  means = table["N = K = 3"].mixture.means
  order, others = np.lexsort(means.T), np.lexsort(points[:3].T)
  np.testing.assert_allclose(means[order], points[:3][others], atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_in_one_dimension_the_types_agree():
  points = odd_data.plain_points()[:, :1]
  found = {
    name: em.fit(jax.random.key(0), points, 2, covariance_type=name)
    for name in gmm.COVARIANCE_TYPES
  }
  for one, other in (
    ("full", "diag"),
    ("full", "spherical"),
    ("tied", "tied_spherical"),
  ):
    for leaf, expected in zip(
      jax.tree.leaves(found[one]), jax.tree.leaves(found[other]), strict=True
    ):
      np.testing.assert_allclose(np.ravel(leaf), np.ravel(expected), rtol=1e-10)


@pytest.mark.parametrize(
  "shape", [(2, 0, 3), (2, 9, 0), (0, 9, 3), (9, 3), (9,), (1, 2, 9, 3), ()]
)
def test_shapes(shape):
  with pytest.raises(ValueError, match="points has shape") as caught:
    front_door(np.zeros(shape))
  assert str(shape) in str(caught.value)
  assert "[B, N, d]" in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 3), (9, 0), (9,), (1, 9, 3), ()])
def test_shapes_in_the_core(shape):
  with pytest.raises(ValueError, match="points") as caught:
    em.fit(jax.random.key(0), jnp.zeros(shape), 2)
  assert str(shape) in str(caught.value)


def test_shapes_of_ragged_lists_weights_and_k():
  with pytest.raises(ValueError, match="points is ragged"):
    front_door([[[1.0, 2.0], [3.0]]])
  points = np.zeros((2, 9, 3))
  with pytest.raises(ValueError, match=r"sample_weight has shape \(2, 8\)"):
    front_door(points, sample_weight=np.ones((2, 8)))
  with pytest.raises(ValueError, match=r"sample_weight has shape \(9,\)"):
    front_door(points, sample_weight=np.ones(9))
  with pytest.raises(ValueError, match=r"num_components has shape \(3,\)"):
    front_door(points, np.array([1, 2, 3]))


K_VALUES = [0, -1, 2.5, "3", True, None, np.nan, 10**6]


@pytest.mark.parametrize("value", K_VALUES)
def test_k_values(value):
  points = odd_data.plain_points()[None]
  with pytest.raises((ValueError, TypeError), match="num_components is") as one:
    front_door(points, value)
  assert "takes an integer from 1 to 30" in str(one.value)


@pytest.mark.parametrize("value", K_VALUES[:-1])
def test_k_values_in_the_core(value):
  with pytest.raises((ValueError, TypeError), match="num_components"):
    em.fit(jax.random.key(0), odd_data.plain_points(), value)


@pytest.mark.parametrize("value", [2.5, "3", True, None])
def test_k_values_beside_max_components(value):
  with pytest.raises((ValueError, TypeError), match="num_components"):
    em.fit(jax.random.key(0), odd_data.plain_points(), value, max_components=3)


def test_k_of_one_problem_out_of_range():
  points = np.stack([odd_data.plain_points()] * 4)
  counts = np.array([3, 0, 5, -1])
  result = front_door(points, counts, max_components=3)
  np.testing.assert_array_equal(
    result.status, [Status.CONVERGED] + 3 * [Status.INVALID_INPUT]
  )
  with pytest.raises(ValueError, match="num_components is 0, .*from 1 to 3"):
    front_door(points, counts[[1, 2, 2, 3]], max_components=3)


@odd_data.every_way
def test_duplicates(way):
  covariance_type, _, _ = way
  table = odd_data.fit_table(*way)
  for name, odd, result in results_of(way, odd_data.repeated):
    odd_data.assert_sane(result, odd.num_components)
    is_single = odd.num_components == 1
    if "all" in name and "but" not in name and not is_single:
      assert result.status == Status.DEGENERATE
    odd_data.assert_above_floor(odd, result, covariance_type)
  assert table["two distinct"].status == Status.DEGENERATE
  assert table["twice"].status != Status.INVALID_INPUT


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
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


@odd_data.every_way
def test_degenerate(way):
  covariance_type, _, _ = way
  for name, odd, result in results_of(way, odd_data.flat):
    odd_data.assert_sane(result, odd.num_components)
    assert result.status in (Status.CONVERGED, Status.DEGENERATE), name
    odd_data.assert_above_floor(odd, result, covariance_type)
    if covariance_type in ("full", "tied"):
      assert result.status == Status.DEGENERATE or name == "integers"


@pytest.mark.parametrize(
  "covariance_type",
  [
    "diag",
    pytest.param("full", marks=pytest.mark.slow),
    pytest.param("tied_spherical", marks=pytest.mark.slow),
  ],
)
def test_variances_keep_their_floor(covariance_type):
  cases = odd_data.repeated() | odd_data.flat() | odd_data.few()
  points, weight, num_components = odd_data.stack(cases, np.float32)
  fit = functools.partial(
    front_door,
    points,
    num_components,
    sample_weight=weight,
    covariance_type=covariance_type,
    max_components=3,
    reg_share=0.0,
  )
  # What lies at 1e10 has no variances of the order of 1 left to compare.
  near = np.array([name != "all equal, far away" for name in cases])
  for floor in ({"reg_covar": 0.25}, {"min_variance": 0.25}):
    result = jax.tree.map(np.asarray, fit(**floor))
    for i in np.flatnonzero(near):
      item = jax.tree.map(lambda leaf, i=i: leaf[i], result)
      odd_data.assert_sane(item, num_components[i])
      found = item.mixture.covariances
      if "tied" not in covariance_type:
        found = found[: num_components[i]]
      variances = found
      if covariance_type == "full":
        variances = np.linalg.eigvalsh(found)
      assert np.all(variances >= 0.25 * (1 - 1e-4)), list(cases)[i]


def assert_same_fit(result, plain, covariance_type, scale, offset, rtol):
  """Times `scale` and plus `offset`."""
  result = aligned(
    result._replace(
      mixture=result.mixture._replace(
        means=(result.mixture.means.astype(np.float64) - offset) / scale
      )
    ),
    plain,
  )
  size = np.max(np.abs(plain.mixture.means))
  rounding = 4.0 * np.finfo(result.log_likelihood.dtype).eps * offset
  np.testing.assert_allclose(
    result.mixture.weights, plain.mixture.weights, atol=rtol
  )
  np.testing.assert_allclose(
    result.mixture.means, plain.mixture.means, atol=rtol * size + rounding
  )
  if covariance_type != "unit":
    found = np.asarray(result.mixture.covariances, np.float64)
    expected = plain.mixture.covariances
    np.testing.assert_allclose(
      found / scale / scale, expected, atol=rtol * np.max(expected)
    )
  np.testing.assert_allclose(
    result.log_likelihood + DIM * np.log(scale), plain.log_likelihood, atol=rtol
  )


@odd_data.every_way
def test_scale_equivariance(way):
  covariance_type, dtype, _ = way
  table = odd_data.fit_table(*way)
  too_small = table["too small"]
  assert (too_small.status == Status.INVALID_INPUT) == (
    covariance_type != "unit"
  )
  assert table["too large"].status == Status.INVALID_INPUT
  for scale in odd_data.SCALES[dtype]:
    result = table[f"times {scale:g}"]
    odd_data.assert_sane(result, 3)
    if covariance_type != "unit":
      assert result.status == Status.CONVERGED
      assert_same_fit(result, table["plain"], covariance_type, scale, 0.0, 1e-3)


@odd_data.every_way
def test_translation(way):
  covariance_type, dtype, _ = way
  table = odd_data.fit_table(*way)
  for offset in odd_data.OFFSETS[dtype]:
    result = table[f"plus {offset:g}"]
    assert result.status == Status.CONVERGED
    assert_same_fit(result, table["plain"], covariance_type, 1.0, offset, 1e-3)


def given_starts(covariance_type, dtype):
  """Starts by name, whether each is valid, and what component is lost."""
  points = odd_data.plain_points().astype(dtype)
  shape = gmm.covariance_shape(covariance_type, 3, DIM)
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
    ("full", "float32"),
    *(
      pytest.param(name, "float32", marks=pytest.mark.slow)
      for name in ("unit", "tied", "diag")
    ),
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
    result = front_door(
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


@odd_data.every_way
def test_outliers_and_uneven_problems(way):
  for _, odd, result in results_of(way, odd_data.uneven):
    odd_data.assert_sane(result, odd.num_components)
    assert result.status != Status.INVALID_INPUT


DTYPES = {
  "float16": np.float16,
  "bfloat16": ml_dtypes.bfloat16,
  "int32": np.int32,
  "int8": np.int8,
  "uint64": np.uint64,
  "bool": np.bool_,
  "float32": np.float32,
  "float64": np.float64,
}


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes(name):
  points = np.abs(np.round(odd_data.plain_points()))
  points = np.stack([points, points + 1.0]).astype(DTYPES[name])
  untouched = points.copy()
  points.setflags(write=False)
  expected = front_door(points.astype(np.float32))
  result = front_door(points)
  for one, other in zip(
    jax.tree.leaves(result), jax.tree.leaves(expected), strict=True
  ):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)
  np.testing.assert_array_equal(points, untouched)
  core = em.fit(jax.random.key(0), jnp.asarray(points[0]), 3)
  assert core.log_likelihood.dtype == jnp.float32
  assert core.mixture.means.dtype == jnp.float32
  if name != "bool":
    assert result.status[0] != Status.INVALID_INPUT


def test_dtypes_of_lists_and_of_64_bits():
  points = np.round(odd_data.plain_points())[None]
  expected = front_door(points.astype(np.float32))
  for given in (points.tolist(), tuple(points.tolist()), [points[0]]):
    result = front_door(given)
    assert result.mixture.means.dtype == jnp.float32
    np.testing.assert_array_equal(result.mixture.means, expected.mixture.means)
  with jax.enable_x64(True):
    wide, narrow = front_door(points), front_door(points.astype(np.float32))
    whole = front_door(points.astype(np.int64))
  assert wide.mixture.means.dtype == jnp.float64
  assert wide.log_likelihood.dtype == jnp.float64
  assert narrow.mixture.means.dtype == jnp.float32
  assert whole.mixture.means.dtype == jnp.float32


OF_NO_USE = {
  "complex": lambda points: points.astype(np.complex64),
  "strings": lambda points: points.astype(str),
  "objects": lambda points: points.astype(object),
  "masked": lambda points: np.ma.masked_array(points, points > 1.0),
  "sparse": lambda points: scipy.sparse.csr_array(points[0]),
  "sparse matrix": lambda points: scipy.sparse.csr_matrix(points[0]),
  "dates": lambda points: points.astype("datetime64[s]"),
  "none": lambda points: None,
  "dict": lambda points: {"points": points},
}


@pytest.mark.parametrize("name", OF_NO_USE)
def test_types(name):
  points = odd_data.plain_points()[None]
  with pytest.raises((TypeError, ValueError), match="^points (is|has)"):
    front_door(OF_NO_USE[name](points))
  weight = OF_NO_USE[name](np.abs(points[..., 0]))
  if weight is not None:
    message = "^sample_weight (is|has)"
    with pytest.raises((TypeError, ValueError), match=message):
      front_door(points, sample_weight=weight)


def test_types_without_a_mask_are_taken():
  points = odd_data.plain_points()[None].astype(np.float32)
  result = front_door(np.ma.masked_array(points))
  np.testing.assert_array_equal(
    result.mixture.means, front_door(points).mixture.means
  )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_options(dtype):
  points = odd_data.plain_points().astype(dtype)
  with jax.enable_x64(dtype == "float64"):
    start = types.Mixture(np.array([0.5, 0.25, 0.25], dtype), points[:3])
    fit = functools.partial(em.fit, jax.random.key(0), points, 3, init=start)
    none, one, all_steps = (
      fit(max_iter=0),
      fit(max_iter=1),
      fit(max_iter=30, tol=0.0),
    )
  tolerance = 10 * np.finfo(dtype).eps
  np.testing.assert_allclose(none.mixture.means, points[:3], atol=7 * tolerance)
  np.testing.assert_allclose(none.mixture.weights, start.weights, tolerance)
  assert none.status == one.status == all_steps.status == Status.MAX_ITER
  iterations = [int(each.num_iters) for each in (none, one, all_steps)]
  assert iterations == [0, 1, 30]
  assert none.log_likelihood < one.log_likelihood < all_steps.log_likelihood


@pytest.mark.parametrize("door", ["fit", "fit_batch"])
@pytest.mark.parametrize(
  ("options", "named"),
  [
    ({"max_iter": -1}, "max_iter is -1"),
    ({"max_iter": 1.5}, "max_iter is 1.5"),
    ({"tol": -1e-3}, "tol is -0.001"),
    ({"tol": np.inf}, "tol is inf"),
    ({"tol": "small"}, "tol is 'small'"),
    ({"reg_covar": -1.0}, "reg_covar is -1.0"),
    ({"reg_covar": np.nan}, "reg_covar is nan"),
    ({"reg_share": -1.0}, "reg_share is -1.0"),
    ({"min_variance": -1.0}, "min_variance is -1.0"),
    ({"num_init": 0}, "num_init is 0"),
    ({"num_init": 2.0}, "num_init is 2.0"),
    ({"covariance_type": "round"}, "covariance_type is 'round'"),
    ({"covariance_type": None}, "covariance_type is None"),
    ({"init": "kmeans"}, "init is 'kmeans'"),
    ({"init": np.zeros((3, 3))}, "init is"),
    ({"max_components": 0}, "max_components is 0"),
    ({"max_components": 2.0}, "max_components is 2.0"),
    ({"max_components": 2}, "num_components is 3"),
  ],
)
def test_options_out_of_range(door, options, named):
  points = odd_data.plain_points()
  if door == "fit_batch":
    fit, points = em.fit_batch, points[None]
  else:
    fit = em.fit
  if options == {"max_components": 2} and door == "fit":
    # K may be traced here, so that it is a matter of the data.
    result = fit(jax.random.key(0), points, 3, **options)
    assert result.status == Status.INVALID_INPUT
    return
  with pytest.raises(ValueError, match=named):
    fit(jax.random.key(0), points, 3, **options)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
def test_options_of_the_queue(batch_size):
  with pytest.raises(ValueError, match="batch_size is"):
    front_door(odd_data.plain_points()[None], batch_size=batch_size)
