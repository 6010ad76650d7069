"""Expectation-maximisation for mixtures of known unit covariance.

The steps are pure functions of one problem; `fit` runs them from one start or
several, `fit_projected` does so in the space of the leading principal
directions, and `fit_batch` fits many problems with nobody waiting for the
slowest.

Inside, points are columns `[d, N]` and everything per point has N as its last
axis: under `vmap` a step then costs little more than its K N exponentials.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import types
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers import work_queue

# A mean over less than this share of the weight says nothing.
MIN_MASS = 1e-9

# A component of less weight has lost its points; two means that are closer,
# in standard deviations, are one component.
_MIN_WEIGHT = 1e-6
_MIN_DISTANCE = 1e-3


class Statistics(NamedTuple):
  """What the E-step hands to the M-step.

  Attributes:
    mass: `[K]`, weight of the points that each component answers for.
    sums: `[K, d]`, weighted sum of these points.
    log_density: `[N]`, of the mixture at each point, without the terms that
      are the same for every mixture: -d/2 log(2 pi) - |x|^2 / 2.
  """

  mass: jax.Array
  sums: jax.Array
  log_density: jax.Array


def e_step(
  columns: jax.Array, sample_weight: jax.Array, mixture: types.Mixture
) -> Statistics:
  """Responsibilities, summed up (one exponential per point and component).

  Args:
    columns: `[d, N]` points, centred: squared norms are subtracted from each
      other, so float32 loses what is small beside them.
    sample_weight: `[N]`.
    mixture: weights and means; a component of weight 0 takes no points.
  """
  weights, means = mixture.weights, mixture.means
  bias = jnp.log(weights) - 0.5 * jnp.sum(means**2, axis=-1)
  product = jnp.matmul(means, columns, precision=problem_lib.PRECISION)
  log_joint = product + bias[:, None]
  highest = jnp.max(log_joint, axis=0)
  joint = jnp.exp(log_joint - highest)
  total = jnp.sum(joint, axis=0)
  share = joint * (sample_weight / total)
  return Statistics(
    mass=jnp.sum(share, axis=-1),
    sums=jnp.matmul(share, columns.T, precision=problem_lib.PRECISION),
    log_density=highest + jnp.log(total),
  )


def m_step(
  statistics: Statistics, mixture: types.Mixture, anchor: jax.Array
) -> types.Mixture:
  """The most likely parameters, where there are points to tell them.

  A component of less than `MIN_MASS` of the weight falls back to its anchor
  and keeps that much, so that it can come to life again; one of weight 0
  stays without.

  Args:
    statistics: from the E-step.
    mixture: the parameters before.
    anchor: `[K, d]`.
  """
  mass = statistics.mass / jnp.sum(statistics.mass)
  has_mass = mass >= MIN_MASS
  means = statistics.sums / jnp.where(has_mass, statistics.mass, 1.0)[:, None]
  weights = jnp.where(mixture.weights > 0, jnp.maximum(mass, MIN_MASS), 0.0)
  return types.Mixture(
    weights=weights / jnp.sum(weights),
    means=jnp.where(has_mass[:, None], means, anchor),
  )


def step(
  points: jax.Array,
  mixture: types.Mixture,
  *,
  sample_weight: jax.Array | None = None,
) -> types.Mixture:
  """One EM step: Dempster, Laird and Rubin 1977, section 4.3.

  Args:
    points: `[N, d]`, near the origin (see `e_step`).
    mixture: the parameters before; means without points stay.
    sample_weight: `[N]`, or None for ones.
  """
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  statistics = e_step(points.T, sample_weight, mixture)
  return m_step(statistics, mixture, mixture.means)


def fit(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  init: str | types.Mixture = "k-means++",
  num_init: int = 1,
  max_iter: int = 100,
  tol: float = 1e-7,
  is_projected: bool = False,
) -> types.SolverResult:
  """Fits a mixture of known unit covariance by EM.

  EM climbs to a local maximum of the likelihood: from one start it ends in a
  wrong one in a tenth (K = 3) to half (K = 5) of the paper's tasks.

  Args:
    key: consumed; split over the starts.
    points: `[N, d]`; padding may hold anything.
    num_components: K of the problem; may be traced if `max_components` is
      given.
    sample_weight: `[N]`, or None for ones; 0 is padding.
    max_components: static K of the result, or None for `num_components`.
    init: a name in `init.METHODS`, with equal weights, or the mixture from
      which to start. "normal" is the TGMM paper's baseline. A component that
      loses its points falls back to the overall mean, with "normal" to the
      origin, with a given mixture to its start.
    num_init: starts; the most likely result is returned.
    max_iter: steps at most.
    tol: stop when a step changes the mean log-likelihood by less; 0 takes
      exactly `max_iter` steps.
    is_projected: see `fit_projected`.

  Returns:
    A `SolverResult`. Its status is DEGENERATE if a component has lost all its
    points or two have the same mean; MAX_ITER if
    the last step still changed something; INVALID_INPUT for NaN, inf or numbers
    whose squares overflow in points or `init`, for weights that are negative or
    sum to 0 or inf, and for K out of range: then log_likelihood is -inf and the
    parameters mean nothing.
  """
  options = problem_lib.em_options(
    points, num_components, max_components, init, num_init, max_iter, tol
  )
  given = init if isinstance(init, types.Mixture) else None
  return _fit(
    key,
    points,
    num_components,
    sample_weight,
    given,
    is_projected=is_projected,
    **options,
  )


def fit_projected(
  key: jax.Array, points: jax.Array, num_components: jax.Array | int, **options
) -> types.SolverResult:
  """`fit` in the space of the leading `max_components - 1` directions.

  Centred, the means of K components span K - 1 dimensions; with unit
  covariance nothing but noise lies outside. EM there costs the same at every
  d. Means are lifted back, with the overall mean in the coordinates left out;
  the log-likelihood is that of the full space. Arguments and statuses as in
  `fit`.
  """
  return fit(key, points, num_components, is_projected=True, **options)


def fit_batch(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  init: str | types.Mixture = "k-means++",
  num_init: int = 1,
  max_iter: int = 100,
  tol: float = 1e-7,
  is_projected: bool = False,
  batch_size: int = 64,
) -> types.SolverResult:
  """Fits B problems as `jax.vmap` of `fit` would, without its waiting.

  `batch_size` runs (one start of one problem each) are iterated at a time,
  and where one stops the next begins.

  Args:
    key: consumed; one key, folded with the index of each problem, or `[B]`.
    points: `[B, N, d]`.
    num_components: `[B]`, or one K for all.
    sample_weight: `[B, N]`, or None for ones.
    max_components: as in `fit`.
    init: as in `fit`; a given mixture has the leading axis B.
    num_init: as in `fit`.
    max_iter: as in `fit`.
    tol: as in `fit`.
    is_projected: as in `fit`.
    batch_size: runs at a time; what fits the caches of a CPU is best there.

  Returns:
    A `SolverResult` with a leading axis B.
  """
  options = problem_lib.em_options(
    points, num_components, max_components, init, num_init, max_iter, tol
  )
  if batch_size < 1:
    raise ValueError(f"batch_size is {batch_size}, takes an integer >= 1")
  num_problems = points.shape[0]
  if key.ndim == 0:
    fold_in = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    key = fold_in(key, jnp.arange(num_problems))
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[:2], points.dtype)
  return _fit_batch(
    key,
    points,
    jnp.broadcast_to(jnp.asarray(num_components, jnp.int32), num_problems),
    sample_weight,
    init if isinstance(init, types.Mixture) else None,
    is_projected=is_projected,
    batch_size=batch_size,
    **options,
  )


class _Run(NamedTuple):
  """One start of one problem under way."""

  mixture: types.Mixture
  anchor: jax.Array  # [K, r], see `m_step`
  log_density: jax.Array  # [N], before the last step
  num_iters: jax.Array
  is_converged: jax.Array


def _begin(problem, start):
  """A run before its first step; nothing is left to do where invalid."""
  lowest = jnp.finfo(problem.columns.dtype).min
  return _Run(
    mixture=start.mixture,
    anchor=start.anchor,
    log_density=jnp.full_like(problem.sample_weight, lowest),
    num_iters=jnp.zeros((), jnp.int32),
    is_converged=~problem.is_valid,
  )


def _advance(columns, sample_weight, run, *, tol):
  """One step of one run."""
  statistics = e_step(columns, sample_weight, run.mixture)
  # Differences before the mean: rounded once, the mean log-likelihood itself
  # could not show a change of 1e-7.
  change = statistics.log_density - run.log_density
  return run._replace(
    mixture=m_step(statistics, run.mixture, run.anchor),
    log_density=statistics.log_density,
    num_iters=run.num_iters + 1,
    is_converged=jnp.abs(jnp.sum(sample_weight * change)) < tol,
  )


def _is_done(run, *, max_iter):
  return run.is_converged | (run.num_iters >= max_iter)


def _finish(problem, runs):
  """The best of the runs `[S, ...]`, in the space of the points."""
  columns, weight = problem.columns, problem.sample_weight
  best = 0
  if runs.num_iters.shape[0] > 1:
    log_density = jax.vmap(e_step, in_axes=(None, None, 0))(
      columns, weight, runs.mixture
    ).log_density
    best = jnp.argmax(log_density @ weight)
  weights, means = runs.mixture.weights[best], runs.mixture.means[best]
  is_component = jnp.arange(weights.shape[0]) < problem.num_components
  # By distances this time: the value is reported, and the E-step's terms
  # may be much larger than it.
  distances = jnp.sum((columns[None] - means[:, :, None]) ** 2, axis=1)
  log_density = jax.nn.logsumexp(
    jnp.log(weights)[:, None] - 0.5 * distances, axis=0
  )
  log_likelihood = problem.log_density + jnp.sum(weight * log_density)
  status = jnp.where(
    runs.is_converged[best], types.Status.CONVERGED, types.Status.MAX_ITER
  )
  is_empty = is_component & (weights < _MIN_WEIGHT)
  gaps = jnp.sum((means[:, None] - means[None]) ** 2, axis=-1)
  is_later = jnp.tril(jnp.ones_like(gaps, dtype=bool), -1)
  is_double = is_component[:, None] & is_later & (gaps < _MIN_DISTANCE**2)
  is_degenerate = jnp.any(is_empty) | jnp.any(is_double)
  status = jnp.where(is_degenerate, types.Status.DEGENERATE, status)
  status = jnp.where(problem.is_valid, status, types.Status.INVALID_INPUT)
  return types.SolverResult(
    mixture=types.Mixture(weights, problem_lib.from_frame(problem, means)),
    log_likelihood=jnp.where(problem.is_valid, log_likelihood, -jnp.inf),
    num_iters=runs.num_iters[best],
    status=status.astype(jnp.int32),
  )


_STATIC = (
  "init",
  "max_components",
  "num_init",
  "max_iter",
  "tol",
  "is_projected",
  "batch_size",
)


@functools.partial(jax.jit, static_argnames=_STATIC)
def _fit(*inputs, max_iter, tol, **options):
  problem, starts = problem_lib.set_up(*inputs, **options)
  advance = functools.partial(
    _advance, problem.columns, problem.sample_weight, tol=tol
  )

  def run(start):
    return jax.lax.while_loop(
      lambda run: ~_is_done(run, max_iter=max_iter),
      advance,
      _begin(problem, start),
    )

  return _finish(problem, jax.vmap(run)(starts))


@functools.partial(jax.jit, static_argnames=_STATIC)
def _fit_batch(*inputs, max_iter, tol, batch_size, **options):
  num_init = options["num_init"]
  num_problems = inputs[1].shape[0]
  chunk_size = max(1, batch_size // num_init)
  problems, starts = work_queue.map_in_chunks(
    lambda one: problem_lib.set_up(*one, **options), inputs, chunk_size
  )

  def load(index):
    which = index // num_init
    problem = jax.tree.map(lambda leaf: leaf[which], problems)
    start = jax.tree.map(lambda leaf: leaf[which, index % num_init], starts)
    data = (problem.columns, problem.sample_weight)
    return data, _begin(problem, start)

  runs = work_queue.run_all(
    load,
    lambda data, run: _advance(*data, run, tol=tol),
    functools.partial(_is_done, max_iter=max_iter),
    lambda run: run._replace(anchor=None, log_density=None),
    num_items=num_problems * num_init,
    num_slots=batch_size,
  )
  runs = jax.tree.map(
    lambda leaf: leaf.reshape(num_problems, num_init, *leaf.shape[1:]), runs
  )
  return work_queue.map_in_chunks(
    lambda one: _finish(*one), (problems, runs), chunk_size
  )
