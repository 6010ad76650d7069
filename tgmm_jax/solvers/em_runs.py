"""Runs of EM: begun, advanced by a step, ended, and the best one chosen.

A run is one start of one problem under way. How its steps are repeated is the
business of `em`: a `while_loop`, a `scan`, or a queue of many runs.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import types
from tgmm_jax.solvers import checks, em_steps
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers import start as start_lib


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
  max_iter, tol, reg_share=1e-6, reg_covar=0.0, min_variance=None
) -> Limits:
  """Refuses numbers out of range; what is traced is taken as it is."""
  checks.integer("max_iter", max_iter, lowest=0)
  checks.number("tol", tol, lowest=0.0)
  checks.number("reg_share", reg_share, lowest=0.0)
  checks.number("reg_covar", reg_covar, lowest=0.0)
  if min_variance is not None:
    checks.number("min_variance", min_variance, lowest=0.0)
  return Limits(max_iter, tol, reg_share, reg_covar, min_variance)


class Run(NamedTuple):
  """One start of one problem under way."""

  mixture: types.Mixture
  anchor: types.Mixture  # see `m_step`
  log_density: jax.Array  # [N], before the last step
  num_iters: jax.Array
  is_converged: jax.Array


def begin(problem, start):
  """A run before its first step; nothing is left to do where invalid."""
  lowest = jnp.finfo(problem.columns.dtype).min
  return Run(
    mixture=start.mixture,
    anchor=start.anchor,
    log_density=jnp.full_like(problem.sample_weight, lowest),
    num_iters=jnp.zeros((), jnp.int32),
    is_converged=~problem.is_valid,
  )


def advance(problem, run, *, limits, covariance_type):
  """One step of one run."""
  statistics = em_steps.e_step(
    problem.columns,
    problem.sample_weight,
    run.mixture,
    covariance_type=covariance_type,
  )
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
  # Differences before the mean: rounded once, the mean log-likelihood itself
  # could not show a change of 1e-7.
  change = statistics.log_density - run.log_density
  change = jnp.sum(problem.sample_weight * change)
  return run._replace(
    mixture=mixture,
    log_density=statistics.log_density,
    num_iters=run.num_iters + 1,
    is_converged=jnp.abs(change) < limits.tol,
  )


def is_done(run, *, limits):
  return run.is_converged | (run.num_iters >= limits.max_iter)


def finish(problem, runs, *, covariance_type):
  """The best of the runs `[S, ...]`, in the space of the points."""
  rate = functools.partial(_rate, problem, covariance_type=covariance_type)
  log_likelihoods, is_degenerate = jax.vmap(rate)(runs.mixture)
  # The most likely of all may be a component that has collapsed on a point.
  rank = jnp.where(is_degenerate, -jnp.inf, log_likelihoods)
  best = jnp.where(
    jnp.all(is_degenerate), jnp.argmax(log_likelihoods), jnp.argmax(rank)
  )
  mixture = jax.tree.map(lambda leaf: leaf[best], runs.mixture)
  log_likelihood = problem.log_density + log_likelihoods[best]
  status = jnp.where(
    runs.is_converged[best], types.Status.CONVERGED, types.Status.MAX_ITER
  )
  status = jnp.where(is_degenerate[best], types.Status.DEGENERATE, status)
  status = jnp.where(problem.is_valid, status, types.Status.INVALID_INPUT)
  return types.SolverResult(
    mixture=start_lib.from_frame(problem, mixture, covariance_type),
    log_likelihood=jnp.where(problem.is_valid, log_likelihood, -jnp.inf),
    num_iters=runs.num_iters[best],
    status=status.astype(jnp.int32),
  )


def _rate(problem, mixture, *, covariance_type):
  """Mean log-likelihood in the frame, and whether it means anything."""
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
