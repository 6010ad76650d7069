"""Second moments of all components by one product with what they share.

The squares and products of a point's coordinates are the same for every
component: a block's moments are one product `[K, n] [n, d (d + 3) / 2 + 1]`
instead of K small ones. They are about the origin, and what a component varies
is then the difference of large numbers: of those for whom too little would be
left of it `thinnest` names some, to be done by themselves, and says whether
there are more.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, linalg, types

# The error of a covariance in its own units was measured to be a twentieth of
# resolution times ratio: at this bound it is ten times the resolution's root,
# 3e-3 in float32, which is what rounding such a covariance once does as well.
_MOST_LOST = 200.0


class Thinnest(NamedTuple):
  """The components whose moments are not left to the product of all.

  Attributes:
    index: `[m]`, those with most to lose, m = K / 4.
    are_enough: `[]`, whether all others can be told from moments about the
      origin.
  """

  index: jax.Array
  are_enough: jax.Array


def thinnest(mixture: types.Mixture, measured: gmm.Metric) -> Thinnest:
  """Which components need moments about their own means.

  Args:
    mixture: of full covariances.
    measured: its metric.
  """
  about_origin = jnp.sum(mixture.means**2, axis=-1) + jnp.trace(
    mixture.covariances, axis1=-2, axis2=-1
  )
  ratio = about_origin * jnp.sum(measured.whitening**2, axis=(-2, -1))
  # A component without points has nothing to tell.
  ratio = jnp.where(mixture.weights > 0, ratio, 0.0)
  num_own = max(1, ratio.size // 4)
  values, index = jax.lax.top_k(ratio, min(num_own + 1, ratio.size))
  resolution = jnp.finfo(ratio.dtype).eps
  is_rest_told = values[-1] * resolution**0.5 < _MOST_LOST
  return Thinnest(index[:num_own], is_rest_told | (ratio.size == num_own))


def about_origin(share: jax.Array, columns: jax.Array) -> jax.Array:
  """Moments of one block, `[K, (d + 1) (d + 2) / 2]`: of pairs of `[x, 1]`.

  Args:
    share: `[K, n]`, responsibility times weight.
    columns: `[d, n]`.
  """
  ones = jnp.ones((1, columns.shape[1]), columns.dtype)
  columns = jnp.concatenate([columns, ones])
  first, second = np.triu_indices(columns.shape[0])
  # Taken by index, pairs are made in one loop and the product is called for
  # once; put together of slices they take three times as long.
  return linalg.matmul(share, (columns[first] * columns[second]).T)


def about_means(
  moments: jax.Array, means: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Mass `[K]`, sums `[K, d]` and scatter `[K, d, d]` of the differences.

  Args:
    moments: from `about_origin`, added up.
    means: `[K, d]`, about which sums and scatter are.
  """
  size = means.shape[1] + 1
  place = np.zeros((size, size), int)
  first, second = np.triu_indices(size)
  place[first, second] = place[second, first] = np.arange(first.size)
  raw = moments[:, place]  # [K, d + 1, d + 1]
  mass, sums = raw[:, -1, -1], raw[:, -1, :-1]
  crossed = means[:, :, None] * sums[:, None, :]
  squares = mass[:, None, None] * means[:, :, None] * means[:, None, :]
  scatter = raw[:, :-1, :-1] - crossed - crossed.swapaxes(1, 2) + squares
  return mass, sums - mass[:, None] * means, scatter
