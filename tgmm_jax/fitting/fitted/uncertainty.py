"""How sure a fit is, on the host and in the precision of its points."""

import jax
import numpy as np

from tgmm_jax import types
from tgmm_jax.fitting import sizes
from tgmm_jax.solvers import checks, em

METHODS = ("bootstrap", "information")
# Weights of points that the replicates of a batch hold, and replicates in it.
_BATCH_SIZE, _MOST_REPLICATES = 2**23, 64


def of_fit(
  seed: jax.Array | int,
  points: np.ndarray,
  mixture: types.Mixture,
  method: str = "bootstrap",
  *,
  covariance_type: str,
  sample_weight: np.ndarray | None = None,
  num_replicates: int = 200,
  level: float = 0.9,
  **options,
) -> em.Uncertainty:
  """`em.bootstrap` or `em.information` of points that have passed the door.

  Args:
    seed: of the bootstrap, from 0 to 2^32 - 1, or a key of JAX.
    points: `[N, d]`, of NumPy.
    mixture: of NumPy, without padding.
    method: one of `METHODS`.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]`, or None for ones.
    num_replicates: of the bootstrap.
    level: the probability that an interval is to hold.
    **options: fields of `em.Options`, for the bootstrap.

  Returns:
    An `em.Uncertainty` in NumPy.
  """
  checks.name("method", method, METHODS)
  dtype = np.result_type(points.dtype, mixture.means.dtype, np.float32)
  if sample_weight is None:
    sample_weight = np.ones(len(points))
  points, sample_weight, mixture = jax.tree.map(
    lambda leaf: np.asarray(leaf, dtype), (points, sample_weight, mixture)
  )
  points = sizes.padded(points)
  shared = {
    "covariance_type": covariance_type,
    "sample_weight": sizes.padded(sample_weight),
    "level": level,
  }
  with jax.enable_x64(dtype == np.float64):
    if method == "information":
      found = em.information(points, mixture, **shared)
    else:
      if not isinstance(seed, jax.Array):
        seed = jax.random.key(np.uint32(seed))
      most = max(1, _BATCH_SIZE // len(points))
      found = em.bootstrap(
        seed,
        points,
        mixture,
        num_replicates=num_replicates,
        batch_size=min(_MOST_REPLICATES, most),
        **shared,
        **options,
      )
    return jax.tree.map(np.asarray, found)
