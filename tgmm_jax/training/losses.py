"""Training losses of one problem.

Each takes a network's prediction after one stage, the true mixture in the
same coordinates and the problem, and returns a scalar. Means count by the
squared error per component and coordinate of the data, as in
`metrics.l2_error`; weights by cross-entropy; scales by squared error. Where
the unit of the points means nothing ("tied_spherical", "full") means count in
true standard deviations, and scales by their logarithms.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, metrics, types
from tgmm_jax.models import prediction as prediction_lib

# `(prediction, target, problem, *, covariance_type) -> []`.
Loss = Callable[..., jax.Array]

# Added to the true variances, of whitened points, by which means count: tight
# components would outweigh all others.
_VARIANCE_SOFTENING = 0.05


def sorted_order(
  prediction: prediction_lib.Prediction,
  target: types.Mixture,
  problem: prediction_lib.NetworkInput,
  *,
  covariance_type: str = "unit",
) -> jax.Array:
  """The TGMM paper's loss (Eq. 2): components in the order of their weights.

  128 points cannot tell the order of nearly equal weights, so it has a floor:
  who knows the means exactly does best to average them over the orders that
  may be (`evaluation.sorted_loss`, which has the error).
  """
  return _regression(
    prediction, target, problem, covariance_type=covariance_type
  )


def matched(
  prediction: prediction_lib.Prediction,
  target: types.Mixture,
  problem: prediction_lib.NetworkInput,
  *,
  covariance_type: str = "unit",
) -> jax.Array:
  """The same with components in the order that suits the means best."""
  cost = metrics.mean_distances(prediction.means, target.means)
  permutation = metrics.align(
    jax.lax.stop_gradient(cost), problem.num_components
  )
  covariances = target.covariances
  if gmm.kind_of(covariance_type).is_per_component:
    covariances = covariances[permutation]
  target = types.Mixture(
    target.weights[permutation], target.means[permutation], covariances
  )
  return _regression(
    prediction, target, problem, covariance_type=covariance_type
  )


def likelihood(
  prediction: prediction_lib.Prediction,
  target: types.Mixture,
  problem: prediction_lib.NetworkInput,
  *,
  covariance_type: str = "unit",
) -> jax.Array:
  """Negative mean log-likelihood of the problem's points; uses no truth.

  Where scales are predicted too it has no lower bound: a component on a
  single point.
  """
  del target
  mixture = prediction_lib.to_mixture(
    prediction, problem.num_components, covariance_type=covariance_type
  )
  return -gmm.log_likelihood(
    problem.points,
    mixture,
    sample_weight=problem.sample_weight,
    covariance_type=covariance_type,
  )


LOSSES: dict[str, Loss] = {
  "matched": matched,
  "sorted": sorted_order,
  "likelihood": likelihood,
}


def _regression(
  prediction,
  target,
  problem,
  *,
  covariance_type,
):
  is_component = jnp.arange(target.weights.shape[0]) < problem.num_components
  deviations = gmm.standard_deviations(target, covariance_type=covariance_type)

  def mean_of(squared):
    total = jnp.sum(jnp.where(is_component[:, None], squared, 0.0))
    return total / (problem.num_components * problem.dim)

  squared = (prediction.means - target.means) ** 2
  structure = gmm.kind_of(covariance_type).structure
  match structure:
    case "ball":
      squared = squared / deviations**2
    case "matrix":
      squared = squared / (deviations**2 + _VARIANCE_SOFTENING)
  loss = mean_of(squared)
  cross_entropy = jnp.where(
    is_component, target.weights * prediction.log_weights, 0.0
  )
  loss -= jnp.sum(cross_entropy)
  match structure:
    case "axes":
      loss += mean_of((prediction.scales - deviations) ** 2)
    case "ball":
      # One number: that of a coordinate which every problem has.
      ratio = prediction.scales[0, 0] / deviations[0, 0]
      loss += jnp.log(ratio) ** 2
    case "matrix":
      loss += mean_of(jnp.log(prediction.scales / deviations) ** 2)
  return loss
