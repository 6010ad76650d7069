"""What each covariance type asks of the points: scatter, estimate, floor.

The pieces of EM that differ between covariance types (`types.Mixture` has
their shapes; the unit type needs none of them). Second moments are taken about
a component's mean before the step and then shifted: the difference of raw
moments would lose what is small beside the distance from the origin.

Differences are `[K, d, N]`: N is the last axis, as everywhere inside EM.
"""

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg

# A variance of less than this many ridges is hardly more than the ridge.
_COLLAPSED = 2.0

# Relative difference below which two covariances count as the same.
_ALIKE = 1e-3


def positive_definite(
  covariances: jax.Array, *, covariance_type: str
) -> jax.Array:
  """The same, where the Cholesky factor exists, else its diagonal."""
  if gmm.kind_of(covariance_type).structure != "matrix":
    return covariances
  factors = linalg.inverse_cholesky(covariances)
  has_factor = jnp.all(jnp.isfinite(factors), axis=(-2, -1), keepdims=True)
  identity = jnp.eye(covariances.shape[-1], dtype=bool)
  return jnp.where(has_factor | identity, covariances, 0.0)


def scatter(
  share: jax.Array, differences: jax.Array, *, covariance_type: str
) -> jax.Array:
  """Sums of squares and products of the differences, shaped as the type.

  Args:
    share: `[K, N]`, responsibility times weight.
    differences: `[K, d, N]`.
    covariance_type: any but "unit"; tied types sum over components.
  """
  kind = gmm.kind_of(covariance_type)
  match kind.structure:
    case "ball":
      weighted = share * jnp.sum(differences**2, axis=1)
      return jnp.sum(weighted, axis=-1 if kind.is_per_component else None)
    case "axes":
      return linalg.einsum("kn,kdn->kd", share, differences**2)
  products = linalg.einsum(
    "kin,kjn->kij", differences * share[:, None, :], differences
  )
  return products if kind.is_per_component else jnp.sum(products, axis=0)


def estimate(
  scatters: jax.Array,
  mass: jax.Array,
  shifts: jax.Array,
  ridge: jax.Array,
  *,
  covariance_type: str,
) -> jax.Array:
  """The most likely covariances, and the ridge on their diagonal.

  Args:
    scatters: from `scatter`, about the means before the step.
    mass: `[K]`, weight of each component's points; positive.
    shifts: `[K, d]`, means after the step less means before.
    ridge: `[d]`, added to the variances.
    covariance_type: as in `scatter`.
  """
  kind = gmm.kind_of(covariance_type)
  match kind.structure:
    case "ball" if kind.is_per_component:
      variances = scatters / mass - jnp.sum(shifts**2, axis=-1)
      return _not_negative(variances) / ridge.size + jnp.mean(ridge)
    case "ball":
      moved = jnp.sum(mass * jnp.sum(shifts**2, axis=-1))
      variance = (scatters - moved) / jnp.sum(mass)
      return _not_negative(variance) / ridge.size + jnp.mean(ridge)
    case "axes":
      return _not_negative(scatters / mass[:, None] - shifts**2) + ridge
    case "matrix" if kind.is_per_component:
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
  *,
  covariance_type: str,
) -> jax.Array:
  """One covariance for all components, from hard or soft shares.

  Where a run of EM starts: no component begins collapsed, however few points
  lie nearest to its mean.

  Args:
    share: `[K, N]`, summing to 1.
    differences: `[K, d, N]`.
    ridge: `[d]`, added to the variances.
    covariance_type: as in `scatter`.
  """
  num_components, dim = differences.shape[:2]
  kind = gmm.kind_of(covariance_type)
  total = scatter(share, differences, covariance_type=covariance_type)
  if kind.is_per_component:
    total = jnp.sum(total, axis=0)
  match kind.structure:
    case "ball":
      one = total / dim + jnp.mean(ridge)
    case "axes":
      one = total + ridge
    case _:
      one = total + jnp.diag(ridge)
  return jnp.broadcast_to(one, kind.shape(num_components, dim))


def raise_to(
  covariances: jax.Array, lowest: jax.Array, *, covariance_type: str
) -> jax.Array:
  """Variances below a floor raised to it: eigenvalues, for full and tied.

  Args:
    covariances: of the type.
    lowest: `[d]`, the floor in each coordinate; for full and tied the
      eigenvalues are those in units of it.
    covariance_type: as in `scatter`.
  """
  match gmm.kind_of(covariance_type).structure:
    case "ball":
      return jnp.maximum(covariances, jnp.mean(lowest))
    case "axes":
      return jnp.maximum(covariances, lowest)
  root = jnp.sqrt(lowest)
  values, vectors = jnp.linalg.eigh(covariances / (root[:, None] * root))
  raised = jnp.maximum(values, 1.0)[..., None, :]
  product = linalg.einsum("...ij,...kj->...ik", vectors * raised, vectors)
  return product * (root[:, None] * root)


def is_collapsed(
  covariances: jax.Array, ridge: jax.Array, *, covariance_type: str
) -> jax.Array:
  """Whether hardly more than the ridge is left in some direction, `[K]`.

  `[]` for tied types. For full and tied ones the trace of the inverse bounds
  the smallest eigenvalue from below within a factor of d.
  """
  match gmm.kind_of(covariance_type).structure:
    case "ball":
      return covariances < _COLLAPSED * jnp.mean(ridge)
    case "axes":
      return jnp.any(covariances < _COLLAPSED * ridge, axis=-1)
  factors = gmm.inverse_factor(covariances)
  inverse = jnp.sum(factors**2 * ridge, axis=(-2, -1))
  return ~(inverse <= 1.0 / _COLLAPSED)


def lift(
  covariances: jax.Array, ridge: jax.Array, *, covariance_type: str
) -> tuple[jax.Array, jax.Array]:
  """Given covariances with the ridge where they are hardly more.

  Args:
    covariances: of the type, not changed where larger than the ridge.
    ridge: `[d]`.
    covariance_type: as in `scatter`.

  Returns:
    The covariances, and `[]` whether they were finite, symmetric and positive
    (zero variances are taken).
  """
  structure = gmm.kind_of(covariance_type).structure
  if structure in ("ball", "axes"):
    if structure == "ball":
      ridge = jnp.mean(ridge)
    is_small = covariances < ridge
    is_usable = jnp.all(linalg.is_variance(covariances))
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
  covariances: jax.Array, scale: jax.Array, *, covariance_type: str
) -> jax.Array:
  """Covariances of points that are multiplied by `scale [d]`.

  For spherical types the scale is the same in all coordinates.
  """
  match gmm.kind_of(covariance_type).structure:
    case "ball":
      return covariances * scale[0] ** 2
    case "axes":
      return covariances * scale**2
  return covariances * (scale[:, None] * scale)


def mean_variance(covariances: jax.Array, *, covariance_type: str) -> jax.Array:
  """Variance averaged over coordinates and components, `[]`."""
  if gmm.kind_of(covariance_type).structure == "matrix":
    covariances = jnp.diagonal(covariances, axis1=-2, axis2=-1)
  return jnp.mean(covariances)


def is_alike(covariances: jax.Array, *, covariance_type: str) -> jax.Array:
  """Which pairs of components have nearly the same covariance, `[K, K]`.

  `[1, 1]` for tied types.
  """
  if not gmm.kind_of(covariance_type).is_per_component:
    return jnp.ones((1, 1), bool)
  flat = covariances.reshape(covariances.shape[0], -1)
  change = jnp.max(jnp.abs(flat[:, None] - flat[None]), axis=-1)
  return change < _ALIKE * jnp.max(jnp.abs(flat), axis=-1)
