"""How many components there are: K = 1, 2, ... until more are no better."""

import math
import operator
from typing import NamedTuple

import jax
import numpy as np

from tgmm_jax import types
from tgmm_jax.fitting import progress, search, sizes
from tgmm_jax.solvers import checks, selection

# K up to here are always tried.
_ALWAYS = 5
# So many K in a row that are no better are enough.
_PATIENCE = 2


class Chosen(NamedTuple):
  """The fits of B problems, each with its K.

  Attributes:
    found: the fits.
    num_components: `[B]`.
    probabilities: `[B, R]` of the candidates, or None where K was given.
    candidates: the R numbers of components that were tried, or None.
  """

  found: search.Found
  num_components: np.ndarray
  probabilities: np.ndarray | None
  candidates: tuple[int, ...] | None


def choose(
  problems: sizes.Problems, max_components: int, settings: search.Settings
) -> Chosen:
  """Fits K = 1, 2, ... and keeps of each problem the most probable one.

  Its probability is that by BIC, times K! for the orders of the components,
  and 0 where the fit ended degenerate. A warning says so where the largest K is
  the best, and where one K is left because all others ended degenerate.

  Args:
    problems: B of them.
    max_components: the largest K that is tried.
    settings: how each is fitted.
  """
  count = len(problems.points)
  limit = np.minimum(np.sum(problems.sample_weight > 0, axis=1), max_components)
  limit = np.maximum(limit, 1)
  cost, fits = np.zeros((count, 0)), []
  for size in range(1, max_components + 1):
    is_open = (limit >= size) & _goes_on(cost)
    if not np.any(is_open):
      break
    progress.step(f"{size} components")
    index = np.flatnonzero(is_open)
    found = search.find(
      problems.take(index), np.full(len(index), size, np.int32), settings
    )
    column = np.full(count, np.inf)
    column[index] = _cost(
      problems.take(index), found, size, settings.covariance_type
    )
    cost = np.concatenate([cost, column[:, None]], axis=1)
    fits.append((found, index))
  candidates = np.arange(1, cost.shape[1] + 1)
  # Where every fit is degenerate one component is what is left.
  is_lost = np.all(np.isinf(cost), axis=1, keepdims=True)
  cost = np.where(is_lost & (candidates == 1), 0.0, cost)
  best = np.argmin(cost, axis=1)
  _warn(cost[~is_lost[:, 0]], best[~is_lost[:, 0]] + 1, max_components)
  shares = np.exp(0.5 * (cost.min(axis=1, keepdims=True) - cost))
  return Chosen(
    _gather(fits, best, settings.covariance_type),
    (best + 1).astype(np.int32),
    shares / shares.sum(axis=1, keepdims=True),
    tuple(candidates.tolist()),
  )


def _goes_on(cost):
  """Whether more components may be better still, `[B]`."""
  tried = cost.shape[1]
  if tried < _ALWAYS:
    return np.ones(len(cost), bool)
  return np.argmin(cost, axis=1) + 1 > tried - _PATIENCE


def _cost(problems, found, size, covariance_type):
  """-2 log of the evidence of one K up to a constant, inf where degenerate."""
  effective = problems.num_points()
  count = selection.num_parameters(
    size, problems.points.shape[-1], covariance_type=covariance_type
  )
  bic = -2.0 * effective * found.log_likelihood + count * np.log(effective)
  # BIC is of one order of the components; all K! are the same mixture.
  cost = bic - 2.0 * math.lgamma(size + 1.0)
  return np.where(found.status < types.Status.DEGENERATE, cost, np.inf)


def _warn(cost, chosen, max_components):
  """Warns of a K that is not the best of several."""
  if max_components > 1 and np.any(chosen == max_components):
    checks.warn(
      f"max_components is {max_components}, and so many components are better"
      " than fewer: more may be better still"
    )
  is_only = np.sum(np.isfinite(cost), axis=1) == 1
  if cost.shape[1] > 1 and np.any(is_only):
    checks.warn(
      f"num_components is {chosen[is_only][0]} because the fits of all other K"
      " ended degenerate"
    )


def _gather(fits, best, covariance_type):
  """Of each problem the fit of its K, padded to the largest."""
  size = max(found.mixture.weights.shape[1] for found, _ in fits)
  methods = max((found.methods for found, _ in fits), key=len)
  rows = []
  for problem, place in enumerate(best):
    found, index = fits[place]
    row = int(np.flatnonzero(index == problem)[0])
    one = jax.tree.map(operator.itemgetter(row), found._replace(methods=None))
    name = found.methods[one.method_index]
    rows.append(
      one._replace(
        mixture=sizes.resized(
          one.mixture, size, covariance_type=covariance_type
        ),
        method_index=methods.index(name),
      )
    )
  gathered = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
  return gathered._replace(methods=methods)
