"""The spectral method for spherical mixtures with K <= d."""

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, types
from tgmm_jax.solvers import moments, tensor_power
from tgmm_jax.solvers import problem as problem_lib


def fit(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  variance: float | None = 1.0,
  min_eigenvalue: float = 1e-3,
  num_restarts: int = 10,
  num_iters: int = 30,
) -> types.SolverResult:
  """Reads weights and means from the second and third moments.

  Hsu and Kakade 2013 with the tensor power method of Anandkumar et al. 2014.
  Needs linearly independent means, so K <= d, and moments about an origin
  that tells them apart: near dependence the estimate has heavy tails (at
  d = 2, N = 128 a fifth of the paper's tasks fails).

  Args:
    key: consumed; starts of the power method.
    points: `[N, d]`; padding may hold anything.
    num_components: K of the problem; may be traced if `max_components` is
      given.
    sample_weight: `[N]`, or None for ones; 0 is padding.
    max_components: static K of the result, or None for `num_components`.
    variance: of the noise; None takes the smallest eigenvalue of the
      covariance. The result and its likelihood have unit covariance.
    min_eigenvalue: smaller eigenvalues of the whitening are raised to it,
      which bounds the means; 0.25 fails less often than the default, which
      hardly interferes.
    num_restarts: random starts for each component.
    num_iters: power steps, twice for each component.

  Returns:
    A `SolverResult`. Its status is CONVERGED, DEGENERATE where the moments
    do not determine the components (a whitening eigenvalue that is not
    positive; with K > d all means are the overall mean and the weights equal),
    or INVALID_INPUT as in `em.fit`.
  """
  max_components = problem_lib.static_components(num_components, max_components)
  problem = problem_lib.prepare(
    points, num_components, sample_weight, max_components
  )
  num_components = problem.num_components
  weight = problem.sample_weight
  points = problem.columns.T + problem.centre
  if variance is None:
    variance = moments.noise_variance(points, weight)
  whitened = moments.whitened_moments(
    points,
    num_components,
    variance,
    sample_weight=weight,
    max_components=max_components,
    min_eigenvalue=min_eigenvalue,
  )
  found = tensor_power.decompose(
    key,
    whitened.tensor,
    num_components,
    num_restarts=num_restarts,
    num_iters=num_iters,
  )
  mixture, is_determined = _unwhiten(whitened, found, problem)
  log_likelihood = gmm.log_likelihood(points, mixture, sample_weight=weight)
  status = jnp.where(
    is_determined, types.Status.CONVERGED, types.Status.DEGENERATE
  )
  status = jnp.where(problem.is_valid, status, types.Status.INVALID_INPUT)
  return types.SolverResult(
    mixture=mixture,
    log_likelihood=jnp.where(problem.is_valid, log_likelihood, -jnp.inf),
    num_iters=jnp.asarray(2 * num_iters, jnp.int32),
    status=status.astype(jnp.int32),
  )


def _unwhiten(whitened, found, problem):
  """The mixture, and whether the moments determine it."""
  dim, size = whitened.unwhitening.shape
  num_components = problem.num_components
  is_component = jnp.arange(size) < num_components
  values = found.eigenvalues
  safe = jnp.where(values > 0, values, 1.0)
  means = (found.vectors * safe[:, None]) @ whitened.unwhitening.T
  weights = jnp.where(is_component, safe**-2, 0.0)
  weights = weights / jnp.sum(weights)
  is_usable = (
    (num_components <= dim)
    & jnp.all((values > 0) | ~is_component)
    & jnp.all(jnp.isfinite(means))
    & jnp.all(jnp.isfinite(weights))
  )
  uniform = (is_component / num_components).astype(weights.dtype)
  means = jnp.where(is_usable, means, problem.centre)
  mixture = types.Mixture(
    jnp.where(is_usable, weights, uniform),
    jnp.where(is_component[:, None], means, 0.0),
  )
  is_positive = jnp.all((whitened.eigenvalues > 0) | ~is_component)
  return mixture, is_usable & is_positive
