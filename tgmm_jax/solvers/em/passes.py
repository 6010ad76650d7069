"""EM for one large problem that is in memory: a share of its points each core.

Within one program XLA would take block after block on one core. Here each pass
calls a program for every share of the points, all at once, and then takes the
step, which is small.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm
from tgmm_jax.solvers import checks
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.em import blocks
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import runs as em_runs
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em import steps as em_steps
from tgmm_jax.solvers.execution import cores, programs

# Points that are worth a call.
_LEAST = 2048


class Share(NamedTuple):
  """Some of the points.

  Attributes:
    columns: `[d, n]`, in the frame.
    sample_weight: `[n]`; of all shares together it sums to 1.
    log_density: `[n]`, before the last step.
  """

  columns: jax.Array
  sample_weight: jax.Array
  log_density: jax.Array


class Ended(NamedTuple):
  """Where EM ended from each of S starts, in the frame.

  Attributes:
    frame: the problem without its points; `is_valid [S]`.
    runs: with a leading axis S.
    log_likelihoods: `[S]`, means, without the frame's constants.
    before: `[S]`, the same before the last step; -inf where there was none.
  """

  frame: problem_lib.PreparedProblem
  runs: em_runs.EMRun
  log_likelihoods: jax.Array
  before: jax.Array


def are_worth_it(inputs: em_starts.Inputs, form: em_options.Form) -> bool:
  """Whether a problem is large and plain, here, and cores are to share it."""
  is_plain = inputs.fixed is None and inputs.point_covariances is None
  return (
    not checks.is_traced(inputs)
    and is_plain
    and not form.takes_holes
    and inputs.points.shape[0] > blocks.most_at_once()
    and cores.num_cores() > 1
  )


def run_each(
  inputs: em_starts.Inputs,
  keys: jax.Array,
  limits: em_options.Limits,
  form: em_options.Form,
) -> Ended:
  """Runs EM from each start to its end, one after the other.

  Args:
    inputs: one problem; a given start has the leading axis S.
    keys: `[S]`, each draws a start unless they are given.
    limits: when a run stops.
    form: static.
  """
  num_shares = min(cores.num_cores(), inputs.points.shape[0] // _LEAST)
  frame, is_valid, starts, shares = _set_up(
    inputs, keys, limits, form=form, num_shares=num_shares
  )
  ended = []
  for index in range(keys.shape[0]):
    start = jax.tree.map(lambda leaf: leaf[index], starts)  # noqa: B023
    own = frame._replace(is_valid=is_valid[index])
    ended.append(_run_to_end(shares, own, start, limits, form))
  runs, log_likelihoods, before = jax.tree.map(
    lambda *leaves: jnp.stack(leaves), *ended
  )
  return Ended(frame._replace(is_valid=is_valid), runs, log_likelihoods, before)


@functools.partial(jax.jit, static_argnames=("form", "num_shares"))
def _set_up(inputs, keys, limits, *, form, num_shares):
  """The frame, which starts are valid, the starts, and the points in shares."""
  problem = em_starts.prepare(inputs, limits, form)

  def start_of(one):
    own, start = em_starts.begin(*one, problem, form)
    return own.is_valid, start

  is_valid, starts = jax.lax.map(start_of, (keys, inputs.given))
  num_points = problem.sample_weight.size
  bounds = [num_points * i // num_shares for i in range(num_shares + 1)]
  least = jnp.finfo(problem.sample_weight.dtype).min
  shares = [
    Share(
      problem.columns[:, first:last],
      problem.sample_weight[first:last],
      jnp.full(last - first, least, problem.columns.dtype),
    )
    for first, last in zip(bounds[:-1], bounds[1:], strict=True)
  ]
  unused = problem.sample_weight[:1]
  frame = problem._replace(columns=None, sample_weight=unused)
  return frame, is_valid, starts, shares


def _run_to_end(shares, frame, start, limits, form):
  """The run, its mean log-likelihood, and that before its last step."""
  covariance_type = form.covariance_type
  run, before = _go_on(
    shares, frame, em_runs.begin(frame, start, limits.prior_size), limits, form
  )
  if form.has_second_run and _IS_DEGENERATE(
    frame, run.mixture, covariance_type=covariance_type
  ):
    again = em_runs.begin(frame, start, limits.prior_if_degenerate)
    run, before = _go_on(shares, frame, again, limits, form)
  rate = functools.partial(
    _rate, mixture=run.mixture, covariance_type=covariance_type
  )
  return run, sum(cores.map_ahead(rate, shares)), before


def _go_on(shares, frame, run, limits, form):
  """Passes over the points until the run is done."""
  covariance_type, before = form.covariance_type, jnp.asarray(-jnp.inf)
  while not em_runs.is_done(run, limits=limits):
    add_up = functools.partial(
      _add_up, mixture=run.mixture, covariance_type=covariance_type
    )
    parts = list(cores.map_ahead(add_up, shares))
    shares = [part.share for part in parts]
    run, before = _step(
      *(frame, run, [part.sums for part in parts], limits),
      covariance_type=covariance_type,
    )
  return run, before


class _Part(NamedTuple):
  """What a pass makes of a share."""

  share: Share
  sums: Any  # statistics, change and mean of the log-likelihood


@functools.partial(jax.jit, static_argnames="covariance_type")
def _add_up(share, *, mixture, covariance_type):
  columns, weight, before = share
  statistics = em_steps.e_step(
    columns, mixture, sample_weight=weight, covariance_type=covariance_type
  )
  log_density = statistics.log_density
  # Differences before the mean, as in `em_runs.advance`.
  change = jnp.sum(weight * (log_density - before))
  value = log_density
  if gmm.kind_of(covariance_type).is_known:
    value = value - 0.5 * jnp.sum(columns**2, axis=0)
  sums = statistics._replace(log_density=None), change, jnp.sum(weight * value)
  return _Part(share._replace(log_density=log_density), sums)


@programs.quick
def _step(frame, run, parts, limits, *, covariance_type):
  """The run after the M-step, and the log-likelihood before it."""
  statistics, change, value = jax.tree.map(lambda *leaves: sum(leaves), *parts)
  run = em_runs.update(
    frame,
    run,
    statistics._replace(log_density=run.log_density),
    change,
    limits=limits,
    covariance_type=covariance_type,
  )
  return run, value


@functools.partial(jax.jit, static_argnames="covariance_type")
def _rate(share, *, mixture, covariance_type):
  log_density = em_steps.log_density(
    share.columns, mixture, covariance_type=covariance_type
  )
  return jnp.sum(share.sample_weight * log_density)


_IS_DEGENERATE = programs.quick(em_runs.is_degenerate)
