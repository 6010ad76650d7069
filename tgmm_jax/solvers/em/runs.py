"""Runs of EM: begun, advanced by a step, ended, and the best one chosen.

A run is one start of one problem under way. How its steps are repeated is the
business of `em`: a `while_loop`, a `scan`, or a queue of many runs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em import steps as em_steps


class Limits(NamedTuple):
  """Numbers that a fit takes; none of them is compiled in.

  Attributes:
    max_iter: steps at most.
    tol: change of the mean log-likelihood below which a run stops.
    reg_share: ridge, as a share of the variances of the points.
    reg_covar: ridge, in squared units of the points.
    min_variance: floor, in squared units of the points, or None.
  """

  max_iter: jax.Array
  tol: jax.Array
  reg_share: jax.Array
  reg_covar: jax.Array
  min_variance: jax.Array | None


def make_limits(
  max_iter: jax.Array | int,
  tol: jax.Array | float,
  reg_share: jax.Array | float = 1e-6,
  reg_covar: jax.Array | float = 0.0,
  min_variance: jax.Array | float | None = None,
) -> Limits:
  """Refuses numbers out of range; what is traced is taken as it is."""
  checks.integer("max_iter", max_iter, lowest=0)
  limits = {"tol": tol, "reg_share": reg_share, "reg_covar": reg_covar}
  if min_variance is not None:
    limits["min_variance"] = min_variance
  for name, value in limits.items():
    checks.number(name, value, lowest=0.0)
    # One type for all, or each would be compiled for.
    if not isinstance(value, jax.core.Tracer):
      limits[name] = float(value)
  if not isinstance(max_iter, jax.core.Tracer):
    max_iter = int(max_iter)
  return Limits(max_iter, **{"min_variance": None} | limits)


class Run(NamedTuple):
  """One start of one problem under way, in the frame.

  Attributes:
    mixture: the parameters.
    anchor: what components fall back to, see `em_steps.m_step`.
    log_density: `[N]`, before the last step.
    num_iters: steps taken.
    is_converged: whether the stopping rule was met.
  """

  mixture: types.Mixture
  anchor: types.Mixture
  log_density: jax.Array
  num_iters: jax.Array
  is_converged: jax.Array


def begin(problem: problem_lib.Problem, start: em_starts.Start) -> Run:
  """A run before its first step; nothing is left to do where invalid."""
  lowest = jnp.finfo(problem.sample_weight.dtype).min
  return Run(
    mixture=start.mixture,
    anchor=start.anchor,
    log_density=jnp.full_like(problem.sample_weight, lowest),
    num_iters=jnp.zeros((), jnp.int32),
    is_converged=~problem.is_valid,
  )


def advance(
  problem: problem_lib.Problem,
  run: Run,
  *,
  limits: Limits,
  covariance_type: str,
) -> Run:
  """One step of one run."""
  statistics = em_steps.e_step(
    problem.columns,
    problem.sample_weight,
    run.mixture,
    covariance_type=covariance_type,
  )
  # Differences before the mean: rounded once, the mean log-likelihood itself
  # could not show a change of 1e-7.
  change = statistics.log_density - run.log_density
  change = jnp.sum(problem.sample_weight * change)
  return update(
    problem,
    run,
    statistics,
    change,
    limits=limits,
    covariance_type=covariance_type,
  )


def update(
  problem: problem_lib.Problem,
  run: Run,
  statistics: em_steps.Statistics,
  change: jax.Array,
  *,
  limits: Limits,
  covariance_type: str,
) -> Run:
  """A run after the M-step, given the sums over all points.

  Args:
    problem: its ridge and scale are used.
    run: before the step.
    statistics: from the E-step with `run.mixture`.
    change: `[]`, of the mean log-likelihood since the last step.
    limits: when a run stops, and the floor.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  lowest = None
  if limits.min_variance is not None:
    lowest = limits.min_variance / problem.scale**2
  mixture = em_steps.m_step(
    statistics,
    run.mixture,
    run.anchor,
    covariance_type=covariance_type,
    ridge=problem.ridge,
    lowest=lowest,
  )
  return run._replace(
    mixture=mixture,
    log_density=statistics.log_density,
    num_iters=run.num_iters + 1,
    is_converged=jnp.abs(change) < limits.tol,
  )


def is_done(run: Run, *, limits: Limits) -> jax.Array:
  """Whether a run has met its stopping rule or used up its steps, `[]`."""
  return run.is_converged | (run.num_iters >= limits.max_iter)


def finish(
  problem: problem_lib.Problem, runs: Run, *, covariance_type: str
) -> types.SolverResult:
  """The best of the runs `[S, ...]`, in the space of the points."""

  def rate(mixture):
    log_density = em_steps.log_density(
      problem.columns, mixture, covariance_type=covariance_type
    )
    is_degenerate = em_steps.is_degenerate(
      mixture,
      problem.num_components,
      covariance_type=covariance_type,
      ridge=problem.ridge,
    )
    return jnp.sum(problem.sample_weight * log_density), is_degenerate

  log_likelihoods, is_degenerate = jax.vmap(rate)(runs.mixture)
  # The most likely of all may be a component that has collapsed on a point.
  rank = jnp.where(is_degenerate, -jnp.inf, log_likelihoods)
  best = jnp.where(
    jnp.all(is_degenerate), jnp.argmax(log_likelihoods), jnp.argmax(rank)
  )
  run = jax.tree.map(lambda leaf: leaf[best], runs)
  return conclude(
    problem,
    run,
    log_likelihoods[best],
    is_degenerate[best],
    covariance_type=covariance_type,
  )


def conclude(
  problem: problem_lib.Problem,
  run: Run,
  log_likelihood: jax.Array,
  is_degenerate: jax.Array,
  *,
  covariance_type: str,
) -> types.SolverResult:
  """The result of one run that has ended.

  Args:
    problem: its frame takes the mixture back to the points.
    run: the run.
    log_likelihood: `[]`, mean in the frame, without its constants.
    is_degenerate: `[]`, from `em_steps.is_degenerate`.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  status = jnp.where(
    run.is_converged, types.Status.CONVERGED, types.Status.MAX_ITER
  )
  status = jnp.where(is_degenerate, types.Status.DEGENERATE, status)
  status = jnp.where(problem.is_valid, status, types.Status.INVALID_INPUT)
  log_likelihood = log_likelihood + problem.log_density
  return types.SolverResult(
    mixture=em_starts.from_frame(problem, run.mixture, covariance_type),
    log_likelihood=jnp.where(problem.is_valid, log_likelihood, -jnp.inf),
    num_iters=run.num_iters,
    status=status.astype(jnp.int32),
  )
