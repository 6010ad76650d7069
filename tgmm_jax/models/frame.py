"""The frame: coordinates in which one network serves every dimension.

K means span K - 1 directions once the points are centred, and with known unit
noise nothing but noise lies outside the leading principal directions. A frame
is the isometry onto those r directions (padded by zeros for d < r): squared
errors and likelihoods in it are those of the data.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg


class Frame(NamedTuple):
  """Where r coordinates lie in the data's space.

  Attributes:
    center: `[d]`, the weighted mean of the points.
    directions: `[d, r]`, orthonormal columns, zero beyond d.
    variances: `[r]`, variance of the points along the principal directions,
      descending, before any rotation.
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


def project(frame: Frame, points: jax.Array) -> jax.Array:
  """Coordinates of `points [..., d]` in the frame, `[..., r]`."""
  return (points - frame.center) @ frame.directions


def lift(frame: Frame, coordinates: jax.Array) -> jax.Array:
  """Points `[..., d]` of `coordinates [..., r]`; the inverse on the frame."""
  return frame.center + coordinates @ frame.directions.T
