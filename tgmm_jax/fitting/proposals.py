"""Where a trained network thinks that the components of a mixture are.

It looks at a problem from several views: rotations of its frame and, where the
variances are unknown to a network that has a unit of its own, several guesses
of the noise's scale.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, linalg, pretrained, types
from tgmm_jax.fitting import networks, sizes
from tgmm_jax.models import factory
from tgmm_jax.solvers import covariance as covariance_lib
from tgmm_jax.solvers import programs
from tgmm_jax.tasks import trained_range

# Networks were trained on 128 points at most. Of more they read a sample, so
# that there is one program for all N.
_NUM_ROWS = 256
# Guesses of the noise's standard deviation, as shares of the points' spread.
_LOWEST_SHARE, _HIGHEST_SHARE = 0.08, 0.6


class Proposals(NamedTuple):
  """What a network answers to V views of each of B problems.

  Attributes:
    starts: a mixture `[B, V, ...]`, finite; without covariances where the
      network's are of another type.
    is_outside: `[B]` bool, whether the points look unlike those that the
      network was trained on; False where it sees several guesses of the scale.
  """

  starts: types.Mixture
  is_outside: np.ndarray


def guesses_scale(config: factory.ModelConfig, *, covariance_type: str) -> bool:
  """Whether the noise's scale must be guessed before a network can look.

  It must where the variances are unknown and the network has a unit of its own.

  Args:
    config: of the network.
    covariance_type: of the mixtures that are asked for.
  """
  is_known = gmm.kind_of(covariance_type).is_known
  return not is_known and not config.is_scale_free


def propose(
  name: str,
  keys: np.ndarray,
  problems: sizes.Problems,
  num_components: np.ndarray,
  *,
  covariance_type: str,
  num_views: int,
  seed: int,
) -> Proposals:
  """What a shipped network answers.

  Args:
    name: of the network, one that covers the problems.
    keys: `[B, 2]`, data of keys, consumed; the views.
    problems: B of them; of many points the network reads a sample.
    num_components: `[B]`.
    covariance_type: of the mixtures, one of `gmm.COVARIANCE_TYPES`.
    num_views: V.
    seed: of the sample.

  Returns:
    Proposals in the coordinates of the problems, in float64; of points that are
    not finite they mean nothing.
  """
  card, params = networks.loaded(name)
  points, sample_weight, *_ = problems.sampled(_NUM_ROWS, seed=seed)
  scale = np.ones(len(points))
  if not gmm.kind_of(covariance_type).is_known:
    extent = np.max(np.abs(points), axis=(1, 2))
    is_usable = np.isfinite(extent) & (extent > 0)
    scale = np.exp2(np.floor(np.log2(np.where(is_usable, extent, 1.0))))
  is_guessed = guesses_scale(card.config, covariance_type=covariance_type)
  limits = None if is_guessed else card.range_of(points.shape[-1])
  with np.errstate(over="ignore"), jax.enable_x64(False):
    found = _propose(
      keys,
      params,
      (points / scale[:, None, None]).astype(np.float32),
      num_components,
      sample_weight.astype(np.float32),
      limits,
      config=card.config,
      num_views=num_views,
      covariance_type=covariance_type,
    )
  starts, is_outside = jax.tree.map(np.asarray, found)
  scale = scale[:, None, None, None]
  weights, means, covariances = (
    None if leaf is None else leaf.astype(np.float64) for leaf in starts
  )
  if card.config.covariance_type != covariance_type:
    covariances = None
  elif covariances is not None:
    covariances = (
      covariances * scale.reshape(-1, *(1,) * (covariances.ndim - 1)) ** 2
    )
  return Proposals(
    types.Mixture(weights, means * scale, covariances), is_outside
  )


def shapes(
  name: str,
  problems: sizes.Problems,
  dtype: np.dtype,
  *,
  covariance_type: str,
  num_views: int,
) -> types.Mixture:
  """Shapes of the starts of `propose`.

  Args:
    name: as in `propose`.
    problems: as in `propose`.
    dtype: of the starts.
    covariance_type: as in `propose`.
    num_views: as in `propose`.
  """
  config = networks.card_of(name).config
  num_problems, _, dim = problems.points.shape
  size = max(config.num_components)

  def shape(*own):
    return jax.ShapeDtypeStruct((num_problems, num_views, *own), dtype)

  kind = gmm.kind_of(covariance_type)
  has_own = config.covariance_type == covariance_type and not kind.is_known
  return types.Mixture(
    shape(size),
    shape(size, dim),
    shape(*kind.shape(size, dim)) if has_own else None,
  )


@functools.partial(
  programs.quick,
  static_argnames=("config", "num_views", "covariance_type"),
  records=(types.Mixture, trained_range.TrainedRange),
)
def _propose(
  keys,
  params,
  points,
  num_components,
  sample_weight,
  limits,
  *,
  config,
  num_views,
  covariance_type,
):
  """A mixture with the axes B and V, and whether problems are outside `[B]`."""
  solve = factory.solver(factory.build(config), params, knows_origin=False)
  shares = jnp.geomspace(_LOWEST_SHARE, _HIGHEST_SHARE, num_views)
  about = pretrained.about(config)

  def propose_one(key, points, num_components, weight):
    key = jax.random.wrap_key_data(key)
    mean = linalg.weighted_mean(points, sample_weight=weight)
    own = jnp.where((weight > 0)[:, None], points - mean, 0.0)
    look = functools.partial(
      _look, solve, own, num_components, weight, config, covariance_type
    )
    starts = jax.vmap(look)(jax.random.split(key, num_views), shares)
    starts = starts._replace(
      means=jnp.where(starts.weights[..., None] > 0, starts.means + mean, 0.0)
    )
    is_outside = jnp.zeros((), bool)
    if limits is not None:
      is_outside = trained_range.is_outside(
        limits, points, sample_weight=weight, about=about
      )
    return starts, is_outside

  return programs.over_problems(
    propose_one, keys, points, num_components, sample_weight
  )


def _look(
  solve, points, num_components, weight, config, covariance_type, key, share
):
  """What a network answers to one view of centred points."""
  scale = jnp.ones(points.shape[-1], points.dtype)
  if guesses_scale(config, covariance_type=covariance_type):
    variance = weight @ points**2 / jnp.sum(weight)
    if gmm.kind_of(covariance_type).frame == "similarity":
      variance = jnp.full_like(variance, jnp.mean(variance))
    scale = jnp.sqrt(jnp.where(variance > 0, variance, 1.0)) * share
  weights, means, covariances = solve(
    key, points / scale, num_components, sample_weight=weight
  ).mixture
  if not gmm.kind_of(config.covariance_type).is_known:
    covariances = covariance_lib.scaled(
      covariances, scale, covariance_type=config.covariance_type
    )
  return types.Mixture(weights, means * scale, covariances)
