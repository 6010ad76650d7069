"""Mixtures of some of the coordinates: all the others left out, or known.

Both are mixtures of the same covariance type. Which coordinates are kept or
given is static: a tuple of indices.
"""

import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types
from tgmm_jax.gmm import covariance_types, densities, distances, padding

# What rounding leaves of a variance that the given coordinates explain whole,
# in roundings of the variance before.
_NUM_ROUNDINGS = 10.0


class Moments(NamedTuple):
  """What a distribution is without its shape.

  Attributes:
    mean: `[r]`, of many distributions `[N, r]`.
    standard_deviation: along each coordinate, shaped as the mean.
  """

  mean: jax.Array
  standard_deviation: jax.Array


def index_of(
  argument: str, given: int | Sequence[int], dim: int
) -> tuple[int, ...]:
  """Indices of coordinates as a tuple.

  Args:
    argument: its name, for the message.
    given: one or several, each once, from 0 to d - 1.
    dim: d.

  Raises:
    ValueError: for anything else.
  """
  try:
    if isinstance(given, str | bytes):
      raise TypeError
    index = tuple(
      map(operator.index, given if hasattr(given, "__iter__") else (given,))
    )
  except TypeError:
    index = ()
  is_known = all(0 <= own < dim for own in index)
  if not index or not is_known or len(set(index)) < len(index):
    raise ValueError(
      f"{argument} is {given!r}, takes indices from 0 to {dim - 1}, each once"
    )
  return index


def marginal(
  mixture: types.Mixture,
  keep: int | Sequence[int],
  *,
  covariance_type: str = "unit",
) -> types.Mixture:
  """The mixture of some of the coordinates, whatever the others are.

  It has the covariance type of the whole.

  Args:
    mixture: of d coordinates.
    keep: r indices, static; their order is that of the result.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  kind = covariance_types.kind_of(covariance_type)
  keep = jnp.array(index_of("keep", keep, mixture.means.shape[-1]))
  covariances = mixture.covariances
  match kind.structure:
    case "axes":
      covariances = jnp.asarray(covariances)[..., keep]
    case "matrix":
      covariances = _part(jnp.asarray(covariances), keep, keep)
  means = jnp.asarray(mixture.means)[:, keep]
  return types.Mixture(mixture.weights, means, covariances)


def condition(
  mixture: types.Mixture,
  values: jax.Array,
  given: int | Sequence[int],
  *,
  covariance_type: str = "unit",
) -> types.Mixture:
  """The mixture of the other coordinates where some are known.

  It has the covariance type of the whole: one covariance for all stays one,
  and where coordinates are independent within components (all types but "full"
  and "tied") only the weights change. Components of weight 0 stay padding.

  Args:
    mixture: of d coordinates.
    values: `[g]`, finite; however far away, weights are numbers that sum to 1.
    given: g indices, static, less than d of them; the others keep their order.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  linalg.warn_if_rounded(mixture.means, mixture.covariances)
  mixture = padding.harmless(mixture, covariance_type=covariance_type)
  given, rest = _divided(mixture, given)
  values = jnp.asarray(values, mixture.means.dtype)
  if values.shape != (len(given),):
    raise ValueError(
      f"values has shape {values.shape}, takes ({len(given)},) as given"
    )
  rest_mixture = marginal(mixture, rest, covariance_type=covariance_type)
  differences, unit = _scaled(values - mixture.means[:, jnp.array(given)])
  weights = _weights(
    mixture, differences, unit, given, covariance_type=covariance_type
  )
  if covariance_types.kind_of(covariance_type).structure != "matrix":
    return rest_mixture._replace(weights=weights)
  slopes, covariances = _explained(mixture.covariances, given, rest)
  shifts = linalg.einsum("...gr,...g->...r", slopes, differences) * unit
  # The weighted sum of such means is within the range of the dtype as well.
  most = 0.25 * jnp.finfo(shifts.dtype).max
  means = jnp.clip(rest_mixture.means + shifts, -most, most)
  means = jnp.where(mixture.weights[:, None] > 0, means, 0.0)
  return types.Mixture(weights, means, covariances)


def moments(
  mixture: types.Mixture, *, covariance_type: str = "unit"
) -> Moments:
  """Mean `[d]` of a mixture and standard deviation along each coordinate.

  Args:
    mixture: the parameters.
    covariance_type: one of `COVARIANCE_TYPES`.
  """
  weights = mixture.weights[:, None]
  deviations = covariance_types.standard_deviations(
    mixture, covariance_type=covariance_type
  )
  mean = jnp.sum(weights * mixture.means, axis=0)
  # As lengths, or squares of what is far away would leave the range.
  is_present = weights > 0
  roots = jnp.where(is_present, jnp.sqrt(jnp.where(is_present, weights, 1)), 0)
  parts = jnp.concatenate(
    [roots * (mixture.means - mean), roots * deviations], axis=0
  )
  unit = jax.lax.stop_gradient(jnp.max(jnp.abs(parts), axis=0))
  unit = jnp.where(unit > 0, unit, 1.0)
  return Moments(mean, unit * jnp.sqrt(jnp.sum((parts / unit) ** 2, axis=0)))


def regress(
  values: jax.Array,
  mixture: types.Mixture,
  given: int | Sequence[int],
  *,
  covariance_type: str = "unit",
) -> Moments:
  """Mean and deviation of the other coordinates at each of many points.

  Points are taken a block at a time: only they and the answer grow with N.

  Args:
    values: `[N, g]`, the coordinates that are known.
    mixture: of d coordinates.
    given: g indices, static; see `condition`.
    covariance_type: one of `COVARIANCE_TYPES`.

  Returns:
    `Moments` of `[N, d - g]`.
  """

  def of_one(row):
    own = condition(mixture, row, given, covariance_type=covariance_type)
    return moments(own, covariance_type=covariance_type)

  return densities.in_blocks(jax.vmap(of_one), values, mixture)


def _divided(mixture, given):
  """Indices that are given, and the others."""
  dim = mixture.means.shape[-1]
  given = index_of("given", given, dim)
  rest = tuple(own for own in range(dim) if own not in given)
  if not rest:
    raise ValueError(f"given is {given}, takes less than {dim} indices")
  return given, rest


def _part(matrices, rows, columns):
  return matrices[..., rows[:, None], columns]


def _scaled(differences):
  """Differences in a unit in which no square of theirs overflows.

  The unit is a power of two: nothing is rounded.
  """
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(differences)))
  _, exponent = jnp.frexp(largest)
  # One by it must be a normal number as well.
  most = jnp.finfo(largest.dtype).maxexp - 4
  unit = jnp.ldexp(jnp.ones_like(largest), jnp.clip(exponent - 1, 0, most))
  return differences / unit, unit


def _weights(mixture, differences, unit, given, *, covariance_type):
  """Probabilities of the components given the differences times the unit."""
  part = marginal(mixture, given, covariance_type=covariance_type)
  measured = distances.metric(part, covariance_type=covariance_type)
  squared = distances.squared_distances(
    differences[:, :, None], measured, covariance_type=covariance_type
  )
  # The minimum keeps a product from being joined with the difference below
  # without being rounded: the nearest would not be the nearest of itself.
  squared = jnp.minimum(squared[:, 0], jnp.finfo(squared.dtype).max)
  is_present = mixture.weights > 0
  # From the nearest component; the unit's square may be out of range.
  least = jnp.min(jnp.where(is_present, squared, jnp.inf))
  square = jnp.minimum(unit**2, jnp.finfo(unit.dtype).max)
  further = square * (squared - jax.lax.stop_gradient(least))
  logits = densities.log_weights(mixture) - 0.5 * (measured.log_det + further)
  logits = jnp.where(is_present, logits, -jnp.inf)
  return jax.nn.softmax(logits)


def _explained(covariances, given, rest):
  """Slopes `[..., g, r]` on what is given, and covariances of what is left."""
  given, rest = jnp.array(given), jnp.array(rest)
  factors = distances.inverse_factor(_part(covariances, given, given))
  loadings = linalg.matmul(factors, _part(covariances, given, rest))
  slopes = linalg.matmul(jnp.swapaxes(factors, -1, -2), loadings)
  before = _part(covariances, rest, rest)
  left = before - linalg.matmul(jnp.swapaxes(loadings, -1, -2), loadings)
  diagonal = jnp.diagonal(before, axis1=-2, axis2=-1)
  least = _NUM_ROUNDINGS * jnp.finfo(before.dtype).eps * diagonal
  identity = jnp.eye(len(rest), dtype=bool)
  return slopes, jnp.where(
    identity, jnp.maximum(left, least[..., None, :]), left
  )
