"""The coordinates in which moments are formed: a power of two about a point."""

import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.spectral import moments

# The least variance of a result, in units of the points' own variance.
_MIN_VARIANCE_SHARE = 1e-6


class MomentFrame(NamedTuple):
  """Where the moments are formed: `points * scale + origin` are the data.

  Attributes:
    points: `[N, d]`, none of their coordinates above 1 in size.
    origin: `[d]`, in units of the data.
    scale: `[]`, a power of two.
    variance: `[]`, of the noise, in squared units of the frame.
    is_spread: `[]` bool, whether an estimated variance is above its floor.
    is_valid: `[]` bool, whether the variance is one that the dtype holds.
  """

  points: jax.Array
  origin: jax.Array
  scale: jax.Array
  variance: jax.Array
  is_spread: jax.Array
  is_valid: jax.Array


def rescale(
  problem: problem_lib.PreparedProblem,
  variance: jax.Array | float | None,
  about: str,
  max_components: int,
) -> MomentFrame:
  """The frame, so that no power of a coordinate leaves the dtype's range.

  Args:
    problem: for unit covariance, not projected.
    variance: of the noise in squared units of the points, or None for
      `moments.residual_variance`.
    about: the point that moments are about, "origin" or "mean".
    max_components: static K.
  """
  centred, origin = problem.columns.T, problem.centre
  points = centred
  if about == "origin":
    points, origin = centred + origin, jnp.zeros_like(origin)
  limits = jnp.finfo(points.dtype)
  size = jnp.max(jnp.abs(points))
  is_known = variance is not None
  is_valid = jnp.asarray(True)
  if is_known:
    variance = jnp.asarray(variance, points.dtype)
    is_valid = linalg.is_variance(variance)
    variance = jnp.where(is_valid, variance, 1.0)
    size = jnp.maximum(size, jnp.sqrt(variance))
  exponent = jnp.frexp(jnp.where(size > 0, size, 0.5))[1]
  scale = jnp.ldexp(jnp.ones((), points.dtype), exponent)
  if is_known:
    variance = variance / scale / scale
    variance = jnp.where(variance > 0, variance, limits.eps**2)
    is_spread = jnp.asarray(True)
  else:
    centred = centred / scale
    variance = moments.residual_variance(
      centred,
      problem.num_components,
      sample_weight=problem.sample_weight,
      max_components=max_components,
    )
    # What is left of the trace has its rounding, and the points have theirs.
    share = max(_MIN_VARIANCE_SHARE, 10.0 * limits.eps * centred.shape[-1])
    spread = jnp.sum(problem.sample_weight @ centred**2) / centred.shape[-1]
    largest = 1.0 + jnp.max(jnp.abs(problem.centre)) / scale
    least = share * spread + (4.0 * limits.eps * largest) ** 2
    is_spread = variance > least
    variance = jnp.maximum(variance, least)
    is_valid = variance * scale * scale >= limits.tiny
  return MomentFrame(
    points / scale, origin, scale, variance, is_spread, is_valid
  )


def in_data_space(
  mixture: types.Mixture,
  frame: MomentFrame,
  num_components: jax.Array | int,
  variance: jax.Array | float | None,
) -> types.Mixture:
  """The mixture in units of the points, with its variance.

  Args:
    mixture: in the frame.
    frame: from `rescale`.
    num_components: K; what is beyond it is padding.
    variance: as in `rescale`; the number 1.0 gives covariances None.
  """
  is_component = jnp.arange(mixture.weights.size) < num_components
  means = mixture.means * frame.scale + frame.origin
  covariances = None
  if not (isinstance(variance, numbers.Real) and variance == 1.0):
    limits = jnp.finfo(means.dtype)
    covariances = jnp.clip(
      frame.variance * frame.scale * frame.scale, limits.tiny, limits.max
    )
  return types.Mixture(
    mixture.weights, jnp.where(is_component[:, None], means, 0.0), covariances
  )


def log_likelihood(
  mixture: types.Mixture,
  frame: MomentFrame,
  problem: problem_lib.PreparedProblem,
) -> jax.Array:
  """Mean log density of the data, `[]`.

  Args:
    mixture: in the frame.
    frame: from `rescale`.
    problem: whose weights count.
  """
  value = gmm.log_likelihood(
    frame.points,
    mixture._replace(covariances=frame.variance),
    sample_weight=problem.sample_weight,
    covariance_type="tied_spherical",
  )
  return value - frame.points.shape[-1] * jnp.log(frame.scale)
