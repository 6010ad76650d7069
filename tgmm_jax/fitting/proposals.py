"""Where a trained network thinks that the components of a mixture are.

It looks at a problem from several views: rotations of its frame and, where the
variances are unknown to a network that has a unit of its own, several guesses
of the noise's scale. A few EM steps follow each proposal, with the covariances
that are asked for, and the likeliest is kept.
"""

import functools

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types
from tgmm_jax.models import factory
from tgmm_jax.solvers import combine, em
from tgmm_jax.solvers import covariance as covariance_lib

# EM steps after each proposal.
_NUM_STEPS = 10
# Guesses of the noise's standard deviation, as shares of the points' spread.
_LOWEST_SHARE, _HIGHEST_SHARE = 0.08, 0.6
# Where all coordinates have one scale; else each gets its own spread.
_ONE_SCALE = ("spherical", "tied_spherical")
# Forward passes at a time.
_BATCH_SIZE = 128


def best(
  key: jax.Array,
  problems: tuple[jax.Array, jax.Array, jax.Array],
  *,
  config: factory.ModelConfig,
  params: factory.Params,
  covariance_type: str,
  num_views: int,
  max_components: int,
) -> types.Mixture:
  """The likeliest mixture after a few EM steps from each view's proposal.

  Args:
    key: consumed; the views.
    problems: points `[B, N, d]`, num_components `[B]`, sample_weight `[B, N]`.
    config: of the network.
    params: its parameters.
    covariance_type: of the mixtures, one of `gmm.COVARIANCE_TYPES`.
    num_views: V.
    max_components: static K of the answer, at most the network's.

  Returns:
    A `Mixture` with the axis B; points that are not finite have one too, which
    means nothing.
  """
  points, num_components, sample_weight = problems
  num_problems = points.shape[0]
  weights, means, covariances = _propose(
    key,
    params,
    points,
    num_components,
    sample_weight,
    config=config,
    num_views=num_views,
    covariance_type=covariance_type,
    max_components=max_components,
  )

  def repeat(leaf):
    return jnp.repeat(leaf, num_views, axis=0)

  is_same_type = factory.covariance_type(config) == covariance_type
  start = types.Mixture(weights, means, covariances if is_same_type else None)
  found = em.fit_batch(
    key,
    repeat(points),
    repeat(num_components),
    sample_weight=repeat(sample_weight),
    max_components=max_components,
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
  points,
  num_components,
  sample_weight,
  *,
  config,
  num_views,
  covariance_type,
  max_components,
):
  """Weights `[B V, K]`, means `[B V, K, d]`, covariances of the network."""
  solve = factory.solver(factory.build(config), params, knows_origin=False)
  own_type = factory.covariance_type(config)
  is_guessed = covariance_type != "unit" and not config.is_scale_free
  num_problems = points.shape[0]
  shares = jnp.geomspace(_LOWEST_SHARE, _HIGHEST_SHARE, num_views)

  def propose_one(index):
    problem, view = index // num_views, index % num_views
    weight = sample_weight[problem]
    own = jnp.where((weight > 0)[:, None], points[problem], 0.0)
    centre = linalg.weighted_mean(own, weight)
    scale = jnp.ones(own.shape[-1], own.dtype)
    if is_guessed:
      squares = jnp.where((weight > 0)[:, None], (own - centre) ** 2, 0.0)
      variance = weight @ squares / jnp.sum(weight)
      if covariance_type in _ONE_SCALE:
        variance = jnp.full_like(variance, jnp.mean(variance))
      deviation = jnp.sqrt(jnp.where(variance > 0, variance, 1.0))
      scale = deviation * shares[view]
    result = solve(
      jax.random.fold_in(key, index),
      (own - centre) / scale,
      num_components[problem],
      sample_weight=weight,
    )
    weights, means, covariances = result.mixture
    is_component = weights > 0
    means = jnp.where(is_component[:, None], means * scale + centre, 0.0)
    if own_type != "unit":
      covariances = covariance_lib.scaled(covariances, scale, own_type)
    if own_type in ("diag", "full"):
      covariances = covariances[:max_components]
    return weights[:max_components], means[:max_components], covariances

  return jax.lax.map(
    propose_one, jnp.arange(num_problems * num_views), batch_size=_BATCH_SIZE
  )
