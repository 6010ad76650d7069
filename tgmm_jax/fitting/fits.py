"""`tgmm_jax.fit`: the shipped networks propose, EM does the rest.

K is found on a sample where there are many points (`choice`), and the best fit
(`search`) goes on with all of them in blocks.
"""

import functools
import operator
from typing import Any

import jax
import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.fitting import choice, progress, search, sizes
from tgmm_jax.fitting.fitted import Fit, columns_of, of_fit
from tgmm_jax.solvers import checks, em


def fit(
  points: Any,
  num_components: Any = "auto",
  *,
  covariance_type: str = "full",
  sample_weight: Any = None,
  max_components: int = 20,
  max_iter: int = 500,
  tol: float = 1e-6,
  min_variance: float | None = None,
  num_views: int = 8,
  num_restarts: int = 10,
  seed: int = 0,
) -> Fit:
  """Fits one mixture, or a batch of them, in the precision of the points.

  The first call of a size compiles for some seconds; see `sizes` for what
  shares programs. Of more than 2,048 points a sample tells K and where EM
  starts.

  Args:
    points: `[N, d]` or `[B, N, d]`: an array of any library on the host, a
      frame of pandas, Polars or Arrow, or nested lists.
    num_components: K, `[B]` of them, or "auto": K = 1 to 5 are tried, and more
      until two have been no better; see `choice.choose`.
    covariance_type: one of `gmm.COVARIANCE_TYPES`; "unit" is the known
      identity.
    sample_weight: `[N]` or `[B, N]`, or None for ones; 0 is padding.
    max_components: the largest K that "auto" tries.
    max_iter: EM steps of a run at most.
    tol: EM ends when a step changes the mean log-likelihood by less.
    min_variance: floor of the variances, see `em.Options`, or None.
    num_views: proposals of the type's network, where one covers d and K.
    num_restarts: k-means++ starts besides.
    seed: of views, starts and samples, less than 2^32.

  Returns:
    A `Fit`, in NumPy; arrays without the axis B for one problem.

  Raises:
    ValueError: wrong shapes or names, K out of range, no good problem.
  """
  columns = columns_of(points)
  points, sample_weight, is_single = checks.one_or_many(
    points, sample_weight=sample_weight
  )
  settings = search.Settings(
    covariance_type,
    num_views,
    num_restarts,
    {"max_iter": max_iter, "tol": tol, "min_variance": min_variance},
    seed,
  )
  is_auto = _check(settings, num_components, max_components)
  batch = checks.batch(
    points, 1 if is_auto else num_components, sample_weight=sample_weight
  )
  with progress.reported("fit"):
    found = _fit(batch, max_components if is_auto else None, settings)
  return (found[0] if is_single else found)._replace(columns=columns)


def _check(settings, num_components, max_components):
  """Refuses what no data could make right; whether K is to be found."""
  checks.name("covariance_type", settings.covariance_type, gmm.COVARIANCE_TYPES)
  for name in ("num_views", "num_restarts"):
    checks.integer(name, getattr(settings, name), lowest=1)
  checks.integer("max_components", max_components, lowest=1)
  checks.integer("seed", settings.seed, lowest=0, highest=2**32 - 1)
  is_auto = isinstance(num_components, str)
  if is_auto:
    checks.name("num_components", num_components, ("auto",), "or an integer")
  return is_auto


def _fit(batch, max_components, settings):
  """A batch that has passed the door; K is looked for up to a limit, if any."""
  points, sample_weight = map(np.asarray, (batch.points, batch.sample_weight))
  problems = sizes.problems_of(
    points, sample_weight=sample_weight, seed=settings.seed
  )
  if max_components is None:
    num_components = np.asarray(batch.num_components)
    found = search.find(problems, num_components, settings)
    chosen = choice.Chosen(found, num_components, None, None)
  else:
    chosen = choice.choose(problems, max_components, settings)
  found = chosen.found
  search.warn_if_outside(found)
  labels = found.labels[:, : points.shape[1]]
  if problems.is_sample:
    progress.step("all points")
    found = _go_on(points, sample_weight, chosen, settings)
    labels = of_fit(
      points,
      found.mixture,
      found.status,
      "labels",
      covariance_type=settings.covariance_type,
      sample_weight=sample_weight,
    )
  return Fit(
    # Without the padding that all problems have.
    mixture=sizes.resized(
      found.mixture,
      int(np.max(chosen.num_components)),
      covariance_type=settings.covariance_type,
    ),
    num_components=chosen.num_components.astype(np.int32),
    log_likelihood=found.log_likelihood,
    labels=labels,
    status=found.status,
    num_iters=found.num_iters,
    method_index=found.method_index.astype(np.int32),
    is_outside_range=found.is_outside,
    probabilities=chosen.probabilities,
    candidates=chosen.candidates,
    covariance_type=settings.covariance_type,
    methods=found.methods,
  )


def _go_on(points, sample_weight, chosen, settings):
  """EM with all points from the fit of a sample, one problem after another."""
  resized = functools.partial(
    sizes.resized, covariance_type=settings.covariance_type
  )
  found = jax.tree.map(np.array, chosen.found._replace(methods=None))
  for index, num_components in enumerate(chosen.num_components):
    if found.status[index] == types.Status.INVALID_INPUT:
      continue
    one = jax.tree.map(operator.itemgetter(index), found.mixture)
    is_point = sample_weight[index] > 0
    result, prior_size = _run(
      (points[index][is_point], sample_weight[index][is_point]),
      resized(one, num_components),
      float(found.prior_size[index]),
      settings,
    )
    mixture = resized(result.mixture, one.weights.size)
    for leaf, own in zip(found.mixture, mixture, strict=True):
      if leaf is not None:
        leaf[index] = own
    found.log_likelihood[index] = result.log_likelihood
    found.status[index] = result.status
    found.num_iters[index] = result.num_iters
    if prior_size > found.prior_size[index]:
      found.method_index[index] += len(chosen.found.methods) // 2
  return found._replace(methods=chosen.found.methods)


def _run(block, start, prior_size, settings):
  """EM from a start with all points; once more with a prior if it must be."""
  run = functools.partial(
    em.fit_stream,
    jax.random.key(settings.seed),
    [block],
    start.weights.size,
    covariance_type=settings.covariance_type,
    init=start,
    **settings.options,
  )
  result = run(prior_size=prior_size)
  if result.status == types.Status.DEGENERATE and prior_size == 0:
    return run(prior_size=search.PRIOR_SIZE), search.PRIOR_SIZE
  return result, prior_size
