"""How far an answer is from the truth: mixtures, labels and spectra.

Components have no order, so estimates are first aligned with the truth by the
assignment of least squared distance between means; K is padded and
`num_components` says how many are real. An eigenvector has no sign: what is
compared is the absolute value of the cosine. (The cosine itself, as the
published code of arXiv 2501.01312 takes it, scores a right vector with the
other sign as wrong.) A principal space has no basis either: projectors are
compared. Every function takes one problem and vmaps.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types

# A task whose l2_error is above counts as failed: some mean is in a wrong
# place, since the label limit is a tenth of it.
FAILURE_THRESHOLD = 0.5

# The published evaluation leaves answers out whose log-likelihood, as it
# computes it, is not above this.
_LEAST_RELEASED = -100.0
# Added to weights there.
_RELEASED_WEIGHT = 1e-15


def align(cost: jax.Array, num_components: jax.Array | int) -> jax.Array:
  """`linalg.align`: which true component each estimate is matched to.

  Args:
    cost: `[K, K]`, of matching estimate i with true component j.
    num_components: how many of both are real.
  """
  return linalg.align(cost, num_components)


def mean_distances(estimate: jax.Array, truth: jax.Array) -> jax.Array:
  """Squared distances between means, `[K, K]` from `[K, d]` and `[K, d]`."""
  return jnp.sum((estimate[:, None, :] - truth[None, :, :]) ** 2, axis=-1)


def l2_error(
  estimate: jax.Array, truth: jax.Array, num_components: jax.Array | int
) -> jax.Array:
  """Squared error of the means per component and coordinate, aligned.

  Args:
    estimate: `[K, d]`, in any order of the components.
    truth: `[K, d]`.
    num_components: how many are real.
  """
  permutation = align(mean_distances(estimate, truth), num_components)
  return _mean_squared(estimate, truth[permutation], num_components)


def l2_error_released(
  estimate: jax.Array, truth: jax.Array, num_components: jax.Array | int
) -> jax.Array:
  """`l2_error` as the published evaluation computes it.

  It finds the right assignment and then applies its inverse: right answers
  in another order are scored as wrong for K > 2. Kept to compare with the
  published figures.
  """
  permutation = align(mean_distances(estimate, truth), num_components)
  # estimate[permutation] pairs estimate permutation[i] with truth i; the right
  # pairing is estimate i with truth permutation[i].
  return _mean_squared(estimate[permutation], truth, num_components)


def released_log_likelihood(
  points: jax.Array,
  mixture: types.Mixture,
  num_components: jax.Array | int,
  *,
  covariance_type: str = "unit",
) -> jax.Array:
  """What the published evaluation of arXiv 2505.11918 calls log-likelihood.

  It adds up densities over the points of each component, not over the
  components at each point: `sum_k log(sum_n w_k density_k(x_n)) / N`. It is
  far below 0 only where some mean is hundreds of deviations from all points.

  Args:
    points: `[N, d]`, fresh ones there.
    mixture: to be judged.
    num_components: how many of its components are real.
    covariance_type: how its covariances are read.

  Returns:
    `[]`; not finite for a mixture that is not.
  """
  density = gmm.component_log_density(
    points, mixture, covariance_type=covariance_type
  )
  log_weights = jnp.log(mixture.weights + _RELEASED_WEIGHT)
  by_component = jax.nn.logsumexp(log_weights + density, axis=0)
  is_component = jnp.arange(by_component.size) < num_components
  return jnp.sum(jnp.where(is_component, by_component, 0.0)) / len(points)


def _is_left_out(
  points,
  mixture,
  num_components,
  *,
  covariance_type,
):
  """1 where the published evaluation drops an answer; nan is dropped too."""
  value = released_log_likelihood(
    points, mixture, num_components, covariance_type=covariance_type
  )
  return 1.0 - (value > _LEAST_RELEASED)


def sorted_error(
  estimate: jax.Array, truth: jax.Array, num_components: jax.Array | int
) -> jax.Array:
  """Squared error of the means per component and coordinate, as they come.

  Where both are in the order of ascending weights, as tasks are, it is what
  the sorted loss of arXiv 2505.11918 takes of the means.
  """
  return _mean_squared(estimate, truth, num_components)


def _mean_squared(estimate, truth, num_components):
  is_component = jnp.arange(truth.shape[0]) < num_components
  return _mean_squared_of_pairs(estimate, truth, is_component)


def _mean_squared_of_pairs(estimate, truth, is_pair):
  squared = jnp.where(is_pair[:, None], (estimate - truth) ** 2, 0.0)
  return jnp.sum(squared) / (jnp.sum(is_pair) * truth.shape[1])


def _pair(estimate, truth, num_estimated, num_components):
  """Who is matched with whom `[K]`, and which estimates have anyone `[K]`."""
  index = jnp.arange(truth.shape[0])
  is_both = (index[:, None] < num_estimated) & (index < num_components)
  cost = jnp.where(is_both, mean_distances(estimate, truth), 0.0)
  permutation = align(cost, jnp.maximum(num_estimated, num_components))
  return permutation, (index < num_estimated) & (permutation < num_components)


class Scores(NamedTuple):
  """The metrics of one solution, each `[]`.

  Attributes:
    l2_error: squared error of the means, by the right alignment.
    l2_error_released: the same by the published evaluation's alignment.
    weight_error: squared error of the weights, averaged over components.
    accuracy: share of the points' weight whose component is found, under the
      best matching of predicted with true labels.
    log_likelihood: mean log density of the points that were solved.
    log_likelihood_fresh: mean log density of points drawn for the purpose.
    failure: 1 where l2_error is above `FAILURE_THRESHOLD` or not finite.
    is_left_out: 1 where the published evaluation leaves the answer out of its
      averages, by its `released_log_likelihood` of the fresh points.
    scale_error: squared error of the standard deviations per component and
      coordinate, in the alignment of the means; None where they are known.
  """

  l2_error: jax.Array
  l2_error_released: jax.Array
  weight_error: jax.Array
  accuracy: jax.Array
  log_likelihood: jax.Array
  log_likelihood_fresh: jax.Array
  failure: jax.Array
  is_left_out: jax.Array
  scale_error: jax.Array | None = None


def clustering_accuracy(
  predicted: jax.Array,
  labels: jax.Array,
  max_components: int,
  *,
  sample_weight: jax.Array,
) -> jax.Array:
  """Share of weight on the right cluster under the best matching of labels.

  Args:
    predicted: `[N]` int, in any naming of the clusters.
    labels: `[N]` int; what stands on padding (weight 0) does not matter.
    sample_weight: `[N]`.
    max_components: K, static.
  """
  one_hot_predicted = jax.nn.one_hot(predicted, max_components)
  one_hot_labels = jax.nn.one_hot(labels, max_components)
  counts = jnp.einsum(
    "n,ni,nj->ij", sample_weight, one_hot_predicted, one_hot_labels
  )
  permutation = align(-counts, max_components)
  hits = counts[jnp.arange(max_components), permutation]
  return jnp.sum(hits) / jnp.sum(sample_weight)


def score(
  estimate: types.Mixture,
  task: types.TaskBatch,
  fresh_points: jax.Array,
  *,
  num_estimated: jax.Array | int | None = None,
  covariance_type: str = "unit",
) -> Scores:
  """All metrics of an estimate of one task.

  Args:
    estimate: the mixture to judge.
    task: a `TaskBatch` without the axis B.
    fresh_points: `[M, d]` points drawn from `task.mixture`.
    num_estimated: components of the estimate, where they are not as many as
      the task has: errors are then of the pairs that the best matching of the
      fewer with the more makes, and one component more or less is left out.
    covariance_type: how both mixtures' covariances are read.

  Returns:
    `Scores`; without a `scale_error` for the type "unit".
  """
  truth, num_components = task.mixture, task.num_components
  if num_estimated is None:
    num_estimated = num_components
  permutation, is_pair = _pair(
    estimate.means, truth.means, num_estimated, num_components
  )
  likelihood = functools.partial(
    gmm.log_likelihood, mixture=estimate, covariance_type=covariance_type
  )

  def error_of(values, true_values):
    return _mean_squared_of_pairs(values, true_values[permutation], is_pair)

  error = error_of(estimate.means, truth.means)
  joint = gmm.log_joint(task.points, estimate, covariance_type=covariance_type)
  return Scores(
    l2_error=error,
    l2_error_released=_mean_squared(
      estimate.means[permutation], truth.means, num_components
    ),
    weight_error=error_of(estimate.weights[:, None], truth.weights[:, None]),
    accuracy=clustering_accuracy(
      jnp.argmax(joint, axis=-1),
      task.labels,
      len(truth.weights),
      sample_weight=task.sample_weight,
    ),
    log_likelihood=likelihood(task.points, sample_weight=task.sample_weight),
    log_likelihood_fresh=likelihood(fresh_points),
    failure=1.0 - (error <= FAILURE_THRESHOLD),
    is_left_out=_is_left_out(
      fresh_points, estimate, num_estimated, covariance_type=covariance_type
    ),
    scale_error=_scale_error(
      error_of, estimate, truth, covariance_type=covariance_type
    ),
  )


def _scale_error(
  error_of,
  estimate,
  truth,
  *,
  covariance_type,
):
  """Of the standard deviations; None where they are known."""
  if gmm.kind_of(covariance_type).is_known:
    return None
  deviations_of = functools.partial(
    gmm.standard_deviations, covariance_type=covariance_type
  )
  return error_of(deviations_of(estimate), deviations_of(truth))


def relative_squared_error(estimate: jax.Array, truth: jax.Array) -> jax.Array:
  """`((estimate - truth) / truth)^2`, eigenvalue by eigenvalue.

  Args:
    estimate: `[k]`.
    truth: `[k]`, above 0; for an eigenvalue of 0 the error is not finite.

  Returns:
    `[k]`.
  """
  return ((estimate - truth) / truth) ** 2


def abs_cosine(estimate: jax.Array, truth: jax.Array) -> jax.Array:
  """`|cos|` of the angles between vectors, column by column; sign is free.

  Args:
    estimate: `[d, k]`, of any length; of length 0 the cosine is 0.
    truth: `[d, k]`, unit vectors.

  Returns:
    `[k]`, from 0 to 1.
  """
  estimate = _scale_columns(estimate)
  squared = jnp.sum(estimate**2, axis=0)
  is_zero = squared == 0
  # The root of 0 has no gradient: 1 stands there instead.
  norms = jnp.sqrt(jnp.where(is_zero, 1.0, squared))
  cosine = jnp.abs(jnp.sum(estimate * truth, axis=0)) / norms
  return jnp.minimum(cosine, 1.0)


def projector_distance(estimate: jax.Array, truth: jax.Array) -> jax.Array:
  """`1/2 |P - F F^T|_F^2`, P the projector on the span of the estimate.

  The sum of the squared sines of the principal angles: 0 for the same space, k
  for an orthogonal one, whatever bases describe the two. Not to be trained by:
  the gradient is not finite for every estimate.

  Args:
    estimate: `[d, k]`, any basis of the estimated space, its columns of any
      length; columns that depend on each other span less, and what is missing
      counts as orthogonal.
    truth: `[d, k]`, orthonormal columns.

  Returns:
    `[]`, from 0 to k; nan for an estimate that is not finite.
  """
  basis, sizes, _ = jnp.linalg.svd(
    _scale_columns(estimate), full_matrices=False
  )
  # What the columns do not span has singular values of 0 but for rounding.
  rounding = jnp.finfo(estimate.dtype).eps * max(8, *estimate.shape)
  spanning = jnp.where(sizes <= rounding * sizes[0], 0.0, basis)
  shared = jnp.sum(linalg.matmul(spanning.T, truth) ** 2)
  return jnp.clip(truth.shape[1] - shared, 0.0, truth.shape[1])


def projector_loss(estimate: jax.Array, truth: jax.Array) -> jax.Array:
  """`1/2 |E E^T - F F^T|_F^2` of arXiv 2501.01312: E as it comes.

  0 where the estimate is an orthonormal basis of the true space, in any order
  and with any signs; it also asks the columns to have length 1.

  Args:
    estimate: `[d, k]`, E.
    truth: `[d, k]`, F, orthonormal columns.
  """
  gram = linalg.matmul(estimate.T, estimate)
  shared = linalg.matmul(estimate.T, truth)
  total = jnp.sum(gram**2) - 2.0 * jnp.sum(shared**2) + truth.shape[1]
  return 0.5 * total


def _scale_columns(columns):
  """Columns with a largest entry of 1 to 2, so that squares are in range."""
  # Angles do not change with it: no gradient has to pass. Nor does rounding,
  # with powers of two.
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(columns), axis=0))
  exponent = jnp.frexp(largest)[1] - 1
  return columns / jnp.ldexp(jnp.ones((), columns.dtype), exponent)
