"""What each covariance type asks of the points: scatter, estimate, floor.

The pieces of EM that differ between covariance types (`types.Mixture` has
their shapes; the unit type needs none of them). Second moments are taken about
a component's mean before the step and then shifted: the difference of raw
moments would lose what is small beside the distance from the origin.

Differences are `[K, d, N]`: N is the last axis, as everywhere inside EM.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types

# A variance of less than this many times what was added to it is hardly more.
_COLLAPSED = 2.0

# Relative difference below which two covariances count as the same.
_ALIKE = 1e-3

# How far rounding may move an eigenvalue that is 1.
_BLUR = 0.2


class Ridge(NamedTuple):
  """What is added to every variance.

  Attributes:
    fixed: `[d]`, the same everywhere.
    share: `[]`, of the variance within components in the same coordinate: how
      far apart components are does not count.
  """

  fixed: jax.Array
  share: jax.Array | float


def positive_definite(
  covariances: jax.Array, *, covariance_type: str
) -> jax.Array:
  """The same, where the Cholesky factor exists.

  Else the variances grow by some roundings, and where that is not enough only
  they stay.
  """
  if gmm.kind_of(covariance_type).structure != "matrix":
    return covariances
  identity = jnp.eye(covariances.shape[-1], dtype=bool)
  growth = jnp.where(identity, 1.0 + gmm.roundings(covariances.dtype), 1.0)
  both = jnp.stack([covariances, covariances * growth])
  factors = linalg.inverse_cholesky(both)
  is_finite = jnp.all(jnp.isfinite(factors), axis=(-2, -1), keepdims=True)
  grown = jnp.where(
    is_finite[1], both[1], jnp.where(identity, covariances, 0.0)
  )
  return jnp.where(is_finite[0], covariances, grown)


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


def kept(
  covariances: jax.Array,
  is_kept: jax.Array,
  others: jax.Array | float,
  kind: gmm.CovarianceType,
) -> jax.Array:
  """Those of some components `[K]`, and others for the rest.

  One that all components share stays as it is.
  """
  if not kind.is_per_component:
    return covariances
  shape = (-1,) + (1,) * (covariances.ndim - 1)
  return jnp.where(is_kept.reshape(shape), covariances, others)


def estimate(
  scatters: jax.Array,
  mass: jax.Array,
  shifts: jax.Array,
  ridge: Ridge,
  *,
  covariance_type: str,
  prior_size: jax.Array | float = 0.0,
) -> jax.Array:
  """The most likely covariances, and the ridge on their diagonal.

  Args:
    scatters: from `scatter`, about the means before the step.
    mass: `[K]`, weight of each component's points; positive.
    shifts: `[K, d]`, means after the step less means before.
    ridge: is added to the variances.
    covariance_type: as in `scatter`.
    prior_size: what the prior counts for, in units of the mass: covariances
      are drawn to the pooled one as if it were that of so many points.
  """
  kind = gmm.kind_of(covariance_type)
  found = _moments(scatters, mass, shifts, kind)
  within = _pooled(found, mass, kind)
  if kind.is_per_component:
    share = prior_size / (mass + prior_size)
    share = share.reshape(-1, *(1,) * (found.ndim - 1))
    found = found + share * (within - found)
  fixed = ridge.fixed
  if kind.structure == "ball":
    return found + jnp.mean(fixed) + ridge.share * within
  if kind.structure == "axes":
    return found + fixed + ridge.share * within
  added = fixed + ridge.share * _diagonal(within)
  return found + added[..., None] * jnp.eye(fixed.size, dtype=fixed.dtype)


def _moments(scatters, mass, shifts, kind):
  """The most likely covariances, about the means after the step."""
  match kind.structure:
    case "ball" if kind.is_per_component:
      variances = scatters / mass - jnp.sum(shifts**2, axis=-1)
      return _not_negative(variances) / shifts.shape[-1]
    case "ball":
      moved = jnp.sum(mass * jnp.sum(shifts**2, axis=-1))
      variance = (scatters - moved) / jnp.sum(mass)
      return _not_negative(variance) / shifts.shape[-1]
    case "axes":
      return _not_negative(scatters / mass[:, None] - shifts**2)
    case "matrix" if kind.is_per_component:
      moved = shifts[:, :, None] * shifts[:, None, :]
      return scatters / mass[:, None, None] - moved
  moved = linalg.matmul((shifts * mass[:, None]).T, shifts)
  return (scatters - moved) / jnp.sum(mass)


def _not_negative(variances):
  """Rounding may take a variance of nothing below zero."""
  return jnp.maximum(variances, 0.0)


def _pooled(covariances, mass, kind):
  """The mean over components, as one covariance."""
  if not kind.is_per_component:
    return covariances
  return jnp.tensordot(
    mass / jnp.sum(mass), covariances, 1, precision=linalg.PRECISION
  )


def _diagonal(matrices):
  return jnp.diagonal(matrices, axis1=-2, axis2=-1)


def pooled(
  scatters: jax.Array,
  num_components: int,
  dim: int,
  ridge: Ridge,
  *,
  covariance_type: str,
) -> jax.Array:
  """One covariance for all components, from hard or soft shares.

  Where a run of EM starts: no component begins collapsed, however few points
  lie nearest to its mean.

  Args:
    scatters: from `scatter`, with weights that sum to 1.
    num_components: K, static.
    dim: d.
    ridge: is added to the variances.
    covariance_type: as in `scatter`.
  """
  kind = gmm.kind_of(covariance_type)
  total = jnp.sum(scatters, axis=0) if kind.is_per_component else scatters
  # The pooled one is that within components.
  match kind.structure:
    case "ball":
      one = (1.0 + ridge.share) * total / dim + jnp.mean(ridge.fixed)
    case "axes":
      one = (1.0 + ridge.share) * total + ridge.fixed
    case _:
      one = total + jnp.diag(ridge.share * _diagonal(total) + ridge.fixed)
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
  mixture: types.Mixture, ridge: Ridge, *, covariance_type: str
) -> jax.Array:
  """Whether hardly more than the ridge is left in some direction, `[K]`.

  `[]` for tied types. A direction in which the points do not vary at all, such
  as a constant column or one that follows from others, does not count: nothing
  can be told from it.

  Args:
    mixture: after a step with this ridge; padding has weight 0.
    ridge: what was added.
    covariance_type: any but "unit".
  """
  kind = gmm.kind_of(covariance_type)
  covariances, weights = mixture.covariances, mixture.weights
  within = _pooled(covariances, weights, kind)
  if kind.structure == "ball":
    added = jnp.mean(ridge.fixed) + ridge.share * within
    return covariances < _COLLAPSED * added
  between = mixture.means - weights @ mixture.means
  between = between * jnp.sqrt(weights)[:, None]
  variance = _diagonal(within) if kind.structure == "matrix" else within
  added = ridge.fixed + ridge.share * variance
  apart = jnp.sum(between**2, axis=0)
  is_varied = apart + variance - added > ridge.fixed
  if kind.structure == "axes":
    is_small = (covariances < _COLLAPSED * added) & is_varied
    return jnp.any(is_small, axis=-1) | ~jnp.any(is_varied)
  # What does not vary tells nothing, and would only loosen the bound.
  added = jnp.where(is_varied, added, 0.0)
  own = _share_added(covariances, added)
  # Of all the points together; however far apart components are, what is
  # within them is seen, if there is something.
  unit = jnp.where(variance > _COLLAPSED * added, variance, apart + variance)
  between = between * jax.lax.rsqrt(jnp.maximum(jnp.sum(apart / unit), 1.0))
  null = _share_added(within + linalg.matmul(between.T, between), added)
  most = 1.0 / _COLLAPSED + null + _BLUR * jnp.sqrt(null)
  return ~(own <= most) | ~jnp.any(is_varied)


def _share_added(covariances, added):
  """What was added as a share of what is there, summed over directions.

  A direction with nothing else counts 1, one with much more counts about 0.
  What rounding may have added counts as added.
  """
  rounding = gmm.roundings(covariances.dtype) * _diagonal(covariances)
  identity = jnp.eye(rounding.shape[-1], dtype=rounding.dtype)
  factors = gmm.inverse_factor(covariances + rounding[..., None] * identity)
  added = (added + rounding)[..., None, :]
  return jnp.sum(factors**2 * added, axis=(-2, -1))


def lift(
  covariances: jax.Array, ridge: jax.Array, *, covariance_type: str
) -> tuple[jax.Array, jax.Array]:
  """Given covariances with the ridge where they are hardly more.

  Args:
    covariances: of the type, not changed where larger than the ridge.
    ridge: `[d]`, the fixed part.
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
  own = ridge + gmm.roundings(covariances.dtype) * _diagonal(covariances)
  lifted = covariances + own[..., None] * jnp.eye(ridge.size, dtype=ridge.dtype)
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
