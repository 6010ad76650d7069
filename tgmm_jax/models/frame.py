"""The frame: coordinates in which one network serves every dimension.

K means span K - 1 directions once the points are centred, and with known unit
noise nothing but noise lies outside the leading principal directions. A frame
is the isometry onto those r directions (padded by zeros for d < r): squared
errors and likelihoods in it are those of the data.

Diagonal covariances stay diagonal under no rotation. For them the frame is a
signed permutation of the data's own axes, and d is at most r. With full
covariances the problem looks the same after any linear map: their frame
whitens the points, and d is at most r as well.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg

# Of the largest variance: directions with less are not blown up to 1. Nor is
# what has hardly any at all: covariances that come back must have an inverse.
_LEAST_SHARE = 1e-6
_LEAST_VARIANCE = 1e-30


class NetworkFrame(NamedTuple):
  """Where r coordinates lie in the data's space.

  Attributes:
    centre: `[d]`, the weighted mean of the points.
    directions: `[d, r]`, whose columns give the coordinates of a centred
      point; zero beyond d. Orthonormal but where the frame whitens.
    axes: `[r, d]`, a step along each coordinate; the transposed `directions`
      but where the frame whitens.
    variances: `[r]`, variance of the points along the principal directions,
      descending, before any rotation; along the directions themselves where
      they are the axes; 1 where the frame whitens.
    rest: `[]`, variance of the points outside the r coordinates, the sum over
      all directions.
  """

  centre: jax.Array
  directions: jax.Array
  axes: jax.Array
  variances: jax.Array
  rest: jax.Array


def fit(
  key: jax.Array,
  points: jax.Array,
  rank: int,
  *,
  sample_weight: jax.Array,
) -> NetworkFrame:
  """The frame of a problem's `rank` leading principal directions, rotated.

  Args:
    key: consumed; draws the rotation (uniform over the orthogonal group of
      the min(d, rank) coordinates), which makes one problem many views.
    points: `[N, d]`.
    sample_weight: `[N]`.
    rank: r, static.
  """
  subspace = linalg.principal_subspace(
    points, rank, sample_weight=sample_weight
  )
  size = min(points.shape[-1], rank)
  directions = subspace.directions[:, :size] @ _rotation(key, size)
  directions = _pad(directions, rank)
  variances = linalg.weighted_mean(
    (points - subspace.mean) ** 2, sample_weight=sample_weight
  )
  rest = jnp.sum(variances) - jnp.sum(subspace.eigenvalues)
  return NetworkFrame(
    centre=subspace.mean,
    directions=directions,
    axes=directions.T,
    variances=subspace.eigenvalues,
    rest=jnp.maximum(rest, 0.0),
  )


def fit_axes(
  key: jax.Array,
  points: jax.Array,
  rank: int,
  *,
  sample_weight: jax.Array,
) -> NetworkFrame:
  """The frame of a problem's own axes, in another order and with other signs.

  Args:
    key: consumed; draws the order and the signs (uniform over the signed
      permutations of the d coordinates), which makes one problem many views.
    points: `[N, d]`.
    sample_weight: `[N]`.
    rank: r, static.

  Raises:
    ValueError: where d is above `rank`.
  """
  dim = _check_dim(points, rank)
  order_key, sign_key = jax.random.split(key)
  order = jax.random.permutation(order_key, dim)
  signs = jax.random.rademacher(sign_key, (dim,), points.dtype)
  directions = jax.nn.one_hot(order, dim, dtype=points.dtype, axis=0) * signs
  directions = _pad(directions, rank)
  centre = linalg.weighted_mean(points, sample_weight=sample_weight)
  variances = linalg.weighted_mean(
    (points - centre) ** 2, sample_weight=sample_weight
  )
  return NetworkFrame(
    centre=centre,
    directions=directions,
    axes=directions.T,
    variances=jnp.pad(variances[order], (0, rank - dim)),
    rest=jnp.zeros((), points.dtype),
  )


def fit_whitened(
  key: jax.Array,
  points: jax.Array,
  rank: int,
  *,
  sample_weight: jax.Array,
) -> NetworkFrame:
  """The frame in which the points have the identity covariance, rotated.

  Args:
    key: consumed; draws the rotation, as in `fit`.
    points: `[N, d]`; a direction in which they hardly vary keeps the variance
      that it has in units of a millionth of the largest.
    sample_weight: `[N]`.
    rank: r, static.

  Raises:
    ValueError: where d is above `rank`.
  """
  dim = _check_dim(points, rank)
  subspace = linalg.principal_subspace(points, dim, sample_weight=sample_weight)
  lowest = _LEAST_SHARE * subspace.eigenvalues[0] + _LEAST_VARIANCE
  deviations = jnp.sqrt(jnp.maximum(subspace.eigenvalues, lowest))
  rotation = _rotation(key, dim)
  axes = (subspace.directions * deviations) @ rotation
  return NetworkFrame(
    centre=subspace.mean,
    directions=_pad((subspace.directions / deviations) @ rotation, rank),
    axes=_pad(axes, rank).T,
    variances=_pad(jnp.ones((1, dim), points.dtype), rank)[0],
    rest=jnp.zeros((), points.dtype),
  )


# How a frame is found, by what leaves the mixtures of a type what they are
# (`gmm.CovarianceType.frame`).
FITS = {
  "isometry": fit,
  "similarity": fit,
  "axes": fit_axes,
  "linear": fit_whitened,
}


def _check_dim(points, rank):
  dim = points.shape[-1]
  if dim > rank:
    raise ValueError(f"points has d = {dim}, takes d <= rank = {rank}")
  return dim


def _rotation(key, size):
  """Uniform over the orthogonal group."""
  normal = jax.random.normal(key, (size, size))
  rotation, triangle = jnp.linalg.qr(normal)
  return rotation * jnp.sign(jnp.diagonal(triangle))


def _pad(columns, rank):
  return jnp.pad(columns, ((0, 0), (0, rank - columns.shape[-1])))


def project(frame: NetworkFrame, points: jax.Array) -> jax.Array:
  """Coordinates of `points [..., d]` in the frame, `[..., r]`."""
  return (points - frame.centre) @ frame.directions


def lift(frame: NetworkFrame, coordinates: jax.Array) -> jax.Array:
  """Points `[..., d]` of `coordinates [..., r]`; the inverse on the frame."""
  return frame.centre + coordinates @ frame.axes


def project_covariances(
  frame: NetworkFrame,
  covariances: jax.Array | None,
  *,
  covariance_type: str,
) -> jax.Array | None:
  """A mixture's covariances in the coordinates of the frame.

  Args:
    frame: of the type, see `FITS`.
    covariances: of the data, shaped as the type.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.

  Returns:
    The same with r in place of d. Coordinates beyond d hold nothing; their
    variance is 1.
  """
  match gmm.kind_of(covariance_type).structure:
    case "axes":
      projected = _matmul(covariances, frame.directions**2)
      return projected + _is_empty(frame)
    case "matrix":
      projected = _matmul(frame.directions.T, covariances, frame.directions)
      return projected + jnp.diag(_is_empty(frame))
  return covariances


def lift_covariances(
  frame: NetworkFrame,
  covariances: jax.Array | None,
  *,
  covariance_type: str,
) -> jax.Array | None:
  """The inverse of `project_covariances`."""
  match gmm.kind_of(covariance_type).structure:
    case "axes":
      return _matmul(covariances, frame.axes**2)
    case "matrix":
      return _matmul(frame.axes.T, covariances, frame.axes)
  return covariances


def _is_empty(frame):
  """1 for the coordinates beyond d, `[r]`."""
  return 1.0 - jnp.any(frame.directions != 0, axis=0)


def _matmul(*factors):
  # Products with 0 and 1 are exact where no bits are dropped first.
  return functools.reduce(linalg.matmul, factors)
