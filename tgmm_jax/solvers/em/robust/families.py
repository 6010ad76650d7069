"""Fits by EM of mixtures that have more parameters than a `Mixture` holds.

A noise component has a weight, Student t components have degrees of freedom.
What such a family adds are the functions of a `Family`; frames, starts, the
M-step of the mixture, stopping rules and statuses are those of plain EM.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import types
from tgmm_jax.solvers.em import blocks
from tgmm_jax.solvers.em import known as em_known
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import runs as em_runs
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em import steps as em_steps
from tgmm_jax.solvers.em.robust import trimming as em_trimming
from tgmm_jax.solvers.execution import work_queue

# Steps of plain EM, among points in company, that a drawn start takes.
_NUM_PLAIN_STEPS = 20


class Family(NamedTuple):
  """What a family of mixtures adds to EM: functions of one problem.

  Extras are its further parameters, settings what a caller says of them; both
  are pytrees.

  Attributes:
    begin: `(problem, settings, form) -> extras` at the start.
    e_step: `(columns, mixture, extras, *, sample_weight, covariance_type) ->
      (steps.Statistics, sums)`; both are sums over the points but for the log
      density.
    complete: `(statistics, sums, mixture, covariance_type) -> statistics`, of
      which `steps.m_step` makes the family's M-step.
    m_step: `(extras, statistics, sums, settings, dim) -> extras`.
    log_density: `(columns, mixture, extras, *, covariance_type) -> [N]`, as
      `steps.log_density`.
    is_degenerate: `(mixture, extras, num_components) -> []`, besides what is
      degenerate in every mixture.
  """

  begin: Callable[..., Any]
  e_step: Callable[..., tuple[em_steps.Statistics, Any]]
  complete: Callable[..., em_steps.Statistics]
  m_step: Callable[..., Any]
  log_density: Callable[..., jax.Array]
  is_degenerate: Callable[..., jax.Array]


class Settings(NamedTuple):
  """What a caller says besides the options of EM.

  Attributes:
    family: what the family reads.
    trimmed_share: `[]`, of the weight that drawn starts leave out.
  """

  family: Any
  trimmed_share: jax.Array | float


class Ended(NamedTuple):
  """A run that has ended, in the space of the points.

  Attributes:
    result: as of plain EM, the log-likelihood being the family's.
    extras: its further parameters, in the frame.
    problem_log_density: `[]`, what log densities in the frame lack.
    before: `[]`, mean log-likelihood before the last step; not finite where
      there was none.
  """

  result: types.SolverResult
  extras: Any
  problem_log_density: jax.Array
  before: jax.Array


class _State(NamedTuple):
  """One start of one problem under way."""

  run: em_runs.EMRun
  extras: Any


@functools.partial(jax.jit, static_argnames=("form", "family"))
def fit(
  inputs: em_starts.Inputs,
  limits: em_options.Limits,
  settings: Settings,
  *,
  form: em_options.Form,
  family: Family,
) -> Ended:
  """Fits one problem from all its starts; the best is returned.

  Args:
    inputs: the problem.
    limits: when runs end, and their floors.
    settings: of the family.
    form: what is compiled in.
    family: its functions.
  """
  problem, starts = _set_up(inputs, limits, settings, form)

  def run_to_end(start):
    state = _begin(problem, start, limits, settings, form, family)
    return jax.lax.while_loop(
      lambda state: ~em_runs.is_done(state.run, limits=limits),
      functools.partial(
        _advance, problem, settings, limits=limits, form=form, family=family
      ),
      state,
    )

  states = blocks.map_each(
    run_to_end, starts, num_points=inputs.points.shape[0]
  )
  ended = _finish(problem, states, form, family)
  return ended._replace(result=em_starts.restored(ended.result, inputs))


@functools.partial(jax.jit, static_argnames=("form", "family", "batch_size"))
def fit_batch(
  inputs: em_starts.Inputs,
  limits: em_options.Limits,
  settings: Settings,
  *,
  form: em_options.Form,
  family: Family,
  batch_size: int,
) -> Ended:
  """Fits B problems; nobody waits for the slowest.

  Args:
    inputs: with the axis B.
    limits: when runs end, and their floors.
    settings: with the axis B.
    form: what is compiled in.
    family: its functions.
    batch_size: runs at a time.
  """
  num_init, num_problems = form.num_init, inputs.points.shape[0]
  chunk_size = max(1, batch_size // num_init)
  problems, starts = work_queue.map_in_chunks(
    lambda one: _set_up(one[0], limits, one[1], form),
    (inputs, settings),
    chunk_size,
  )

  def load(index):
    which = index // num_init
    data = jax.tree.map(lambda leaf: leaf[which], (problems, settings))
    start = jax.tree.map(lambda leaf: leaf[which, index % num_init], starts)
    problem, own = data
    return data, _begin(problem, start, limits, own, form, family)

  states = work_queue.run_all(
    load,
    lambda data, state: _advance(
      *data, state, limits=limits, form=form, family=family
    ),
    lambda state: em_runs.is_done(state.run, limits=limits),
    lambda state: state._replace(run=state.run._replace(anchor=None)),
    num_items=num_problems * num_init,
    num_slots=batch_size,
  )
  states = jax.tree.map(
    lambda leaf: leaf.reshape(num_problems, num_init, *leaf.shape[1:]), states
  )
  ended = work_queue.map_in_chunks(
    lambda one: _finish(*one, form, family), (problems, states), chunk_size
  )
  if inputs.fixed is None:
    return ended
  result = jax.vmap(em_starts.restored)(ended.result, inputs)
  return ended._replace(result=result)


def _set_up(inputs, limits, settings, form):
  """As `starts.set_up`; starts are drawn and moved among points in company."""
  if inputs.given is not None:
    return em_starts.set_up(inputs, limits, form)
  problem = em_starts.prepare(inputs, limits, form)
  weight = em_trimming.trimmed(
    problem.columns * problem.scale[:, None],
    settings.trimmed_share,
    sample_weight=problem.sample_weight,
  )
  dense = problem._replace(sample_weight=weight)

  def draw(key):
    start = em_starts.draw(key, dense, form)
    return start._replace(mixture=_moved(dense, start, limits, form))

  return problem, jax.vmap(draw)(jax.random.split(inputs.key, form.num_init))


def _moved(problem, start, limits, form):
  """A start after some steps of plain EM.

  Two components in one cluster part while no noise takes the other: a mixture
  has a pull on all points, beside noise on those near to it alone.
  """
  run = jax.lax.while_loop(
    lambda run: (
      ~em_runs.is_done(run, limits=limits._replace(max_iter=_NUM_PLAIN_STEPS))
    ),
    functools.partial(
      em_runs.advance,
      problem,
      limits=limits,
      covariance_type=form.covariance_type,
    ),
    em_runs.begin(problem, start, limits.prior_size),
  )
  return run.mixture


def _begin(problem, start, limits, settings, form, family):
  run = em_runs.begin(problem, start, limits.prior_size)
  return _State(run, family.begin(problem, settings.family, form))


def _advance(problem, settings, state, *, limits, form, family):
  """One step of one run."""
  run, extras = state
  covariance_type = form.covariance_type
  statistics, sums = e_step(
    problem.columns,
    run.mixture,
    extras,
    family=family,
    sample_weight=problem.sample_weight,
    covariance_type=covariance_type,
  )
  if run.fixed is not None:
    shifts = em_known.without_shifts(
      statistics.sums, run.fixed, covariance_type=covariance_type
    )
    statistics = statistics._replace(sums=shifts)
  change = statistics.log_density - run.log_density
  stepped = em_runs.update(
    problem,
    run,
    family.complete(statistics, sums, run.mixture, covariance_type),
    jnp.sum(problem.sample_weight * change),
    limits=limits,
    covariance_type=covariance_type,
  )
  # Where no component has any points left there is nothing to divide by.
  has_points = jnp.sum(statistics.mass) > em_steps.MIN_MASS
  mixture = jax.tree.map(
    lambda new, old: jnp.where(has_points, new, old),
    stepped.mixture,
    run.mixture,
  )
  dim = problem.columns.shape[0]
  extras = family.m_step(extras, statistics, sums, settings.family, dim)
  return _State(stepped._replace(mixture=mixture), extras)


def e_step(
  columns: jax.Array,
  mixture: types.Mixture,
  extras: Any,
  *,
  family: Family,
  sample_weight: jax.Array,
  covariance_type: str,
) -> tuple[em_steps.Statistics, Any]:
  """The E-step of a family, many points block by block.

  Args:
    columns: `[d, N]`.
    mixture: the parameters.
    extras: those of the family.
    family: its functions.
    sample_weight: `[N]`.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """

  def of_block(columns, sample_weight):
    statistics, sums = family.e_step(
      columns,
      mixture,
      extras,
      sample_weight=sample_weight,
      covariance_type=covariance_type,
    )
    sums = statistics._replace(log_density=None), sums
    return sums, statistics.log_density

  (statistics, sums), log_density = blocks.sum_over(
    of_block, columns, sample_weight=sample_weight
  )
  return statistics._replace(log_density=log_density), sums


def _finish(problem, states, form, family):
  """The best of the runs `[S, ...]`, in the space of the points."""
  covariance_type = form.covariance_type

  def rate(state):
    mixture, extras = state.run.mixture, state.extras
    value = _log_density(problem, mixture, extras, family, covariance_type)
    is_degenerate = em_runs.is_degenerate(
      problem, mixture, covariance_type=covariance_type
    ) | family.is_degenerate(mixture, extras, problem.num_components)
    return jnp.sum(problem.sample_weight * value), is_degenerate

  values, are_degenerate = jax.vmap(rate)(states)
  best = em_runs.best_of(values, are_degenerate)
  run, extras = jax.tree.map(lambda leaf: leaf[best], states)
  result = em_runs.conclude(
    *(problem, run, values[best], are_degenerate[best]),
    covariance_type=covariance_type,
  )
  before = jnp.sum(problem.sample_weight * run.log_density)
  before = jnp.where(run.num_iters > 0, before + problem.log_density, -jnp.inf)
  return Ended(result, extras, problem.log_density, before)


def _log_density(problem, mixture, extras, family, covariance_type):
  """At every point, many of them block by block, `[N]`."""

  def of_block(columns, _):
    return None, family.log_density(
      columns, mixture, extras, covariance_type=covariance_type
    )

  _, values = blocks.sum_over(
    of_block, problem.columns, sample_weight=problem.sample_weight
  )
  return values
