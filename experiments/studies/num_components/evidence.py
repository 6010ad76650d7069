"""The evidence of a fitted mixture by Laplace's approximation, a criterion.

BIC leaves out what does not grow with the number of points; for some dozens
of points that is much. Here it is kept, for broad priors that are read off the
points. It errs where components overlap so much that the component of a point
is not known, and of points that are no Gaussian mixture it asks for more
components than BIC does.
"""

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types


def evidence(
  points: jax.Array,
  mixture: types.Mixture,
  num_components: jax.Array | int,
  *,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
) -> jax.Array:
  """-2 log of the probability of the points, parameters integrated out, `[]`.

  The likelihood has K! equal maxima, as components have no order; around each
  it is integrated as if the component of every point were known:

    -2 log L - 2 log K!
    - 2 log (K - 1)! - (K - 1) log 2 pi + (K - 1) log n - sum_k log w_k
    + sum_k log |I + n_k P S_k^-1| + (mu_k - m)^T P^-1 (mu_k - m)
    + sum_k c log(1 + n_k)

  with n the total weight, n_k = n w_k, S_k the covariances and c the free
  parameters of each. The priors: weights are uniform on the simplex; means are
  normal about the mean m of the points, with a covariance P that is in every
  direction as wide as the points are in their widest (found after coordinates
  are divided by their spread, but for types whose coordinates have one scale);
  that of a covariance is worth one point, as in BIC (Kass and Wasserman
  1995). Covariances in common are counted once, with n.

  Args:
    points: `[N, d]`; padding may hold anything.
    mixture: the fit, a maximum of the likelihood.
    num_components: K of the problem, may be traced.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]`, or None for ones; weight 2 counts as two points.
  """
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  is_point = sample_weight > 0
  points = jnp.where(is_point[:, None], points, 0.0)
  size, dim = jnp.sum(sample_weight), points.shape[-1]
  is_component = jnp.arange(mixture.weights.shape[-1]) < num_components
  density = gmm.log_density(points, mixture, covariance_type=covariance_type)
  value = -2.0 * jnp.sum(jnp.where(is_point, sample_weight * density, 0.0))

  # A lost component is no gain: its weight counts as that of one point.
  weights = jnp.maximum(mixture.weights, 1.0 / size)
  factorials = jax.scipy.special.gammaln(num_components + 1.0)
  factorials += jax.scipy.special.gammaln(1.0 * num_components)
  value += (num_components - 1) * jnp.log(size / (2.0 * jnp.pi))
  value -= 2.0 * factorials + _sum(jnp.log(weights), is_component)

  centre, prior = _prior(points, sample_weight, covariance_type)
  own_size = size * mixture.weights
  distance = jnp.sum((mixture.means - centre) ** 2 / prior, axis=-1)
  value += _sum(distance, is_component)
  ratio = _log_ratio(mixture, own_size, prior, covariance_type)
  value += _sum(ratio, is_component)
  kind = gmm.kind_of(covariance_type)
  count = kind.num_parameters(1, dim)
  if kind.is_per_component:
    return value + count * _sum(jnp.log1p(own_size), is_component)
  return value + count * jnp.log1p(size)


def _prior(points, sample_weight, covariance_type):
  """Mean `[d]` and variances `[d]` of the means."""
  centre, covariance = linalg.weighted_covariance(
    points, sample_weight=sample_weight
  )
  scales = jnp.ones_like(centre)
  if gmm.kind_of(covariance_type).frame in ("axes", "linear"):
    variances = jnp.diagonal(covariance)
    scales = jnp.sqrt(jnp.where(variances > 0, variances, 1.0))
  scaled = covariance / (scales[:, None] * scales)
  widest = jnp.linalg.eigvalsh(scaled)[-1]
  return centre, jnp.where(widest > 0, widest, 1.0) * scales**2


def _log_ratio(mixture, own_size, prior, covariance_type):
  """`log |I + n_k P S_k^-1|` of each component, `[K]`."""
  if gmm.kind_of(covariance_type).structure == "matrix":
    covariances = mixture.covariances
    wide = covariances + own_size[:, None, None] * jnp.diag(prior)
    return jnp.linalg.slogdet(wide)[1] - jnp.linalg.slogdet(covariances)[1]
  deviations = gmm.standard_deviations(mixture, covariance_type=covariance_type)
  ratio = own_size[:, None] * prior / deviations**2
  return jnp.sum(jnp.log1p(ratio), axis=-1)


def _sum(values, is_component):
  return jnp.sum(jnp.where(is_component, values, 0.0))
