"""Where the published loss leads: the posterior mean of the ordered means.

The loss of arXiv 2505.11918 compares means in the order of ascending weights.
What minimises it is the posterior mean of the means in that order, and N points
do not tell the order of nearly equal weights. So even who is told the means
exactly, as a set, answers with averages over the orders that may be. That
answer is the optimum here: no network gets a smaller loss.

Under the right alignment its error is no bound (the means themselves, in any
order, have 0 there), but what a network comes to that minimises the loss.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types
from tgmm_jax.evaluation import results
from tgmm_jax.tasks import mixtures

# Its name in tables: who reads the means from the truth.
OPTIMUM = "sorted-loss/optimum"
# Part of a kept table of the experiments, made by the command of their pages.
TABLE = pathlib.Path(__file__).with_name("sorted_loss.csv")


def optimum(
  key: jax.Array,
  task: types.TaskBatch,
  law: mixtures.TaskConfig,
  *,
  num_draws: int = 8192,
) -> types.Mixture:
  """The answer of least expected sorted loss, given the set of the means.

  Every draw of weights from their law gives each mean a place, and counts by
  the likelihood of the points. Of 8,192 some hundreds share in the sum (400 at
  K = 5), so the mean error of the answer is right to half a hundredth.

  Args:
    key: consumed; draws the weights.
    task: one task, without the axis B; of unit covariances. Only its points
      and the set of its means are looked at.
    law: of the tasks.
    num_draws: how many weights are drawn.

  Returns:
    Posterior means of the weights in ascending order, and of the means in the
    order of the weights.
  """
  means, size = task.mixture.means, task.mixture.weights.shape[0]
  is_component = jnp.arange(size) < task.num_components
  uniform = jax.random.uniform(key, (num_draws * size,))
  drawn = mixtures.raw_weights(uniform.reshape(num_draws, size), law)
  drawn = jnp.where(is_component, drawn, 0.0)
  drawn = drawn / jnp.sum(drawn, axis=1, keepdims=True)
  log_density = gmm.component_log_density(
    task.points, types.Mixture(drawn[0], means)
  )
  log_density = jnp.where(is_component, log_density, -jnp.inf)
  # In units of the likeliest component: every point has a density above the
  # least weight.
  highest = jnp.max(log_density, axis=1, keepdims=True)
  density = jnp.exp(log_density - highest)
  log_mixed = jnp.log(linalg.matmul(drawn, density.T))  # [draws, N]
  share = jax.nn.softmax(linalg.matmul(log_mixed, task.sample_weight))
  return _mean_in_order(share, drawn, means, is_component)


def _mean_in_order(share, drawn, means, is_component):
  """The mean over draws of weights and means, each draw in its own order."""
  # Padding comes last, in its own order. A sort would take longer.
  index = jnp.arange(means.shape[0])
  known = jnp.where(is_component, drawn, jnp.inf)
  own, other = known[:, :, None], known[:, None, :]
  is_before = (other < own) | ((other == own) & (index < index[:, None]))
  place = jnp.sum(is_before, axis=2)
  # [draw, place, component]
  is_there = (place[:, None, :] == index[:, None]) * share[:, None, None]
  return types.Mixture(
    jnp.einsum("lkj,lj->k", is_there, drawn), jnp.sum(is_there, axis=0) @ means
  )


@functools.cache
def errors() -> tuple[results.Row, ...]:
  """The errors of the optimum on the paper's tasks.

  They are rows of `experiments/sorted_loss.py:quick`: `l2_error` by the right
  alignment, `sorted_error` in the order of the weights.
  """
  return tuple(results.read_csv(TABLE))
