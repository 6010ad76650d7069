"""Where a trained network thinks that the components of a mixture are.

It looks at a problem from several views: rotations of its frame and, where the
variances are unknown to a network that has a unit of its own, several guesses
of the noise's scale. A few EM steps follow each proposal, with the covariances
that are asked for, and the likeliest is kept.
"""

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import checks, combine, em
from tgmm_jax.solvers import covariance as covariance_lib

if TYPE_CHECKING:
  from tgmm_jax.models import factory

# EM steps after each proposal.
_NUM_STEPS = 10
# Guesses of the noise's standard deviation, as shares of the points' spread.
_LOWEST_SHARE, _HIGHEST_SHARE = 0.08, 0.6
# Forward passes at a time.
_BATCH_SIZE = 128


def guesses_scale(
  config: "factory.ModelConfig", *, covariance_type: str
) -> bool:
  """Whether the noise's scale must be guessed before a network can look.

  It must where the variances are unknown and the network has a unit of its own.

  Args:
    config: of the network.
    covariance_type: of the mixtures that are asked for.
  """
  is_known = gmm.kind_of(covariance_type).is_known
  return not is_known and not config.is_scale_free


def best(
  key: jax.Array,
  batch: checks.Batch,
  *,
  config: "factory.ModelConfig",
  params: "factory.Params",
  covariance_type: str,
  num_views: int,
) -> types.Mixture:
  """The likeliest mixture after a few EM steps from each view's proposal.

  Args:
    key: consumed; the views.
    batch: the problems; K is at most the network's.
    config: of the network.
    params: its parameters.
    covariance_type: of the mixtures, one of `gmm.COVARIANCE_TYPES`.
    num_views: V.

  Returns:
    A `Mixture` with the axis B; points that are not finite have one too, which
    means nothing.
  """
  num_problems = batch.points.shape[0]
  start = _propose(
    key,
    params,
    batch._replace(max_components=None),
    config=config,
    num_views=num_views,
    covariance_type=covariance_type,
    max_components=batch.max_components,
  )
  if config.covariance_type != covariance_type:
    start = start._replace(covariances=None)
  found = em.run_batch(
    key,
    jax.tree.map(
      lambda leaf: jnp.repeat(leaf, num_views, axis=0),
      batch._replace(max_components=None),
    )._replace(max_components=batch.max_components),
    covariance_type=covariance_type,
    init=start,
    max_iter=_NUM_STEPS,
    tol=0.0,
  )
  by_view = jax.tree.map(
    lambda leaf: leaf.reshape(num_problems, num_views, *leaf.shape[1:]), found
  )
  choice = jax.vmap(combine.most_likely)(by_view)
  return jax.tree.map(
    lambda leaf: leaf[jnp.arange(num_problems), choice], by_view.mixture
  )


@functools.partial(
  jax.jit,
  static_argnames=("config", "num_views", "covariance_type", "max_components"),
)
def _propose(
  key,
  params,
  batch,
  *,
  config,
  num_views,
  covariance_type,
  max_components,
):
  """What the network answers to each view, a mixture with the axis B V."""
  from tgmm_jax.models import factory  # with Flax, which takes a second

  solve = factory.solver(factory.build(config), params, knows_origin=False)
  own_type = config.covariance_type
  own_kind = gmm.kind_of(own_type)
  is_guessed = guesses_scale(config, covariance_type=covariance_type)
  has_one_scale = gmm.kind_of(covariance_type).frame == "similarity"
  num_problems = batch.points.shape[0]
  shares = jnp.geomspace(_LOWEST_SHARE, _HIGHEST_SHARE, num_views)

  def propose_one(index):
    problem, view = index // num_views, index % num_views
    weight = batch.sample_weight[problem]
    own = jnp.where((weight > 0)[:, None], batch.points[problem], 0.0)
    centre = linalg.weighted_mean(own, sample_weight=weight)
    scale = jnp.ones(own.shape[-1], own.dtype)
    if is_guessed:
      squares = jnp.where((weight > 0)[:, None], (own - centre) ** 2, 0.0)
      variance = weight @ squares / jnp.sum(weight)
      if has_one_scale:
        variance = jnp.full_like(variance, jnp.mean(variance))
      deviation = jnp.sqrt(jnp.where(variance > 0, variance, 1.0))
      scale = deviation * shares[view]
    result = solve(
      jax.random.fold_in(key, index),
      (own - centre) / scale,
      batch.num_components[problem],
      sample_weight=weight,
    )
    weights, means, covariances = result.mixture
    is_component = weights > 0
    means = jnp.where(is_component[:, None], means * scale + centre, 0.0)
    if not own_kind.is_known:
      covariances = covariance_lib.scaled(
        covariances, scale, covariance_type=own_type
      )
    if own_kind.is_per_component:
      covariances = covariances[:max_components]
    return types.Mixture(
      weights[:max_components], means[:max_components], covariances
    )

  return jax.lax.map(
    propose_one, jnp.arange(num_problems * num_views), batch_size=_BATCH_SIZE
  )
