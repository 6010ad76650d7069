"""What each covariance type asks of the points: distances, scatter, estimate.

The pieces of EM that differ between covariance types (`types.Mixture` has
their shapes; the unit type needs none of them). Second moments are taken about
a component's mean before the step and then shifted: the difference of raw
moments would lose what is small beside the distance from the origin.

Differences are `[K, d, N]`: N is the last axis, as everywhere inside EM.
"""

import jax
import jax.numpy as jnp

from tgmm_jax import linalg

# A variance of less than this many ridges is hardly more than the ridge.
_COLLAPSED = 2.0

# Relative difference below which two covariances count as the same.
_ALIKE = 1e-3


def distances(
  differences: jax.Array, covariances: jax.Array, covariance_type: str
) -> tuple[jax.Array, jax.Array]:
  """Squared Mahalanobis distances and log determinants.

  Args:
    differences: `[K, d, N]`, points less means.
    covariances: of the type.
    covariance_type: one of `gmm.COVARIANCE_TYPES` except "unit".

  Returns:
    Distances `[K, N]` and log determinants `[K]`, `[]` for tied types.
  """
  match covariance_type:
    case "spherical" | "tied_spherical":
      precision = jnp.reshape(1.0 / covariances, (-1, 1))
      squared = jnp.sum(differences**2, axis=1) * precision
      return squared, differences.shape[1] * jnp.log(covariances)
    case "diag":
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

  A matrix that rounding has left without a factor is taken for its diagonal,
  as in `positive_definite`.
  """
  factors = linalg.inverse_cholesky(covariances)
  diagonal = jnp.diagonal(covariances, axis1=-2, axis2=-1)
  identity = jnp.eye(covariances.shape[-1], dtype=covariances.dtype)
  return jnp.where(
    _is_finite(factors), factors, jax.lax.rsqrt(diagonal)[..., None] * identity
  )


def positive_definite(
  covariances: jax.Array, covariance_type: str
) -> jax.Array:
  """The same, where the Cholesky factor exists, else its diagonal."""
  if covariance_type not in ("full", "tied"):
    return covariances
  has_factor = _is_finite(linalg.inverse_cholesky(covariances))
  identity = jnp.eye(covariances.shape[-1], dtype=bool)
  return jnp.where(has_factor | identity, covariances, 0.0)


def _is_finite(factors):
  return jnp.all(jnp.isfinite(factors), axis=(-2, -1), keepdims=True)


def scatter(
  share: jax.Array, differences: jax.Array, covariance_type: str
) -> jax.Array:
  """Sums of squares and products of the differences, shaped as the type.

  Args:
    share: `[K, N]`, responsibility times weight.
    differences: `[K, d, N]`.
    covariance_type: as in `distances`; tied types sum over components.
  """
  match covariance_type:
    case "spherical":
      return jnp.sum(share * jnp.sum(differences**2, axis=1), axis=-1)
    case "tied_spherical":
      return jnp.sum(share * jnp.sum(differences**2, axis=1))
    case "diag":
      return linalg.einsum("kn,kdn->kd", share, differences**2)
  products = linalg.einsum(
    "kin,kjn->kij", differences * share[:, None, :], differences
  )
  return jnp.sum(products, axis=0) if covariance_type == "tied" else products


def estimate(
  scatters: jax.Array,
  mass: jax.Array,
  shifts: jax.Array,
  ridge: jax.Array,
  covariance_type: str,
) -> jax.Array:
  """The most likely covariances, and the ridge on their diagonal.

  Args:
    scatters: from `scatter`, about the means before the step.
    mass: `[K]`, weight of each component's points; positive.
    shifts: `[K, d]`, means after the step less means before.
    ridge: `[d]`, added to the variances.
    covariance_type: as in `distances`.
  """
  match covariance_type:
    case "spherical":
      variances = scatters / mass - jnp.sum(shifts**2, axis=-1)
      return _not_negative(variances) / ridge.size + jnp.mean(ridge)
    case "tied_spherical":
      moved = jnp.sum(mass * jnp.sum(shifts**2, axis=-1))
      variance = (scatters - moved) / jnp.sum(mass)
      return _not_negative(variance) / ridge.size + jnp.mean(ridge)
    case "diag":
      return _not_negative(scatters / mass[:, None] - shifts**2) + ridge
    case "full":
      moved = shifts[:, :, None] * shifts[:, None, :]
      return scatters / mass[:, None, None] - moved + jnp.diag(ridge)
  moved = linalg.matmul((shifts * mass[:, None]).T, shifts)
  return (scatters - moved) / jnp.sum(mass) + jnp.diag(ridge)


def _not_negative(variances):
  """Rounding may take a variance of nothing below zero."""
  return jnp.maximum(variances, 0.0)


def pooled(
  share: jax.Array,
  differences: jax.Array,
  ridge: jax.Array,
  covariance_type: str,
) -> jax.Array:
  """One covariance for all components, from hard or soft shares.

  Where a run of EM starts: no component begins collapsed, however few points
  lie nearest to its mean.

  Args:
    share: `[K, N]`, summing to 1.
    differences: `[K, d, N]`.
    ridge: `[d]`, added to the variances.
    covariance_type: as in `distances`.
  """
  num_components, dim = differences.shape[:2]
  scatters = scatter(share, differences, covariance_type)
  match covariance_type:
    case "tied_spherical":
      return scatters / dim + jnp.mean(ridge)
    case "tied":
      return scatters + jnp.diag(ridge)
    case "spherical":
      one = jnp.sum(scatters) / dim + jnp.mean(ridge)
    case "diag":
      one = jnp.sum(scatters, axis=0) + ridge
    case _:
      one = jnp.sum(scatters, axis=0) + jnp.diag(ridge)
  return jnp.broadcast_to(one, (num_components, *one.shape))


def raise_to(
  covariances: jax.Array, lowest: jax.Array, covariance_type: str
) -> jax.Array:
  """Variances below a floor raised to it: eigenvalues, for full and tied.

  Args:
    covariances: of the type.
    lowest: `[d]`, the floor in each coordinate; for full and tied the
      eigenvalues are those in units of it.
    covariance_type: as in `distances`.
  """
  match covariance_type:
    case "spherical" | "tied_spherical":
      return jnp.maximum(covariances, jnp.mean(lowest))
    case "diag":
      return jnp.maximum(covariances, lowest)
  root = jnp.sqrt(lowest)
  values, vectors = jnp.linalg.eigh(covariances / (root[:, None] * root))
  raised = jnp.maximum(values, 1.0)[..., None, :]
  product = linalg.einsum("...ij,...kj->...ik", vectors * raised, vectors)
  return product * (root[:, None] * root)


def is_collapsed(
  covariances: jax.Array, ridge: jax.Array, covariance_type: str
) -> jax.Array:
  """Whether hardly more than the ridge is left in some direction, `[K]`.

  `[]` for tied types. For full and tied ones the trace of the inverse bounds
  the smallest eigenvalue from below within a factor of d.
  """
  match covariance_type:
    case "spherical" | "tied_spherical":
      return covariances < _COLLAPSED * jnp.mean(ridge)
    case "diag":
      return jnp.any(covariances < _COLLAPSED * ridge, axis=-1)
  inverse = jnp.sum(inverse_factor(covariances) ** 2 * ridge, axis=(-2, -1))
  return ~(inverse <= 1.0 / _COLLAPSED)


def lift(
  covariances: jax.Array, ridge: jax.Array, covariance_type: str
) -> tuple[jax.Array, jax.Array]:
  """Given covariances with the ridge where they are hardly more.

  Args:
    covariances: of the type, not changed where larger than the ridge.
    ridge: `[d]`.
    covariance_type: as in `distances`.

  Returns:
    The covariances, and `[]` whether they were finite, symmetric and positive
    (zero variances are taken).
  """
  match covariance_type:
    case "spherical" | "tied_spherical" | "diag":
      if covariance_type != "diag":
        ridge = jnp.mean(ridge)
      is_usable = jnp.all(covariances >= 0) & jnp.all(covariances < jnp.inf)
      is_small = covariances < ridge
      return covariances + jnp.where(is_small, ridge, 0.0), is_usable
  lifted = covariances + jnp.diag(ridge)
  factors = linalg.inverse_cholesky(lifted)
  is_small = jnp.sum(factors**2 * ridge, axis=(-2, -1)) > 1.0 / _COLLAPSED
  skew = jnp.abs(covariances - jnp.swapaxes(covariances, -2, -1))
  is_usable = jnp.all(jnp.isfinite(factors)) & jnp.all(
    skew <= 1e-3 * jnp.max(jnp.abs(covariances), axis=(-2, -1), keepdims=True)
  )
  return jnp.where(is_small[..., None, None], lifted, covariances), is_usable


def scaled(
  covariances: jax.Array, scale: jax.Array, covariance_type: str
) -> jax.Array:
  """Covariances of points that are multiplied by `scale [d]`.

  For spherical types the scale is the same in all coordinates.
  """
  match covariance_type:
    case "spherical" | "tied_spherical":
      return covariances * scale[0] ** 2
    case "diag":
      return covariances * scale**2
  return covariances * (scale[:, None] * scale)


def mean_variance(covariances: jax.Array, covariance_type: str) -> jax.Array:
  """Variance averaged over coordinates and components, `[]`."""
  if covariance_type in ("full", "tied"):
    covariances = jnp.diagonal(covariances, axis1=-2, axis2=-1)
  return jnp.mean(covariances)


def is_alike(covariances: jax.Array, covariance_type: str) -> jax.Array:
  """Which pairs of components have nearly the same covariance, `[K, K]`.

  `[1, 1]` for tied types.
  """
  if "tied" in covariance_type:
    return jnp.ones((1, 1), bool)
  flat = covariances.reshape(covariances.shape[0], -1)
  change = jnp.max(jnp.abs(flat[:, None] - flat[None]), axis=-1)
  return change < _ALIKE * jnp.max(jnp.abs(flat), axis=-1)
