"""Runs of EM: begun, advanced by a step, ended, and the best one chosen.

A run is one start of one problem under way. Its steps are repeated by a
`while_loop` here; a `scan`, a queue of many runs and passes over shares of the
points are elsewhere.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, types
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.em import blocks, observations, priors
from tgmm_jax.solvers.em import known as em_known
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em import steps as em_steps


class EMRun(NamedTuple):
  """One start of one problem under way, in the frame.

  Attributes:
    mixture: the parameters.
    anchor: what components fall back to, see `em_steps.m_step`.
    log_density: `[N]`, before the last step.
    num_iters: steps taken.
    is_converged: whether the stopping rule was met.
    prior_size: of the covariances, see `em.Options`.
    fixed: which parameters stay, or None.
    log_prior: `[]`, before the last step; None without a prior.
  """

  mixture: types.Mixture
  anchor: types.Mixture
  log_density: jax.Array
  num_iters: jax.Array
  is_converged: jax.Array
  prior_size: jax.Array
  fixed: em_known.Fixed | None = None
  log_prior: jax.Array | None = None


def begin(
  problem: problem_lib.PreparedProblem,
  start: em_starts.Start,
  prior_size: jax.Array | float = 0.0,
) -> EMRun:
  """A run before its first step; nothing is left to do where invalid."""
  dtype = problem.sample_weight.dtype
  return EMRun(
    mixture=start.mixture,
    anchor=start.anchor,
    log_density=jnp.full_like(problem.sample_weight, jnp.finfo(dtype).min),
    num_iters=jnp.zeros((), jnp.int32),
    is_converged=~problem.is_valid,
    prior_size=jnp.asarray(prior_size, dtype),
    fixed=start.fixed,
    log_prior=None if problem.prior is None else jnp.zeros((), dtype),
  )


def again(
  problem: problem_lib.PreparedProblem,
  run: EMRun,
  start: em_starts.Start,
  *,
  prior_size: jax.Array | float,
  covariance_type: str,
) -> EMRun:
  """A run that has ended degenerate, from its start with a prior.

  Any other is as it was: done.
  """
  is_lost = problem.is_valid & is_degenerate(
    problem, run.mixture, covariance_type=covariance_type
  )
  return jax.tree.map(
    lambda old, new: jnp.where(is_lost, new, old),
    run,
    begin(problem, start, prior_size),
  )


def advance(
  problem: problem_lib.PreparedProblem,
  run: EMRun,
  *,
  limits: em_options.Limits,
  covariance_type: str,
) -> EMRun:
  """One step of one run."""
  statistics = _e_step(problem, run.mixture, covariance_type=covariance_type)
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


def _e_step(problem, mixture, *, covariance_type):
  if problem.observation is not None:
    return observations.e_step(
      problem, mixture, covariance_type=covariance_type
    )
  return em_steps.e_step(
    problem.columns,
    mixture,
    sample_weight=problem.sample_weight,
    covariance_type=covariance_type,
  )


def rate(
  problem: problem_lib.PreparedProblem,
  mixture: types.Mixture,
  *,
  covariance_type: str,
) -> tuple[jax.Array, jax.Array]:
  """How likely a mixture in the frame is, and whether it is degenerate.

  Args:
    problem: with its points.
    mixture: in the frame.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.

  Returns:
    `[]`, the mean log density in the frame without its constants, of what is
    seen of the points; and `[]` bool, see `is_degenerate`: with holes also
    where nobody has seen what a parameter says.
  """
  is_lost = is_degenerate(problem, mixture, covariance_type=covariance_type)
  if problem.observation is None:
    values = em_steps.log_density(
      problem.columns, mixture, covariance_type=covariance_type
    )
  else:
    values, is_untold = observations.rate(
      problem, mixture, covariance_type=covariance_type
    )
    is_lost |= is_untold
  return jnp.sum(problem.sample_weight * values), is_lost


def update(
  problem: problem_lib.PreparedProblem,
  run: EMRun,
  statistics: em_steps.Statistics,
  change: jax.Array,
  *,
  limits: em_options.Limits,
  covariance_type: str,
) -> EMRun:
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
  if run.fixed is not None:
    sums = em_known.without_shifts(
      statistics.sums, run.fixed, covariance_type=covariance_type
    )
    statistics = statistics._replace(sums=sums)
  mixture = em_steps.m_step(
    statistics,
    run.mixture,
    run.anchor,
    covariance_type=covariance_type,
    ridge=problem.ridge,
    lowest=lowest,
    prior_share=run.prior_size / problem.num_points,
    prior=problem.prior,
    num_points=problem.num_points,
  )
  if problem.prior is not None:
    # What EM climbs is likelihood times prior.
    log_prior = priors.log_density(
      run.mixture, problem.prior, covariance_type=covariance_type
    )
    change += (log_prior - run.log_prior) / problem.num_points
    run = run._replace(log_prior=log_prior)
  if run.fixed is not None or limits.min_weight is not None:
    mixture = em_known.held(mixture, run.mixture, run.fixed, limits.min_weight)
  return run._replace(
    mixture=mixture,
    log_density=statistics.log_density,
    num_iters=run.num_iters + 1,
    is_converged=jnp.abs(change) < limits.tol,
  )


def is_done(run: EMRun, *, limits: em_options.Limits) -> jax.Array:
  """Whether a run has met its stopping rule or used up its steps, `[]`."""
  return run.is_converged | (run.num_iters >= limits.max_iter)


def run_to_end(
  problem: problem_lib.PreparedProblem,
  start: em_starts.Start,
  limits: em_options.Limits,
  form: em_options.Form,
) -> EMRun:
  """A run from its start until it is done; a second one where it must be.

  Args:
    problem: made ready.
    start: in its frame.
    limits: when a run stops.
    form: whether there may be a second run, and the covariance type.
  """
  options = {"limits": limits, "covariance_type": form.covariance_type}

  def go_on(run):
    return jax.lax.while_loop(
      lambda run: ~is_done(run, limits=limits),
      functools.partial(advance, problem, **options),
      run,
    )

  run = begin(problem, start, limits.prior_size)
  if not form.has_second_run:
    return go_on(run)

  def end(run, is_second):
    other = again(
      problem,
      run,
      start,
      prior_size=limits.prior_if_degenerate,
      covariance_type=form.covariance_type,
    )
    run = jax.tree.map(
      lambda own, new: jnp.where(is_second, new, own), run, other
    )
    return go_on(run), None

  # One loop for both, or it would be compiled twice.
  return jax.lax.scan(end, run, jnp.array([False, True]))[0]


def mean_log_density(
  problem: problem_lib.PreparedProblem,
  log_density: jax.Array,
  *,
  covariance_type: str,
) -> jax.Array:
  """Mean log-likelihood of the points from the values of an E-step, `[]`.

  Args:
    problem: whose weights count; its frame's constants are added.
    log_density: `[N]`, `Statistics.log_density`.
    covariance_type: with "unit" squared norms are missing in the values.
  """
  mean = jnp.sum(problem.sample_weight * log_density)
  is_known = gmm.kind_of(covariance_type).is_known
  if is_known and problem.observation is None:
    norms = jnp.sum(problem.columns**2, axis=0)
    mean -= 0.5 * jnp.sum(problem.sample_weight * norms)
  return mean + problem.log_density


def is_degenerate(
  problem: problem_lib.PreparedProblem,
  mixture: types.Mixture,
  *,
  covariance_type: str,
) -> jax.Array:
  """`steps.is_degenerate` of a mixture in the frame of a problem, `[]`."""
  return em_steps.is_degenerate(
    mixture,
    problem.num_components,
    covariance_type=covariance_type,
    ridge=problem.ridge,
  )


def finish(
  problem: problem_lib.PreparedProblem, runs: EMRun, *, covariance_type: str
) -> types.SolverResult:
  """The best of the runs `[S, ...]`, in the space of the points."""
  log_likelihoods, are_degenerate = jax.vmap(
    functools.partial(rate, problem, covariance_type=covariance_type)
  )(runs.mixture)
  return choose(
    *(problem, runs, log_likelihoods, are_degenerate),
    covariance_type=covariance_type,
  )


def choose(
  problem: problem_lib.PreparedProblem,
  runs: EMRun,
  log_likelihoods: jax.Array,
  are_degenerate: jax.Array,
  *,
  covariance_type: str,
) -> types.SolverResult:
  """`finish` where `rate` has been asked of all the runs, `[S]`."""
  best = best_of(log_likelihoods, are_degenerate)
  run = jax.tree.map(lambda leaf: leaf[best], runs)
  return conclude(
    *(problem, run, log_likelihoods[best], are_degenerate[best]),
    covariance_type=covariance_type,
  )


def best_of(log_likelihoods: jax.Array, are_degenerate: jax.Array) -> jax.Array:
  """Which of the runs `[S]` to keep: the likeliest that is not degenerate.

  Of all, if all are. The most likely of all may be a component that has
  collapsed on a point.
  """
  rank = jnp.where(are_degenerate, -jnp.inf, log_likelihoods)
  return jnp.where(
    jnp.all(are_degenerate), jnp.argmax(log_likelihoods), jnp.argmax(rank)
  )


def fit(
  inputs: em_starts.Inputs, limits: em_options.Limits, form: em_options.Form
) -> types.SolverResult:
  """Fits one problem from all its starts, within one program.

  Args:
    inputs: the problem.
    limits: when runs stop.
    form: static.
  """
  problem, starts = em_starts.set_up(inputs, limits, form)
  runs = blocks.map_each(
    lambda start: run_to_end(problem, start, limits, form),
    starts,
    num_points=inputs.points.shape[0],
  )
  result = finish(problem, runs, covariance_type=form.covariance_type)
  return em_starts.restored(result, inputs)


def conclude(
  problem: problem_lib.PreparedProblem,
  run: EMRun,
  log_likelihood: jax.Array,
  is_lost: jax.Array | None = None,
  *,
  covariance_type: str,
) -> types.SolverResult:
  """The result of one run that has ended.

  Args:
    problem: its frame takes the mixture back to the points.
    run: the run.
    log_likelihood: `[]`, mean in the frame, without its constants.
    is_lost: `[]`, whether it is degenerate, as `rate` says; None to look.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  status = jnp.where(
    run.is_converged, types.Status.CONVERGED, types.Status.MAX_ITER
  )
  if is_lost is None:
    is_lost = is_degenerate(
      problem, run.mixture, covariance_type=covariance_type
    )
  status = jnp.where(is_lost, types.Status.DEGENERATE, status)
  return problem_lib.conclude(
    problem,
    em_starts.from_frame(problem, run.mixture, covariance_type=covariance_type),
    log_likelihood=log_likelihood + problem.log_density,
    status=status,
    num_iters=run.num_iters,
  )
