"""The frame: coordinates in which one network serves every dimension.

K means span K - 1 directions once the points are centred, and with known unit
noise nothing but noise lies outside the leading principal directions. A frame
is the isometry onto those r directions (padded by zeros for d < r): squared
errors and likelihoods in it are those of the data.

Diagonal covariances stay diagonal under no rotation. For them the frame is a
signed permutation of the data's own axes, and d is at most r.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg

# Products with 0 and 1 are exact where no bits are dropped first.
_PRECISION = jax.lax.Precision.HIGHEST


class Frame(NamedTuple):
  """Where r coordinates lie in the data's space.

  Attributes:
    center: `[d]`, the weighted mean of the points.
    directions: `[d, r]`, orthonormal columns, zero beyond d.
    variances: `[r]`, variance of the points along the principal directions,
      descending, before any rotation; along the directions themselves where
      they are the axes.
  """

  center: jax.Array
  directions: jax.Array
  variances: jax.Array


def fit(
  key: jax.Array, points: jax.Array, sample_weight: jax.Array, rank: int
) -> Frame:
  """The frame of a problem's `rank` leading principal directions, rotated.

  Args:
    key: consumed; draws the rotation (uniform over the orthogonal group of
      the min(d, rank) coordinates), which makes one problem many views.
    points: `[N, d]`.
    sample_weight: `[N]`.
    rank: r, static.
  """
  subspace = linalg.principal_subspace(points, sample_weight, rank)
  size = min(points.shape[-1], rank)
  normal = jax.random.normal(key, (size, size), points.dtype)
  rotation, triangle = jnp.linalg.qr(normal)
  rotation = rotation * jnp.sign(jnp.diagonal(triangle))
  rotated = subspace.directions[:, :size] @ rotation
  return Frame(
    center=subspace.mean,
    directions=jnp.pad(rotated, ((0, 0), (0, rank - size))),
    variances=subspace.eigenvalues,
  )


def fit_axes(
  key: jax.Array, points: jax.Array, sample_weight: jax.Array, rank: int
) -> Frame:
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
  dim = points.shape[-1]
  if dim > rank:
    raise ValueError(f"points has d = {dim}, takes d <= rank = {rank}")
  order_key, sign_key = jax.random.split(key)
  order = jax.random.permutation(order_key, dim)
  signs = jax.random.rademacher(sign_key, (dim,), points.dtype)
  directions = jax.nn.one_hot(order, dim, dtype=points.dtype, axis=0) * signs
  center = linalg.weighted_mean(points, sample_weight)
  variances = linalg.weighted_mean((points - center) ** 2, sample_weight)
  return Frame(
    center=center,
    directions=jnp.pad(directions, ((0, 0), (0, rank - dim))),
    variances=jnp.pad(variances[order], (0, rank - dim)),
  )


def project(frame: Frame, points: jax.Array) -> jax.Array:
  """Coordinates of `points [..., d]` in the frame, `[..., r]`."""
  return (points - frame.center) @ frame.directions


def lift(frame: Frame, coordinates: jax.Array) -> jax.Array:
  """Points `[..., d]` of `coordinates [..., r]`; the inverse on the frame."""
  return frame.center + coordinates @ frame.directions.T


def project_variances(frame: Frame, variances: jax.Array) -> jax.Array:
  """Diagonal covariances `[..., d]` in a frame of axes, `[..., r]`.

  The coordinates beyond d hold nothing; their variance is 1.
  """
  is_axis = jnp.sum(frame.directions**2, axis=0)
  projected = jnp.matmul(variances, frame.directions**2, precision=_PRECISION)
  return projected + (1.0 - is_axis)


def lift_variances(frame: Frame, variances: jax.Array) -> jax.Array:
  """The inverse of `project_variances`, `[..., d]` from `[..., r]`."""
  return jnp.matmul(variances, frame.directions.T**2, precision=_PRECISION)
