"""Where a trained network thinks that the components of a mixture are.

It looks at a problem from several views: rotations of its frame and, where the
variances are unknown to a network that has a unit of its own, several guesses
of the noise's scale.
"""

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, pretrained, types
from tgmm_jax.fitting import networks, sizes
from tgmm_jax.solvers.execution import programs
from tgmm_jax.tasks import trained_range

if TYPE_CHECKING:
  # Where no network proposes Flax is not needed.
  from tgmm_jax.models import factory

# Networks were trained on 128 points at most. Of more they read a sample, so
# that there is one program for all N.
_NUM_ROWS = 256
# Where the scale is guessed it sees the leading directions of more coordinates:
# there is one program for all d above.
_MOST_DIRECTIONS = 8
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


def propose(
  name: str,
  keys: np.ndarray,
  problems: sizes.Problems,
  num_components: np.ndarray,
  *,
  covariance_type: str,
  max_components: int,
  num_views: int,
  seed: int,
  are_many: bool = False,
) -> Proposals:
  """What a shipped network answers.

  Args:
    name: of the network, one that covers the problems.
    keys: `[B, 2]`, data of keys, consumed; the views.
    problems: B of them; of many points the network reads a sample.
    num_components: `[B]`.
    covariance_type: of the mixtures, one of `gmm.COVARIANCE_TYPES`.
    max_components: static K of the answers, at least the network's.
    num_views: V.
    seed: of the sample.
    are_many: whether so many are to come that an optimising compiler pays.

  Returns:
    Proposals in the coordinates of the problems, in float64; of points that are
    not finite they mean nothing.
  """
  card, params = networks.loaded(name)
  sample = problems.sampled(_NUM_ROWS, seed=seed)
  is_guessed = guesses_scale(card.config, covariance_type=covariance_type)
  sight = _sight_of(sample, is_guessed, covariance_type)
  limits = None if is_guessed else card.range_of(sample.points.shape[-1])
  with np.errstate(over="ignore"), jax.enable_x64(False):
    look = _propose.optimized if are_many else _propose
    found = look(
      keys,
      params,
      sight.points.astype(np.float32),
      num_components,
      sample.sample_weight.astype(np.float32),
      limits,
      config=card.config,
      num_views=num_views,
      is_guessed=is_guessed,
    )
  starts, is_outside = jax.tree.map(np.asarray, found)
  has_own = card.config.covariance_type == covariance_type
  starts = _from_sight(starts, sight, has_own)
  starts = sizes.resized(
    starts, max_components, covariance_type=covariance_type
  )
  return Proposals(starts, is_outside)


class _Sight(NamedTuple):
  """Problems as a network sees them.

  Attributes:
    points: `[B, n, r]`.
    centre: `[B, d]`.
    unit: `[B, d]`.
    directions: `[B, d, r]`, or None where r = d and nothing is turned.
  """

  points: np.ndarray
  centre: np.ndarray
  unit: np.ndarray
  directions: np.ndarray | None


def _sight_of(problems, is_guessed, covariance_type):
  """About the mean, in units of the spread where the scale is guessed."""
  weight = problems.sample_weight[..., None].astype(np.float64)
  with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
    total = np.sum(weight, axis=1)
    centre = np.sum(weight * problems.points, axis=1) / total
    points = np.where(weight > 0, problems.points - centre[:, None], 0.0)
    unit = np.ones_like(centre)
    if is_guessed:
      unit = np.sqrt(np.sum(weight * points**2, axis=1) / total)
      if gmm.kind_of(covariance_type).frame == "similarity":
        unit[:] = np.sqrt(np.mean(unit**2, axis=1, keepdims=True))
    elif not gmm.kind_of(covariance_type).is_known:
      unit[:] = np.max(np.abs(points), axis=(1, 2))[:, None]
      unit = np.exp2(np.floor(np.log2(unit)))
    unit = np.where(np.isfinite(unit) & (unit > 0), unit, 1.0)
    points = points / unit[:, None]
  if not is_guessed or points.shape[-1] <= _MOST_DIRECTIONS:
    return _Sight(points, centre, unit, None)
  usable = np.where(np.isfinite(points), points, 0.0)
  scatter = np.einsum("bni,bnj->bij", weight * usable, usable)
  _, vectors = np.linalg.eigh(scatter)
  directions = vectors[..., -_MOST_DIRECTIONS:]
  return _Sight(points @ directions, centre, unit, directions)


def _from_sight(starts, sight, has_own):
  """Answers in the coordinates of the problems, in float64."""
  weights, means, covariances = (
    None if leaf is None else leaf.astype(np.float64) for leaf in starts
  )
  if sight.directions is not None:
    means = means @ np.swapaxes(sight.directions, 1, 2)[:, None]
  means = means * sight.unit[:, None, None] + sight.centre[:, None, None]
  means = np.where(weights[..., None] > 0, means, 0.0)
  if not has_own or covariances is None:
    return types.Mixture(weights, means, None)
  # A network that sees all coordinates in one unit.
  scale = sight.unit[:, 0].reshape(-1, *(1,) * (covariances.ndim - 1))
  return types.Mixture(weights, means, covariances * scale**2)


def shapes(
  name: str,
  problems: sizes.Problems,
  dim: int,
  *,
  covariance_type: str,
  max_components: int,
  num_views: int,
) -> types.Mixture:
  """Shapes of the starts of `propose`, in the precision of the problems.

  Args:
    name: as in `propose`.
    problems: as in `propose`.
    dim: how many coordinates they are given.
    covariance_type: as in `propose`.
    max_components: as in `propose`.
    num_views: as in `propose`.
  """
  config = networks.card_of(name).config
  leading = (len(problems.points), num_views)

  def shape(*own):
    return jax.ShapeDtypeStruct((*leading, *own), problems.points.dtype)

  kind = gmm.kind_of(covariance_type)
  has_own = config.covariance_type == covariance_type and not kind.is_known
  return types.Mixture(
    shape(max_components),
    shape(max_components, dim),
    shape(*kind.shape(max_components, dim)) if has_own else None,
  )


@functools.partial(
  programs.quick,
  records=(types.Mixture, trained_range.TrainedRange),
  most_programs=12,
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
  is_guessed,
):
  """A mixture with the axes B and V, and whether problems are outside `[B]`."""
  from tgmm_jax.models import factory

  solve = factory.solver(factory.build(config), params, knows_origin=False)
  shares = jnp.geomspace(_LOWEST_SHARE, _HIGHEST_SHARE, num_views)
  if not is_guessed:
    shares = jnp.ones(num_views)

  def look(key, share, points, num_components, weight):
    answer = solve(
      key, points / share, num_components, sample_weight=weight
    ).mixture
    return answer._replace(means=answer.means * share)

  def propose_one(key, points, num_components, weight):
    keys = jax.random.split(jax.random.wrap_key_data(key), num_views)
    starts = jax.vmap(look, in_axes=(0, 0, None, None, None))(
      keys, shares, points, num_components, weight
    )
    is_outside = jnp.zeros((), bool)
    if limits is not None:
      is_outside = trained_range.is_outside(
        limits,
        points,
        sample_weight=weight,
        about=pretrained.about(config),
      )
    return starts, is_outside

  return programs.over_problems(
    propose_one, keys, points, num_components, sample_weight
  )
