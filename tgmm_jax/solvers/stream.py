"""EM for points that never fit in memory: one pass over blocks an iteration.

The host reads a block, takes it into the frame and hands it to the device; the
sums come back and are added up in float64. While the device works on a block
the host prepares the next.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import types
from tgmm_jax.solvers import checks, em_runs, em_steps, large
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers import start as start_lib

# `[n, d]` points, or a pair of them and their weights `[n]`.
Block = Any


def fit_stream(
  key: jax.Array,
  blocks: np.ndarray | Iterable[Block] | Callable[[], Iterable[Block]],
  num_components: int,
  *,
  covariance_type: str = "unit",
  init: str | types.Mixture = "k-means++",
  max_iter: int = 100,
  tol: float = 1e-6,
  reg_share: float = 1e-6,
  reg_covar: float = 0.0,
  min_variance: float | None = None,
  block_size: int = 16_384,
  on_step: Callable[[int, float], None] = lambda num_iters, value: None,
) -> types.SolverResult:
  """Fits one problem that is read block by block.

  One pass over the blocks in every iteration, one before the first and one
  after the last. The device computes in float32, or in float64 where JAX has
  64 bits enabled; what it sums up is added in float64.

  Args:
    key: consumed; the sample from which a start is drawn, and the start.
    blocks: an array `[N, d]` (a `numpy.memmap` too), cut into blocks of
      `block_size`; or blocks of any sizes: something that can be iterated
      again and again, or a function that gives a new iterator. A block is
      `[n, d]`, or a pair of it and weights `[n]`.
    num_components: K.
    covariance_type: as in `em.fit`.
    init: as in `em.fit`; drawn from a uniform sample of
      `large.NUM_START_POINTS` points, from all where there are no more.
    max_iter: as in `em.fit`.
    tol: as in `em.fit`; the mean log-likelihood is known to about 1e-7 of
      itself in float32.
    reg_share: as in `em.fit`.
    reg_covar: as in `em.fit`.
    min_variance: as in `em.fit`.
    block_size: points that the device gets at a time.
    on_step: called after each pass with the number of steps taken and the
      mean log-likelihood before the step.

  Returns:
    A `SolverResult`; statuses as in `em.fit`.

  Raises:
    ValueError: for blocks of wrong or changing shape, NaN or inf, fewer points
      than components, weights that cannot be used, an iterator that can be
      read only once, unknown names and options.
  """
  checks.integer("num_components", num_components, lowest=1)
  checks.integer("block_size", block_size, lowest=1)
  limits = em_runs.make_limits(
    max_iter, tol, reg_share, reg_covar, min_variance
  )
  read = functools.partial(_pieces, _reader(blocks), block_size)
  survey = _survey(key, read)
  if survey.num_points < num_components:
    raise ValueError(
      f"num_components is {num_components}, takes an integer from 1 to the"
      f" {survey.num_points} points"
    )
  given, options = start_lib.options(
    survey.sample,
    int(num_components),
    covariance_type=covariance_type,
    init=init,
  )
  frame = _frame(survey, num_components, limits, covariance_type)
  total = survey.sample_weight.sum()
  frame, start = large.begin(
    key,
    frame,
    _to_frame(survey.sample, survey.sample_weight / total, frame),
    given,
    int(num_components),
    options["init"],
    covariance_type,
  )
  one_pass = functools.partial(
    _pass,
    read,
    frame,
    survey.total,
    block_size,
    covariance_type=covariance_type,
  )
  unused = jnp.zeros(1, frame.centre.dtype)
  run = em_runs.begin(frame._replace(sample_weight=unused), start)
  value = np.inf
  while not em_runs.is_done(run, limits=limits):
    statistics, log_likelihood = one_pass(run.mixture)
    change, value = log_likelihood - value, log_likelihood
    run = _update(
      frame,
      run,
      _as_statistics(statistics, unused),
      jnp.asarray(change, unused.dtype),
      limits,
      covariance_type=covariance_type,
    )
    on_step(int(run.num_iters), value + float(frame.log_density))
  _, log_likelihood = one_pass(run.mixture)
  return large.conclude(
    frame, run, jnp.asarray(log_likelihood, unused.dtype), covariance_type
  )


class _Survey(NamedTuple):
  """What the first pass finds."""

  num_points: int
  total: float  # weight
  mean: np.ndarray  # [d]
  variance: np.ndarray  # [d]
  extent: np.ndarray  # [d], the largest distance from the mean
  sample: np.ndarray  # [n, d], in the order of the blocks
  sample_weight: np.ndarray  # [n]


def _reader(blocks) -> Callable[[], Iterator[Block]]:
  """A function that gives a new iterator over the blocks."""
  if hasattr(blocks, "shape"):
    if len(blocks.shape) != 2 or 0 in blocks.shape:
      raise ValueError(
        f"blocks has shape {tuple(blocks.shape)}, takes [N, d] or blocks [n, d]"
      )
    return lambda: iter((blocks,))
  if callable(blocks):
    return lambda: iter(blocks())
  if iter(blocks) is blocks:
    raise ValueError(
      f"blocks is a {type(blocks).__name__} that can be read only once, takes"
      " an array, a sequence of blocks or a function that gives a new iterator"
    )
  return lambda: iter(blocks)


def _pieces(read, block_size) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """The blocks, cut into pieces of at most `block_size` points."""
  dim = None
  for index, block in enumerate(read()):
    points, weight = block if isinstance(block, tuple) else (block, None)
    dim = _check_block(index, points, weight, dim)
    for first in range(0, points.shape[0], block_size):
      piece = np.asarray(points[first : first + block_size])
      if weight is None:
        yield piece, np.ones(piece.shape[0])
      else:
        yield piece, np.asarray(weight[first : first + block_size], np.float64)


def _check_block(index, points, weight, dim):
  """Refuses a block by its shape and dtype; returns d."""
  shape = getattr(points, "shape", None)
  if shape is None or len(shape) != 2 or shape[1] == 0:
    raise ValueError(f"block {index} has shape {shape}, takes [n, d]")
  if np.dtype(points.dtype).kind not in "fiub":
    raise TypeError(
      f"block {index} has dtype {points.dtype}, takes real numbers"
    )
  if dim is not None and shape[1] != dim:
    raise ValueError(
      f"block {index} has shape {shape}, takes [n, {dim}] as the first"
    )
  if weight is not None and np.shape(weight) != shape[:1]:
    raise ValueError(
      f"block {index} has weights of shape {np.shape(weight)}, takes"
      f" {shape[:1]}"
    )
  return shape[1]


def _survey(key, read) -> _Survey:
  """The first pass: checks, moments in float64, and a uniform sample."""
  seed = np.asarray(jax.random.key_data(jax.random.fold_in(key, 1)))
  generator = np.random.default_rng(seed)
  num_points, total, mean, square = 0, 0.0, 0.0, 0.0
  lowest, highest = np.inf, -np.inf
  sample = ()
  for points, weight in read():
    checks.values(points, weight, num_points)
    num_points += points.shape[0]
    points = np.where(weight[:, None] > 0, points, 0.0)
    sample = _keep(sample, (generator.random(weight.size), points, weight))
    mass = weight.sum()
    if mass == 0:
      continue
    # Chan, Golub and LeVeque 1979: moments of two parts put together.
    part_mean = weight @ points / mass
    shift, joint = part_mean - mean, total + mass
    square = square + weight @ (points - part_mean) ** 2
    square = square + shift**2 * (total * mass / joint)
    mean, total = mean + shift * (mass / joint), joint
    lowest = np.minimum(lowest, points[weight > 0].min(axis=0))
    highest = np.maximum(highest, points[weight > 0].max(axis=0))
  if total == 0:
    raise ValueError(
      f"blocks has {num_points} points and no weight, takes some weight above 0"
    )
  extent = np.maximum(highest - mean, mean - lowest)
  return _Survey(num_points, total, mean, square / total, extent, *sample[1:])


def _keep(sample, part):
  """The points of the lowest random priorities so far, in their order."""
  if sample:
    part = tuple(map(np.concatenate, zip(sample, part, strict=True)))
  size = large.NUM_START_POINTS
  if part[0].size <= size:
    return part
  kept = np.sort(np.argpartition(part[0], size)[:size])
  return tuple(leaf[kept] for leaf in part)


def _frame(survey, num_components, limits, covariance_type):
  """The frame of all the points; the points themselves stay outside."""
  dtype = jnp.zeros(0).dtype
  extent = jnp.asarray(survey.extent, dtype)
  scale, is_in_range = problem_lib.unit_of(extent, covariance_type)
  variance = survey.variance / np.asarray(scale, np.float64) ** 2
  largest = 1e-3 * jnp.finfo(dtype).max
  furthest = jnp.abs(jnp.asarray(survey.mean, dtype)) + extent
  log_density = -0.5 * survey.mean.size * math.log(2.0 * math.pi)
  return problem_lib.Problem(
    columns=None,
    sample_weight=None,
    num_components=jnp.asarray(num_components, jnp.int32),
    is_valid=is_in_range & (jnp.sum(furthest**2) < largest),
    centre=jnp.asarray(survey.mean, dtype),
    scale=scale,
    directions=None,
    ridge=problem_lib.ridge_of(
      jnp.asarray(variance, dtype), scale, limits.reg_share, limits.reg_covar
    ),
    log_density=log_density - jnp.sum(jnp.log(scale)),
  )


def _to_frame(points, weight, frame):
  """Columns and weights for the device; float64 until they are centred."""
  centre, scale = (
    np.asarray(x, np.float64) for x in (frame.centre, frame.scale)
  )
  points = np.where(weight[:, None] > 0, points, centre)
  dtype = frame.centre.dtype
  columns = ((points - centre) / scale).T
  return jnp.asarray(columns, dtype), jnp.asarray(weight, dtype)


def _pass(read, frame, total, block_size, mixture, *, covariance_type):
  """Sums over all the points, and the mean log-likelihood in the frame."""
  sums, pending = None, None
  for points, weight in read():
    missing = block_size - weight.size
    points = np.pad(points, ((0, missing), (0, 0)))
    weight = np.pad(weight / total, (0, missing))
    part = _sums(
      *_to_frame(points, weight, frame),
      mixture,
      covariance_type=covariance_type,
    )
    # Fetched one block late, so that the device works while the host reads.
    sums, pending = _add(sums, pending), part
  return _add(sums, pending)


@functools.partial(jax.jit, static_argnames="covariance_type")
def _sums(columns, weight, mixture, *, covariance_type):
  statistics = em_steps.e_step(
    columns, weight, mixture, covariance_type=covariance_type
  )
  log_density = statistics.log_density
  if covariance_type == "unit":
    log_density -= 0.5 * jnp.sum(columns**2, axis=0)
  return statistics._replace(log_density=None), jnp.sum(weight * log_density)


def _as_statistics(sums, unused):
  """Sums back in the dtype of the device."""
  sums = jax.tree.map(lambda leaf: jnp.asarray(leaf, unused.dtype), sums)
  return sums._replace(log_density=unused)


def _add(sums, part):
  if part is None:
    return sums
  part = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), part)
  return part if sums is None else jax.tree.map(np.add, sums, part)


@functools.partial(jax.jit, static_argnames="covariance_type")
def _update(frame, run, statistics, change, limits, *, covariance_type):
  return em_runs.update(
    frame,
    run,
    statistics,
    change,
    limits=limits,
    covariance_type=covariance_type,
  )
