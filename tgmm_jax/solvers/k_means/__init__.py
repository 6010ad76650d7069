"""k-means, its seeds and clusters merged from its own: where EM starts, too.

Every function of `METHODS` is `(key, points [N, d], num_components, *,
sample_weight, max_components) -> means [K, d]`, K being `max_components`; the
means of padded components are 0, and those of a problem do not depend on how
far it is padded.

Inside, points are columns `[d, N]` and squared distances are sums of squared
differences: expanded, they would lose in float32 what is small beside the
points' norms.
"""

from collections.abc import Callable

import jax

from tgmm_jax.solvers.k_means.lloyd import (
  KMeans,
  k_means,
  k_means_centres,
  move_means,
)
from tgmm_jax.solvers.k_means.seeding import (
  k_means_plus_plus,
  normal,
  random_points,
  squared_distances,
)
from tgmm_jax.solvers.k_means.ward import merged, ward_centres

METHODS: dict[str, Callable[..., jax.Array]] = {
  "ward": ward_centres,
  "k-means": k_means_centres,
  "k-means++": k_means_plus_plus,
  "random_points": random_points,
  "normal": normal,
}

__all__ = [
  "METHODS",
  "KMeans",
  "k_means",
  "k_means_centres",
  "k_means_plus_plus",
  "merged",
  "move_means",
  "normal",
  "random_points",
  "squared_distances",
  "ward_centres",
]
