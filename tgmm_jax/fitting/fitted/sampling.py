"""Points drawn from fitted mixtures, in blocks."""

import functools
import itertools
import operator

import jax
import numpy as np

from tgmm_jax import gmm, types

# Rows of a block: the same for all N, so that a longer draw begins as a shorter
# one and all share a compiled program.
_NUM_ROWS = 512
# Numbers in the factors that are gathered for a block, 8 MB in float64.
_BLOCK_SIZE = 2**20


def sample(
  key: jax.Array | int,
  mixture: types.Mixture,
  num_points: int,
  *,
  covariance_type: str,
) -> tuple[np.ndarray, np.ndarray]:
  """Draws points and their labels.

  Args:
    key: of JAX, consumed; or a seed from 0 to 2^32 - 1.
    mixture: the parameters, perhaps with an axis B; the draws of one problem
      do not depend on the others.
    num_points: N.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.

  Returns:
    points `[N, d]` and labels `[N]` int32, with the axis B where the mixture
    has it.
  """
  is_single = np.ndim(mixture.weights) == 1
  mixture = jax.tree.map(np.asarray, mixture)
  if is_single:
    mixture = jax.tree.map(lambda leaf: leaf[None], mixture)
  dtype = np.result_type(mixture.means, np.float32)
  mixture = jax.tree.map(lambda leaf: leaf.astype(dtype), mixture)
  num_problems, _, dim = mixture.means.shape
  most = max(1, _BLOCK_SIZE // (_NUM_ROWS * dim**2))
  sets = min(2 ** (num_problems - 1).bit_length(), most)
  points = np.empty((num_problems, num_points, dim), dtype)
  labels = np.empty((num_problems, num_points), np.int32)
  places = itertools.product(
    range(0, num_problems, sets), range(0, num_points, _NUM_ROWS)
  )
  with jax.enable_x64(dtype == np.float64):
    if not isinstance(key, jax.Array):
      key = jax.random.key(np.uint32(key))
    for first, start in places:
      place = slice(first, first + sets), slice(start, start + _NUM_ROWS)
      own = np.minimum(np.arange(first, first + sets), num_problems - 1)
      drawn = _draw(
        jax.random.fold_in(key, start // _NUM_ROWS),
        own,
        jax.tree.map(operator.itemgetter(own), mixture),
        covariance_type=covariance_type,
      )
      count, length = labels[place].shape
      points[place], labels[place] = (
        np.asarray(leaf)[:count, :length] for leaf in drawn
      )
  return (points[0], labels[0]) if is_single else (points, labels)


@functools.partial(jax.jit, static_argnames="covariance_type")
def _draw(key, problems, mixture, *, covariance_type):
  def draw_one(problem, mixture):
    return gmm.sample(
      jax.random.fold_in(key, problem),
      mixture,
      _NUM_ROWS,
      covariance_type=covariance_type,
    )

  return jax.vmap(draw_one)(problems, mixture)
