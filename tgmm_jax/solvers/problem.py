"""One problem made ready for a solver: checked, centred, perhaps projected.

Solvers never raise on data and never return NaN. Here the points of a bad
problem are replaced by zeros, which any solver survives, and the problem is
marked; padding, which may hold anything, is set to zero as well.
"""

import math
import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types
from tgmm_jax.solvers import init as init_lib

# In full float32 also where the device would take fewer bits: the terms of a
# squared distance are much larger than the distance.
PRECISION = jax.lax.Precision.HIGHEST


class Problem(NamedTuple):
  """One problem made ready: checked, centred, perhaps projected.

  Attributes:
    columns: `[r, N]`, coordinates in the frame; r = d where not projected.
    sample_weight: `[N]`, sums to 1.
    num_components: `[]`, within its range.
    is_valid: `[]` bool; where False the columns are 0.
    centre: `[d]`.
    directions: `[d, r]`, or None where not projected.
    log_density: `[]`, what the mean log density in the frame lacks: the
      normal density's constant and the distances from the subspace.
  """

  columns: jax.Array
  sample_weight: jax.Array
  num_components: jax.Array
  is_valid: jax.Array
  centre: jax.Array
  directions: jax.Array | None
  log_density: jax.Array


def prepare(points, num_components, sample_weight, max_components, rank=None):
  """Checks and centres one problem, and projects it unless rank is None."""
  dtype = jnp.promote_types(points.dtype, jnp.float32)
  points = points.astype(dtype)
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], dtype)
  sample_weight = sample_weight.astype(dtype)
  largest = jnp.finfo(points.dtype).max
  is_point = sample_weight > 0
  points = jnp.where(is_point[:, None], points, 0.0)
  total = jnp.sum(sample_weight)
  # The bound keeps every squared distance within the range of the dtype.
  is_valid = (
    jnp.all(jnp.sum(points**2, axis=-1) < 1e-3 * largest)
    & jnp.all(sample_weight >= 0)
    & (total > 0)
    & (total < largest)
    & (num_components >= 1)
    & (num_components <= max_components)
  )
  points = jnp.where(is_valid, points, 0.0)
  uniform = jnp.full_like(sample_weight, 1.0 / sample_weight.shape[0])
  sample_weight = jnp.where(is_valid, sample_weight / total, uniform)
  if rank is None:
    centre, directions = linalg.weighted_mean(points, sample_weight), None
  else:
    frame = linalg.principal_subspace(points, sample_weight, rank)
    centre, directions = frame.mean, frame.directions
  points = jnp.where(is_point[:, None], points - centre, 0.0)
  columns = points.T
  log_density = jnp.asarray(
    -0.5 * points.shape[-1] * math.log(2.0 * math.pi), points.dtype
  )
  if directions is not None:
    columns = jnp.matmul(directions.T, columns, precision=PRECISION)
    rest = points - jnp.matmul(columns.T, directions.T, precision=PRECISION)
    log_density -= 0.5 * jnp.sum(sample_weight * jnp.sum(rest**2, axis=-1))
  return Problem(
    columns=columns,
    sample_weight=sample_weight,
    num_components=jnp.clip(num_components, 1, max_components),
    is_valid=is_valid,
    centre=centre,
    directions=directions,
    log_density=log_density,
  )


def static_components(num_components, max_components):
  """The static K: `max_components`, or else a Python int `num_components`."""
  if max_components is None:
    if not isinstance(num_components, numbers.Integral):
      raise ValueError(
        f"max_components is None with num_components = {num_components!r};"
        " takes the static K unless num_components is a Python int"
      )
    max_components = int(num_components)
  if max_components < 1:
    raise ValueError(f"max_components is {max_components}, takes >= 1")
  return max_components


def em_options(
  points, num_components, max_components, init, num_init, max_iter, tol
):
  """Refuses what no data can make right; returns the static options."""
  max_components = static_components(num_components, max_components)
  if isinstance(init, types.Mixture):
    expected = (max_components, points.shape[-1])
    if init.means.shape[-2:] != expected:
      raise ValueError(
        f"init has means of shape {init.means.shape}, takes {expected}"
      )
    if num_init != 1:
      raise ValueError(f"num_init is {num_init}, takes 1 with a given init")
  elif init not in init_lib.METHODS:
    raise ValueError(
      f"init is {init!r}, takes {sorted(init_lib.METHODS)} or a Mixture"
    )
  if num_init < 1:
    raise ValueError(f"num_init is {num_init}, takes an integer >= 1")
  if max_iter < 1:
    raise ValueError(f"max_iter is {max_iter}, takes an integer >= 1")
  if not tol >= 0:
    raise ValueError(f"tol is {tol}, takes a number >= 0")
  return {
    "init": None if isinstance(init, types.Mixture) else init,
    "max_components": max_components,
    "num_init": num_init,
    "max_iter": max_iter,
    "tol": tol,
  }


class Start(NamedTuple):
  """Where a run of EM starts, in the frame.

  Attributes:
    mixture: weights and means `[K, r]`.
    anchor: `[K, r]`, to which components fall back that lose all their points.
  """

  mixture: types.Mixture
  anchor: jax.Array


def draw_start(key, problem, init, max_components):
  """Equal weights and means drawn by the method `init`."""
  columns, num_components = problem.columns, problem.num_components
  is_component = jnp.arange(max_components) < num_components
  weights = jnp.where(is_component, 1.0 / num_components, 0.0)
  if init == "normal":
    # About the origin of the points, which the frame has moved.
    means = init_lib.normal(
      key,
      problem.centre[None],
      num_components,
      max_components=max_components,
    )
    means = to_frame(problem, means)
    anchor = to_frame(problem, jnp.zeros_like(problem.centre[None]))
    anchor = jnp.broadcast_to(anchor, means.shape)
  else:
    means = init_lib.METHODS[init](
      key,
      columns.T,
      num_components,
      sample_weight=problem.sample_weight,
      max_components=max_components,
    )
    anchor = jnp.zeros_like(means)
  means = jnp.where(is_component[:, None], means, 0.0)
  return Start(types.Mixture(weights.astype(columns.dtype), means), anchor)


def check_start(problem, mixture):
  """A given start, in the frame; one that cannot be used marks the problem."""
  dtype = problem.columns.dtype
  is_component = jnp.arange(mixture.weights.size) < problem.num_components
  weights = jnp.where(is_component, mixture.weights.astype(dtype), 0.0)
  means = jnp.where(is_component[:, None], mixture.means.astype(dtype), 0.0)
  largest = jnp.finfo(dtype).max
  total = jnp.sum(weights)
  is_usable = (
    jnp.all(weights >= 0)
    & (total > 0)
    & (total < largest)
    & jnp.all(jnp.sum(means**2, axis=-1) < 1e-3 * largest)
  )
  uniform = is_component / problem.num_components
  weights = jnp.where(is_usable, weights / total, uniform).astype(dtype)
  means = to_frame(problem, jnp.where(is_usable, means, 0.0))
  means = jnp.where(is_component[:, None], means, 0.0)
  problem = problem._replace(is_valid=problem.is_valid & is_usable)
  return problem, Start(types.Mixture(weights, means), means)


def to_frame(problem, means):
  """Means `[K, d]` in the coordinates of the frame, `[K, r]`."""
  means = means - problem.centre
  if problem.directions is None:
    return means
  return jnp.matmul(means, problem.directions, precision=PRECISION)


def from_frame(problem, means):
  """Means `[K, r]` in the coordinates of the points; padding is 0."""
  if problem.directions is not None:
    means = jnp.matmul(means, problem.directions.T, precision=PRECISION)
  is_component = jnp.arange(means.shape[0]) < problem.num_components
  return jnp.where(is_component[:, None], means + problem.centre, 0.0)


def set_up(
  key,
  points,
  num_components,
  sample_weight,
  given,
  *,
  init,
  max_components,
  num_init,
  is_projected,
):
  """The problem made ready, and its starts `[S]`."""
  rank = None
  if is_projected:
    rank = max(1, min(max_components - 1, points.shape[-1]))
  problem = prepare(points, num_components, sample_weight, max_components, rank)
  if given is not None:
    problem, start = check_start(problem, given)
    return problem, jax.tree.map(lambda leaf: leaf[None], start)

  def draw(key):
    return draw_start(key, problem, init, max_components)

  return problem, jax.vmap(draw)(jax.random.split(key, num_init))
