"""EM for points that arrive: a state and a block in, a state out.

Stepwise EM (Cappe and Moulines 2009, On-line expectation-maximization
algorithm for latent data models): the sums of the E-step are kept from block to
block, old ones count less, and each block is followed by an M-step.

`decay` is what a point counts for when one more has come, each of weight 1:
after points of weight t it counts `decay ** t`. So about `1 / (1 - decay)`
points are remembered (`decay_of` is the inverse), however they are cut into
blocks; 1 forgets nothing. Points of one block count alike. What was counted
under poor parameters stays in the sums until it is forgotten: with a decay of 1
the estimates settle, with a smaller one they follow, and keep the noise of as
many points as are remembered.
"""

import functools
import math
import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em import steps as em_steps


class OnlineState(NamedTuple):
  """What is known after some blocks, in a frame.

  Attributes:
    frame: of the first block, without points.
    mixture: the parameters.
    anchor: what components fall back to that have lost their points.
    statistics: the sums that are remembered, about the means of `mixture`
      (with unit covariance about the centre of the frame); `log_density` is
      None.
    remembered: `[]`, weight of the points that the sums are of.
    num_iters: `[]` int32, blocks taken.
  """

  frame: problem_lib.PreparedProblem
  mixture: types.Mixture
  anchor: types.Mixture
  statistics: em_steps.Statistics
  remembered: jax.Array
  num_iters: jax.Array


def decay_of(num_points: float) -> float:
  """The `decay` that remembers so many points: `1 - 1 / num_points`.

  Args:
    num_points: at least 1; inf forgets nothing.
  """
  if not num_points >= 1:
    raise ValueError(f"num_points is {num_points!r}, takes a number >= 1")
  return 1.0 - 1.0 / num_points


def begin_online(
  points: jax.Array,
  mixture: types.Mixture,
  *,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  remembered: jax.Array | float = 0.0,
  reg_share: jax.Array | float = 1e-6,
  reg_covar: jax.Array | float = 0.0,
) -> OnlineState:
  """The state before the first block.

  Args:
    points: `[N, d]`, the first block or a sample: they tell where the frame is
      and in which units, and are not counted.
    mixture: where it starts; what has weight 0 at the end is padding and stays
      so. Without covariances it takes those of the points about their nearest
      means, as `em.fit` does.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]`, or None for ones.
    remembered: how many points the mixture stands for: 0 for a guess, which
      the first block replaces; N for a fit of N points that is to go on.
    reg_share: as in `em.Options`, for all blocks.
    reg_covar: as in `em.Options`, for all blocks.

  Returns:
    A state; of points or a mixture that cannot be used one that stays as it
    is, with INVALID_INPUT at each block.
  """
  return _begin(
    points,
    mixture,
    sample_weight,
    (remembered, reg_share, reg_covar),
    covariance_type=covariance_type,
  )


def absorb(
  state: OnlineState,
  points: jax.Array,
  *,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  decay: jax.Array | float = 1.0,
) -> tuple[OnlineState, types.SolverResult]:
  """One block: its sums beside what is remembered, and an M-step.

  A first block with a state that remembers nothing is one step of EM.

  Args:
    state: from `begin_online` or from here, of the same type.
    points: `[n, d]`; padding may hold anything. Other n compile anew.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[n]`, or None for ones.
    decay: for each unit of weight, in (0, 1]; the module says what it does.

  Returns:
    The state after the block; and a result in the coordinates of the points,
    whose log-likelihood is the block's before the step. Its status is
    DEGENERATE as in `em.fit`; INVALID_INPUT for a block that cannot be used,
    and then the state and the mixture are what they were; else MAX_ITER, for a
    stream has no end to converge at.

  Raises:
    ValueError: for another d, and a decay out of range.
  """
  dim = state.frame.centre.shape[-1]
  if jnp.ndim(points) != 2 or jnp.shape(points)[1] != dim:
    raise ValueError(
      f"points has shape {jnp.shape(points)}, takes [n, {dim}] as the state"
    )
  # On the host: in float32 0.999999 would be something else.
  if isinstance(decay, numbers.Real):
    checks.number("decay", decay, lowest=0.0)
    if not 0.0 < decay <= 1.0:
      raise ValueError(f"decay is {decay!r}, takes a number in (0, 1]")
    log_decay = math.log(decay)
  else:
    log_decay = jnp.log(decay)
  return _absorb(
    state, points, sample_weight, log_decay, covariance_type=covariance_type
  )


@functools.partial(jax.jit, static_argnames="covariance_type")
def _begin(points, mixture, sample_weight, options, *, covariance_type):
  remembered, reg_share, reg_covar = options
  mixture = jax.tree.map(jnp.asarray, mixture)
  size = mixture.weights.size
  points = jnp.asarray(points)
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  if mixture.covariances is not None:
    points, sample_weight = _beside_its_own(
      points, mixture, sample_weight, covariance_type=covariance_type
    )
  problem = problem_lib.prepare(
    points,
    jnp.sum(mixture.weights > 0),
    max_components=size,
    sample_weight=sample_weight,
    covariance_type=covariance_type,
    reg_share=reg_share,
    reg_covar=reg_covar,
  )
  problem, start = em_starts.check(
    problem, mixture, covariance_type=covariance_type
  )
  mass = jnp.asarray(remembered, problem.scale.dtype) * start.mixture.weights
  return OnlineState(
    frame=problem._replace(columns=None, sample_weight=None),
    mixture=start.mixture,
    anchor=start.anchor,
    statistics=_sums_of(start.mixture, mass, covariance_type=covariance_type),
    remembered=jnp.sum(mass),
    num_iters=jnp.zeros((), jnp.int32),
  )


def _beside_its_own(points, mixture, sample_weight, *, covariance_type):
  """Points with the means and a deviation about them: a block may be small.

  The frame of one point would have no unit.
  """
  deviations = gmm.standard_deviations(mixture, covariance_type=covariance_type)
  weights = mixture.weights.astype(sample_weight.dtype)
  means = mixture.means.astype(points.dtype)
  return (
    jnp.concatenate([points, means + deviations, means - deviations]),
    jnp.concatenate([sample_weight, weights, weights]),
  )


def _sums_of(mixture, mass, *, covariance_type):
  """The sums of points that a mixture stands for."""
  _, means, covariances = mixture
  kind = gmm.kind_of(covariance_type)
  if kind.is_known:
    return em_steps.Statistics(mass, mass[:, None] * means, None, None)
  if kind.is_per_component:
    counts = mass.reshape(-1, *(1,) * (covariances.ndim - 1))
  else:
    counts = jnp.sum(mass)
  scatter = counts * covariances
  if kind.structure == "ball":
    scatter = scatter * means.shape[-1]
  return em_steps.Statistics(mass, jnp.zeros_like(means), scatter, None)


@functools.partial(jax.jit, static_argnames="covariance_type")
def _absorb(state, points, sample_weight, log_decay, *, covariance_type):
  frame, before = state.frame, state.mixture
  columns, weight, is_valid = _in_frame(frame, points, sample_weight)
  block = em_steps.e_step(
    columns, before, sample_weight=weight, covariance_type=covariance_type
  )
  total = jnp.sum(weight)
  kept = jnp.exp(jnp.asarray(log_decay, weight.dtype) * total)
  statistics = jax.tree.map(
    lambda old, new: kept * old + new,
    state.statistics,
    block._replace(log_density=None),
  )
  mixture = em_steps.m_step(
    statistics,
    before,
    state.anchor,
    covariance_type=covariance_type,
    ridge=frame.ridge,
  )
  shifts = mixture.means - before.means
  moved = OnlineState(
    frame=frame,
    mixture=mixture,
    anchor=state.anchor,
    statistics=_about(statistics, shifts, covariance_type=covariance_type),
    remembered=jnp.sum(statistics.mass),
    num_iters=state.num_iters + 1,
  )
  for leaf in jax.tree.leaves((mixture, moved.statistics)):
    is_valid &= jnp.all(jnp.isfinite(leaf))
  after = jax.tree.map(
    lambda new, old: jnp.where(is_valid, new, old), moved, state
  )
  log_density = block.log_density
  if gmm.kind_of(covariance_type).is_known:
    log_density = log_density - 0.5 * jnp.sum(columns**2, axis=0)
  mean = jnp.sum(weight / total * log_density)
  return after, _concluded(after, mean, is_valid, covariance_type)


def _in_frame(frame, points, sample_weight):
  """Columns and weights that no step fails on, and whether they are given."""
  points, weight, is_valid = linalg.usable(
    points, frame.is_valid, sample_weight=sample_weight
  )
  dtype = frame.scale.dtype
  points, weight = points.astype(dtype), weight.astype(dtype)
  points = jnp.where((weight > 0)[:, None], points - frame.centre, 0.0)
  points = points / frame.scale
  is_valid &= linalg.is_squarable(points)
  return jnp.where(is_valid, points, 0.0).T, weight, is_valid


def _about(statistics, shifts, *, covariance_type):
  """Sums about the means before, as sums about those after."""
  mass, sums, scatter, _ = statistics
  kind = gmm.kind_of(covariance_type)
  if kind.is_known:
    return statistics
  moved = mass[:, None] * shifts
  if kind.structure == "matrix":
    cross = shifts[:, :, None] * (sums - 0.5 * moved)[:, None, :]
    lost = cross + jnp.swapaxes(cross, -1, -2)
  else:
    lost = shifts * (2.0 * sums - moved)
    lost = jnp.sum(lost, axis=-1) if kind.structure == "ball" else lost
  scatter -= lost if kind.is_per_component else jnp.sum(lost, axis=0)
  if kind.structure != "matrix":
    scatter = jnp.maximum(scatter, 0.0)
  return em_steps.Statistics(mass, sums - moved, scatter, None)


def _concluded(state, log_likelihood, is_valid, covariance_type):
  """What a block gives, in the coordinates of the points."""
  is_degenerate = em_steps.is_degenerate(
    state.mixture,
    state.frame.num_components,
    covariance_type=covariance_type,
    ridge=state.frame.ridge,
  )
  return problem_lib.conclude(
    state.frame._replace(is_valid=is_valid),
    em_starts.from_frame(
      state.frame, state.mixture, covariance_type=covariance_type
    ),
    log_likelihood=log_likelihood + state.frame.log_density,
    status=jnp.where(
      is_degenerate, types.Status.DEGENERATE, types.Status.MAX_ITER
    ),
    num_iters=state.num_iters,
  )
