"""What EM takes as points and options, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

from tests.solvers import odd_data
from tgmm_jax import types
from tgmm_jax.solvers import em

Status = types.Status


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
  # Integers of up to 16 bits are exact in float32.
  is_narrow = points.dtype.itemsize <= (4 if points.dtype.kind == "f" else 2)
  dtype = np.float32 if is_narrow else np.float64
  expected = odd_data.front_door(points.astype(dtype))
  result = odd_data.front_door(points)
  assert result.mixture.means.dtype == dtype
  for one, other in zip(
    jax.tree.leaves(result), jax.tree.leaves(expected), strict=True
  ):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)
  np.testing.assert_array_equal(points, untouched)
  assert result.status[0] != Status.INVALID_INPUT


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes_in_the_core(name):
  points = odd_data.plain_points().astype(DTYPES[name])
  fit = functools.partial(em.fit, num_components=3, covariance_type="full")
  result = jax.eval_shape(fit, jax.random.key(0), jnp.asarray(points))
  for leaf in jax.tree.leaves((result.mixture, result.log_likelihood)):
    assert leaf.dtype == jnp.float32
  with jax.enable_x64(True):
    result = jax.eval_shape(fit, jax.random.key(0), jnp.asarray(points))
  wide = jnp.float64 if name == "float64" else jnp.float32
  for leaf in jax.tree.leaves((result.mixture, result.log_likelihood)):
    assert leaf.dtype == wide


def test_dtypes_of_lists_and_of_64_bits():
  points = np.stack([np.round(odd_data.plain_points())] * 2)
  expected = odd_data.front_door(points.astype(np.float64))
  for given in (points.tolist(), tuple(points.tolist()), list(points)):
    result = odd_data.front_door(given)
    assert result.mixture.means.dtype == np.float64
    np.testing.assert_array_equal(result.mixture.means, expected.mixture.means)
  with jax.enable_x64(True):
    wide = odd_data.front_door(points)
  assert wide.mixture.means.dtype == jnp.float64
  assert wide.log_likelihood.dtype == jnp.float64


OF_NO_USE = {
  "complex": lambda points: points.astype(np.complex64),
  "strings": lambda points: points.astype(str),
  "objects": lambda points: points.astype(str).astype(object),
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
  with pytest.raises(ValueError, match="^points (is|has)"):
    odd_data.front_door(OF_NO_USE[name](points))
  weight = OF_NO_USE[name](np.abs(points[..., 0]))
  if weight is not None:
    message = "^sample_weight (is|has)"
    with pytest.raises(ValueError, match=message):
      odd_data.front_door(points, sample_weight=weight)


def test_types_without_a_mask_are_taken():
  points = np.stack([odd_data.plain_points()] * 2).astype(np.float32)
  result = odd_data.front_door(np.ma.masked_array(points))
  np.testing.assert_array_equal(
    result.mixture.means, odd_data.front_door(points).mixture.means
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
  ],
)
def test_options_out_of_range(door, options, named):
  points = odd_data.plain_points()
  if door == "fit_batch":
    fit, points = em.fit_batch, points[None]
  else:
    fit = em.fit
  with pytest.raises(ValueError, match=named):
    fit(jax.random.key(0), points, 3, **options)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
def test_options_of_the_queue(batch_size):
  with pytest.raises(ValueError, match="batch_size is"):
    odd_data.front_door(odd_data.plain_points()[None], batch_size=batch_size)
