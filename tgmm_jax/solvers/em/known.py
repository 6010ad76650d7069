"""What is known of a mixture and stays: parameters that EM leaves as given.

The M-step maximises over the others (a generalised EM): covariances are those
about a mean that stays, and the weights that may change share what is left.
The frame rounds means, so the result takes what stays from the given start.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.solvers import problem as problem_lib

# How far fixed weights may sum to another number than they should, in square
# roots of a rounding: what is left of 1 is shared by the others.
_NUM_ROOTS = 4.0


class Fixed(NamedTuple):
  """Which parameters stay as they are given; None for none of a kind.

  Attributes:
    weights: `[K]` bool; weights that stay must sum to at most 1, and to 1
      where all stay.
    means: `[K]` bool.
    covariances: `[K]` bool, `[]` where all components have one covariance.
  """

  weights: jax.Array | None = None
  means: jax.Array | None = None
  covariances: jax.Array | None = None


def masks(
  fixed: Any,
  given: types.Mixture | None,
  shape: tuple[int, ...],
  *,
  covariance_type: str,
) -> Fixed | None:
  """What a caller says stays, as masks of the shape; None for nothing.

  Args:
    fixed: a `Fixed` or None.
    given: the start, or None where it is drawn.
    shape: `[K]`, with the axis B of a batch.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.

  Raises:
    ValueError: for masks of another shape or dtype, and for parameters that
      are not given.
  """
  if fixed is None:
    return None
  if not isinstance(fixed, Fixed):
    raise ValueError(f"fixed is {fixed!r}, takes an em.Fixed or None")
  if given is None:
    raise ValueError(
      "fixed is given with a drawn start, takes a Mixture as init"
    )
  kind = gmm.kind_of(covariance_type)
  if fixed.covariances is not None and (
    kind.is_known or given.covariances is None
  ):
    raise ValueError(
      "fixed has covariances, takes None where init has none, with"
      f" covariance_type {covariance_type!r}"
    )
  found = []
  for name, mask in zip(Fixed._fields, fixed, strict=True):
    own = shape
    if name == "covariances" and not kind.is_per_component:
      own = shape[:-1]
    found.append(_mask(name, mask, own, shape))
  return None if all(mask is None for mask in found) else Fixed(*found)


def _mask(name, mask, own, shape):
  if mask is None or isinstance(mask, jax.core.Tracer):
    return mask
  try:
    mask = np.asarray(mask)
    is_right = mask.dtype == np.bool_ and mask.shape in (
      own,
      own[len(shape) - 1 :],
    )
  except ValueError:
    is_right = False
  if not is_right:
    raise ValueError(f"fixed has {name} {mask!r}, takes bools of shape {own}")
  return np.broadcast_to(mask, own)


def hold_start(
  problem: problem_lib.PreparedProblem,
  mixture: types.Mixture,
  given: types.Mixture,
  fixed: Fixed,
) -> tuple[problem_lib.PreparedProblem, types.Mixture, Fixed]:
  """A start whose fixed weights are the given ones.

  Args:
    problem: is marked where fixed weights can be no shares.
    mixture: the start in the frame, weights divided by their sum.
    given: as the caller gave it.
    fixed: the masks.

  Returns:
    The problem, the start, and the masks without padding.
  """
  is_component = jnp.arange(mixture.weights.size) < problem.num_components
  fixed = jax.tree.map(
    lambda mask: mask & is_component if jnp.ndim(mask) else mask, fixed
  )
  if fixed.weights is None:
    return problem, mixture, fixed
  is_free = is_component & ~fixed.weights
  own = given.weights.astype(mixture.weights.dtype)
  held = jnp.where(fixed.weights, own, 0.0)
  left = 1.0 - jnp.sum(held)
  tolerance = _NUM_ROOTS * jnp.sqrt(jnp.finfo(own.dtype).eps)
  is_right = jnp.all(held >= 0) & (left >= -tolerance)
  is_right &= jnp.any(is_free) | (left <= tolerance)
  free = _shares(mixture.weights, jnp.maximum(left, 0.0), None, is_free)
  weights = jnp.where(is_right, held + free, mixture.weights)
  problem = problem._replace(is_valid=problem.is_valid & is_right)
  return problem, mixture._replace(weights=weights), fixed


def without_shifts(
  sums: jax.Array, fixed: Fixed, *, covariance_type: str
) -> jax.Array:
  """Sums of an E-step with which the M-step leaves means where they stay.

  Second moments then are those about them, too. With unit covariance the sums
  are not those of differences, and `held` does it alone.

  Args:
    sums: `[K, d]`, `steps.Statistics.sums`.
    fixed: the masks.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  if fixed.means is None or gmm.kind_of(covariance_type).is_known:
    return sums
  return jnp.where(fixed.means[:, None], 0.0, sums)


def held(
  mixture: types.Mixture,
  before: types.Mixture,
  fixed: Fixed | None,
  min_weight: jax.Array | None,
) -> types.Mixture:
  """What the M-step found, but for what stays.

  Args:
    mixture: from the M-step.
    before: the parameters before it, in which what stays is as it was given.
    fixed: the masks, or None.
    min_weight: the least weight of a component, or None.
  """
  fixed = Fixed() if fixed is None else fixed
  weights, means, covariances = mixture
  if fixed.weights is not None or min_weight is not None:
    is_held = fixed.weights
    if is_held is None:
      is_held = jnp.zeros(weights.shape, bool)
    own = jnp.where(is_held, before.weights, 0.0)
    left = jnp.maximum(1.0 - jnp.sum(own), 0.0)
    # A component of weight 0 stays without.
    is_free = ~is_held & (before.weights > 0)
    weights = own + _shares(weights, left, min_weight, is_free)
  if fixed.means is not None:
    means = jnp.where(fixed.means[:, None], before.means, means)
  if fixed.covariances is not None:
    covariances = jnp.where(
      _leading(fixed.covariances, covariances), before.covariances, covariances
    )
  return types.Mixture(weights, means, covariances)


def _leading(mask, array):
  """A mask of the first axes, to broadcast over the others."""
  missing = array.ndim - jnp.ndim(mask)
  return jnp.reshape(mask, jnp.shape(mask) + (1,) * missing)


def _shares(mass, left, lowest, is_free):
  """The weights `[K]` that maximise `sum mass log weight`, 0 where not free.

  They sum to what is left, and none is below the lowest. Where they are in
  proportion to the mass some may be: these are put there and the others share
  the rest, until none is below.
  """
  if lowest is None:
    total = jnp.sum(jnp.where(is_free, mass, 0.0))
    factor = left / jnp.where(total > 0, total, 1.0)
    return jnp.where(is_free, mass * factor, 0.0)
  count = jnp.maximum(jnp.sum(is_free), 1)
  lowest = jnp.minimum(jnp.asarray(lowest, mass.dtype), left / count)

  def shared(is_low):
    rest = left - lowest * jnp.sum(is_low)
    return jnp.where(
      is_low, lowest, _shares(mass, rest, None, is_free & ~is_low)
    )

  def raise_some(_, is_low):
    return is_low | (is_free & (shared(is_low) < lowest))

  is_low = jnp.zeros(mass.shape, bool)
  return shared(jax.lax.fori_loop(0, mass.size, raise_some, is_low))


def restored(
  result: types.SolverResult,
  given: types.Mixture | None,
  fixed: Fixed | None,
  num_components: jax.Array | int,
) -> types.SolverResult:
  """A result in which what stays is bit for bit what was given.

  Args:
    result: of one problem.
    given: the start as the caller gave it.
    fixed: the masks, or None.
    num_components: K of the problem; padding stays 0.
  """
  if fixed is None:
    return result
  is_component = jnp.arange(result.mixture.weights.size) < num_components
  is_valid = result.status != types.Status.INVALID_INPUT
  found = []
  for mask, own, other in zip(fixed, given, result.mixture, strict=True):
    if mask is None or other is None:
      found.append(other)
      continue
    mask = (mask & is_component) if jnp.ndim(mask) else jnp.asarray(mask)
    mask = _leading(mask & is_valid, other)
    found.append(jnp.where(mask, jnp.asarray(own, other.dtype), other))
  return result._replace(mixture=types.Mixture(*found))
