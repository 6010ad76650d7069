"""A cheap test whether a problem looks like those a network was trained on.

It compares two numbers of the points, how far they reach and how wide they
spread, with what the law of training gives. It catches other ranges and
scales; a wrong K or other tails within the range pass it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg
from tgmm_jax.tasks import mixtures

# Shares of ordinary tasks beyond each limit; they add up to 3%.
_ABOVE_REACH = 0.01
_OUTSIDE_SPREAD = 0.01


class TrainedRange(NamedTuple):
  """Limits for problems of one dimension; all `[]`.

  Attributes:
    max_reach: of the largest |coordinate| of any point, about the origin or
      about the mean of the points, or in units of the coordinate's spread.
    min_spread: of the root mean square distance to the mean, per coordinate.
    max_spread: of the same.
  """

  max_reach: jax.Array
  min_spread: jax.Array
  max_spread: jax.Array


def measure(
  key: jax.Array,
  law: mixtures.TaskConfig,
  *,
  num_tasks: int = 4096,
  about: str = "origin",
) -> TrainedRange:
  """The limits that 97 in 100 tasks of a law keep.

  Args:
    key: consumed; draws the tasks.
    law: of training.
    num_tasks: how many tasks are looked at, static.
    about: of the reach, "origin" or "mean"; for a network that does not know
      the origin it must be the mean. "spread" is for one that does not know
      the units either: each coordinate is divided by its own spread.
  """

  def statistics_of(index):
    batch = mixtures.sample_batch(jax.random.fold_in(key, index), law, 64)
    return jax.vmap(lambda points, weight: _statistics(points, weight, about))(
      batch.points, batch.sample_weight
    )

  blocks = jnp.arange(-(-num_tasks // 64))
  reach, spread = jax.jit(lambda: jax.lax.map(statistics_of, blocks))()
  return TrainedRange(
    max_reach=jnp.quantile(reach, 1.0 - _ABOVE_REACH),
    min_spread=jnp.quantile(spread, _OUTSIDE_SPREAD),
    max_spread=jnp.quantile(spread, 1.0 - _OUTSIDE_SPREAD),
  )


def is_outside(
  trained: TrainedRange,
  points: jax.Array,
  *,
  sample_weight: jax.Array,
  about: str = "origin",
) -> jax.Array:
  """Whether a problem is outside the range, `[]` bool.

  Args:
    trained: limits for its dimension.
    points: `[N, d]`; padding may hold anything.
    sample_weight: `[N]`; 0 is padding.
    about: as in `measure`.
  """
  reach, spread = _statistics(points, sample_weight, about)
  is_inside = (reach <= trained.max_reach) & (spread >= trained.min_spread)
  # By what holds, so that NaN is outside.
  return ~(is_inside & (spread <= trained.max_spread))


def _statistics(points, sample_weight, about):
  """Reach and spread of one problem."""
  points = jnp.where((sample_weight > 0)[:, None], points, 0.0)
  mean = linalg.weighted_mean(points, sample_weight=sample_weight)
  is_point = (sample_weight > 0)[:, None]
  centred = jnp.where(is_point, points - mean, 0.0)
  share = sample_weight / jnp.sum(sample_weight)
  spread = jnp.sqrt(jnp.sum(share * jnp.mean(centred**2, axis=-1)))
  if about == "spread":
    deviations = jnp.sqrt(share @ centred**2)
    scaled = centred / jnp.where(deviations > 0, deviations, 1.0)
    return jnp.max(jnp.abs(scaled)), jnp.where(
      jnp.isfinite(spread), 1.0, spread
    )
  reach = jnp.max(jnp.abs(centred if about == "mean" else points))
  return reach, spread
