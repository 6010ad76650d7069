"""How sure the parameters of a fitted mixture are: the record, the intervals.

`em.bootstrap` (`replicates`) and `em.information` (`delta`) fill it in.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.solvers import covariance as covariance_lib
from tgmm_jax.solvers import problem as problem_lib

# Of fewer degrees of freedom the series for Student's t is no good.
_LEAST_FREEDOM = 3.0


class Uncertainty(NamedTuple):
  """How far the parameters of a fit may be from those of the population.

  Mixtures here are three arrays shaped as the parameters, not distributions.
  Padded components have 0 everywhere. Where nothing can be said standard
  errors are inf and intervals reach from -inf to inf.

  Attributes:
    standard_errors: of weights, means and covariances.
    lower: ends of the intervals, each parameter for itself.
    upper: the other ends.
    mean_covariances: `[K, d, d]`, covariance of the error of each mean.
    is_valid: `[]` bool, whether there is anything to be said.
    draws: mixtures `[R, ...]` of the bootstrap, components in the order of the
      fit; None of the information.
    status: `[R]` int32, the `types.Status` of each draw, or None.
    num_left_out: `[]` int32, how many draws are degenerate: they count for
      nothing.
    distance: `[]`, of the information: how far the fit is from the maximum of
      the likelihood nearby, in standard errors; None of the bootstrap. Above
      0.1 EM was stopped early (or regularised), and what is said here is of
      another place.
  """

  standard_errors: types.Mixture
  lower: types.Mixture
  upper: types.Mixture
  mean_covariances: jax.Array
  is_valid: jax.Array
  draws: types.Mixture | None = None
  status: jax.Array | None = None
  num_left_out: jax.Array | int = 0
  distance: jax.Array | None = None


def check(
  mixture: types.Mixture,
  level: jax.Array | float,
  *,
  covariance_type: str,
) -> None:
  """Refuses what no data could make right.

  Raises:
    ValueError: a fit without covariances where they are estimated; a level
      that is no probability.
  """
  is_known = gmm.kind_of(covariance_type).is_known
  if mixture.covariances is None and not is_known:
    raise ValueError(
      "mixture has covariances None, takes those of covariance_type"
      f" {covariance_type!r}"
    )
  is_traced = isinstance(level, jax.core.Tracer)
  if not is_traced and not (np.ndim(level) == 0 and 0.0 < level < 1.0):
    raise ValueError(f"level is {level!r}, takes a number between 0 and 1")


def widths(
  mixture: types.Mixture,
  level: jax.Array | float,
  num_points: jax.Array | None = None,
  *,
  covariance_type: str,
) -> types.Mixture:
  """How many standard errors an interval reaches to each side.

  Those of the normal distribution; or, where standard errors are themselves
  estimated without a model from n points, of Student's t, widened by the root
  of (n + 1) / (n - 1) (the expanded percentiles of Hesterberg 2015, here for
  Dirichlet weights). Its degrees of freedom are 2 V^2 / Var(V) for the estimate
  V of the squared error (Satterthwaite 1946), which for points of normal
  distributions are n for a mean, n / 7 for a variance, and n d / (d + 6) for
  the one variance of d coordinates. n is the number of points of the component,
  or of all for weights and for covariances in common.

  Args:
    mixture: the fit.
    level: the probability that an interval is to hold.
    num_points: `[]`, of all components, or None for normal widths.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.

  Returns:
    Shaped as the mixture, or so that it broadcasts to that.
  """
  dtype = mixture.means.dtype
  normal = jax.scipy.special.ndtri(0.5 + 0.5 * jnp.asarray(level, dtype))
  if num_points is None:
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, normal), mixture)
  kind, dim = gmm.kind_of(covariance_type), mixture.means.shape[-1]
  own = num_points * mixture.weights
  covariances = mixture.covariances
  if covariances is not None:
    share = dim / (dim + 6.0) if kind.structure == "ball" else 1.0 / 7.0
    if kind.is_per_component:
      number = own.reshape(-1, *(1,) * (covariances.ndim - 1))
    else:
      number = jnp.full_like(covariances, num_points)
    covariances = _wide(normal, number, share * number)
  number = jnp.full_like(own, num_points)
  return types.Mixture(
    _wide(normal, number, number), _wide(normal, own, own)[:, None], covariances
  )


def _wide(normal, number, freedom):
  """Quantiles of Student's t, stretched; by Abramowitz and Stegun, 26.7.5."""
  number = jnp.maximum(number, 2.0)
  inverse = 0.25 / jnp.maximum(freedom, _LEAST_FREEDOM)
  square = normal**2
  terms = (
    1.0,
    square + 1.0,
    (5.0 * square**2 + 16.0 * square + 3.0) / 6.0,
    (3.0 * square**3 + 19.0 * square**2 + 17.0 * square - 15.0) / 6.0,
  )
  found = normal * sum(term * inverse**i for i, term in enumerate(terms))
  return found * jnp.sqrt((number + 1.0) / (number - 1.0))


def normal_interval(
  mixture: types.Mixture,
  standard_errors: types.Mixture,
  widths: types.Mixture,
  *,
  covariance_type: str,
) -> tuple[types.Mixture, types.Mixture]:
  """Intervals from standard errors.

  About the means and the products of coordinates; about the logarithm of a
  variance and the log odds of a weight, whose errors are less skew there (and
  whose intervals do not leave their range).

  Args:
    mixture: the fit.
    standard_errors: of its parameters.
    widths: see `widths`.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  spread = jax.tree.map(jnp.multiply, widths, standard_errors)
  weights, means, covariances = mixture
  is_inside = (weights > 0) & (weights < 1)
  inside = jnp.where(is_inside, weights, 0.5)
  odds = jnp.log(inside) - jnp.log1p(-inside)
  change = spread.weights / (inside * (1.0 - inside))

  def ends(sign):
    moved = jax.nn.sigmoid(odds + sign * change)
    own = None
    if covariances is not None:
      own = _moved(covariances, sign * spread.covariances, covariance_type)
    return types.Mixture(
      jnp.where(is_inside, moved, weights), means + sign * spread.means, own
    )

  return ends(-1.0), ends(1.0)


def _moved(covariances, change, covariance_type):
  """Variances by a factor, products of coordinates by a term."""
  is_variance = jnp.ones((), bool)
  if gmm.kind_of(covariance_type).structure == "matrix":
    is_variance = jnp.eye(covariances.shape[-1], dtype=bool)
  variances = jnp.where(is_variance & (covariances > 0), covariances, 1.0)
  return jnp.where(
    is_variance, covariances * jnp.exp(change / variances), covariances + change
  )


def from_frame(
  problem: problem_lib.PreparedProblem,
  found: Uncertainty,
  *,
  covariance_type: str,
) -> Uncertainty:
  """What was found in the frame of a problem, for its points.

  Args:
    problem: its scale and centre are used, and which components are padding.
    found: with the draws, if any, already those of the points.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  kind, scale = gmm.kind_of(covariance_type), problem.scale
  size = found.standard_errors.weights.size
  is_component = jnp.arange(size) < problem.num_components

  def masked(leaf):
    shape = (-1, *(1,) * (leaf.ndim - 1))
    return jnp.where(is_component.reshape(shape), leaf, 0.0)

  def converted(mixture, means, unknown):
    covariances = None
    if not kind.is_known:
      covariances = covariance_lib.scaled(
        mixture.covariances, scale, covariance_type=covariance_type
      )
    mixture = mixture._replace(means=means, covariances=covariances)
    mixture = jax.tree.map(
      lambda leaf: jnp.where(found.is_valid, leaf, unknown), mixture
    )
    if kind.is_per_component:
      return jax.tree.map(masked, mixture)
    return mixture._replace(
      weights=masked(mixture.weights), means=masked(mixture.means)
    )

  def end(mixture, unknown):
    means = problem_lib.from_frame(problem, mixture.means)
    return converted(mixture, means, unknown)

  errors = found.standard_errors
  spread = found.mean_covariances * (scale[:, None] * scale)
  return found._replace(
    standard_errors=converted(errors, errors.means * scale, jnp.inf),
    lower=end(found.lower, -jnp.inf),
    upper=end(found.upper, jnp.inf),
    mean_covariances=masked(
      jnp.where(
        found.is_valid, spread, jnp.inf * jnp.eye(scale.size, dtype=bool)
      )
    ),
  )
