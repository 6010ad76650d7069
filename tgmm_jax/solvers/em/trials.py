"""Many starts tried for a few steps, and the likeliest run to their end.

Short runs tell good starts from bad ones (em-EM of Biernacki, Celeux and
Govaert 2003). Runs take turns in one loop: a step is compiled once, for the
arrays of one run, and each stops when it is done.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import runs as em_runs
from tgmm_jax.solvers.em import starts as em_starts

# Mean log-likelihoods that differ by less are the same.
_ALIKE = 1e-6


class Tried(NamedTuple):
  """What `fit_trials` returns.

  Attributes:
    result: of the best run.
    start: `[]` int32, which start it comes from: first those given, then those
      drawn.
    prior_size: `[]`, of the covariances in that run; see `em.Options`.
  """

  result: types.SolverResult
  start: jax.Array
  prior_size: jax.Array


def fit_trials(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  starts: types.Mixture | None = None,
  head_start: jax.Array | float = 0.0,
  num_trial_steps: jax.Array | int = 10,
  num_finals: int = 2,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  **options,
) -> Tried:
  """Fits one problem from many starts, most of which are given up early.

  Args:
    key: consumed; draws the starts.
    points: `[N, d]`, as in `em.fit`.
    num_components: K, as in `em.fit`.
    starts: mixtures `[S, ...]` from which to start besides the `num_init` that
      are drawn, or None; covariances may be None. One that cannot be used
      counts as equal weights about the origin.
    head_start: by how much the mean log-likelihood of a run from a drawn start
      must be higher than that of one from a given start to be kept.
    num_trial_steps: steps after which a run waits.
    num_finals: how many go on to their end, static: the likeliest from a given
      start, and of all others those that are not degenerate first.
    covariance_type: as in `em.fit`.
    sample_weight: as in `em.fit`.
    max_components: as in `em.fit`.
    **options: fields of `em.Options`; `init` names how starts are drawn.

  Returns:
    The most likely of the finals; statuses as in `em.fit`.

  Raises:
    ValueError: for options that no data could make right.
  """
  plan = em_options.make_plan(
    options,
    points,
    num_components,
    covariance_type=covariance_type,
    max_components=max_components,
  )
  em_options.require_drawn(plan, "fit_trials")
  em_options.require_default(options, ("prior",), "fit_trials")
  checks.integer("num_trial_steps", num_trial_steps, lowest=0)
  checks.integer("num_finals", num_finals, lowest=1)
  checks.number("head_start", head_start, lowest=0.0)
  inputs = em_starts.Inputs(key, points, num_components, sample_weight, None)
  return _RUN_TRIALS(
    *(inputs, starts, plan.limits, num_trial_steps, head_start),
    form=plan.form,
    num_finals=num_finals,
  )


def run_trials(
  inputs: em_starts.Inputs,
  starts: types.Mixture | None,
  limits: em_options.Limits,
  num_trial_steps: jax.Array | int,
  head_start: jax.Array | float,
  *,
  form: em_options.Form,
  num_finals: int,
) -> Tried:
  """`fit_trials` for what has been checked.

  Args:
    inputs: the problem.
    starts: as in `fit_trials`.
    limits: when runs end, and their floors.
    num_trial_steps: as in `fit_trials`.
    head_start: as in `fit_trials`.
    form: what is compiled in.
    num_finals: as in `fit_trials`.
  """
  problem, own = em_starts.set_up(inputs, limits, form)
  if starts is not None:
    check = functools.partial(
      em_starts.check, problem, covariance_type=form.covariance_type
    )
    _, given = jax.vmap(check)(starts)
    own = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), given, own)
  num_starts = own.mixture.weights.shape[0]
  is_given = jnp.arange(num_starts) < num_starts - form.num_init
  num_finals = min(num_finals, num_starts)
  turns = _turns(num_starts, num_finals, form.has_second_run)
  take_turn = functools.partial(
    _take_turn,
    problem,
    own,
    is_given,
    limits,
    num_trial_steps,
    form.covariance_type,
  )
  state, _ = jax.lax.scan(
    take_turn, _begin(problem, own, limits, num_finals), turns
  )
  best = _best(state, _is_final(state), is_given * head_start)
  return _conclude(problem, state, best, covariance_type=form.covariance_type)


# Programs that call `run_trials` do without: JAX would keep what it makes of a
# program within a program for as long as the process lives.
_RUN_TRIALS = jax.jit(run_trials, static_argnames=("form", "num_finals"))


class _State(NamedTuple):
  """How far all runs are, each with the leading axis S but `finals [M]`."""

  mixture: types.Mixture
  num_iters: jax.Array
  is_converged: jax.Array
  prior_size: jax.Array
  value: jax.Array  # mean log-likelihood before the last step
  is_lost: jax.Array  # whether it is degenerate
  finals: jax.Array  # which runs go on; num_starts where not yet chosen


class _Turn(NamedTuple):
  """What is done next: with run `trial` if it is one, else with a final."""

  is_trial: jax.Array
  is_second: jax.Array
  trial: jax.Array
  final: jax.Array


def _turns(num_starts, num_finals, has_second_run):
  """Trials of all starts, ends of the finals, and second runs of these."""
  kinds = [(True, False, start, 0) for start in range(num_starts)]
  for is_second in (False, True)[: 1 + has_second_run]:
    kinds += [(False, is_second, 0, final) for final in range(num_finals)]
  return _Turn(*map(jnp.array, zip(*kinds, strict=True)))


def _begin(problem, starts, limits, num_finals):
  dtype = problem.sample_weight.dtype
  num_starts = starts.mixture.weights.shape[0]
  return _State(
    mixture=starts.mixture,
    num_iters=jnp.zeros(num_starts, jnp.int32),
    is_converged=jnp.broadcast_to(~problem.is_valid, num_starts),
    prior_size=jnp.full(num_starts, limits.prior_size, dtype),
    value=jnp.full(num_starts, -jnp.inf, dtype),
    is_lost=jnp.zeros(num_starts, bool),
    finals=jnp.full(num_finals, num_starts, jnp.int32),
  )


def _take_turn(
  problem,
  starts,
  is_given,
  limits,
  num_trial_steps,
  covariance_type,
  state,
  turn,
):
  """Goes on with one run; a step of a scan."""
  # The first to go on is one from a given start, if there is any.
  is_first = is_given | (turn.final > 0) | ~jnp.any(is_given)
  next_best = _best(state, ~_is_final(state) & is_first)
  chosen = jnp.where(turn.is_second, state.finals[turn.final], next_best)
  index = jnp.where(turn.is_trial, turn.trial, chosen).astype(jnp.int32)
  run = _resume(
    problem, starts, limits, covariance_type, state, index, turn.is_second
  )
  most = jnp.where(
    turn.is_trial,
    jnp.minimum(num_trial_steps, limits.max_iter),
    limits.max_iter,
  )
  before = run.num_iters
  run = jax.lax.while_loop(
    lambda run: ~em_runs.is_done(run, limits=limits._replace(max_iter=most)),
    functools.partial(
      em_runs.advance, problem, limits=limits, covariance_type=covariance_type
    ),
    run,
  )
  value = jnp.where(
    run.num_iters > before,
    jnp.sum(problem.sample_weight * run.log_density),
    state.value[index],
  )
  is_lost = em_runs.is_degenerate(
    problem, run.mixture, covariance_type=covariance_type
  )
  finals = state.finals.at[turn.final].set(
    jnp.where(turn.is_trial, state.finals[turn.final], index)
  )
  new = state._replace(
    mixture=run.mixture,
    num_iters=run.num_iters,
    is_converged=run.is_converged,
    prior_size=run.prior_size,
    value=value,
    is_lost=is_lost,
  )
  state = jax.tree.map(
    lambda leaf, one: leaf.at[index].set(one), state[:-1], new[:-1]
  )
  return _State(*state, finals=finals), None


def _resume(problem, starts, limits, covariance_type, state, index, is_second):
  """A run as it was left; with a prior from its start if it was lost."""
  start = jax.tree.map(lambda leaf: leaf[index], starts)
  run = em_runs.begin(problem, start)._replace(
    mixture=jax.tree.map(lambda leaf: leaf[index], state.mixture),
    num_iters=state.num_iters[index],
    is_converged=state.is_converged[index],
    prior_size=state.prior_size[index],
  )
  again = em_runs.again(
    problem,
    run,
    start,
    prior_size=limits.prior_if_degenerate,
    covariance_type=covariance_type,
  )
  return jax.tree.map(
    lambda own, other: jnp.where(is_second, other, own), run, again
  )


def _is_final(state):
  """Which runs have gone on, `[S]`."""
  places = jnp.arange(state.value.size)
  return jnp.any(places[:, None] == state.finals, axis=1)


def _best(state, is_eligible, head_start=0.0):
  """The most likely run, one that is not degenerate before one that is.

  Of runs that are as likely, but for rounding, the first.
  """
  is_sound = is_eligible & ~state.is_lost
  is_eligible = jnp.where(jnp.any(is_sound), is_sound, is_eligible)
  value = jnp.maximum(state.value, 0.5 * jnp.finfo(state.value.dtype).min)
  value = jnp.where(is_eligible, value + head_start, -jnp.inf)
  highest = jnp.max(value)
  return jnp.argmax(value >= highest - _ALIKE * (1.0 + jnp.abs(highest)))


def _conclude(problem, state, best, *, covariance_type):
  """The result of one run, in the space of the points."""
  run = em_runs.EMRun(
    mixture=jax.tree.map(lambda leaf: leaf[best], state.mixture),
    anchor=None,
    log_density=None,
    num_iters=state.num_iters[best],
    is_converged=state.is_converged[best],
    prior_size=state.prior_size[best],
  )
  value, is_lost = em_runs.rate(
    problem, run.mixture, covariance_type=covariance_type
  )
  result = em_runs.conclude(
    problem, run, value, is_lost, covariance_type=covariance_type
  )
  return Tried(result, best, run.prior_size)
