"""References beside the solvers: what they cost is knowing the truth."""

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, types
from tgmm_jax.solvers import covariance as covariance_lib

# A share of the variance of all points, of the size of the ridge of `em.fit`.
_RIDGE = 1e-6


def label_limit(
  task: types.TaskBatch, *, covariance_type: str = "unit"
) -> types.SolverResult:
  """Means, shares and covariances of the true clusters.

  A component without points gets the overall mean (and covariance), weight 0
  and the status DEGENERATE. Covariances are those of maximum likelihood with a
  ridge of `em.fit`'s size, so that one point has a density.

  Args:
    task: one task, without the axis B.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
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
  # A component without points takes its covariance from all of them.
  share = jnp.where(has_points, share, weight[:, None])
  covariances, kind = None, gmm.kind_of(covariance_type)
  if not kind.is_known:
    covariances = _covariances(
      points, weight, share, means, has_points, covariance_type=covariance_type
    )
  if kind.is_per_component:
    shape = (size, *(1 for _ in covariances.shape[1:]))
    ball = jnp.eye(points.shape[1]) if kind.structure == "matrix" else 1.0
    covariances = jnp.where(is_component.reshape(shape), covariances, ball)
  mixture = types.Mixture(
    jnp.where(is_component, mass, 0.0),
    jnp.where(is_component[:, None], means, 0.0),
    covariances,
  )
  is_complete = jnp.all(has_points | ~is_component)
  return types.SolverResult(
    mixture=mixture,
    log_likelihood=gmm.log_likelihood(
      points, mixture, sample_weight=weight, covariance_type=covariance_type
    ),
    num_iters=jnp.zeros((), jnp.int32),
    status=jnp.where(
      is_complete, types.Status.CONVERGED, types.Status.DEGENERATE
    ).astype(jnp.int32),
  )


def _covariances(
  points,
  weight,
  share,
  means,
  has_points,
  *,
  covariance_type,
):
  """Of the true clusters about their means, with a ridge."""
  if not gmm.kind_of(covariance_type).is_per_component:
    share = jnp.where(has_points, share, 0.0)
  overall = weight @ (points - weight @ points) ** 2
  ridge = jnp.maximum(_RIDGE * overall, jnp.finfo(points.dtype).tiny)
  differences = points.T - means[:, :, None]
  scatters = covariance_lib.scatter(
    share.T, differences, covariance_type=covariance_type
  )
  return covariance_lib.estimate(
    scatters,
    jnp.sum(share, axis=0),
    jnp.zeros_like(means),
    covariance_lib.Ridge(ridge, 0.0),
    covariance_type=covariance_type,
  )
