"""How sure a fit is, by fits of the same points with random weights.

The dear one of two ways, right too for points that are no mixture of Gaussians;
`delta` has the other.

The weighted-likelihood bootstrap of Newton and Raftery (1994): the weights of
the points are multiplied by a draw from Dirichlet(1, ..., 1). Components are
matched by the assignment of least Kullback-Leibler divergence. All replicates
have the same points, of which there is one copy.

Intervals are quantiles of the draws. Plain ones hold too rarely, those about
variances above all, for three reasons:

* An estimate of a variance from n points is low by 1 / n of itself, and its
  replicates by 1 / n again. So quantiles are corrected for how many draws lie
  below the fit (Efron 1981).
* Errors of variances are skew. Of that the weights take care, whose third
  moment is twice that of the counts of the bootstrap: with the correction no
  acceleration (Efron 1987) is needed.
* How much replicates vary is itself an estimate, for variances a poor one, of
  fourth moments, and under Dirichlet weights a low one. So the quantiles lie
  further out, see `record.widths`.
"""

import functools

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers.em import options as em_options
from tgmm_jax.solvers.em import runs as em_runs
from tgmm_jax.solvers.em import starts as em_starts
from tgmm_jax.solvers.em.uncertainty import record
from tgmm_jax.solvers.execution import programs, work_queue

# So many weights of points take less time than an optimising compiler.
_MOST_QUICK = 2**18
# What makes no sense from a given start.
_FIXED = ("init", "num_init", "is_projected", "prior_if_degenerate", "prior")


def bootstrap(
  key: jax.Array,
  points: jax.Array,
  mixture: types.Mixture,
  num_components: jax.Array | int | None = None,
  *,
  num_replicates: int = 200,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  level: jax.Array | float = 0.9,
  batch_size: int = 64,
  **options,
) -> record.Uncertainty:
  """Standard errors and draws of a fit by the weighted-likelihood bootstrap.

  Each of R replicates goes on with EM from the fit with random weights of the
  points; its components are put into the order of the fit.

  Args:
    key: consumed; folded with the index of each replicate, so that the first
      of more replicates are those of fewer.
    points: `[N, d]`; padding may hold anything.
    mixture: a fit of these points, where every replicate starts.
    num_components: K of the problem, may be traced; None where the mixture has
      no padding.
    num_replicates: R, static; 200 tell a standard error to 5%.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]`, or None for ones; 0 is padding. A point of weight 2 is
      one observation, and tells less than two points.
    level: the probability that an interval is to hold.
    batch_size: replicates at a time, static; memory is theirs, `[N]` each.
    **options: fields of `em.Options` as in the fit, none about the start.

  Returns:
    An `Uncertainty` with `draws`; not valid if at most one is not degenerate.

  Raises:
    ValueError: for arguments that no data could make right.
  """
  em_options.require_default(options, _FIXED, "bootstrap")
  sizes = {"num_replicates": num_replicates, "batch_size": batch_size}
  size = mixture.weights.shape[-1]
  if num_components is None:
    num_components = size
  plan = em_options.make_plan(
    {**options, "init": mixture},
    points,
    num_components,
    covariance_type=covariance_type,
    max_components=size,
  )
  record.check(mixture, level, covariance_type=covariance_type)
  for name, value in sizes.items():
    checks.integer(name, value, lowest=1)
  given = (key, points, num_components, sample_weight, plan.given)
  given = (em_starts.Inputs(*given), plan.limits, level)
  is_small = num_replicates * points.shape[0] <= _MOST_QUICK
  is_quick = is_small and not checks.is_traced(given)
  run = _bootstrap if is_quick else _bootstrap.optimized
  return run(*given, form=plan.form, **sizes)


@programs.quick
def _bootstrap(inputs, limits, level, *, form, num_replicates, batch_size):
  covariance_type = form.covariance_type
  problem, starts = em_starts.set_up(inputs, limits, form)
  start = jax.tree.map(lambda leaf: leaf[0], starts)

  def load(index):
    key = jax.random.fold_in(inputs.key, index)
    weight = problem.sample_weight
    weight = weight * jax.random.exponential(key, weight.shape, weight.dtype)
    run = em_runs.begin(problem, start, limits.prior_size)
    return weight / jnp.sum(weight), run

  def advance(weight, run):
    return em_runs.advance(
      problem._replace(sample_weight=weight),
      run,
      limits=limits,
      covariance_type=covariance_type,
    )

  runs = work_queue.run_all(
    load,
    advance,
    functools.partial(em_runs.is_done, limits=limits),
    lambda run: run._replace(anchor=None, log_density=None),
    num_items=num_replicates,
    num_slots=batch_size,
  )

  def conclude(run):
    mixture = _aligned(
      run.mixture,
      start.mixture,
      problem.num_components,
      covariance_type=covariance_type,
    )
    run = run._replace(mixture=mixture)
    result = em_runs.conclude(
      problem, run, jnp.zeros(()), covariance_type=covariance_type
    )
    return mixture, result

  draws, results = work_queue.map_in_chunks(conclude, runs, batch_size)
  widths = record.widths(
    start.mixture, level, problem.num_points, covariance_type=covariance_type
  )
  found = _summary(draws, start.mixture, results.status, widths)
  found = found._replace(draws=results.mixture)
  return record.from_frame(problem, found, covariance_type=covariance_type)


def _aligned(mixture, fit, num_components, *, covariance_type):
  """The same with its components in the order of those of the fit."""
  cost = _divergences(mixture, fit, covariance_type=covariance_type)
  # Between 0 and 1, or components far away would drown those that are near.
  cost = cost / (1.0 + cost)
  order = jnp.argsort(linalg.align(cost, num_components))
  weights, means, covariances = mixture
  if gmm.kind_of(covariance_type).is_per_component:
    covariances = covariances[order]
  return types.Mixture(weights[order], means[order], covariances)


def _divergences(mixture, fit, *, covariance_type):
  """Kullback-Leibler, of each component from each of the fit, `[K, K]`."""
  gaps = mixture.means[:, None] - fit.means
  if gmm.kind_of(covariance_type).structure == "matrix":
    options = {"covariance_type": covariance_type}
    own = gmm.covariance_matrices(mixture, **options)
    factors = gmm.inverse_factor(own)
    scales = jnp.diagonal(factors, axis1=-2, axis2=-1)
    others = gmm.inverse_factor(gmm.covariance_matrices(fit, **options))
    other_scales = jnp.diagonal(others, axis1=-2, axis2=-1)
    ratio = linalg.einsum("jab,ibc,jac->ij", others, own, others)
    gaps = linalg.einsum("jab,ijb->ija", others, gaps)
  else:
    scales, other_scales = (
      1.0 / gmm.standard_deviations(one, covariance_type=covariance_type)
      for one in (mixture, fit)
    )
    ratio = linalg.matmul(1.0 / scales**2, (other_scales**2).T)
    gaps = gaps * other_scales
  log_ratio = jnp.sum(jnp.log(scales), -1)[:, None]
  log_ratio -= jnp.sum(jnp.log(other_scales), -1)
  distances = jnp.sum(gaps**2, axis=-1)
  value = 0.5 * (ratio - gaps.shape[-1] + distances) + log_ratio
  return jnp.maximum(value, 0.0)


def _summary(draws, fit, status, widths):
  """What the draws that count say, in the frame."""
  is_kept = status < types.Status.DEGENERATE
  count = jnp.sum(is_kept)

  def kept(leaf):
    return is_kept.reshape(-1, *(1,) * (leaf.ndim - 1))

  def centred(leaf):
    leaf = jnp.where(kept(leaf), leaf, 0.0)
    mean = jnp.sum(leaf, axis=0) / jnp.maximum(count, 1)
    return jnp.where(kept(leaf), leaf - mean, 0.0)

  free = jnp.maximum(count - 1, 1)
  errors = jax.tree.map(
    lambda leaf: jnp.sqrt(jnp.sum(centred(leaf) ** 2, axis=0) / free), draws
  )
  gaps = centred(draws.means)
  spread = linalg.einsum("rki,rkj->kij", gaps, gaps) / free
  ends = jax.tree.map(
    lambda leaf, own, width: _interval(
      jnp.where(kept(leaf), leaf, jnp.inf), own, count, width
    ),
    draws,
    fit,
    widths,
  )
  lower, upper = (
    types.Mixture(*(None if leaf is None else leaf[side] for leaf in ends))
    for side in (0, 1)
  )
  return record.Uncertainty(
    standard_errors=errors,
    lower=lower,
    upper=upper,
    mean_covariances=spread,
    is_valid=count >= 2,
    draws=draws,
    status=status,
    num_left_out=jnp.sum(~is_kept),
  )


def _interval(draws, fit, count, width):
  """Both ends, of draws `[R, ...]` of which the finite ones count.

  Quantiles of the draws, at probabilities that are corrected for how many of
  them lie below the fit (Efron 1981).
  """
  below = jnp.sum(draws < fit, axis=0) + 0.5 * jnp.sum(draws == fit, axis=0)
  most = jnp.maximum(count, 1)
  share = jnp.clip(below / most, 0.5 / most, 1.0 - 0.5 / most)
  shift = 2.0 * jax.scipy.special.ndtri(share.astype(fit.dtype))
  ordered = jnp.sort(draws, axis=0)

  def quantile(probability):
    # Of R + 1 gaps between R draws, so that a further draw lies below it with
    # this probability.
    place = jnp.clip((count + 1) * probability - 1, 0, most - 1)
    first = jnp.floor(place).astype(jnp.int32)
    last = jnp.minimum(first + 1, most - 1)
    low, high = (
      jnp.take_along_axis(ordered, index[None], axis=0)[0]
      for index in (first, last)
    )
    return low + (place - first) * (high - low)

  ndtr = jax.scipy.special.ndtr
  return quantile(ndtr(shift - width)), quantile(ndtr(shift + width))
