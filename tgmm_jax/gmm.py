"""Densities, responsibilities and sampling of one Gaussian mixture.

All functions take one problem, `points [N, d]`, and vmap. `covariance_type`
says how `mixture.covariances` is to be read (`types.Mixture`); shapes alone
cannot tell diag from tied when K = d.
"""

import math

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types

COVARIANCE_TYPES = (
  "unit",
  "tied_spherical",
  "spherical",
  "diag",
  "tied",
  "full",
)


def covariance_shape(
  covariance_type: str, num_components: int, dim: int
) -> tuple[int, ...]:
  """Shape of `Mixture.covariances`, see `types.Mixture`."""
  return {
    "unit": (),
    "tied_spherical": (),
    "spherical": (num_components,),
    "diag": (num_components, dim),
    "tied": (dim, dim),
    "full": (num_components, dim, dim),
  }[covariance_type]


def standard_deviations(
  mixture: types.Mixture, *, covariance_type: str = "unit"
) -> jax.Array:
  """Of each component along each coordinate, `[K, d]`.

  Args:
    mixture: its covariances are used.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  variances = mixture.covariances
  match covariance_type:
    case "unit":
      variances = jnp.ones((), mixture.means.dtype)
    case "spherical":
      variances = variances[:, None]
    case "tied" | "full":
      variances = jnp.diagonal(variances, axis1=-2, axis2=-1)
  return jnp.sqrt(jnp.broadcast_to(variances, mixture.means.shape))


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
  difference = points[:, None, :] - mixture.means[None, :, :]
  dim = points.shape[-1]
  covariances = mixture.covariances
  match covariance_type:
    case "unit":
      distance = jnp.sum(difference**2, axis=-1)
      log_det = jnp.zeros((), points.dtype)
    case "spherical" | "tied_spherical":
      distance = jnp.sum(difference**2, axis=-1) / covariances
      log_det = dim * jnp.log(covariances)
    case "diag":
      distance = jnp.sum(difference**2 / covariances, axis=-1)
      log_det = jnp.sum(jnp.log(covariances), axis=-1)
    case "full" | "tied":
      factors = linalg.inverse_cholesky(covariances)
      diagonal = jnp.diagonal(factors, axis1=-2, axis2=-1)
      log_det = -2.0 * jnp.sum(jnp.log(diagonal), axis=-1)
      factors = jnp.broadcast_to(factors, (*difference.shape[1:], dim))
      whitened = linalg.einsum("kij,nkj->nki", factors, difference)
      distance = jnp.sum(whitened**2, axis=-1)
    case _:
      raise ValueError(
        f"covariance_type is {covariance_type!r}, takes {COVARIANCE_TYPES}"
      )
  return -0.5 * (distance + log_det + dim * math.log(2.0 * math.pi))


def log_joint(
  points: jax.Array, mixture: types.Mixture, *, covariance_type: str = "unit"
) -> jax.Array:
  """`log(weight_k) + log density_k(x_n)`, `[N, K]`; -inf for weight 0."""
  is_present = mixture.weights > 0
  log_weights = jnp.log(jnp.where(is_present, mixture.weights, 1.0))
  log_density_of = component_log_density(
    points, mixture, covariance_type=covariance_type
  )
  return jnp.where(is_present, log_weights + log_density_of, -jnp.inf)


def log_density(
  points: jax.Array, mixture: types.Mixture, *, covariance_type: str = "unit"
) -> jax.Array:
  """Log density of the mixture at each point, `[N]`."""
  return jax.nn.logsumexp(
    log_joint(points, mixture, covariance_type=covariance_type), axis=-1
  )


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
  values = log_joint(points, mixture, covariance_type=covariance_type)
  return jnp.argmax(values, axis=-1).astype(jnp.int32)


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
  covariances = mixture.covariances
  match covariance_type:
    case "unit":
      pass
    case "tied_spherical":
      noise = noise * jnp.sqrt(covariances)
    case "spherical":
      noise = noise * jnp.sqrt(covariances)[labels][:, None]
    case "diag":
      noise = noise * jnp.sqrt(covariances)[labels]
    case "tied":
      noise = noise @ _cholesky(covariances).T
    case "full":
      factors = _cholesky(covariances)[labels]
      noise = jnp.einsum("nij,nj->ni", factors, noise)
    case _:
      raise ValueError(
        f"covariance_type is {covariance_type!r}, takes {COVARIANCE_TYPES}"
      )
  return mixture.means[labels] + noise, labels


def _cholesky(covariances):
  """By elimination: see `linalg.inverse_cholesky` for what LAPACK would do."""
  inverse = linalg.inverse_cholesky(covariances)
  return linalg.matmul(covariances, jnp.swapaxes(inverse, -1, -2))
