"""Points that have company: where starts are drawn when there may be outliers.

k-means++ draws by squared distance, so what is far from all others is what it
likes best. Before a draw the points with the farthest neighbours are left out.
"""

import jax
import jax.numpy as jnp

from tgmm_jax.solvers.em import blocks

# Company is a point's distance from the neighbour of this number.
_NUM_NEIGHBOURS = 4
# Neighbours are looked for among so many points, evenly spaced: the work grows
# with N, not with its square.
_MOST_REFERENCES = 512
# Points that are compared with them at a time.
_BLOCK_SIZE = 512


def trimmed(
  columns: jax.Array,
  share: jax.Array | float,
  *,
  sample_weight: jax.Array,
) -> jax.Array:
  """Weights `[N]` with 0 where a point is among the loneliest.

  Args:
    columns: `[d, N]`, in units in which distances mean something.
    share: `[]`, of the weight, that is left out at most; 0 leaves all.
    sample_weight: `[N]`; 0 is padding.
  """
  num_points = columns.shape[1]
  stride = -(-num_points // _MOST_REFERENCES)
  references = columns[:, ::stride]
  is_reference = sample_weight[::stride] > 0
  # A point among the references is the nearest to itself.
  count = min(_NUM_NEIGHBOURS + 1, references.shape[1])

  def of_block(columns, _):
    gaps = jnp.sum((columns[:, :, None] - references[:, None]) ** 2, axis=0)
    gaps = jnp.where(is_reference, gaps, jnp.inf)
    return None, -jax.lax.top_k(-gaps, count)[0][:, -1]

  _, distances = blocks.sum_over(
    of_block, columns, sample_weight=sample_weight, block_size=_BLOCK_SIZE
  )
  # From the loneliest downwards, until the share is reached.
  order = jnp.argsort(-jnp.where(sample_weight > 0, distances, -jnp.inf))
  left_out = jnp.cumsum(sample_weight[order])
  is_lonely = left_out <= share * jnp.sum(sample_weight)
  is_lonely = jnp.zeros(num_points, bool).at[order].set(is_lonely)
  return jnp.where(is_lonely, 0.0, sample_weight)
