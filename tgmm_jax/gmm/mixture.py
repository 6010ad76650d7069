"""What a Gaussian mixture is: covariance types, densities, sampling.

All functions take one problem, `points [N, d]`, and vmap. `covariance_type`
says how `mixture.covariances` is to be read; shapes alone cannot tell diag
from tied when K = d. `COVARIANCE_TYPES` is the table of what each type has.

Densities of many points are taken a block at a time: points and answer are all
that grows with N.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types

# Numbers in the differences of a block's points from the means, 8 MB in float64
# (XLA holds a few such arrays), and the rows that a block has at least.
_BLOCK_SIZE, _LEAST_ROWS = 2**20, 128


class CovarianceType(NamedTuple):
  """What the covariances of a type are made of.

  Attributes:
    structure: of one covariance: "identity" (known), "ball" (one variance),
      "axes" (a variance along each coordinate) or "matrix".
    is_per_component: whether each component has its own.
    frame: the changes of coordinates that leave such a mixture one:
      "isometry", "similarity" (and one unit of length), "axes" (a unit for
      each coordinate, their order and signs) or "linear" (any map).
  """

  structure: str
  is_per_component: bool
  frame: str

  @property
  def is_known(self) -> bool:
    """Whether there is nothing to estimate, and `covariances` is None."""
    return self.structure == "identity"

  def shape(self, num_components: int, dim: int) -> tuple[int, ...]:
    """Shape of `Mixture.covariances`; () for the known identity."""
    leading = (num_components,) if self.is_per_component else ()
    trailing = {"axes": (dim,), "matrix": (dim, dim)}
    return leading + trailing.get(self.structure, ())

  def num_parameters(
    self, num_components: jax.Array | int, dim: int
  ) -> jax.Array | int:
    """Free numbers in the covariances; K may be traced."""
    one = {"identity": 0, "ball": 1, "axes": dim}
    one = one.get(self.structure, dim * (dim + 1) // 2)
    return one * num_components if self.is_per_component else one


COVARIANCE_TYPES: dict[str, CovarianceType] = {
  "unit": CovarianceType("identity", False, "isometry"),
  "tied_spherical": CovarianceType("ball", False, "similarity"),
  "spherical": CovarianceType("ball", True, "similarity"),
  "diag": CovarianceType("axes", True, "axes"),
  "tied": CovarianceType("matrix", False, "linear"),
  "full": CovarianceType("matrix", True, "linear"),
}


def kind_of(covariance_type: str) -> CovarianceType:
  """The row of `COVARIANCE_TYPES` of a name.

  Raises:
    ValueError: there is no such type.
  """
  if covariance_type not in COVARIANCE_TYPES:
    raise ValueError(
      f"covariance_type is {covariance_type!r}, takes {tuple(COVARIANCE_TYPES)}"
    )
  return COVARIANCE_TYPES[covariance_type]


def standard_deviations(
  mixture: types.Mixture, *, covariance_type: str = "unit"
) -> jax.Array:
  """Of each component along each coordinate, `[K, d]`.

  Args:
    mixture: its covariances are used.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  return jnp.sqrt(_variances(mixture, covariance_type))


def _variances(mixture, covariance_type):
  """Of each component along each coordinate, `[K, d]`."""
  variances, kind = mixture.covariances, kind_of(covariance_type)
  match kind.structure:
    case "identity":
      return jnp.ones_like(mixture.means)
    case "ball" if kind.is_per_component:
      variances = variances[:, None]
    case "matrix":
      variances = jnp.diagonal(variances, axis1=-2, axis2=-1)
  return jnp.broadcast_to(variances, mixture.means.shape)


def covariance_matrices(
  mixture: types.Mixture, *, covariance_type: str = "unit"
) -> jax.Array:
  """The covariance of each component as a matrix, `[K, d, d]`.

  Args:
    mixture: its covariances are used.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  num_components, dim = mixture.means.shape
  if kind_of(covariance_type).structure == "matrix":
    matrices = mixture.covariances
  else:
    matrices = _variances(mixture, covariance_type)[..., None] * jnp.eye(dim)
  return jnp.broadcast_to(matrices, (num_components, dim, dim))


def distances(
  differences: jax.Array,
  covariances: jax.Array | None,
  *,
  covariance_type: str,
) -> tuple[jax.Array, jax.Array]:
  """Squared Mahalanobis distances and log determinants.

  N is the last axis, as everywhere inside EM: under `vmap` that costs little
  more than the arithmetic.

  Args:
    differences: `[K, d, N]`, points less means.
    covariances: of the type.
    covariance_type: one of `COVARIANCE_TYPES`.

  Returns:
    Distances `[K, N]` and log determinants, `[K]` or `[]` where all components
    have one covariance.
  """
  match kind_of(covariance_type).structure:
    case "identity":
      squared = jnp.sum(differences**2, axis=1)
      return squared, jnp.zeros((), squared.dtype)
    case "ball":
      precision = jnp.reshape(1.0 / covariances, (-1, 1))
      squared = jnp.sum(differences**2, axis=1) * precision
      return squared, differences.shape[1] * jnp.log(covariances)
    case "axes":
      precision = (1.0 / covariances)[:, :, None]
      squared = jnp.sum(differences**2 * precision, axis=1)
      return squared, jnp.sum(jnp.log(covariances), axis=-1)
  factors = inverse_factor(covariances)
  diagonal = jnp.diagonal(factors, axis1=-2, axis2=-1)
  # Broadcast where tied: under vmap, XLA on CPU first copies what a product
  # contracts or keeps over two axes (8.7 against 5.0 us for K = 4, d = 8).
  factors = jnp.broadcast_to(factors, (len(differences), *factors.shape[-2:]))
  whitened = linalg.matmul(factors, differences)
  return jnp.sum(whitened**2, axis=1), -2.0 * jnp.sum(jnp.log(diagonal), -1)


def inverse_factor(covariances: jax.Array) -> jax.Array:
  """The inverse of the Cholesky factor, `[..., d, d]`.

  A matrix that rounding has left without a factor is taken for its diagonal.
  """
  covariances = jnp.asarray(covariances)
  factors = linalg.inverse_cholesky(covariances)
  diagonal = jnp.diagonal(covariances, axis1=-2, axis2=-1)
  identity = jnp.eye(covariances.shape[-1], dtype=covariances.dtype)
  is_finite = jnp.all(jnp.isfinite(factors), axis=(-2, -1), keepdims=True)
  return jnp.where(
    is_finite, factors, jax.lax.rsqrt(diagonal)[..., None] * identity
  )


def log_weights(mixture: types.Mixture) -> jax.Array:
  """`[K]`; -inf for weight 0, without an infinite slope."""
  is_present = mixture.weights > 0
  return jnp.where(
    is_present, jnp.log(jnp.where(is_present, mixture.weights, 1.0)), -jnp.inf
  )


def component_energies(
  columns: jax.Array, mixture: types.Mixture, *, covariance_type: str = "unit"
) -> tuple[jax.Array, jax.Array]:
  """`distances` of points `[d, N]` from the components of a mixture."""
  differences = columns[None] - mixture.means[:, :, None]
  return distances(
    differences, mixture.covariances, covariance_type=covariance_type
  )


def component_log_density(
  points: jax.Array, mixture: types.Mixture, *, covariance_type: str = "unit"
) -> jax.Array:
  """Log density of each point under each component, without the weights.

  Args:
    points: `[N, d]`.
    mixture: its means `[K, d]` and covariances are used.
    covariance_type: one of `COVARIANCE_TYPES`.

  Returns:
    `[N, K]`.
  """
  squared, log_det = component_energies(
    points.T, mixture, covariance_type=covariance_type
  )
  constant = points.shape[-1] * math.log(2.0 * math.pi)
  return -0.5 * (squared.T + log_det + constant)


def log_joint(
  points: jax.Array, mixture: types.Mixture, *, covariance_type: str = "unit"
) -> jax.Array:
  """`log(weight_k) + log density_k(x_n)`, `[N, K]`; -inf for weight 0."""
  linalg.warn_if_rounded(mixture.means, mixture.covariances)

  def evaluate(rows):
    density = component_log_density(
      rows, mixture, covariance_type=covariance_type
    )
    return jnp.where(
      mixture.weights > 0, log_weights(mixture) + density, -jnp.inf
    )

  return in_blocks(evaluate, points, mixture)


def log_density(
  points: jax.Array, mixture: types.Mixture, *, covariance_type: str = "unit"
) -> jax.Array:
  """Log density of the mixture at each point, `[N]`."""

  def evaluate(rows):
    values = log_joint(rows, mixture, covariance_type=covariance_type)
    return jax.nn.logsumexp(values, axis=-1)

  return in_blocks(evaluate, points, mixture)


def responsibilities(
  points: jax.Array, mixture: types.Mixture, *, covariance_type: str = "unit"
) -> jax.Array:
  """Posterior probability of each component at each point, `[N, K]`."""
  return jax.nn.softmax(
    log_joint(points, mixture, covariance_type=covariance_type), axis=-1
  )


def predict(
  points: jax.Array, mixture: types.Mixture, *, covariance_type: str = "unit"
) -> jax.Array:
  """The most probable component of each point, `[N]` int32.

  The first of several that are equally probable; never one of weight 0.

  Args:
    points: `[N, d]`.
    mixture: the parameters.
    covariance_type: one of `COVARIANCE_TYPES`.
  """

  def evaluate(rows):
    values = log_joint(rows, mixture, covariance_type=covariance_type)
    return jnp.argmax(values, axis=-1).astype(jnp.int32)

  return in_blocks(evaluate, points, mixture)


def rows_of_block(mixture: types.Mixture) -> int:
  """How many points may be looked at together, by K and d of one mixture."""
  return max(_LEAST_ROWS, _BLOCK_SIZE // math.prod(mixture.means.shape[-2:]))


def in_blocks(
  function: Callable[[jax.Array], Any],
  points: jax.Array,
  mixture: types.Mixture,
) -> Any:
  """What a function of points says of each of them, in little memory.

  Args:
    function: of points `[n, d]`, to arrays `[n, ...]`.
    points: `[N, d]`.
    mixture: that the function compares points with.
  """
  count, rows = points.shape[0], rows_of_block(mixture)
  if count <= rows:
    return function(points)
  # A slice beyond the end begins so early that it is full; what the last block
  # has in common with the one before is taken once. The points are not copied.
  starts = jnp.arange(0, count, rows)
  found = jax.lax.map(
    lambda start: function(jax.lax.dynamic_slice_in_dim(points, start, rows)),
    starts,
  )
  num_last = (count - 1) % rows + 1

  def joined(leaf):
    before = leaf[:-1].reshape(-1, *leaf.shape[2:])
    return jnp.concatenate([before, leaf[-1, rows - num_last :]])

  return jax.tree.map(joined, found)


def log_likelihood(
  points: jax.Array,
  mixture: types.Mixture,
  *,
  sample_weight: jax.Array | None = None,
  covariance_type: str = "unit",
) -> jax.Array:
  """Mean log density per unit of weight, `[]`.

  Args:
    points: `[N, d]`.
    mixture: the parameters.
    sample_weight: `[N]`, or None for ones; must not be all zero.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  if sample_weight is not None:
    # Padding may hold anything, NaN too: 0 times it would be NaN, in the
    # gradient even where the value itself is left out.
    points = jnp.where((sample_weight > 0)[:, None], points, 0.0)
  values = log_density(points, mixture, covariance_type=covariance_type)
  if sample_weight is None:
    return jnp.mean(values)
  values = jnp.where(sample_weight > 0, values, 0.0)
  return jnp.sum(sample_weight / jnp.sum(sample_weight) * values)


def sample(
  key: jax.Array,
  mixture: types.Mixture,
  num_points: int,
  *,
  covariance_type: str = "unit",
) -> tuple[jax.Array, jax.Array]:
  """Draws points and their labels.

  Args:
    key: consumed; one half draws labels, the other noise.
    mixture: the parameters.
    num_points: N, static.
    covariance_type: one of `COVARIANCE_TYPES`.

  Returns:
    points `[N, d]` and labels `[N]` int32.
  """
  label_key, noise_key = jax.random.split(key)
  mixture = jax.tree.map(jnp.asarray, mixture)
  # By the inverse distribution function: one uniform a point, where a
  # categorical draw would take K; the last component takes the rounding.
  bounds = jnp.cumsum(mixture.weights)
  last = jnp.max(jnp.where(mixture.weights > 0, jnp.arange(bounds.size), 0))
  uniform = jax.random.uniform(label_key, (num_points,), mixture.means.dtype)
  labels = jnp.sum(uniform[:, None] * bounds[-1] >= bounds[None, :], axis=-1)
  labels = jnp.minimum(labels, last).astype(jnp.int32)
  dim = mixture.means.shape[-1]
  # A flat draw compiles three times faster than a shaped one.
  noise = jax.random.normal(noise_key, (num_points * dim,), mixture.means.dtype)
  noise = noise.reshape(num_points, dim)
  covariances, kind = mixture.covariances, kind_of(covariance_type)
  match kind.structure:
    case "ball" if kind.is_per_component:
      noise = noise * jnp.sqrt(covariances)[labels][:, None]
    case "ball":
      noise = noise * jnp.sqrt(covariances)
    case "axes":
      noise = noise * jnp.sqrt(covariances)[labels]
    case "matrix" if kind.is_per_component:
      factors = _cholesky(covariances)[labels]
      noise = jnp.einsum("nij,nj->ni", factors, noise)
    case "matrix":
      noise = noise @ _cholesky(covariances).T
  return mixture.means[labels] + noise, labels


def _cholesky(covariances):
  """By elimination: see `linalg.inverse_cholesky` for what LAPACK would do."""
  inverse = linalg.inverse_cholesky(covariances)
  return linalg.matmul(covariances, jnp.swapaxes(inverse, -1, -2))
