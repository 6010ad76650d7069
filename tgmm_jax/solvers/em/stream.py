"""EM for points that never fit in memory: one pass over blocks an iteration.

There is one pass before the first iteration, and one after the last.

A block is read, taken into the frame and handed to the device; the sums come
back and are added up in float64; the device computes in the precision of the
first block. Each core has a block under way while the next ones are read.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.em import known as em_known
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import runs as em_runs
from tgmm_jax.solvers.em import sharded
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em import steps as em_steps
from tgmm_jax.solvers.execution import cores, programs

# What is done once.
_UNIT_OF = programs.quick(problem_lib.unit_of)
_BEGIN = programs.quick(sharded.begin)
_CONCLUDE = programs.quick(em_runs.conclude)

# Of so many points passes take less time than an optimising compiler.
_MOST_QUICK = 32_768

# Where the caller names no tolerance: in float32 the mean log-likelihood is
# known to about 1e-7 of itself.
_TOL = 1e-6


def fit_stream(
  key: jax.Array,
  blocks: Any,
  num_components: int,
  *,
  covariance_type: str = "unit",
  block_size: int = 32_768,
  on_step: Callable[[int, float], None] = lambda num_iters, value: None,
  **options,
) -> types.SolverResult:
  """Fits one problem that is read block by block.

  Args:
    key: consumed; the sample from which a start is drawn, and the start.
    blocks: an array `[N, d]` (a `numpy.memmap` too), cut into blocks of
      `block_size`; or blocks of any sizes: something that can be iterated again
      and again, or a function that gives a new iterator. A block is an array or
      frame `[n, d]`, or a pair (a tuple) of it and weights `[n]`.
    num_components: K.
    covariance_type: as in `em.fit`.
    block_size: points that the device gets at a time.
    on_step: called after each pass with the number of steps taken and the
      mean log-likelihood before the step.
    **options: fields of `em.Options` but `num_init`, `is_projected`,
      `prior_if_degenerate`, `missing`. A start is drawn from a uniform sample
      of `sharded.NUM_START_POINTS` points; `tol` is 1e-6 if it is not given.

  Returns:
    A `SolverResult`, in NumPy where the first block is float64 and JAX has not
    64 bits enabled; statuses as in `em.fit`.

  Raises:
    ValueError: as `em.fit_sharded`, and for blocks of changing shape, numbers
      whose squares overflow, an iterator that can be read only once.
  """
  checks.integer("num_components", num_components, lowest=1)
  checks.integer("block_size", block_size, lowest=1)
  em_options.require_one_run(options, "fit_stream")
  read = functools.partial(checks.pieces, checks.reader(blocks), block_size)
  first_pass, dtype = _look_ahead(read())
  return checks.in_precision_of(
    np.zeros(0, dtype),
    lambda: _fit_stream(
      *(key, read, first_pass, num_components, covariance_type),
      *(block_size, on_step, options),
    ),
  )


def _look_ahead(pieces):
  """The same pieces, and the dtype of the points of the first."""
  first = next(pieces, None)
  if first is None:
    return pieces, np.float64
  return itertools.chain(iter([first]), pieces), first[0].dtype


def _fit_stream(
  key,
  read,
  first_pass,
  num_components,
  covariance_type,
  block_size,
  on_step,
  options,
):
  """`fit_stream` in the precision of the first block."""
  survey = _survey(key, first_pass)
  checks.integer(
    "num_components", num_components, lowest=1, highest=survey.num_points
  )
  plan = em_options.make_plan(
    {"tol": _TOL} | options,
    survey.sample,
    int(num_components),
    covariance_type=covariance_type,
    max_components=None,
  )
  frame, start = _begin(key, survey, _frame(survey, plan), plan)
  one_pass = functools.partial(
    _pass,
    read,
    survey,
    frame.scale,
    min(block_size, survey.largest_piece),
    covariance_type=covariance_type,
  )
  return _iterate(one_pass, frame, start, plan, on_step)


def _iterate(one_pass, frame, start, plan, on_step):
  """Passes over the blocks until the run is done, and its result."""
  covariance_type = plan.form.covariance_type
  unused = jnp.zeros(1, frame.centre.dtype)
  run = em_runs.begin(frame._replace(sample_weight=unused), start)
  value = np.inf
  while not em_runs.is_done(run, limits=plan.limits):
    statistics, log_likelihood = one_pass(run.mixture)
    change, value = log_likelihood - value, log_likelihood
    run = _update(
      frame,
      run,
      _as_statistics(statistics, unused),
      jnp.asarray(change, unused.dtype),
      plan.limits,
      covariance_type=covariance_type,
    )
    on_step(int(run.num_iters), value + float(frame.log_density))
  _, log_likelihood = one_pass(run.mixture)
  result = _CONCLUDE(
    frame,
    run,
    jnp.asarray(log_likelihood, unused.dtype),
    covariance_type=covariance_type,
  )
  return em_known.restored(
    result, plan.given, plan.fixed, plan.form.max_components
  )


class _Survey(NamedTuple):
  """What the first pass finds."""

  num_points: int
  largest_piece: int  # points
  total: float  # weight
  effective_number: float  # of points, see `problem.effective_number`
  mean: np.ndarray  # [d]
  extent: np.ndarray  # [d], the largest distance from the mean
  sample: np.ndarray  # [n, d], in the order of the blocks
  sample_weight: np.ndarray  # [n]


def _survey(key, pieces) -> _Survey:
  """The first pass: checks, moments in float64, and a uniform sample."""
  seed = np.asarray(jax.random.key_data(jax.random.fold_in(key, 1)))
  generator = np.random.default_rng(seed)
  num_points, largest_piece, sample, moments = 0, 0, (), None
  norm = 0.0
  for points, weight in pieces:
    checks.values(points, weight, first=num_points)
    num_points += weight.size
    largest_piece = max(largest_piece, weight.size)
    # Of all the weights as one vector; their squares may leave the range.
    largest = max(np.max(weight), np.finfo(float).tiny)
    norm = math.hypot(norm, largest * np.linalg.norm(weight / largest))
    is_point = weight > 0
    points = np.where(is_point[:, None], points, 0.0)
    # Points without weight only where there are too few others.
    priority = generator.random(weight.size) + ~is_point
    sample = _keep(sample, (priority, points, weight))
    if np.any(is_point):
      part = points[is_point], weight[is_point]
      # What overflows here is refused in the end.
      with np.errstate(over="ignore", invalid="ignore"):
        moments = _joined(moments, *part)
  if moments is None:
    raise ValueError(
      f"blocks has {num_points} points and no weight, takes some weight above 0"
    )
  total, first, mean, lowest, highest = moments
  if not total < np.inf:
    raise ValueError("blocks has weights that sum to inf, takes a finite sum")
  return _Survey(
    num_points,
    largest_piece,
    total,
    (total / norm) ** 2,
    first + mean,
    np.maximum(highest - mean, mean - lowest),
    *sample[1:],
  )


def _joined(moments, points, weight):
  """Weight, one of the points, and about it: mean and bounds.

  Chan, Golub and LeVeque 1979: moments of two parts put together. About one
  of the points a constant column is centred exactly.
  """
  if moments is None:
    first = points[0].astype(np.float64)
    moments = (0.0, first, 0.0, np.inf, -np.inf)
  total, first, mean, lowest, highest = moments
  points = points - first
  mass = weight.sum()
  part_mean = (weight / mass) @ points
  shift, joint = part_mean - mean, total + mass
  return (
    joint,
    first,
    mean + shift * (mass / joint),
    np.minimum(lowest, points.min(axis=0)),
    np.maximum(highest, points.max(axis=0)),
  )


def _keep(sample, part):
  """The points of the lowest random priorities so far, in their order."""
  if sample:
    part = tuple(map(np.concatenate, zip(sample, part, strict=True)))
  size = sharded.NUM_START_POINTS
  if part[0].size <= size:
    return part
  kept = np.sort(np.argpartition(part[0], size)[:size])
  return tuple(leaf[kept] for leaf in part)


def _frame(survey, plan):
  """The frame of all the points; the points themselves stay outside."""
  dtype = jnp.zeros(0).dtype
  furthest = np.max(np.abs(survey.mean) + survey.extent)
  most = linalg.max_squared_norm(dtype) / survey.mean.size
  is_in_range = furthest < math.sqrt(most)
  if is_in_range:
    scale, is_in_range = _UNIT_OF(
      jnp.asarray(survey.extent, dtype),
      covariance_type=plan.form.covariance_type,
    )
  if not is_in_range:
    raise ValueError(
      f"blocks has points that are up to {np.max(survey.extent):g} from their"
      f" mean, takes numbers whose squares are within the range of {dtype}"
    )
  log_density = -0.5 * survey.mean.size * math.log(2.0 * math.pi)
  return problem_lib.PreparedProblem(
    columns=None,
    sample_weight=None,
    num_components=jnp.asarray(plan.form.max_components, jnp.int32),
    is_valid=jnp.ones((), bool),
    centre=jnp.asarray(survey.mean, dtype),
    scale=scale,
    directions=None,
    ridge=problem_lib.ridge_of(
      scale, plan.limits.reg_share, plan.limits.reg_covar
    ),
    num_points=jnp.asarray(survey.effective_number, dtype),
    log_density=log_density - jnp.sum(jnp.log(scale)),
  )


def _begin(key, survey, frame, plan):
  """As `sharded.begin`; what is in the points' units is centred in float64."""
  centre, given, prior = frame.centre, plan.given, plan.prior

  def centred(values):
    values = np.asarray(values, np.float64) - survey.mean
    return jnp.asarray(values, centre.dtype)

  about_mean = frame._replace(centre=jnp.zeros_like(centre))
  if prior is not None:
    prior = prior._replace(mean=centred(prior.mean))
    about_mean = em_starts.with_prior(about_mean, prior, plan.form)
    frame = about_mean._replace(centre=centre)
  if given is not None:
    given = given._replace(means=centred(given.means))
    frame = about_mean
  weight = survey.sample_weight / survey.sample_weight.sum()
  sample = sharded.Sample(
    *_to_frame(survey.sample, weight, survey.mean, frame.scale)
  )
  frame, start = _BEGIN(key, frame, sample, given, plan.fixed, form=plan.form)
  return frame._replace(centre=centre), start


def _to_frame(points, weight, centre, scale):
  """Columns and weights for the device; float64 until they are centred."""
  points = np.where(weight[:, None] > 0, points, centre)
  columns = ((points - centre) / np.asarray(scale, np.float64)).T
  return jnp.asarray(columns, scale.dtype), jnp.asarray(weight, scale.dtype)


class _Origin(NamedTuple):
  """Where the frame begins, in two numbers of the device's precision, `[d]`."""

  near: np.ndarray
  rest: np.ndarray


def _origin(centre, dtype):
  near = centre.astype(dtype)
  return _Origin(near, (centre - near).astype(dtype))


def _pass(read, survey, scale, block_size, mixture, *, covariance_type):
  """Sums over all the points, and the mean log-likelihood in the frame."""
  sums_of = _sums if survey.num_points <= _MOST_QUICK else _sums.optimized
  dtype, origin = scale.dtype, survey.mean

  def add_up(piece):
    points, weight = piece
    size, missing = weight.size, block_size - weight.size
    centre = _origin(origin, dtype)
    if points.dtype != dtype:
      # Rounded after it is centred.
      points = (points - origin).astype(dtype)
      centre = jax.tree.map(np.zeros_like, centre)
    else:
      # JAX keeps what it is given a little longer than the call: not a block.
      points = points.copy()
    weight = (weight / survey.total).astype(dtype)
    if missing > 0:
      points = np.pad(points, ((0, missing), (0, 0)))
      weight = np.pad(weight, (0, missing))
    part = sums_of(
      *(points, weight, centre, scale, mixture), covariance_type=covariance_type
    )
    part = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), part)
    return part, size

  sums, num_points = None, 0
  for part, size in cores.map_ahead(add_up, read()):
    sums = part if sums is None else jax.tree.map(np.add, sums, part)
    num_points += size
  if num_points != survey.num_points:
    raise ValueError(
      f"blocks gave {survey.num_points} points in the first pass and"
      f" {num_points} in a later one, takes a function that gives a new"
      " iterator over the same points"
    )
  return sums


@programs.quick
def _sums(points, weight, origin, scale, mixture, *, covariance_type):
  columns = ((points.T - origin.near[:, None]) - origin.rest[:, None]) / (
    scale[:, None]
  )
  columns = jnp.where(weight > 0, columns, 0.0)
  statistics = em_steps.e_step(
    columns, mixture, sample_weight=weight, covariance_type=covariance_type
  )
  log_density = statistics.log_density
  if gmm.kind_of(covariance_type).is_known:
    log_density -= 0.5 * jnp.sum(columns**2, axis=0)
  return statistics._replace(log_density=None), jnp.sum(weight * log_density)


def _as_statistics(sums, unused):
  """Sums back in the dtype of the device."""
  sums = jax.tree.map(lambda leaf: jnp.asarray(leaf, unused.dtype), sums)
  return sums._replace(log_density=unused)


@programs.quick
def _update(frame, run, statistics, change, limits, *, covariance_type):
  return em_runs.update(
    frame,
    run,
    statistics,
    change,
    limits=limits,
    covariance_type=covariance_type,
  )
