"""Fits by EM of many problems: nobody waits for the slowest."""

import functools

import jax
import jax.numpy as jnp

from tgmm_jax import types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers.em import blocks, tiles
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import runs as em_runs
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.execution import cores, work_queue


def fit_batch(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  batch_size: int = 64,
  point_covariances: jax.Array | None = None,
  **options,
) -> types.SolverResult:
  """Fits B problems as `jax.vmap` of `fit` would, without its waiting.

  `batch_size` runs (one start of one problem each) are iterated at a time,
  and where one stops the next begins. Inputs are checked on the host, except
  inside `jit`.

  Args:
    key: consumed; one key, folded with the index of each problem, or `[B]`.
    points: `[B, N, d]`; an array or what `checks.numbers_of` makes one of. It
      is computed in float32 or float64, as they are.
    num_components: `[B]`, or one K for all.
    covariance_type: as in `fit`.
    sample_weight: `[B, N]`, or None for ones.
    max_components: as in `fit`; None takes the largest of `num_components`.
    batch_size: runs at a time; what fits the caches of a CPU is best there.
    point_covariances: as in `fit`, `[B, N, d]` or `[B, N, d, d]`, or None.
    **options: fields of `em.Options`.

  Returns:
    A `SolverResult` with a leading axis B, in NumPy where the points are
    float64 and JAX has not 64 bits enabled. A bad problem among good ones gets
    the status INVALID_INPUT.

  Raises:
    ValueError: for wrong shapes and dtypes, K out of range, unknown names,
      options that no data could make right, and where no problem is good.
  """
  batch = checks.batch(
    points,
    num_components,
    sample_weight=sample_weight,
    max_components=max_components,
    takes_holes=options.get("missing") == "observed",
  )
  return checks.in_precision_of(
    batch.points,
    lambda: run_batch(
      key,
      batch,
      covariance_type=covariance_type,
      batch_size=batch_size,
      point_covariances=tiles.noise_of(point_covariances, batch.points),
      **options,
    ),
  )


def run_batch(
  key: jax.Array,
  batch: checks.Batch,
  *,
  covariance_type: str = "unit",
  batch_size: int = 64,
  point_covariances: jax.Array | None = None,
  **options,
) -> types.SolverResult:
  """`fit_batch` for a batch that has passed the door: no value is looked at.

  Args:
    key: as in `fit_batch`.
    batch: from `checks.batch`, or made of such.
    covariance_type: as in `fit`.
    batch_size: as in `fit_batch`.
    point_covariances: as in `fit_batch`.
    **options: fields of `em.Options`.

  Raises:
    ValueError: for options that no data could make right.
  """
  plan = em_options.make_plan(
    options,
    batch.points,
    batch.num_components,
    covariance_type=covariance_type,
    max_components=batch.max_components,
    axes=("B", "N", "d"),
  )
  checks.integer("batch_size", batch_size, lowest=1)
  tiles.check_noise(point_covariances, batch.points, plan.form)
  inputs = inputs_of(key, batch, plan)
  inputs = inputs._replace(point_covariances=point_covariances)

  fit, least = functools.partial(_fit_batch, batch_size=batch_size), batch_size
  if batch.points.shape[1] > blocks.most_at_once():
    # Each fills the caches of a core by itself.
    fit, least = _fit_in_turn, 1

  def run(inputs, form):
    of_part = functools.partial(fit, limits=plan.limits, form=form)
    return cores.deal_out(of_part, inputs, least=least)

  return tiles.run_parts(run, inputs, plan.form)


def inputs_of(
  key: jax.Array, batch: checks.Batch, plan: em_options.Plan
) -> em_starts.Inputs:
  """The problems of a batch, with the axis B, and what starts are made of."""
  return em_starts.Inputs(
    keys_of(key, batch.points.shape[0]),
    batch.points,
    batch.num_components,
    batch.sample_weight,
    plan.given,
    plan.fixed,
    prior=plan.prior,
  )


def keys_of(key: jax.Array, num_problems: int) -> jax.Array:
  """A key for each of B problems: those given, or one folded with 0 ... B - 1.

  Args:
    key: one key, or `[B]`.
    num_problems: B.
  """
  if key.ndim:
    return key
  fold_in = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
  return fold_in(key, jnp.arange(num_problems))


@functools.partial(jax.jit, static_argnames="form")
def _fit_in_turn(inputs, limits, *, form):
  return jax.lax.map(lambda one: em_runs.fit(one, limits, form), inputs)


@functools.partial(jax.jit, static_argnames=("form", "batch_size"))
def _fit_batch(inputs, limits, *, form, batch_size):
  num_init, covariance_type = form.num_init, form.covariance_type
  num_problems = inputs.points.shape[0]
  chunk_size = max(1, batch_size // num_init)
  problems, starts = work_queue.map_in_chunks(
    lambda one: em_starts.set_up(one, limits, form), inputs, chunk_size
  )

  def load(index):
    which = index // num_init
    problem = jax.tree.map(lambda leaf: leaf[which], problems)
    start = jax.tree.map(lambda leaf: leaf[which, index % num_init], starts)
    return problem, start

  def run_all(first):
    """Goes on with a run for each start; what is done stays so."""

    def load_run(index):
      problem, start = load(index)
      return problem, first(index, problem, start)

    return work_queue.run_all(
      load_run,
      functools.partial(
        em_runs.advance, limits=limits, covariance_type=covariance_type
      ),
      functools.partial(em_runs.is_done, limits=limits),
      lambda run: run._replace(anchor=None, log_density=None),
      num_items=num_problems * num_init,
      num_slots=batch_size,
    )

  runs = run_all(
    lambda index, problem, start: em_runs.begin(
      problem, start, limits.prior_size
    )
  )
  if form.has_second_run:
    runs = run_all(functools.partial(_again, runs, limits, covariance_type))
  runs = jax.tree.map(
    lambda leaf: leaf.reshape(num_problems, num_init, *leaf.shape[1:]), runs
  )
  results = work_queue.map_in_chunks(
    lambda one: em_runs.finish(*one, covariance_type=covariance_type),
    (problems, runs),
    chunk_size,
  )
  if inputs.fixed is None:
    return results
  return jax.vmap(em_starts.restored)(results, inputs)


def _again(runs, limits, covariance_type, index, problem, start):
  """`em_runs.again` of a run of the queue."""
  blank = em_runs.begin(problem, start)
  run = jax.tree.map(lambda leaf: leaf[index], runs)
  return em_runs.again(
    problem,
    run._replace(anchor=blank.anchor, log_density=blank.log_density),
    start,
    prior_size=limits.prior_if_degenerate,
    covariance_type=covariance_type,
  )
