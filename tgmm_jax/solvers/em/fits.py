"""Fits by EM of one problem that is in memory, to the end or step by step."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers.em import blocks, passes, tiles
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import runs as em_runs
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.execution import programs

# Of so many points runs of EM take less time than an optimising compiler.
_MOST_SMALL = 2048


def fit(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  point_covariances: jax.Array | None = None,
  **options,
) -> types.SolverResult:
  """Fits a mixture by EM.

  EM climbs to a local maximum of the likelihood: from one start it ends in a
  wrong one in a tenth (K = 3) to half (K = 5) of the paper's tasks.

  Args:
    key: consumed; split over the starts.
    points: `[N, d]`; padding may hold anything.
    num_components: K of the problem; may be traced if `max_components` is
      given.
    covariance_type: one of `gmm.COVARIANCE_TYPES`; "unit" is the known
      identity (for another known covariance see `combine.whitened`).
    sample_weight: `[N]`, or None for ones; 0 is padding.
    max_components: static K of the result, or None for `num_components`.
    point_covariances: of the known noise of each point, `[N, d]` variances or
      `[N, d, d]`, or None: point n of component k has the covariance `S_k +
      P_n` (extreme deconvolution, Bovy, Hogg and Roweis 2011). Then
      a component may be as narrow as the ridge and yet be well told.
    **options: fields of `em.Options`.

  Returns:
    A `SolverResult`. Its status is DEGENERATE if a component has lost all its
    points, if two are the same, or if in some direction a component has hardly
    more variance than was added; MAX_ITER if the last step still changed
    something; INVALID_INPUT for NaN, inf or numbers whose squares overflow (or
    vanish, where variances are estimated) in points or `init`, for weights
    that are negative or sum to 0 or inf, and for K out of range: then
    log_likelihood is -inf and the parameters mean nothing.

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
  tiles.check_noise(point_covariances, points, plan.form)
  inputs = em_starts.Inputs(
    *(key, points, num_components, sample_weight),
    *(plan.given, plan.fixed, point_covariances, plan.prior),
  )
  inputs, form = tiles.arrange(inputs, plan.form)
  if passes.are_worth_it(inputs, form):
    return _fit_by_passes(inputs, plan._replace(form=form))
  return _fit(inputs, plan.limits, form=form)


def _fit_by_passes(inputs, plan):
  """`_fit` of a large problem."""
  keys = jax.random.split(inputs.key, plan.form.num_init)
  if plan.given is not None:
    given = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], plan.given)
    inputs = inputs._replace(given=given)
  ended = passes.run_each(inputs, keys, plan.limits, plan.form)
  # Starts are drawn, and then all are valid or none, or there is one.
  frame = ended.frame._replace(is_valid=ended.frame.is_valid[0])
  return _choose(
    *(frame, ended.runs, ended.log_likelihoods),
    covariance_type=plan.form.covariance_type,
  )


class Ended(NamedTuple):
  """Where EM ended from each of S starts.

  Attributes:
    results: with a leading axis S.
    before: `[S]`, mean log-likelihood before the last step; not finite where
      there was none.
  """

  results: types.SolverResult
  before: jax.Array


def fit_each(
  keys: jax.Array,
  points: jax.Array,
  num_components: int,
  *,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  **options,
) -> Ended:
  """`fit` from several starts, each with its end: one batch, none chosen.

  `combine.most_likely` tells which one `fit` would have kept.

  Args:
    keys: `[S]`, one for each start.
    points: `[N, d]`.
    num_components: K.
    covariance_type: as in `fit`.
    sample_weight: `[N]`, or None for ones.
    **options: fields of `em.Options` but `num_init`; a given `init` has the
      leading axis S.

  Raises:
    ValueError: for options that no data could make right.
  """
  em_options.require_default(options, ("num_init",), "fit_each")
  init = options.get("init")
  if isinstance(init, types.Mixture):
    options["init"] = jax.tree.map(lambda leaf: leaf[0], init)
  plan = em_options.make_plan(
    options,
    points,
    num_components,
    covariance_type=covariance_type,
    max_components=None,
  )
  given = init if isinstance(init, types.Mixture) else None
  inputs = em_starts.Inputs(
    *(keys, points, num_components, sample_weight),
    *(given, plan.fixed, None, plan.prior),
  )
  inputs, form = tiles.arrange(inputs, plan.form)
  if passes.are_worth_it(inputs, form):
    return _fit_each_by_passes(inputs, plan._replace(form=form))
  is_quick = points.shape[0] <= _MOST_SMALL and not checks.is_traced(inputs)
  run = _fit_each if is_quick else _fit_each.optimized
  return run(inputs, plan.limits, form=form)


def _fit_each_by_passes(inputs, plan):
  """`_fit_each` of a large problem."""
  # As `fit` with each of the keys splits it.
  keys = jax.vmap(lambda key: jax.random.split(key, 1)[0])(inputs.key)
  ended = passes.run_each(inputs, keys, plan.limits, plan.form)
  results = _conclude_each(
    *(ended.frame, ended.runs, ended.log_likelihoods),
    covariance_type=plan.form.covariance_type,
  )
  return Ended(results, ended.before + ended.frame.log_density)


def unroll(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  num_steps: int,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  point_covariances: jax.Array | None = None,
  **options,
) -> types.SolverResult:
  """`fit` as a scan of fixed length, for gradients and for the history.

  Reverse-mode gradients reach points, weights and a given start through every
  step. Where a fit is degenerate they may be infinite or undefined.

  Args:
    key: consumed; draws the start.
    points: `[N, d]`.
    num_components: K, as in `fit`.
    num_steps: steps, static.
    covariance_type: as in `fit`.
    sample_weight: as in `fit`.
    max_components: as in `fit`.
    point_covariances: as in `fit`.
    **options: fields of `em.Options` but `num_init` and `max_iter`. From where
      a step changes the mean log-likelihood by less than `tol`, here 0 if it
      is not given, the parameters are frozen; 0 takes all the steps.

  Returns:
    A `SolverResult` with `history [num_steps]`, the mean log-likelihood
    before each step; after freezing it repeats.
  """
  em_options.require_default(options, ("num_init", "max_iter"), "unroll")
  plan = em_options.make_plan(
    {"tol": 0.0} | options | {"max_iter": num_steps},
    points,
    num_components,
    covariance_type=covariance_type,
    max_components=max_components,
  )
  tiles.check_noise(point_covariances, points, plan.form)
  inputs = em_starts.Inputs(
    *(key, points, num_components, sample_weight),
    *(plan.given, plan.fixed, point_covariances, plan.prior),
  )
  inputs, form = tiles.arrange(inputs, plan.form)
  return _unroll(inputs, plan.limits, form=form, num_steps=num_steps)


def start(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  **options,
) -> types.Mixture:
  """Where `fit` with the same arguments and one start would begin.

  Args:
    key: consumed, as by `fit`.
    points: `[N, d]`.
    num_components: K, as in `fit`.
    **options: as in `fit`.

  Returns:
    The mixture in the coordinates of the points.
  """
  return fit(key, points, num_components, **options, max_iter=0).mixture


@programs.quick
def _choose(frame, runs, log_likelihoods, *, covariance_type):
  is_degenerate = functools.partial(
    em_runs.is_degenerate, frame, covariance_type=covariance_type
  )
  return em_runs.choose(
    *(frame, runs, log_likelihoods, jax.vmap(is_degenerate)(runs.mixture)),
    covariance_type=covariance_type,
  )


@programs.quick
def _conclude_each(frame, runs, log_likelihoods, *, covariance_type):
  def conclude(is_valid, run, log_likelihood):
    own = frame._replace(is_valid=is_valid)
    return em_runs.conclude(
      own, run, log_likelihood, covariance_type=covariance_type
    )

  return jax.vmap(conclude)(frame.is_valid, runs, log_likelihoods)


@functools.partial(jax.jit, static_argnames="form")
def _fit(inputs, limits, *, form):
  return em_runs.fit(inputs, limits, form)


@programs.quick
def _fit_each(inputs, limits, *, form):
  def fit_one(start):
    key, given = start
    own = inputs._replace(key=key, given=given)
    problem, starts = em_starts.set_up(own, limits, form)
    start = jax.tree.map(lambda leaf: leaf[0], starts)
    run = em_runs.run_to_end(problem, start, limits, form)
    runs = jax.tree.map(lambda leaf: leaf[None], run)
    result = em_runs.finish(problem, runs, covariance_type=form.covariance_type)
    result = em_starts.restored(result, own)
    before = em_runs.mean_log_density(
      problem, run.log_density, covariance_type=form.covariance_type
    )
    return result, jnp.where(run.num_iters > 0, before, -jnp.inf)

  starts = (inputs.key, inputs.given)
  num_points = inputs.points.shape[0]
  return Ended(*blocks.map_each(fit_one, starts, num_points=num_points))


@functools.partial(jax.jit, static_argnames=("form", "num_steps"))
def _unroll(inputs, limits, *, form, num_steps):
  covariance_type = form.covariance_type
  problem, starts = em_starts.set_up(inputs, limits, form)

  def advance(run, _):
    stepped = em_runs.advance(
      problem, run, limits=limits, covariance_type=covariance_type
    )
    is_done = em_runs.is_done(run, limits=limits)
    value = jnp.where(is_done, run.log_density, stepped.log_density)
    run = jax.tree.map(
      lambda old, new: jnp.where(is_done, old, new), run, stepped
    )
    return run, em_runs.mean_log_density(
      problem, value, covariance_type=covariance_type
    )

  start = jax.tree.map(lambda leaf: leaf[0], starts)
  run, history = jax.lax.scan(
    advance, em_runs.begin(problem, start), length=num_steps
  )
  runs = jax.tree.map(lambda leaf: leaf[None], run)
  result = em_runs.finish(problem, runs, covariance_type=covariance_type)
  result = em_starts.restored(result, inputs)
  return result._replace(history=jnp.where(problem.is_valid, history, -jnp.inf))
