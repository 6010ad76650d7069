"""Reference rows beside the solvers: what they cost is knowing the truth."""

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, types
from tgmm_jax.solvers import covariance as covariance_lib
from tgmm_jax.solvers import em

# A share of the variance of all points, as `reg_share` of `em.fit`.
_RIDGE = 1e-6


def oracle_em(
  key: jax.Array,
  task: types.TaskBatch,
  *,
  covariance_type: str = "unit",
  max_iter: int = 100,
  tol: float = 1e-7,
) -> types.SolverResult:
  """EM started at the true parameters: the practical limit of likelihood.

  Args:
    key: not used by a given start; kept so that it is called like the rest.
    task: one task, without the axis B.
    covariance_type: as in `em.fit`, and of the truth.
    max_iter: as in `em.fit`.
    tol: as in `em.fit`.
  """
  return em.fit(
    key,
    task.points,
    task.num_components,
    sample_weight=task.sample_weight,
    max_components=task.mixture.weights.shape[0],
    covariance_type=covariance_type,
    init=task.mixture,
    max_iter=max_iter,
    tol=tol,
  )


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
  covariances = None
  if covariance_type != "unit":
    covariances = _covariances(
      points, weight, share, means, has_points, covariance_type
    )
  if covariances is not None and "tied" not in covariance_type:
    shape = (size, *(1 for _ in covariances.shape[1:]))
    ball = jnp.eye(points.shape[1]) if covariance_type == "full" else 1.0
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


def _covariances(points, weight, share, means, has_points, covariance_type):
  """Of the true clusters about their means, with a ridge."""
  if "tied" in covariance_type:
    share = jnp.where(has_points, share, 0.0)
  overall = weight @ (points - weight @ points) ** 2
  ridge = jnp.maximum(_RIDGE * overall, jnp.finfo(points.dtype).tiny)
  differences = points.T - means[:, :, None]
  scatters = covariance_lib.scatter(share.T, differences, covariance_type)
  return covariance_lib.estimate(
    scatters,
    jnp.sum(share, axis=0),
    jnp.zeros_like(means),
    ridge,
    covariance_type,
  )
