"""How many components: BIC, AIC and ICL over a range of K, for many problems.

All criteria are in units of -2 log-likelihood: the smallest is the best.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.solvers import checks, em
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.execution import work_queue

# Criteria are computed for so many fits at a time.
_CHUNK_SIZE = 64


class Criteria(NamedTuple):
  """The criteria of one fit, each `[]`; of `select`, each `[B, R]`.

  Attributes:
    bic: see `bic`.
    aic: see `aic`.
    icl: see `icl`.
  """

  bic: jax.Array
  aic: jax.Array
  icl: jax.Array


class Selection(NamedTuple):
  """What `select` returns for B problems and R candidates.

  Attributes:
    num_components: `[B]` int32, the chosen candidate.
    result: the chosen fits, with a leading axis B; padded to the largest
      candidate. Its status says whether the choice is worth anything.
    candidates: `[R]` int32.
    criteria: `[B, R]` each; inf where the status is INVALID_INPUT.
    log_likelihood: `[B, R]`, mean per unit of weight.
    status: `[B, R]` int32, of every fit.
  """

  num_components: jax.Array
  result: types.SolverResult
  candidates: jax.Array
  criteria: Criteria
  log_likelihood: jax.Array
  status: jax.Array


def num_parameters(
  num_components: jax.Array | int, dim: int, *, covariance_type: str
) -> jax.Array | int:
  """Free parameters: K - 1 weights, K d means, and the covariances.

  Args:
    num_components: K, may be traced.
    dim: d.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  kind = gmm.kind_of(covariance_type)
  covariances = kind.num_parameters(num_components, dim)
  return covariances + num_components * dim + num_components - 1


def criteria(
  points: jax.Array,
  mixture: types.Mixture,
  num_components: jax.Array | int | None = None,
  *,
  covariance_type: str = "unit",
  sample_weight: jax.Array | None = None,
  missing: str = "refused",
) -> Criteria:
  """All three criteria of one fit.

  Args:
    points: `[N, d]`; padding may hold anything.
    mixture: the fit.
    num_components: K of the problem, may be traced; None where the mixture has
      no padding.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]`, or None for ones; a common factor does not count. The
      sample size n is their effective number, `problem.effective_number`, and
      the likelihood counts as that of so many points.
    missing: as in `em.Options`; with "observed" the likelihood is that of what
      is seen, and a point of which nothing is seen counts for nothing.
  """
  if num_components is None:
    num_components = mixture.weights.shape[-1]
  points = jnp.asarray(points)
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], points.dtype)
  evaluate = gmm.log_joint
  if missing == "observed":
    is_empty = jnp.all(jnp.isnan(points), axis=-1)
    sample_weight = jnp.where(is_empty, 0.0, sample_weight)
    evaluate = gmm.observed_log_joint
  is_point = sample_weight > 0
  points = jnp.where(is_point[:, None], points, 0.0)
  log_joint = evaluate(points, mixture, covariance_type=covariance_type)
  log_density = jax.nn.logsumexp(log_joint, axis=-1)
  share = jnp.exp(log_joint - log_density[:, None])
  # 0 log 0 is 0, also for a component of weight 0.
  log_share = jnp.where(share > 0, log_joint - log_density[:, None], 0.0)
  entropy = -jnp.sum(share * log_share, axis=-1)
  size = problem_lib.effective_number(sample_weight)
  # Once scaled, sums over the points are those of so many points.
  sample_weight = sample_weight * (size / jnp.sum(sample_weight))
  deviance = -2.0 * jnp.sum(jnp.where(is_point, sample_weight * log_density, 0))
  count = num_parameters(
    num_components, points.shape[-1], covariance_type=covariance_type
  )
  bic = deviance + count * jnp.log(size)
  return Criteria(
    bic=bic,
    aic=deviance + 2.0 * count,
    icl=bic + 2.0 * jnp.sum(sample_weight * entropy),
  )


def bic(points: jax.Array, mixture: types.Mixture, *args, **options):
  """The Bayesian information criterion (Schwarz 1978), `[]`.

  `-2 log L + p log n`, p parameters and n points. Arguments as in `criteria`.
  """
  return criteria(points, mixture, *args, **options).bic


def aic(points: jax.Array, mixture: types.Mixture, *args, **options):
  """Akaike's information criterion (Akaike 1974), `[]`.

  `-2 log L + 2 p`, p parameters. Arguments as in `criteria`.
  """
  return criteria(points, mixture, *args, **options).aic


def icl(points: jax.Array, mixture: types.Mixture, *args, **options):
  """The integrated completed likelihood, `[]`.

  BIC plus twice the entropy of the responsibilities: the soft version, ICL-BIC
  of McLachlan and Peel (2000, section 6.10.3), of the criterion of Biernacki,
  Celeux and Govaert (2000), who take the likelihood at the most probable
  labels. It prefers components that stand apart. Arguments as in `criteria`.
  """
  return criteria(points, mixture, *args, **options).icl


def select(
  key: jax.Array,
  points: jax.Array,
  candidates: Sequence[int],
  *,
  criterion: str = "bic",
  sample_weight: jax.Array | None = None,
  covariance_type: str = "unit",
  **options,
) -> Selection:
  """Fits each problem with each number of components and takes the best.

  One call of `em.fit_batch` over the B R fits, compiled once: the points are
  held R times, and a step of a fit of few components costs as much as one of
  the largest candidate. The choice is the smallest value of the criterion
  among the fits that are CONVERGED or at MAX_ITER. A DEGENERATE one, whose
  likelihood may be that of a collapsed component, is chosen only where there
  is no other; where all are invalid the first candidate stands.

  Args:
    key: consumed; one key, folded with the index of each problem, or `[B]`.
      Each of them is folded with the candidate, so that a fit does not depend
      on which others are tried.
    points: `[B, N, d]`.
    candidates: R numbers of components, in any order.
    criterion: "bic", "aic" or "icl".
    sample_weight: `[B, N]`, or None for ones.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    **options: of `em.fit_batch` but `point_covariances`.

  Raises:
    ValueError: for candidates or a criterion that cannot be, and as
      `em.fit_batch` does.
  """
  candidates = _checked_candidates(candidates)
  checks.name("criterion", criterion, Criteria._fields)
  if options.get("point_covariances") is not None:
    raise ValueError("point_covariances is given, takes None with select")
  batch = checks.batch(
    points,
    int(candidates.min()),
    sample_weight=sample_weight,
    max_components=int(candidates.max()),
    takes_holes=options.get("missing") == "observed",
  )
  return checks.in_precision_of(
    batch.points,
    lambda: _select(
      key, batch, candidates, criterion, covariance_type, options
    ),
  )


def _select(key, batch, candidates, criterion, covariance_type, options):
  """`select` for what has been checked."""
  keys = jax.vmap(
    jax.vmap(jax.random.fold_in, in_axes=(None, 0)), in_axes=(0, None)
  )(em.keys_of(key, batch.points.shape[0]), candidates)
  tried = with_candidates(batch, candidates)
  fits = em.run_batch(
    keys.reshape(-1), tried, covariance_type=covariance_type, **options
  )
  return _choose(
    fits,
    tried._replace(max_components=None),
    candidates,
    Criteria._fields.index(criterion),
    covariance_type=covariance_type,
    missing=options.get("missing", "refused"),
  )


def with_candidates(
  batch: checks.Batch, candidates: Sequence[int]
) -> checks.Batch:
  """Each problem once for each of R numbers of components, `[B R, ...]`."""
  candidates = np.asarray(candidates, np.int32)
  return checks.Batch(
    points=jnp.repeat(batch.points, candidates.size, axis=0),
    num_components=jnp.tile(candidates, batch.points.shape[0]),
    sample_weight=jnp.repeat(batch.sample_weight, candidates.size, axis=0),
    max_components=int(candidates.max()),
  )


@functools.partial(jax.jit, static_argnames=("covariance_type", "missing"))
def _choose(fits, tried, candidates, criterion, *, covariance_type, missing):
  """The table of all fits, and the best of each problem by one criterion."""

  def criteria_of(inputs):
    mixture, problem = inputs
    return criteria(
      problem.points,
      mixture,
      problem.num_components,
      covariance_type=covariance_type,
      sample_weight=problem.sample_weight,
      missing=missing,
    )

  table = work_queue.map_in_chunks(
    criteria_of, (fits.mixture, tried), _CHUNK_SIZE
  )
  fits, table = jax.tree.map(
    lambda leaf: leaf.reshape(-1, candidates.size, *leaf.shape[1:]),
    (fits, table),
  )
  is_valid = fits.status != types.Status.INVALID_INPUT
  table = jax.tree.map(lambda leaf: jnp.where(is_valid, leaf, jnp.inf), table)
  is_sound = is_valid & (fits.status != types.Status.DEGENERATE)
  is_eligible = is_sound | ~jnp.any(is_sound, axis=-1, keepdims=True)
  values = jnp.where(is_eligible, jnp.stack(table)[criterion], jnp.inf)
  best = jnp.argmin(values, axis=-1)
  return Selection(
    num_components=candidates[best],
    result=jax.tree.map(
      lambda leaf: jax.vmap(lambda row, index: row[index])(leaf, best), fits
    ),
    candidates=candidates,
    criteria=table,
    log_likelihood=fits.log_likelihood,
    status=fits.status,
  )


def _checked_candidates(candidates):
  """As int32 `[R]`."""
  values = list(candidates)
  if not values:
    raise ValueError(f"candidates is {candidates!r}, takes one or more")
  for index, value in enumerate(values):
    checks.integer(f"candidates[{index}]", value, lowest=1)
  return np.array(values, np.int32)
