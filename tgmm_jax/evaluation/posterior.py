"""Several answers to one task, weighed by a law that the task is known to obey.

Likelihood alone prefers a wrong answer where it lies higher than the right one:
at d = 2 with five components in one task of twenty. Whoever knows the law of
the tasks can refuse what it cannot have drawn, and average over what is left:
the mean over the modes of the posterior has the least squared error.
"""

import functools

import jax
import jax.numpy as jnp

from tgmm_jax import metrics, types
from tgmm_jax.solvers import combine
from tgmm_jax.tasks import mixtures

# How far estimates of what a law draws may be beyond its limits, in standard
# errors of a mean.
_NUM_ERRORS = 3.0
# Two answers with log-likelihoods (of all points) as close as this stand for
# the same mode, which counts once.
_SAME_MODE = 0.05


def is_possible(
  mixture: types.Mixture,
  num_components: jax.Array | int,
  num_points: jax.Array | int,
  law: mixtures.TaskConfig,
) -> jax.Array:
  """Whether an estimate may be of a task of a law, `[]` bool.

  Means lie in the box, no two of them point in nearly the same direction, and
  weights are within their range, each but for what N points leave open. For
  unit covariances.

  Args:
    mixture: the estimate, `[K, d]`.
    num_components: how many are real.
    num_points: N.
    law: of the tasks; without a shift.
  """
  weights, means, _ = mixture
  is_component = jnp.arange(weights.shape[0]) < num_components
  count = jnp.maximum(num_points * weights, 1.0)
  slack = _NUM_ERRORS / jnp.sqrt(count)
  outside = jnp.max(jnp.abs(means), axis=-1) - slack > law.mean_range
  others = num_components - 1
  lowest = law.min_weight / (law.min_weight + others * law.max_weight)
  highest = law.max_weight / (law.max_weight + others * law.min_weight)
  error = _NUM_ERRORS * jnp.sqrt(weights * (1.0 - weights) / num_points)
  outside |= (weights + error < lowest) | (weights - error > highest)
  is_outside = jnp.any(outside & is_component)
  return ~(is_outside | _is_close(means, is_component, slack, law))


def _is_close(means, is_component, slack, law):
  """Whether two means point in nearly the same direction, `[]` bool."""
  norms = jnp.sqrt(jnp.sum(means**2, axis=-1))
  product = norms[:, None] * norms
  cosine = means @ means.T / jnp.where(product > 0, product, 1.0)
  # An error across the mean turns it by this angle.
  angle = jnp.minimum(slack / jnp.where(norms > 0, norms, 1.0), jnp.pi)
  widest = jnp.arccos(jnp.clip(cosine, -1.0, 1.0)) + angle[:, None] + angle
  allowed = jnp.arccos(jnp.clip(law.max_cosine, -1.0, 1.0))
  is_pair = (
    is_component[:, None] & is_component & ~jnp.eye(len(means), dtype=bool)
  )
  has_rule = law.max_cosine < 1
  return has_rule & jnp.any(is_pair & (widest < allowed))


def most_likely(results: types.SolverResult, possible: jax.Array) -> jax.Array:
  """Which of several results to keep, `[]` int32: a possible one if any is.

  Args:
    results: of one problem, with a leading axis of V answers.
    possible: `[V]`, see `is_possible`.
  """
  keeps_all = ~jnp.any(possible)
  status = jnp.where(
    possible | keeps_all, results.status, types.Status.DEGENERATE
  )
  return combine.most_likely(results._replace(status=status))


def mean(
  results: types.SolverResult,
  possible: jax.Array,
  num_components: jax.Array | int,
  num_points: jax.Array | int,
) -> types.Mixture:
  """The mean over the modes of the posterior among several answers.

  A mode counts by its likelihood times its volume (Laplace's approximation,
  for components that hardly overlap), and once however many answers are there.
  Only means and weights are averaged: covariances are the best answer's.

  Args:
    results: as in `most_likely`.
    possible: as in `most_likely`.
    num_components: how many are real.
    num_points: N.
  """
  best = most_likely(results, possible)
  kept = jax.tree.map(lambda leaf: leaf[best], results.mixture)
  log_likelihood = num_points * results.log_likelihood
  weights = results.mixture.weights
  dim = kept.means.shape[-1]
  safe = jnp.where(weights > 0, weights, 1.0)
  log_mass = log_likelihood - 0.5 * dim * jnp.sum(jnp.log(safe), axis=-1)
  difference = jnp.abs(log_likelihood[:, None] - log_likelihood)
  log_mass -= jnp.log(jnp.sum(difference < _SAME_MODE, axis=-1))
  is_in = (possible | ~jnp.any(possible)) & jnp.isfinite(log_mass)
  share = jax.nn.softmax(jnp.where(is_in, log_mass, -jnp.inf))

  def arrange(mixture):
    cost = metrics.mean_distances(kept.means, mixture.means)
    order = metrics.align(cost, num_components)
    return mixture.weights[order], mixture.means[order]

  ordered, means = jax.vmap(arrange)(results.mixture)
  average = functools.partial(jnp.tensordot, share, axes=1)
  return kept._replace(weights=average(ordered), means=average(means))
