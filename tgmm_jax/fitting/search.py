"""The best mixture of given K for each problem: proposals, restarts, then EM.

A shipped network proposes; further starts are drawn. A few steps of EM
tell which of all are worth going on with, and the likeliest end is kept.
"""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, pretrained, types
from tgmm_jax.fitting import networks, proposals, sizes
from tgmm_jax.solvers import em
from tgmm_jax.solvers.execution import cores, programs

# How many points the prior of a second run counts for, where the first ends
# with a component that has collapsed.
PRIOR_SIZE = 1.0
# By how much the log-likelihood of all points must be higher for a drawn start
# to be kept instead of a proposal: small accidental groups give so much.
HEAD_START = 5.0
# With these a fit of the paper's tasks is as likely as that of the best of all
# runs to their end, in a quarter of the time.
_NUM_TRIAL_STEPS, _NUM_FINALS = 20, 3


class Settings(NamedTuple):
  """What holds for all problems of a call.

  Attributes:
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    num_views: of the network.
    num_restarts: k-means++ starts.
    options: of `em.Options`, when runs end and what floor variances have.
    seed: of everything.
  """

  covariance_type: str
  num_views: int
  num_restarts: int
  options: dict[str, float | None]
  seed: int


class Found(NamedTuple):
  """What was found for B problems, in NumPy.

  Attributes:
    mixture: components by ascending weight, padding last, in the coordinates of
      the points.
    log_likelihood: `[B]`.
    labels: `[B, n]`, of the points of the programs.
    status: `[B]`.
    num_iters: `[B]`.
    method_index: `[B]`, which of `methods`.
    prior_size: `[B]`, of the covariances.
    is_outside: `[B]` bool, see `proposals.Proposals`.
    methods: names of ways to a fit.
  """

  mixture: types.Mixture
  log_likelihood: np.ndarray
  labels: np.ndarray
  status: np.ndarray
  num_iters: np.ndarray
  method_index: np.ndarray
  prior_size: np.ndarray
  is_outside: np.ndarray
  methods: tuple[str, ...]


def find(
  problems: sizes.Problems, num_components: np.ndarray, settings: Settings
) -> Found:
  """Fits B problems, some at a time.

  Args:
    problems: B of them.
    num_components: `[B]`.
    settings: how.
  """
  count = len(num_components)
  size = sizes.num_problems_for(count)
  max_components = sizes.max_components_for(int(np.max(num_components)))
  network = networks.network_for(
    problems.points.shape[-1],
    np.unique(num_components).tolist(),
    covariance_type=settings.covariance_type,
  )
  way = _Way(max_components, network, sizes.are_many(count))

  def find_from(first):
    # The last ones fill up what is missing.
    index = np.minimum(np.arange(first, first + size), count - 1)
    part = _find_some(
      problems.take(index), num_components[index], way, settings
    )
    return jax.tree.map(operator.itemgetter(slice(count - first)), part)

  parts = cores.map_ahead(find_from, range(0, count, size))
  found = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
  methods = (f"network {network}", "EM") if network else ("EM",)
  with_prior = tuple(f"{method}, with a prior" for method in methods)
  return found._replace(methods=methods + with_prior)


class _Way(NamedTuple):
  """How the problems of a call are fitted, besides what is asked for."""

  max_components: int  # static K
  network: str | None  # that proposes
  are_many: bool  # whether they are worth an optimising compiler


def _find_some(problems, num_components, way, settings):
  """As many problems as a program takes."""
  keys, dtype = _keys(settings.seed, problems.index), problems.points.dtype
  dim, covariance_type = problems.points.shape[-1], settings.covariance_type
  points = problems.widened(covariance_type=covariance_type)
  plan = em.make_plan(
    {
      # Ten of these differ more than ten by Ward's rule: where groups have odd
      # shapes their best is nearer.
      "init": "k-means++",
      "num_init": settings.num_restarts,
      "prior_if_degenerate": PRIOR_SIZE,
      **settings.options,
    },
    points,
    num_components,
    covariance_type=covariance_type,
    max_components=way.max_components,
    axes=("B", "N", "d"),
  )
  inputs = em.Inputs(keys, points, num_components, problems.sample_weight, None)
  head_start = HEAD_START / problems.num_points().astype(dtype)
  run = functools.partial(
    _run,
    _search.optimized if way.are_many else _search,
    inputs,
    plan,
    head_start,
    has_64_bits=dtype == np.float64,
  )
  is_outside, num_views = np.zeros(len(keys), bool), 0
  if way.network is None:
    tried, labels = run(None)
  else:
    num_views = settings.num_views
    tried, labels, is_outside = _run_from_proposals(
      run, problems, inputs, way, settings
    )
  result = tried.result
  mixture, log_likelihood = sizes.narrowed(
    result.mixture, result.log_likelihood, dim, covariance_type=covariance_type
  )
  weights, means, covariances = mixture
  # Padding stays 0.
  is_component = (weights > 0)[..., None]
  means = np.where(is_component, means + problems.origin[:, None], 0.0)
  means = means.astype(dtype)
  num_ways, is_drawn = 1 + bool(way.network), tried.start >= num_views
  has_prior = tried.prior_size > 0
  return Found(
    mixture=types.Mixture(weights, means, covariances),
    log_likelihood=log_likelihood,
    labels=labels,
    status=result.status,
    num_iters=result.num_iters,
    method_index=num_ways * has_prior + (num_ways - 1) * is_drawn,
    prior_size=tried.prior_size,
    is_outside=is_outside & (result.status != types.Status.INVALID_INPUT),
    methods=None,
  )


def _run_from_proposals(run, problems, inputs, way, settings):
  """The search from what a network proposes; it is compiled meanwhile."""
  options = {
    "covariance_type": settings.covariance_type,
    "num_views": settings.num_views,
    "max_components": way.max_components,
  }
  dtype = problems.points.dtype
  dim = inputs.points.shape[-1]
  shapes = proposals.shapes(way.network, problems, dim, **options)
  wait = run(shapes, is_ahead=True)
  starts, is_outside = proposals.propose(
    way.network,
    inputs.key,
    problems,
    inputs.num_components,
    seed=settings.seed,
    are_many=way.are_many,
    **options,
  )
  wait()
  starts = sizes.widened(
    jax.tree.map(lambda leaf: leaf.astype(dtype), starts),
    dim,
    covariance_type=settings.covariance_type,
  )
  return (*run(starts), is_outside)


def _run(
  search, inputs, plan, head_start, starts, *, has_64_bits, is_ahead=False
):
  """Runs the program, or only has it compiled; see `programs`."""
  call = (inputs, starts, plan.limits, head_start)
  with jax.enable_x64(has_64_bits):
    if is_ahead:
      return search.compile_aside(*call, form=plan.form)
    return jax.tree.map(np.asarray, search(*call, form=plan.form))


def _keys(seed, index):
  """A key for each problem, by its index, on the host."""
  return np.stack(
    [np.full(len(index), seed, np.uint32), index.astype(np.uint32)], axis=1
  )


@functools.partial(
  programs.quick,
  records=(types.Mixture, types.SolverResult, em.Inputs, em.Limits, em.Tried),
  most_programs=24,
)
def _search(inputs, starts, limits, head_start, *, form):
  """Of each problem the best fit, and labels `[B, n]`, -1 on padding."""

  def search_one(inputs, starts, head_start):
    inputs = inputs._replace(key=jax.random.wrap_key_data(inputs.key))
    tried = em.run_trials(
      inputs,
      starts,
      limits,
      _NUM_TRIAL_STEPS,
      head_start,
      form=form,
      num_finals=_NUM_FINALS,
    )
    mixture = _sort(tried.result.mixture, covariance_type=form.covariance_type)
    labels = gmm.predict(
      jnp.where((inputs.sample_weight > 0)[:, None], inputs.points, 0.0),
      mixture,
      covariance_type=form.covariance_type,
    )
    tried = tried._replace(result=tried.result._replace(mixture=mixture))
    return tried, jnp.where(inputs.sample_weight > 0, labels, -1)

  return programs.over_problems(search_one, inputs, starts, head_start)


def _sort(mixture, *, covariance_type):
  """Components by ascending weight, padding last."""
  order = jnp.argsort(jnp.where(mixture.weights > 0, mixture.weights, jnp.inf))
  covariances = mixture.covariances
  if gmm.kind_of(covariance_type).is_per_component:
    covariances = covariances[order]
  return types.Mixture(
    mixture.weights[order], mixture.means[order], covariances
  )


def warn_if_outside(found: Found) -> None:
  """Warns where points are unlike those that the network was trained on."""
  if np.any(found.is_outside):
    card, _ = networks.loaded(found.methods[0].removeprefix("network "))
    pretrained.warn_if_outside(card, found.is_outside)
