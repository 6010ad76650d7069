"""A conjugate prior for means and covariances: the mode of the posterior.

Each component has, independently, the prior of Fraley and Raftery 2007
(Bayesian regularization for normal mixture estimation and model-based
clustering, section 3): given its covariance `S` the mean is normal about `mean`
with covariance `S / mean_size`, and `S` is inverse Wishart with `size` degrees
of freedom and `scale` (inverse gamma for one variance, or for each coordinate).
The M-step takes the mode of both together (their table 3), so EM climbs to a
maximum of likelihood times prior, and no variance can come to nothing.

Units: sizes are numbers of points, `scale` is squared units of the points.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import covariance as covariance_lib
from tgmm_jax.solvers import problem as problem_lib


class Prior(NamedTuple):
  """The same for all components of a problem.

  Attributes:
    mean: `[d]`.
    mean_size: `[]`, how many points the mean counts for.
    size: `[]`, degrees of freedom.
    scale: shaped as one covariance of the type: `[d, d]`, `[d]` or `[]`; None
      for unit covariance.
  """

  mean: jax.Array
  mean_size: jax.Array | float
  size: jax.Array | float
  scale: jax.Array | None


def fraley_raftery(
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  covariance_type: str,
  sample_weight: jax.Array | None = None,
) -> Prior:
  """The default of Fraley and Raftery 2007, as in mclust's `defaultPrior`.

  The mean of the points counts for a hundredth of a point; the covariance of
  the points over `K ** (2 / d)`, as if each component had its share of their
  volume, has d + 2 degrees of freedom. For "diag" each coordinate has its own
  scale (mclust: the mean over coordinates, which depends on their units).

  Args:
    points: `[N, d]`.
    num_components: K.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]`, or None for ones.
  """
  points = jnp.asarray(points)
  dim, kind = points.shape[-1], gmm.kind_of(covariance_type)
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  points = jnp.where((sample_weight > 0)[:, None], points, 0.0)
  mean = linalg.weighted_mean(points, sample_weight=sample_weight)
  if kind.is_known:
    return Prior(mean, 0.01, dim + 2.0, None)
  gaps = jnp.where((sample_weight > 0)[:, None], points - mean, 0.0)
  # Of weights that are counts, as in R's `var`.
  share = sample_weight / (jnp.sum(sample_weight) - 1.0)
  share = share * num_components ** (-2.0 / dim)
  match kind.structure:
    case "ball":
      scale = jnp.mean(share @ gaps**2)
    case "axes":
      scale = share @ gaps**2
    case _:
      scale = linalg.matmul((gaps * share[:, None]).T, gaps)
  return Prior(mean, 0.01, dim + 2.0, scale)


def in_frame(
  problem: problem_lib.PreparedProblem, prior: Prior, *, covariance_type: str
) -> tuple[Prior, jax.Array]:
  """The prior in the coordinates of the frame, and whether it can be used."""
  dtype = problem.centre.dtype
  prior = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), prior)
  is_usable = jnp.all(jnp.isfinite(prior.mean))
  for size in (prior.mean_size, prior.size):
    is_usable &= jnp.isfinite(size) & (size >= 0)
  scale = prior.scale
  if scale is not None:
    variances = scale
    if gmm.kind_of(covariance_type).structure == "matrix":
      variances = jnp.diagonal(scale)
    is_usable &= jnp.all(jnp.isfinite(scale)) & jnp.all(variances >= 0)
    scale = covariance_lib.scaled(
      scale, 1.0 / problem.scale, covariance_type=covariance_type
    )
  mean = problem_lib.to_frame(problem, prior.mean[None])[0]
  framed = Prior(mean, prior.mean_size, prior.size, scale)
  blank = jax.tree.map(jnp.zeros_like, framed)
  return jax.tree.map(
    lambda own, other: jnp.where(is_usable, own, other), framed, blank
  ), is_usable


class Sums(NamedTuple):
  """What an M-step divides.

  Attributes:
    mass: `[K]`.
    first: `[K, d]`, of the differences from the means, or of the points with
      unit covariance.
    scatter: shaped as the covariances, about the means; None for unit.
  """

  mass: jax.Array
  first: jax.Array
  scatter: jax.Array | None


def joined(
  sums: Sums,
  mixture: types.Mixture,
  prior: Prior,
  num_points: jax.Array,
  *,
  covariance_type: str,
) -> Sums:
  """Sums of which the plain M-step makes the posterior's mode.

  Means are drawn to the prior's by as many points there. The scatter is such
  that, divided by these, it is what the mode divides by points and degrees of
  freedom.

  Args:
    sums: from the E-step; the mass sums to 1.
    mixture: of the E-step, in the frame.
    prior: in the frame.
    num_points: `[]`, how many points the mass is of.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  kind, dim = gmm.kind_of(covariance_type), mixture.means.shape[1]
  is_present = mixture.weights > 0
  own = jnp.where(is_present, prior.mean_size / num_points, 0.0)
  mass = sums.mass + own
  if kind.is_known:
    return Sums(mass, sums.first + own[:, None] * prior.mean, None)
  gaps = prior.mean - mixture.means
  first = sums.first + own[:, None] * gaps
  safe = jnp.where(mass > 0, mass, 1.0)
  moved = _squares(mass, first / safe[:, None], kind)
  added = sums.scatter + _squares(own, gaps, kind) - moved
  added = added + prior.scale / num_points
  counted = _counts(kind, dim, prior, is_present) / num_points
  if kind.is_per_component:
    factor = mass / (sums.mass + counted)
    factor = factor.reshape(-1, *(1,) * (added.ndim - 1))
  else:
    factor = jnp.sum(mass) / (jnp.sum(sums.mass) + counted)
  return Sums(mass, first, added * factor + moved)


def _counts(kind, dim, prior, is_present):
  """What the mode divides by besides the points, `[]`.

  One for the mean of each component that shares the covariance, and the prior's
  own, in numbers of d-dimensional points.
  """
  of_means = 1.0 if kind.is_per_component else jnp.sum(is_present)
  match kind.structure:
    case "ball":
      return of_means + (prior.size + 2.0) / dim
    case "axes":
      return of_means + prior.size + 2.0
  return of_means + prior.size + dim + 1.0


def _squares(share, differences, kind):
  """`covariance.scatter` of one difference `[K, d]` for each component."""
  match kind.structure:
    case "ball":
      squares = share * jnp.sum(differences**2, axis=-1)
    case "axes":
      squares = share[:, None] * differences**2
    case _:
      outer = differences[:, :, None] * differences[:, None, :]
      squares = share[:, None, None] * outer
  return squares if kind.is_per_component else jnp.sum(squares, axis=0)


def log_density(
  mixture: types.Mixture, prior: Prior, *, covariance_type: str
) -> jax.Array:
  """Log density of the prior at a mixture, `[]`, but for its constant.

  Args:
    mixture: in the coordinates of the prior.
    prior: the prior.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  kind, dim = gmm.kind_of(covariance_type), mixture.means.shape[1]
  is_present = mixture.weights > 0
  measured = gmm.metric(mixture, covariance_type=covariance_type)
  gaps = (prior.mean - mixture.means)[:, :, None]
  squared = gmm.squared_distances(
    gaps, measured, covariance_type=covariance_type
  )
  values = prior.mean_size * squared[:, 0]
  total = jnp.sum(jnp.where(is_present, values, 0.0))
  if kind.is_known:
    return -0.5 * total
  of_scale = _counts(kind, dim, prior, is_present) * measured.log_det
  of_scale = of_scale + _trace(measured.whitening, prior.scale, kind)
  if kind.is_per_component:
    of_scale = jnp.sum(jnp.where(is_present, of_scale, 0.0))
  return -0.5 * (total + of_scale)


def _trace(whitening, scale, kind):
  """Of the scale in units of each covariance, `[K]` or `[]`."""
  match kind.structure:
    case "ball":
      values = scale * whitening[:, 0, 0]
    case "axes":
      values = jnp.sum(scale * whitening[:, :, 0], axis=-1)
    case _:
      values = jnp.sum(whitening @ scale * whitening, axis=(-2, -1))
  return values if kind.is_per_component else values[0]
