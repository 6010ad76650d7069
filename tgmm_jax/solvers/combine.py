"""Solvers made of solvers."""

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import em


def then_em(
  solve: types.Solver,
  *,
  max_iter: int,
  covariance_type: str = "unit",
  **options,
) -> types.Solver:
  """A solver whose answer is refined by EM.

  Means beyond the range of the points in some coordinate are first put on
  its border. No M-step would put a mean there, and one far outside would get
  no points and never come back.

  Args:
    solve: any solver.
    max_iter: EM steps; exactly as many where no `tol` is given.
    covariance_type: as in `em.fit`, of the solver's answers too.
    **options: further fields of `em.Options`, but for `init`.
  """
  options = {"tol": 0.0} | options
  is_known = gmm.kind_of(covariance_type).is_known

  def refined(key, points, num_components, *, sample_weight=None, **own):
    solve_key, em_key = jax.random.split(key)
    first = solve(
      solve_key,
      points,
      num_components,
      sample_weight=sample_weight,
      **own,
    )
    start = first.mixture
    means = clip_to_range(start.means, points, sample_weight=sample_weight)
    second = em.fit(
      em_key,
      points,
      num_components,
      sample_weight=sample_weight,
      max_components=means.shape[0],
      init=start._replace(
        means=means, covariances=None if is_known else start.covariances
      ),
      max_iter=max_iter,
      covariance_type=covariance_type,
      **options,
    )
    return second._replace(num_iters=first.num_iters + second.num_iters)

  return refined


def best_of(solve: types.Solver, num_runs: int) -> types.Solver:
  """A solver that is run with several keys; the most likely answer is kept.

  An answer that is not degenerate comes before one that is: the most likely
  of all may be a component that has collapsed on a point.

  Args:
    solve: any solver that uses its key.
    num_runs: how often; one vmapped axis.
  """
  if num_runs < 1:
    raise ValueError(f"num_runs is {num_runs}, takes an integer >= 1")

  def repeated(key, points, num_components, **options):
    results = jax.vmap(
      lambda key: solve(key, points, num_components, **options)
    )(jax.random.split(key, num_runs))
    best = most_likely(results)
    return jax.tree.map(lambda leaf: leaf[best], results)

  return repeated


def most_likely(results: types.SolverResult) -> jax.Array:
  """Which of several results to keep, `[]` int32.

  The most likely of those that are not degenerate, or of all if all are.

  Args:
    results: of one problem, with a leading axis.
  """
  is_degenerate = results.status >= types.Status.DEGENERATE
  rank = jnp.where(
    is_degenerate & ~jnp.all(is_degenerate), -jnp.inf, results.log_likelihood
  )
  return jnp.argmax(rank)


def whitened(solve: types.Solver, covariance: jax.Array) -> types.Solver:
  """A solver for components of a known covariance that is not the identity.

  Points (and a given `init`) are whitened, solved for with unit covariance
  and taken back; the result's `covariances` are None as those of `solve`.

  Args:
    solve: a solver for unit covariance, of one problem or of a batch as
      `em.fit_batch`.
    covariance: `[d, d]`, the same for all components (and problems).
  """
  inverse = linalg.inverse_cholesky(covariance)
  factor = jnp.linalg.cholesky(covariance)

  def solve_whitened(key, points, num_components, **options):
    init = options.get("init")
    if isinstance(init, types.Mixture):
      options["init"] = init._replace(means=_rows(inverse, init.means))
    result = solve(key, _rows(inverse, points), num_components, **options)
    mixture = result.mixture
    log_det = jnp.sum(jnp.log(jnp.diagonal(inverse)))
    return result._replace(
      mixture=mixture._replace(means=_rows(factor, mixture.means)),
      log_likelihood=result.log_likelihood + log_det,
    )

  return solve_whitened


def _rows(matrix, rows):
  """The matrix applied to each row `[..., N, d]`; NaN stays in its row."""
  return linalg.einsum("ij,...nj->...ni", matrix, rows)


def clip_to_range(
  means,
  points,
  *,
  sample_weight,
):
  """Means put into the bounding box of the points of positive weight."""
  is_point = jnp.ones(points.shape[0], bool)
  if sample_weight is not None:
    is_point = sample_weight > 0
  lowest = jnp.where(is_point[:, None], points, jnp.inf).min(axis=0)
  highest = jnp.where(is_point[:, None], points, -jnp.inf).max(axis=0)
  return jnp.clip(means, lowest, highest)
