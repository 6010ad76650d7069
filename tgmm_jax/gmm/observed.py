"""Points that are seen indirectly: with holes, or through known noise.

What is seen of point n is `O_n (z_n + e_n)`: `O_n` leaves out the coordinates
that are missing, `e_n ~ N(0, P_n)` is the noise. Of a latent point `z_n` from
component k it is normal with mean `O_n m_k` and covariance `T_nk = O_n (S_k +
P_n) O_n^T`, and the latent point has, given what is seen, the mean `m_k + S_k
O_n^T T_nk^-1 (x_n - O_n m_k)` and the covariance `S_k - S_k O_n^T T_nk^-1 O_n
S_k` (Ghahramani and Jordan 1994 for holes; Bovy, Hogg and Roweis 2011 for
noise). A missing cell is one of infinite noise.

Shapes stay static: with the mask `D = O^T O` the matrix `D (S + P) D + I - D`
has a Cholesky factor that is that of `T` in the coordinates that are seen and
the identity in all others.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types
from tgmm_jax.gmm import covariance_types, densities
from tgmm_jax.gmm import distances as distances_lib


class Observation(NamedTuple):
  """How points `[d, N]` are seen.

  Attributes:
    is_seen: `[d, T]` bool, of T tiles: N / T points in a row are seen alike, so
      that one factor serves them. With noise T is N.
    noise: variances `[d, N]` or covariances `[d, d, N]`, 0 where nothing is
      seen; None for none.
  """

  is_seen: jax.Array
  noise: jax.Array | None


class Latent(NamedTuple):
  """What is seen, and what it says of the points behind, for each component.

  Attributes:
    distances: `[K, N]`, squared Mahalanobis distances of what is seen.
    log_det: `[K, N]`, or with fewer axes, of the covariances of that.
    shifts: `[K, d, N]`, means of the latent points less that of the component.
    rest: covariances of the latent points: variances `[K, d, N]`, or matrices
      `[T, K, d, d]` for each tile of points that are seen alike (`[T, 1, d,
      d]` where all components have one).
  """

  distances: jax.Array
  log_det: jax.Array
  shifts: jax.Array
  rest: jax.Array


def observe(
  points: jax.Array,
  point_covariances: jax.Array | None = None,
  *,
  tile_size: int = 1,
) -> tuple[jax.Array, Observation]:
  """Columns `[d, N]`, 0 where points are NaN, and how they are seen.

  Args:
    points: `[N, d]`; NaN is missing.
    point_covariances: `[N, d]` variances or `[N, d, d]`, or None.
    tile_size: so many points in a row are seen alike, static; 1 with noise.
  """
  points = jnp.asarray(points)
  points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
  is_seen = ~jnp.isnan(points.T)
  columns = jnp.where(is_seen, points.T, 0.0)
  if point_covariances is None:
    return columns, Observation(is_seen[:, ::tile_size], None)
  noise = jnp.moveaxis(jnp.asarray(point_covariances, points.dtype), 0, -1)
  is_told = is_seen if noise.ndim == 2 else is_seen[:, None] & is_seen[None]
  return columns, Observation(is_seen, jnp.where(is_told, noise, 0.0))


def latent(
  columns: jax.Array,
  observation: Observation,
  mixture: types.Mixture,
  *,
  covariance_type: str,
) -> Latent:
  """See `Latent`.

  Args:
    columns: `[d, N]`.
    observation: of them.
    mixture: its means and covariances are used.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  is_seen = seen_cells(observation, columns.shape[1])
  differences = columns - mixture.means[:, :, None]
  differences = jnp.where(is_seen, differences, 0.0)
  if is_diagonal(observation, covariance_type=covariance_type):
    return _of_variances(
      differences,
      Observation(is_seen, observation.noise),
      _variances(mixture, covariance_type=covariance_type),
    )
  if covariance_types.kind_of(covariance_type).structure == "matrix":
    covariances = mixture.covariances
    covariances = covariances.reshape(-1, *covariances.shape[-2:])
  else:
    variances = _variances(mixture, covariance_type=covariance_type)
    covariances = variances * jnp.eye(columns.shape[0])
  return _of_matrices(differences, observation, covariances)


def seen_cells(observation: Observation, num_points: int) -> jax.Array:
  """Which cells are seen, `[d, N]` bool, of points in tiles.

  Args:
    observation: of T tiles.
    num_points: N.
  """
  num_tiles = observation.is_seen.shape[1]
  return jnp.repeat(observation.is_seen, num_points // num_tiles, axis=1)


def is_diagonal(observation: Observation, *, covariance_type: str) -> bool:
  """Whether coordinates are independent, so that no matrix is needed.

  Args:
    observation: its noise counts.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  has_matrices = observation.noise is not None and observation.noise.ndim == 3
  structure = covariance_types.kind_of(covariance_type).structure
  return not has_matrices and structure != "matrix"


def _variances(mixture, *, covariance_type):
  """Of every component along each coordinate, `[K, d, 1]`."""
  variances = mixture.covariances
  match covariance_types.kind_of(covariance_type).structure:
    case "identity":
      variances = jnp.ones_like(mixture.means)
    case "ball":
      variances = jnp.reshape(variances, (-1, 1))
  return jnp.broadcast_to(variances, mixture.means.shape)[..., None]


def _of_variances(differences, observation, variances):
  is_seen, noise = observation
  if noise is None:
    precision = 1.0 / variances
    return Latent(
      jnp.sum(differences**2 * precision, axis=1),
      linalg.matmul(
        jnp.log(variances[..., 0]), is_seen.astype(differences.dtype)
      ),
      differences,
      jnp.where(is_seen, 0.0, variances),
    )
  total = jnp.where(is_seen, variances + noise, 1.0)
  gain = jnp.where(is_seen, variances / total, 0.0)
  return Latent(
    jnp.sum(differences**2 / total, axis=1),
    jnp.sum(jnp.log(total), axis=1),
    gain * differences,
    jnp.where(is_seen, gain * noise, variances),
  )


def _of_matrices(differences, observation, covariances):
  """Of covariances `[K, d, d]`, or `[1, d, d]` for all components."""
  num_components, dim, num_points = differences.shape
  is_seen = observation.is_seen.T[:, None]  # [T, 1, d]
  tile_size = num_points // is_seen.shape[0]
  tiles = differences.reshape(num_components, dim, -1, tile_size)
  tiles = jnp.moveaxis(tiles, 2, 0)  # [T, K, d, R]
  total = covariances
  if observation.noise is not None:
    noise = observation.noise
    if noise.ndim == 2:
      noise = noise[:, None] * jnp.eye(dim)[..., None]
    total = total + jnp.moveaxis(noise, -1, 0)[:, None]
  is_pair = is_seen[..., :, None] & is_seen[..., None, :]
  total = jnp.where(is_pair, total, jnp.eye(dim, dtype=total.dtype))
  factors = distances_lib.inverse_factor(total)
  # Broadcast where tied, see `distances.squared_distances`.
  shape = (tiles.shape[0], num_components, dim, dim)
  whitened = linalg.matmul(jnp.broadcast_to(factors, shape), tiles)
  seen_rows = jnp.where(is_seen[..., None], covariances, 0.0)
  gain = linalg.matmul(factors, seen_rows)  # T^-1/2 O S
  transposed = jnp.swapaxes(gain, -1, -2)
  shifts = linalg.matmul(jnp.broadcast_to(transposed, shape), whitened)
  rest = covariances - linalg.matmul(transposed, gain)
  shifts = jnp.moveaxis(shifts, 0, 2).reshape(differences.shape)
  if observation.noise is None:
    # What is seen is known: nothing is rounded there.
    is_known = seen_cells(observation, num_points)
    shifts = jnp.where(is_known, differences, shifts)
    rest = jnp.where(is_seen[..., :, None] | is_seen[..., None, :], 0.0, rest)
  distances = jnp.sum(whitened**2, axis=2)  # [T, K, R]
  diagonal = jnp.diagonal(factors, axis1=-2, axis2=-1)
  log_det = -2.0 * jnp.sum(jnp.log(diagonal), axis=-1)  # [T, K]
  return Latent(
    jnp.swapaxes(distances, 0, 1).reshape(num_components, num_points),
    jnp.repeat(log_det.T, tile_size, axis=1),
    shifts,
    rest,
  )


def observed_log_joint(
  points: jax.Array,
  mixture: types.Mixture,
  *,
  covariance_type: str = "unit",
  point_covariances: jax.Array | None = None,
) -> jax.Array:
  """`log_joint` of what is seen of each point, `[N, K]`.

  The softmax over K are responsibilities, logsumexp the log density of what is
  seen. Where nothing is seen these are the weights, and 0.

  Args:
    points: `[N, d]`; NaN is missing.
    mixture: the parameters.
    covariance_type: one of `COVARIANCE_TYPES`.
    point_covariances: of the noise of each point, `[N, d]` variances or `[N,
      d, d]`, or None for none.
  """

  def evaluate(points, point_covariances):
    columns, observation = observe(points, point_covariances)
    found = latent(
      columns, observation, mixture, covariance_type=covariance_type
    )
    return _log_joint(found, observation, mixture)

  return _in_blocks(evaluate, mixture, points, point_covariances)


def _log_joint(found, observation, mixture):
  constant = math.log(2.0 * math.pi) * jnp.sum(observation.is_seen, axis=0)
  energy = (found.distances + found.log_det + constant).T
  log_weights = densities.log_weights(mixture)
  return jnp.where(mixture.weights > 0, log_weights - 0.5 * energy, -jnp.inf)


def impute(
  mixture: types.Mixture,
  points: jax.Array,
  *,
  covariance_type: str = "unit",
  point_covariances: jax.Array | None = None,
  key: jax.Array | None = None,
) -> jax.Array:
  """Points without holes, `[N, d]`: means given what is seen, or draws.

  A draw is exact: a point and what would be seen of it are drawn from the
  mixture, and what is seen in truth moves the point as it moves the mean
  (Hoffman and Ribak 1991).

  Args:
    mixture: the parameters.
    points: `[N, d]`; NaN is missing. What is seen stays as it is.
    covariance_type: one of `COVARIANCE_TYPES`.
    point_covariances: of the noise, as in `observed_log_joint`, or None. With
      noise what is seen is replaced as well, by the latent point.
    key: consumed; draws the component and the point. None for the means.
  """
  points = jnp.asarray(points)
  draws = None
  if key is not None:
    label_key, point_key, noise_key = jax.random.split(key, 3)
    draws = (
      jax.random.gumbel(
        label_key, (points.shape[0], mixture.weights.size), points.dtype
      ),
      jax.random.normal(point_key, points.shape, points.dtype),
      jax.random.normal(noise_key, points.shape, points.dtype),
    )

  def evaluate(points, point_covariances, draws):
    columns, observation = observe(points, point_covariances)
    options = {"covariance_type": covariance_type}
    found = latent(columns, observation, mixture, **options)
    values = _log_joint(found, observation, mixture)
    # So far from all components that no density can be told from 0.
    is_lost = jnp.all(~(values > -jnp.inf), axis=-1, keepdims=True)
    values = jnp.where(is_lost, densities.log_weights(mixture), values)
    if draws is None:
      means = mixture.means + jnp.moveaxis(found.shifts, -1, 0)  # [N, K, d]
      share = jax.nn.softmax(values, axis=-1)
      filled = linalg.einsum("nk,nkd->nd", share, means)
    else:
      filled = _draw(draws, values, columns, observation, mixture, options)
    return filled if point_covariances is not None else _filled(points, filled)

  return _in_blocks(evaluate, mixture, points, point_covariances, draws)


def _filled(points, filled):
  return jnp.where(jnp.isnan(points), filled, points)


def _draw(draws, values, columns, observation, mixture, options):
  """Latent points `[N, d]`; see `impute`."""
  gumbel, normal, noise = draws
  labels = jnp.argmax(values + gumbel, axis=-1)
  matrices = covariance_types.covariance_matrices(mixture, **options)
  factors = linalg.matmul(
    matrices, jnp.swapaxes(distances_lib.inverse_factor(matrices), -1, -2)
  )
  moved = linalg.einsum("nij,nj->ni", factors[labels], normal)
  seen = columns - moved.T - _noise(observation.noise, noise)
  shifts = latent(seen, observation, mixture, **options).shifts
  own = jnp.take_along_axis(shifts, labels[None, None], axis=0)[0]
  return mixture.means[labels] + moved + own.T


def _noise(covariances, normal):
  """Draws `[d, N]` from standard normal ones `[N, d]`."""
  if covariances is None:
    return 0.0
  if covariances.ndim == 2:
    return jnp.sqrt(covariances) * normal.T
  values, vectors = jnp.linalg.eigh(jnp.moveaxis(covariances, -1, 0))
  normal = jnp.sqrt(jnp.maximum(values, 0.0)) * normal
  return linalg.einsum("nij,nj->in", vectors, normal)


def _in_blocks(
  function: Callable[..., Any], mixture: types.Mixture, *rows: Any
) -> Any:
  """`in_blocks` of several arrays `[N, ...]`; a point has K d^2 numbers."""
  rows = jax.tree.map(jnp.asarray, rows)
  num_points = rows[0].shape[0]
  num_components, dim = mixture.means.shape
  size = jax.ShapeDtypeStruct((num_components, dim * dim), mixture.means.dtype)

  def evaluate(index):
    return function(*jax.tree.map(lambda leaf: leaf[index[:, 0]], rows))

  return densities.in_blocks(
    evaluate, jnp.arange(num_points)[:, None], mixture._replace(means=size)
  )
