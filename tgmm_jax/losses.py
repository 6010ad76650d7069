"""Training losses of one problem.

Each takes a network's prediction after one stage, the true mixture in the
same coordinates and the problem, and returns a scalar. Means count by the
squared error per component and coordinate of the data, as in
`metrics.l2_error`; weights by cross-entropy; scales by squared error.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, metrics, types
from tgmm_jax.models import prediction as prediction_lib

Loss = Callable[
  [prediction_lib.Prediction, types.Mixture, prediction_lib.Problem], jax.Array
]


def sorted_order(
  prediction: prediction_lib.Prediction,
  target: types.Mixture,
  problem: prediction_lib.Problem,
) -> jax.Array:
  """The TGMM paper's loss (Eq. 2): components in the order of their weights.

  128 points cannot tell the order of nearly equal weights, so it has a floor:
  who knows the means exactly does best to average them over the orders that
  may be, at a squared error of 4.3 at d = 2, K = 4. Of that 2.3 stay when the
  components are matched afterwards.
  """
  return _regression(prediction, target, problem)


def matched(
  prediction: prediction_lib.Prediction,
  target: types.Mixture,
  problem: prediction_lib.Problem,
) -> jax.Array:
  """The same with components in the order that suits the means best."""
  cost = metrics.mean_distances(prediction.means, target.means)
  permutation = metrics.align(
    jax.lax.stop_gradient(cost), problem.num_components
  )
  return _regression(
    prediction, jax.tree.map(lambda leaf: leaf[permutation], target), problem
  )


def likelihood(
  prediction: prediction_lib.Prediction,
  target: types.Mixture,
  problem: prediction_lib.Problem,
) -> jax.Array:
  """Negative mean log-likelihood of the problem's points; uses no truth.

  Where scales are predicted too it has no lower bound: a component on a
  single point.
  """
  del target
  mixture = prediction_lib.to_mixture(prediction, problem.num_components)
  covariance_type = "unit" if prediction.scales is None else "diag"
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


def _regression(prediction, target, problem):
  is_component = jnp.arange(target.weights.shape[0]) < problem.num_components
  count = problem.num_components * problem.dim
  squared = (prediction.means - target.means) ** 2
  loss = jnp.sum(jnp.where(is_component[:, None], squared, 0.0)) / count
  cross_entropy = jnp.where(
    is_component, target.weights * prediction.log_weights, 0.0
  )
  loss -= jnp.sum(cross_entropy)
  if prediction.scales is not None:
    squared = (prediction.scales - jnp.sqrt(target.covariances)) ** 2
    loss += jnp.sum(jnp.where(is_component[:, None], squared, 0.0)) / count
  return loss
