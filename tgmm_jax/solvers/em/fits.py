"""Expectation-maximisation for mixtures of every covariance type.

`fit` runs EM on one problem from one start or several, `fit_batch` fits many
problems with nobody waiting for the slowest, and `unroll` takes a fixed number
of steps that gradients pass through. The steps are in `em_steps`.
"""

import functools

import jax
import jax.numpy as jnp

from tgmm_jax import types
from tgmm_jax.solvers import checks, work_queue
from tgmm_jax.solvers.em import runs as em_runs
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em import steps as em_steps

e_step = em_steps.e_step
m_step = em_steps.m_step
step = em_steps.step


def fit(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  init: str | types.Mixture = "k-means++",
  num_init: int = 1,
  max_iter: int = 100,
  tol: float = 1e-7,
  reg_share: float = 1e-6,
  reg_covar: float = 0.0,
  min_variance: float | None = None,
  is_projected: bool = False,
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
    init: one of `start.METHODS`, with equal weights and the pooled covariance
      of the points about their nearest means, or the mixture from which to
      start (its covariances may be None). "normal" is the TGMM paper's
      baseline; "spectral" is k-means++ where the moments do not determine the
      components. A component that loses its points falls back to the overall
      mean, with "normal" to the origin, with a given mixture to its start.
    num_init: starts; the most likely result is returned, one that is not
      degenerate before one that is.
    max_iter: steps at most; with 0 the start is returned.
    tol: stop when a step changes the mean log-likelihood by less; 0 takes
      exactly `max_iter` steps.
    reg_share: added to every variance, as a share of the variance of all the
      points in the same coordinate, so that it does not depend on units. In
      float32, full covariances need no less than 1e-6.
    reg_covar: added as well, in squared units of the points (scikit-learn's).
    min_variance: floor of the variances (of the eigenvalues, for full and
      tied) in squared units of the points, or None.
    is_projected: see `fit_projected`.

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
  given, options = em_starts.options(
    points,
    num_components,
    covariance_type=covariance_type,
    max_components=max_components,
    init=init,
    num_init=num_init,
    is_projected=is_projected,
  )
  limits = em_runs.make_limits(
    max_iter, tol, reg_share, reg_covar, min_variance
  )
  return _fit(
    key, points, num_components, sample_weight, given, limits, **options
  )


def fit_projected(
  key: jax.Array, points: jax.Array, num_components: jax.Array | int, **options
) -> types.SolverResult:
  """`fit` in the space of the leading `max_components - 1` directions.

  Centred, the means of K components span K - 1 dimensions; with unit
  covariance nothing but noise lies outside. EM there costs the same at every
  d. Means are lifted back, with the overall mean in the coordinates left out;
  the log-likelihood is that of the full space. Arguments and statuses as in
  `fit`; unit covariance only.
  """
  return fit(key, points, num_components, is_projected=True, **options)


def unroll(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  num_steps: int,
  tol: float = 0.0,
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
    tol: from where a step changes the mean log-likelihood by less, the
      parameters are frozen; 0 takes all the steps.
    **options: as in `fit`, except `num_init` and `max_iter`.

  Returns:
    A `SolverResult` with `history [num_steps]`, the mean log-likelihood
    before each step; after freezing it repeats.
  """
  limit_names = ("reg_share", "reg_covar", "min_variance")
  limits = em_runs.make_limits(
    num_steps,
    tol,
    **{name: options.pop(name) for name in limit_names if name in options},
  )
  sample_weight = options.pop("sample_weight", None)
  given, options = em_starts.options(points, num_components, **options)
  return _unroll(
    key,
    points,
    num_components,
    sample_weight,
    given,
    limits,
    num_steps=num_steps,
    **options,
  )


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


def fit_batch(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  init: str | types.Mixture = "k-means++",
  num_init: int = 1,
  max_iter: int = 100,
  tol: float = 1e-7,
  reg_share: float = 1e-6,
  reg_covar: float = 0.0,
  min_variance: float | None = None,
  is_projected: bool = False,
  batch_size: int = 64,
) -> types.SolverResult:
  """Fits B problems as `jax.vmap` of `fit` would, without its waiting.

  `batch_size` runs (one start of one problem each) are iterated at a time,
  and where one stops the next begins. Inputs are checked on the host, except
  inside `jit`.

  Args:
    key: consumed; one key, folded with the index of each problem, or `[B]`.
    points: `[B, N, d]`; an array or what NumPy makes one of. Integers, bool
      and less than float32 become float32, float64 stays where JAX has 64
      bits enabled and else becomes float32.
    num_components: `[B]`, or one K for all.
    covariance_type: as in `fit`.
    sample_weight: `[B, N]`, or None for ones.
    max_components: as in `fit`; None takes the largest of `num_components`.
    init: as in `fit`; a given mixture has the leading axis B.
    num_init: as in `fit`.
    max_iter: as in `fit`.
    tol: as in `fit`.
    reg_share: as in `fit`.
    reg_covar: as in `fit`.
    min_variance: as in `fit`.
    is_projected: as in `fit`.
    batch_size: runs at a time; what fits the caches of a CPU is best there.

  Returns:
    A `SolverResult` with a leading axis B. A bad problem among good ones gets
    the status INVALID_INPUT.

  Raises:
    ValueError: for wrong shapes and dtypes, K out of range, unknown names,
      options that no data could make right, and where no problem is good.
  """
  points, num_components, sample_weight, max_components = checks.batch(
    points, num_components, sample_weight, max_components
  )
  given, options = em_starts.options(
    points,
    num_components,
    covariance_type=covariance_type,
    max_components=max_components,
    init=init,
    num_init=num_init,
    is_projected=is_projected,
    axes=("B", "N", "d"),
  )
  checks.integer("batch_size", batch_size, lowest=1)
  limits = em_runs.make_limits(
    max_iter, tol, reg_share, reg_covar, min_variance
  )
  num_problems = points.shape[0]
  if key.ndim == 0:
    fold_in = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    key = fold_in(key, jnp.arange(num_problems))
  return _fit_batch(
    (key, points, num_components, sample_weight, given),
    limits,
    batch_size=batch_size,
    **options,
  )


_STATIC = (
  "covariance_type",
  "init",
  "max_components",
  "num_init",
  "is_projected",
)


@functools.partial(jax.jit, static_argnames=_STATIC)
def _fit(key, points, num_components, sample_weight, given, limits, **options):
  covariance_type = options["covariance_type"]
  problem, starts = em_starts.set_up(
    key, points, num_components, sample_weight, given, limits, **options
  )
  advance = functools.partial(
    em_runs.advance, problem, limits=limits, covariance_type=covariance_type
  )

  def run(start):
    return jax.lax.while_loop(
      lambda run: ~em_runs.is_done(run, limits=limits),
      advance,
      em_runs.begin(problem, start),
    )

  runs = jax.vmap(run)(starts)
  return em_runs.finish(problem, runs, covariance_type=covariance_type)


@functools.partial(jax.jit, static_argnames=(*_STATIC, "num_steps"))
def _unroll(*inputs, num_steps, **options):
  covariance_type, limits = options["covariance_type"], inputs[-1]
  problem, starts = em_starts.set_up(*inputs, **options)

  def advance(run, _):
    stepped = em_runs.advance(
      problem, run, limits=limits, covariance_type=covariance_type
    )
    is_done = em_runs.is_done(run, limits=limits)
    value = jnp.where(is_done, run.log_density, stepped.log_density)
    run = jax.tree.map(
      lambda old, new: jnp.where(is_done, old, new), run, stepped
    )
    return run, jnp.sum(problem.sample_weight * value)

  start = jax.tree.map(lambda leaf: leaf[0], starts)
  run, history = jax.lax.scan(
    advance, em_runs.begin(problem, start), length=num_steps
  )
  runs = jax.tree.map(lambda leaf: leaf[None], run)
  result = em_runs.finish(problem, runs, covariance_type=covariance_type)
  if covariance_type == "unit":
    norms = jnp.sum(problem.columns**2, axis=0)
    history -= 0.5 * jnp.sum(problem.sample_weight * norms)
  history = jnp.where(problem.is_valid, history + problem.log_density, -jnp.inf)
  return result._replace(history=history)


@functools.partial(jax.jit, static_argnames=(*_STATIC, "batch_size"))
def _fit_batch(inputs, limits, *, batch_size, **options):
  num_init, covariance_type = options["num_init"], options["covariance_type"]
  num_problems = inputs[1].shape[0]
  chunk_size = max(1, batch_size // num_init)
  problems, starts = work_queue.map_in_chunks(
    lambda one: em_starts.set_up(*one, limits, **options), inputs, chunk_size
  )

  def load(index):
    which = index // num_init
    problem = jax.tree.map(lambda leaf: leaf[which], problems)
    start = jax.tree.map(lambda leaf: leaf[which, index % num_init], starts)
    return problem, em_runs.begin(problem, start)

  runs = work_queue.run_all(
    load,
    functools.partial(
      em_runs.advance, limits=limits, covariance_type=covariance_type
    ),
    functools.partial(em_runs.is_done, limits=limits),
    lambda run: run._replace(anchor=None, log_density=None),
    num_items=num_problems * num_init,
    num_slots=batch_size,
  )
  runs = jax.tree.map(
    lambda leaf: leaf.reshape(num_problems, num_init, *leaf.shape[1:]), runs
  )
  return work_queue.map_in_chunks(
    lambda one: em_runs.finish(*one, covariance_type=covariance_type),
    (problems, runs),
    chunk_size,
  )
