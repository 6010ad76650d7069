"""Reference rows beside the solvers: what they cost is knowing the truth."""

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, types
from tgmm_jax.solvers import em


def oracle_em(
  key: jax.Array,
  task: types.TaskBatch,
  *,
  max_iter: int = 100,
  tol: float = 1e-7,
) -> types.SolverResult:
  """EM started at the true parameters: the practical limit of likelihood.

  Args:
    key: not used by a given start; kept so that it is called like the rest.
    task: one task, without the axis B.
    max_iter: as in `em.fit`.
    tol: as in `em.fit`.
  """
  return em.fit(
    key,
    task.points,
    task.num_components,
    sample_weight=task.sample_weight,
    max_components=task.mixture.weights.shape[0],
    init=task.mixture,
    max_iter=max_iter,
    tol=tol,
  )


def label_limit(task: types.TaskBatch) -> types.SolverResult:
  """Means and shares of the true clusters, of unit covariance.

  A component without points gets the overall mean, weight 0 and the status
  DEGENERATE.

  Args:
    task: one task, without the axis B.
  """
  points, weight = task.points, task.sample_weight
  size = task.mixture.weights.shape[0]
  is_component = jnp.arange(size) < task.num_components
  is_point = weight > 0
  points = jnp.where(is_point[:, None], points, 0.0)
  weight = weight / jnp.sum(weight)
  share = jax.nn.one_hot(task.labels, size, dtype=points.dtype)
  share = share * weight[:, None]
  mass = jnp.sum(share, axis=0)
  has_points = mass > 0
  means = share.T @ points / jnp.where(has_points, mass, 1.0)[:, None]
  means = jnp.where(has_points[:, None], means, weight @ points)
  means = jnp.where(is_component[:, None], means, 0.0)
  mixture = types.Mixture(jnp.where(is_component, mass, 0.0), means)
  is_complete = jnp.all(has_points | ~is_component)
  return types.SolverResult(
    mixture=mixture,
    log_likelihood=gmm.log_likelihood(points, mixture, sample_weight=weight),
    num_iters=jnp.zeros((), jnp.int32),
    status=jnp.where(
      is_complete, types.Status.CONVERGED, types.Status.DEGENERATE
    ).astype(jnp.int32),
  )
