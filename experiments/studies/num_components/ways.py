"""Ways to name the number of components of a batch of tasks.

Each gives probabilities to K = 1 to R. `settings` are those of a study: the
covariance type, R as `max_components`, how often calls are timed.
"""

import time
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import threadpoolctl
from scipy import special
from sklearn import mixture as sklearn_mixture

import tgmm_jax
from experiments.studies.num_components import evidence
from tgmm_jax import pretrained, types
from tgmm_jax.solvers import em, selection

# Of scikit-learn, among the types of the tasks.
PEER_TYPES = ("spherical", "diag", "full")


class Answer(NamedTuple):
  """What one way says of B tasks and R candidates.

  Attributes:
    probabilities: `[B, R]` of K = 1 to R.
    means: `[B, R, d]` of the fit of the most probable K, or None.
    milliseconds: for a task, or None where another way's fits are used.
  """

  probabilities: np.ndarray
  means: np.ndarray | None = None
  milliseconds: float | None = None


def probabilities(values: np.ndarray, status: np.ndarray) -> np.ndarray:
  """Of each candidate, from a criterion of its fit.

  Args:
    values: `[B, R]`, the less the better.
    status: `[B, R]` of the fits; a degenerate one has no chance. Where all
      are, chances are equal.

  Returns:
    `[B, R]`, the softmax of half the negative values.
  """
  values = np.asarray(values, np.float64)
  is_sound = (np.asarray(status) < types.Status.DEGENERATE) & ~np.isnan(values)
  values = np.where(is_sound, values, np.inf)
  values[~np.isfinite(values).any(axis=1)] = 0.0
  return special.softmax(-0.5 * values, axis=1)


def answers(
  points: jax.Array,
  mixture: types.Mixture,
  counts: jax.Array,
  status: jax.Array,
  settings: ml_collections.ConfigDict,
) -> dict[str, Answer]:
  """What each criterion says of the same fits.

  Args:
    points: `[B R, N, d]`, each task once for each K = 1 to R.
    mixture: the fits, with an axis B R.
    counts: `[B R]`, K.
    status: `[B R]`, of the fits.
    settings: of the study: the type, and R.
  """
  covariance_type, size = settings.covariance_type, settings.max_components
  _, num_points, dim = points.shape

  @jax.jit
  @jax.vmap
  def score_one(points, mixture, count):
    options = {"covariance_type": covariance_type}
    table = selection.criteria(points, mixture, count, **options)
    return *table, evidence.evidence(points, mixture, count, **options)

  bic, aic, icl, integrated = (
    np.asarray(values, np.float64)
    for values in score_one(points, mixture, counts)
  )
  counts = np.asarray(counts)
  free = selection.num_parameters(counts, dim, covariance_type=covariance_type)
  # Infinite where there are as many parameters as points.
  left = num_points - free - 1
  penalty = 2.0 * free * (free + 1) / np.maximum(left, 1)
  table = {
    "BIC": bic,
    "BIC + log K!": bic - 2.0 * special.gammaln(counts + 1),
    "evidence": integrated,
    "ICL": icl,
    "AIC": aic,
    "AICc": aic + np.where(left > 0, penalty, np.inf),
  }
  status = np.asarray(status).reshape(-1, size)
  means = np.asarray(mixture.means).reshape(-1, size, size, dim)
  found = {}
  for name, values in table.items():
    chances = probabilities(values.reshape(-1, size), status)
    best = chances.argmax(axis=1)
    found[name] = Answer(chances, means[np.arange(len(best)), best])
  return found


def of_fit(
  points: np.ndarray, settings: ml_collections.ConfigDict, seed: int
) -> Answer:
  """Of `fit` with `num_components="auto"`, for points `[B, N, d]`."""

  def solve():
    return _fit(points, "auto", settings, seed)

  found, spent = _timed(solve, len(points), settings.repeats)
  means = found.mixture.means
  # It ends with the largest K that is named.
  missing = settings.max_components - means.shape[1]
  means = np.pad(means, ((0, 0), (0, missing), (0, 0)))
  return Answer(found.probabilities, means, spent)


def of_network(
  points: np.ndarray, settings: ml_collections.ConfigDict, seed: int
) -> dict[str, Answer]:
  """By criterion, over the fits among which `fit` chooses."""
  repeated, counts = _candidates(points, settings)
  found = _fit(repeated, counts, settings, seed)
  return answers(repeated, found.mixture, counts, found.status, settings)


def of_em(
  points: np.ndarray,
  settings: ml_collections.ConfigDict,
  seed: int,
  num_init: int,
) -> dict[str, Answer]:
  """By criterion, over EM from so many starts; the time is with BIC's."""
  repeated, counts = _candidates(points, settings)

  def solve():
    return jax.block_until_ready(
      em.fit_batch(
        jax.random.key(seed),
        repeated,
        counts,
        covariance_type=settings.covariance_type,
        max_components=settings.max_components,
        init="k-means++",
        num_init=num_init,
      )
    )

  found, spent = _timed(solve, len(points), settings.repeats)
  named = answers(repeated, found.mixture, counts, found.status, settings)
  return named | {"BIC": named["BIC"]._replace(milliseconds=spent)}


def of_peer(
  points: np.ndarray, settings: ml_collections.ConfigDict, seed: int
) -> Answer:
  """Of BIC over scikit-learn's fits from one start, task by task."""
  num_problems, _, dim = points.shape
  size = settings.max_components
  values = np.zeros((num_problems, size))
  means = np.zeros((num_problems, size, dim), np.float32)
  start = time.perf_counter()
  # Threads only wait for each other in problems as small as these.
  with warnings.catch_warnings(), threadpoolctl.threadpool_limits(1):
    warnings.simplefilter("ignore")
    for index, own in enumerate(np.asarray(points, np.float64)):
      fits = [
        sklearn_mixture.GaussianMixture(
          count, covariance_type=settings.covariance_type, random_state=seed
        ).fit(own)
        for count in range(1, size + 1)
      ]
      values[index] = [fit.bic(own) for fit in fits]
      best = int(values[index].argmin())
      means[index, : best + 1] = fits[best].means_
  spent = 1e3 * (time.perf_counter() - start) / num_problems
  chances = probabilities(values, np.zeros(values.shape, int))
  return Answer(chances, means, spent)


def _fit(points, count, settings, seed):
  with warnings.catch_warnings():
    # Some tasks are at the edge of what the network was trained on, and some
    # have the largest K that is tried.
    warnings.simplefilter("ignore", pretrained.OutsideRangeWarning)
    warnings.filterwarnings("ignore", "max_components is")
    warnings.filterwarnings("ignore", "num_components is .* ended degenerate")
    return tgmm_jax.fit(
      points,
      count,
      covariance_type=settings.covariance_type,
      max_components=settings.max_components,
      seed=seed,
    )


def _candidates(points, settings):
  """Each task once for each K: points `[B R, N, d]`, counts `[B R]`."""
  size = settings.max_components
  counts = jnp.tile(jnp.arange(1, size + 1), len(points))
  return jnp.repeat(points, size, axis=0), counts


def _timed(solve, num_tasks, repeats):
  """What it returns, and the least milliseconds for a task, once compiled."""
  found = solve()
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    solve()
    seconds.append(time.perf_counter() - start)
  return found, 1e3 * min(seconds) / num_tasks
