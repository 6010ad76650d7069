"""`tgmm_jax.fit`: the shipped networks propose, EM does the rest.

Networks propose mixtures (`proposals`), and EM goes on from the likeliest of
each until it converges. What no network covers is fitted by EM from several
starts.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, pretrained, types
from tgmm_jax.fitting import networks, proposals
from tgmm_jax.fitting.fitted import Fit, columns_of
from tgmm_jax.solvers import checks, combine, em, selection
from tgmm_jax.tasks import trained_range

# The largest K that "auto" tries where the caller names none.
_MAX_COMPONENTS = 5
# k-means++ starts where no network covers the problem.
_NUM_STARTS = 10


def fit(
  points: Any,
  num_components: Any = "auto",
  *,
  covariance_type: str = "full",
  sample_weight: Any = None,
  max_components: int = _MAX_COMPONENTS,
  num_views: int = 8,
  num_restarts: int = 0,
  seed: int = 0,
) -> Fit:
  """Fits one mixture, or a batch of them.

  The first call of a shape compiles for some seconds.

  Args:
    points: `[N, d]` or `[B, N, d]`: an array of any library on the host, a
      frame of pandas, Polars or Arrow, or nested lists.
    num_components: K, `[B]` of them, or "auto": the K from 1 to
      `max_components` of highest probability: that by BIC, times K! for the
      orders of the components.
    covariance_type: one of `gmm.COVARIANCE_TYPES`; "unit" is the known
      identity.
    sample_weight: `[N]` or `[B, N]`, or None for ones; 0 is padding.
    max_components: the largest K of "auto"; above what the network answers
      all K are fitted by EM with restarts.
    num_views: of the networks together, each with EM after it.
    num_restarts: EM from so many k-means++ starts as well, and the likelier of
      both is kept; 0: only where no network covers the problem (10 starts).
    seed: of views and starts, less than 2^32; the same seed gives the same fit.

  Returns:
    A `Fit`; arrays without the axis B for one problem.

  Raises:
    ValueError: wrong shapes or names, K out of range, no good problem.
  """
  columns = columns_of(points)
  points, sample_weight, is_single = checks.one_or_many(
    points, sample_weight=sample_weight
  )
  checks.name("covariance_type", covariance_type, gmm.COVARIANCE_TYPES)
  checks.integer("num_views", num_views, lowest=1)
  checks.integer("num_restarts", num_restarts, lowest=0)
  checks.integer("max_components", max_components, lowest=1)
  checks.integer("seed", seed, lowest=0, highest=2**32 - 1)
  is_auto = isinstance(num_components, str)
  if is_auto:
    checks.name("num_components", num_components, ("auto",), "or an integer")
  batch = checks.batch(
    points, 1 if is_auto else num_components, sample_weight=sample_weight
  )
  settings = _Settings(covariance_type, int(num_views), int(num_restarts))
  key = jax.random.key(seed)
  if is_auto:
    found = _fit_auto(key, batch, max_components, settings)
  else:
    found = _fit(key, batch, settings)
  found = found[0] if is_single else found
  return found._replace(columns=columns)


class _Settings(NamedTuple):
  """What holds for all problems of a call."""

  covariance_type: str
  num_views: int
  num_restarts: int


def _fit(key, batch, settings):
  """Fits a batch whose K are given."""
  counts = sorted(set(np.asarray(batch.num_components).tolist()))
  names = networks.networks_for(
    batch.points.shape[-1], counts, covariance_type=settings.covariance_type
  )
  results, methods = _candidates(key, batch, settings, names)
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
  choice = jax.vmap(combine.most_likely, in_axes=1)(stacked)
  result = jax.tree.map(
    lambda leaf: leaf[choice, jnp.arange(len(choice))], stacked
  )
  mixture = _sort(result.mixture, covariance_type=settings.covariance_type)
  return Fit(
    mixture=mixture,
    num_components=batch.num_components,
    log_likelihood=result.log_likelihood,
    labels=_labels(batch, mixture, covariance_type=settings.covariance_type),
    status=result.status,
    num_iters=result.num_iters,
    method_index=choice.astype(jnp.int32),
    is_outside_range=_is_outside(names, batch, result.status, settings),
    covariance_type=settings.covariance_type,
    methods=tuple(methods),
  )


def _candidates(key, batch, settings, names):
  """The fits among which the likeliest is chosen, and whose each is."""
  keys = jax.random.split(key, 3)
  run_batch = functools.partial(
    em.run_batch, covariance_type=settings.covariance_type
  )
  num_views = settings.num_views
  results, methods = [], []
  for index, name in enumerate(names[:num_views]):
    card, params = networks.loaded(name)
    start = proposals.best(
      keys[0],
      batch,
      config=card.config,
      params=params,
      covariance_type=settings.covariance_type,
      # Dealt out in turn, the first network's own first.
      num_views=len(range(index, num_views, len(names))),
    )
    results.append(run_batch(keys[1], batch, init=start))
    methods.append(f"network {name}")
  if not names or settings.num_restarts:
    num_init = settings.num_restarts or _NUM_STARTS
    results.append(run_batch(keys[2], batch, num_init=num_init))
    methods.append("EM")
  return results, methods


def _fit_auto(key, batch, max_components, settings):
  """Fits K = 1 ... R; of each problem the most probable one is kept."""
  num_problems, num_points, _ = batch.points.shape
  candidates = np.arange(1, min(max_components, num_points) + 1, dtype=np.int32)
  tried = selection.with_candidates(batch, candidates)
  found = _fit(key, tried, settings)
  counts = tried.num_components
  bic = jax.vmap(
    lambda points, mixture, count, weight: selection.bic(
      points,
      mixture,
      count,
      covariance_type=settings.covariance_type,
      sample_weight=weight,
    )
  )(tried.points, found.mixture, counts, tried.sample_weight)
  # BIC is of one order of the components; all K! are the same mixture.
  cost = bic - 2.0 * jax.scipy.special.gammaln(counts + 1.0)
  is_good = found.status < types.Status.DEGENERATE
  cost = jnp.where(is_good, cost, jnp.inf)
  cost = cost.reshape(num_problems, len(candidates))
  # Where every fit is degenerate one component is what is left.
  cost = jnp.where(jnp.all(jnp.isinf(cost), axis=1, keepdims=True), 0.0, cost)
  rows = jnp.arange(num_problems) * len(candidates) + jnp.argmin(cost, axis=1)
  chosen = jax.tree.map(lambda leaf: leaf[rows], found)
  return chosen._replace(
    candidates=tuple(candidates.tolist()),
    probabilities=jax.nn.softmax(-0.5 * cost, axis=1),
  )


def _sort(mixture, *, covariance_type):
  """Components by ascending weight, padding last."""
  is_padding = mixture.weights == 0
  order = jnp.argsort(jnp.where(is_padding, jnp.inf, mixture.weights), axis=-1)

  def take(leaf):
    shape = order.shape + (1,) * (leaf.ndim - order.ndim)
    return jnp.take_along_axis(leaf, order.reshape(shape), axis=1)

  covariances = mixture.covariances
  if gmm.kind_of(covariance_type).is_per_component:
    covariances = take(covariances)
  return types.Mixture(take(mixture.weights), take(mixture.means), covariances)


@functools.partial(jax.jit, static_argnames="covariance_type")
def _labels_of(points, sample_weight, mixture, *, covariance_type):
  predict = functools.partial(gmm.predict, covariance_type=covariance_type)
  return jnp.where(sample_weight > 0, jax.vmap(predict)(points, mixture), -1)


def _labels(batch, mixture, *, covariance_type):
  """The most probable component of each point, -1 on padding."""
  return _labels_of(
    batch.points, batch.sample_weight, mixture, covariance_type=covariance_type
  )


def _is_outside(names, batch, status, settings):
  """Which are unlike the tasks of the first network; warns if any is."""
  is_outside = np.zeros(len(batch.points), bool)
  if not names:
    return is_outside
  card, _ = networks.loaded(names[0])
  if proposals.guesses_scale(
    card.config, covariance_type=settings.covariance_type
  ):
    # The network saw several guesses of the scale.
    return is_outside
  limits = card.range_of(batch.points.shape[-1])
  about = pretrained.about(card.config)
  found = jax.vmap(
    lambda points, weight: trained_range.is_outside(
      limits, points, sample_weight=weight, about=about
    )
  )(batch.points, batch.sample_weight)
  is_valid = np.asarray(status) != types.Status.INVALID_INPUT
  is_outside = is_valid & np.asarray(found)
  pretrained.warn_if_outside(card, is_outside)
  return is_outside
