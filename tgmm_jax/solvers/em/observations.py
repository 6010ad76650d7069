"""EM where points are seen indirectly: with holes, or through known noise.

The points behind are latent besides the labels: their posterior means and
covariances enter the sums of the E-step (Ghahramani and Jordan 1994; Bovy,
Hogg and Roweis 2011), and the M-step is that of points that are known.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import covariance as covariance_lib
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import steps as em_steps

# Numbers of a block of points, about; more would not fit the caches.
_BLOCK_SIZE = 2**18

# Steps of EM for the one normal distribution that fills holes for a start:
# what is still wrong after a step is at most the missing share of it.
_NUM_STEPS = 10

# What a component needs must be seen in more than this share of the weight.
_LEAST_SEEN = 1e-6


def prepare(
  points: jax.Array,
  num_components: jax.Array | int,
  point_covariances: jax.Array | None,
  limits: em_options.Limits,
  form: em_options.Form,
  *,
  sample_weight: jax.Array | None,
) -> problem_lib.PreparedProblem:
  """`problem.prepare` of points that are seen indirectly.

  Args:
    points: `[N, d]`; NaN is missing, or invalid where `form` says so.
    num_components: K, may be traced.
    point_covariances: `[N, d]` or `[N, d, d]`, or None.
    limits: the ridge.
    form: covariance type and static K; `tile_size` is 1 with noise.
    sample_weight: `[N]`, or None for ones.
  """
  points = jnp.asarray(points)
  points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  sample_weight = sample_weight.astype(points.dtype)
  columns, observation = gmm.observe(
    points, point_covariances, tile_size=form.tile_size
  )
  is_seen = gmm.seen_cells(observation, points.shape[0])
  if form.takes_holes:
    # A negative weight stays what it is: invalid.
    is_empty = ~jnp.any(is_seen, axis=0)
    sample_weight = jnp.where(
      is_empty, jnp.minimum(sample_weight, 0.0), sample_weight
    )
    points = _with_means(columns, is_seen, sample_weight=sample_weight).T
  problem = problem_lib.prepare(
    points,
    num_components,
    sample_weight=sample_weight,
    max_components=form.max_components,
    covariance_type=form.covariance_type,
    reg_share=limits.reg_share,
    reg_covar=limits.reg_covar,
  )
  constants = 0.5 * math.log(2.0 * math.pi) + jnp.log(problem.scale)
  is_counted = jnp.where(is_seen, problem.sample_weight, 0.0)
  problem = problem._replace(
    columns=jnp.where(is_seen, problem.columns, 0.0),
    log_density=-jnp.sum(constants[:, None] * is_counted),
    observation=observation,
  )
  return problem if observation.noise is None else _with_noise(problem)


def _with_means(columns, is_seen, *, sample_weight):
  """Columns `[d, N]` with the mean of what is seen of each in its holes.

  About one of the cells, so that a constant column stays so exactly.
  """
  share = jnp.where(is_seen & (sample_weight > 0), sample_weight, 0.0)
  first = jnp.argmax(share > 0, axis=1)[:, None]
  first = jnp.take_along_axis(columns, first, axis=1)
  total = jnp.sum(share, axis=1, keepdims=True)
  share = share / jnp.where(total > 0, total, 1.0)
  moved = jnp.sum(
    jnp.where(share > 0, share * (columns - first), 0.0), axis=1, keepdims=True
  )
  return jnp.where(is_seen, columns, first + moved)


def _with_noise(problem):
  """The problem with its noise in the frame; wrong noise marks it."""
  is_seen, noise = problem.observation
  noise = jnp.where(problem.sample_weight > 0, noise, 0.0)
  inverse = 1.0 / problem.scale
  if noise.ndim == 2:
    noise = noise * inverse[:, None] ** 2
    is_usable = jnp.all(linalg.is_variance(noise))
  else:
    noise = noise * (inverse[:, None] * inverse)[..., None]
    _, is_usable = covariance_lib.lift(
      jnp.moveaxis(noise, -1, 0), problem.ridge.fixed, covariance_type="full"
    )
  noise = jnp.where(is_usable & problem.is_valid, noise, 0.0)
  return problem._replace(
    is_valid=problem.is_valid & is_usable,
    observation=gmm.Observation(is_seen, noise),
  )


def fill(problem: problem_lib.PreparedProblem) -> jax.Array:
  """Columns without holes, from which starts are drawn, `[d, N]`.

  The means under one normal distribution of all points given what is seen: with
  column means a point would stand between the clusters wherever it has a hole,
  and with means given by other columns it mostly stays with its own.

  Args:
    problem: from `prepare`.
  """
  columns, dtype = problem.columns, problem.columns.dtype
  is_seen = gmm.seen_cells(problem.observation, columns.shape[1])
  mean_square = jnp.sum(problem.sample_weight * columns**2, axis=1)
  share = jnp.sum(jnp.where(is_seen, problem.sample_weight, 0.0), axis=1)
  variances = mean_square / jnp.where(share > 0, share, 1.0)
  variances += problem.ridge.fixed
  normal = types.Mixture(
    jnp.ones(1, dtype),
    jnp.zeros((1, columns.shape[0]), dtype),
    jnp.diag(variances)[None],
  )
  options = {"covariance_type": "full"}

  def sum_up(normal, columns, observation, sample_weight):
    found = gmm.latent(columns, observation, normal, **options)
    return (
      _sums(found, sample_weight[None], normal, **options),
      normal.means[0][:, None] + found.shifts[0],
    )

  def advance(state, _):
    normal, _ = state
    statistics, filled = _map_blocks(
      functools.partial(sum_up, normal), problem, normal
    )
    statistics = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), statistics)
    normal = em_steps.m_step(
      statistics, normal, normal, ridge=problem.ridge, **options
    )
    return (normal, _joined(filled, columns.shape[1])), None

  (_, filled), _ = jax.lax.scan(advance, (normal, columns), length=_NUM_STEPS)
  return jnp.where(is_seen, columns, filled)


def e_step(
  problem: problem_lib.PreparedProblem,
  mixture: types.Mixture,
  *,
  covariance_type: str,
) -> em_steps.Statistics:
  """Sums over the latent points; see `em_steps.Statistics`.

  The log densities are those of what is seen, with unit covariance too.

  Args:
    problem: from `prepare`.
    mixture: in the frame.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """

  def sum_up(columns, observation, sample_weight):
    found, share, log_density = _shares(
      columns,
      observation,
      mixture,
      sample_weight=sample_weight,
      covariance_type=covariance_type,
    )
    sums = _sums(found, share, mixture, covariance_type=covariance_type)
    return sums, log_density

  sums, log_density = _map_blocks(sum_up, problem, mixture)
  sums = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), sums)
  log_density = _joined(log_density, problem.columns.shape[1])
  return sums._replace(log_density=log_density)


def _shares(columns, observation, mixture, *, sample_weight, covariance_type):
  """Latent points, responsibilities by weight `[K, N]`, log densities `[N]`."""
  found = gmm.latent(
    columns, observation, mixture, covariance_type=covariance_type
  )
  log_joint = gmm.log_weights(mixture)[:, None]
  log_joint = log_joint - 0.5 * (found.log_det + found.distances)
  return found, *em_steps.shares(log_joint, sample_weight=sample_weight)


def _sums(found, share, mixture, *, covariance_type):
  """The sums of one block over its latent points."""
  mass = jnp.sum(share, axis=-1)
  sums = linalg.einsum("kn,kdn->kd", share, found.shifts)
  if gmm.kind_of(covariance_type).is_known:
    sums += mass[:, None] * mixture.means
    return em_steps.Statistics(mass, sums, None, None)
  scatter = covariance_lib.scatter(
    share, found.shifts, covariance_type=covariance_type
  )
  scatter += _scatter_of_rest(
    share, found.rest, covariance_type=covariance_type
  )
  return em_steps.Statistics(mass, sums, scatter, None)


def _scatter_of_rest(share, rest, *, covariance_type):
  """Covariances of the latent points, summed up and shaped as the type."""
  kind = gmm.kind_of(covariance_type)
  if rest.ndim == 3:
    total = jnp.sum(share[:, None] * rest, axis=-1)  # [K, d]
  else:
    share = jnp.sum(share.reshape(share.shape[0], rest.shape[0], -1), axis=-1)
    if rest.shape[1] == 1:
      total = linalg.einsum("kt,tij->kij", share, rest[:, 0])
    else:
      total = linalg.einsum("kt,tkij->kij", share, rest)
    if kind.structure != "matrix":
      total = jnp.diagonal(total, axis1=-2, axis2=-1)
  if kind.structure == "ball":
    total = jnp.sum(total, axis=-1)
  return total if kind.is_per_component else jnp.sum(total, axis=0)


def rate(
  problem: problem_lib.PreparedProblem,
  mixture: types.Mixture,
  *,
  covariance_type: str,
) -> tuple[jax.Array, jax.Array]:
  """Log densities without constants, and whether a parameter is untold.

  It is where nobody has seen a coordinate that a component's mean has, or, with
  matrices, a pair of coordinates: any covariance that leaves the others
  possible would be as likely.

  Args:
    problem: from `prepare`.
    mixture: in the frame.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.

  Returns:
    Log densities of what is seen of each point in the frame, `[N]`, and `[]`
    bool.
  """
  kind = gmm.kind_of(covariance_type)

  def sum_up(columns, observation, sample_weight):
    _, share, log_density = _shares(
      columns,
      observation,
      mixture,
      sample_weight=sample_weight,
      covariance_type=covariance_type,
    )
    is_seen = gmm.seen_cells(observation, columns.shape[1])
    is_seen = is_seen.astype(share.dtype)
    cells = linalg.matmul(share, is_seen.T)
    if kind.structure != "matrix":
      return log_density, cells, cells
    return (
      log_density,
      cells,
      covariance_lib.scatter(
        share,
        jnp.broadcast_to(is_seen, (share.shape[0], *is_seen.shape)),
        covariance_type=covariance_type,
      ),
    )

  log_density, cells, pairs = _map_blocks(sum_up, problem, mixture)
  cells, pairs = jnp.sum(cells, axis=0), jnp.sum(pairs, axis=0)
  is_component = jnp.arange(cells.shape[0]) < problem.num_components
  is_lost = jnp.any(cells < _LEAST_SEEN, axis=1) & is_component
  is_apart = pairs < _LEAST_SEEN
  if kind.structure == "matrix" and kind.is_per_component:
    is_apart &= is_component[:, None, None]
  elif kind.structure != "matrix":
    is_apart = False
  log_density = _joined(log_density, problem.columns.shape[1])
  return log_density, jnp.any(is_lost) | jnp.any(is_apart)


def _joined(blocks, num_points):
  """What was found of each point, blocks `[b, ..., n]` joined: `[..., N]`."""
  joined = jnp.moveaxis(blocks, 0, -2)
  return joined.reshape(*joined.shape[:-2], -1)[..., :num_points]


def _map_blocks(
  function: Callable[..., Any],
  problem: problem_lib.PreparedProblem,
  mixture: types.Mixture,
) -> Any:
  """A function of columns, observation and weights, by blocks of tiles.

  Args:
    function: of arrays with N as their last axis.
    problem: whose points are dealt out; the last block is padded by weight 0.
    mixture: tells how much a point takes.

  Returns:
    The results with a leading axis of blocks.
  """
  rows = (problem.columns, problem.observation, problem.sample_weight)
  num_points = problem.sample_weight.size
  num_tiles = problem.observation.is_seen.shape[1]
  tile_size = num_points // num_tiles
  num_components, dim = mixture.means.shape
  of_tile = num_components * dim * (dim + tile_size)
  per_block = max(1, _BLOCK_SIZE // of_tile)
  if num_tiles <= per_block:
    return jax.tree.map(lambda leaf: leaf[None], function(*rows))
  num_blocks = -(-num_tiles // per_block)
  per_block = -(-num_tiles // num_blocks)

  def dealt_out(leaf):
    own = leaf.shape[-1] // num_tiles
    missing = (num_blocks * per_block - num_tiles) * own
    leaf = jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, missing)])
    leaf = leaf.reshape(*leaf.shape[:-1], num_blocks, per_block * own)
    return jnp.moveaxis(leaf, -2, 0)

  return jax.lax.map(
    lambda block: function(*block), jax.tree.map(dealt_out, rows)
  )
