"""What a fit is: the mixture, how sure it is, and where it comes from."""

from typing import NamedTuple

import jax
import numpy as np

from tgmm_jax import types


class Fit(NamedTuple):
  """What `fit` returns; one problem without the axis B.

  Attributes:
    mixture: the fit, components by ascending weight; padded to the largest K.
    num_components: `[B]` int32, K of each problem: as asked for, or as found.
    log_likelihood: `[B]`, mean log density per unit of weight.
    labels: `[B, N]` int32, the most probable component; -1 on padding.
    status: `[B]` int32, a `types.Status`.
    method: `[B]` strings, where the fit comes from: "network NAME" or "EM".
    is_outside_range: `[B]` bool, whether the points look unlike those that the
      type's first network was trained on, where it does not guess their scale.
    candidates: `[R]` int32, the K that were tried, or None.
    probabilities: `[B, R]` of each of them, or None; too sure where
      components overlap.
  """

  mixture: types.Mixture
  num_components: jax.Array
  log_likelihood: jax.Array
  labels: jax.Array
  status: jax.Array
  method: np.ndarray
  is_outside_range: np.ndarray
  candidates: np.ndarray | None = None
  probabilities: jax.Array | None = None
