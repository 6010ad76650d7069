"""The records that every part of the library exchanges.

Letters in shapes, the same in every docstring: B tasks, N points, d dimension,
K components (the static, padded number), D width, H heads, L layers.

N and K are padded to static sizes. A point of weight 0 is padding; components
from `num_components` on are padding and have weight 0 and mean 0.
"""

import enum
from collections.abc import Callable
from typing import NamedTuple

import jax


class Status(enum.IntEnum):
  """What a solver says of its result: small ints, so that they vmap.

  In every case the parameters of the result are finite.
  """

  CONVERGED = 0  # the stopping rule was met
  MAX_ITER = 1  # stopped by the number of iterations
  DEGENERATE = 2  # the points do not determine the answer, or it collapsed
  INVALID_INPUT = 3  # NaN or inf in the points, no weight, K out of range


class Mixture(NamedTuple):
  """A Gaussian mixture.

  Attributes:
    weights: `[K]`, on the simplex; 0 for padded components.
    means: `[K, d]`.
    covariances: by covariance type `[K, d, d]` (full), `[d, d]` (tied),
      `[K, d]` (diag: variances), `[K]` (spherical), `[]` (tied_spherical) or
      None (unit: known identity).
  """

  weights: jax.Array
  means: jax.Array
  covariances: jax.Array | None = None


class TaskBatch(NamedTuple):
  """Problems with their truth; one problem without the axis B.

  Attributes:
    points: `[B, N, d]`; 0 where `sample_weight` is 0.
    sample_weight: `[B, N]`, non-negative; 0 is padding.
    num_components: `[B]` int32.
    mixture: the true parameters, components by ascending weight.
    labels: `[B, N]` int32, the component of each point; -1 on padding.
  """

  points: jax.Array
  sample_weight: jax.Array
  num_components: jax.Array
  mixture: Mixture
  labels: jax.Array


class SolverResult(NamedTuple):
  """What a solver returns for one problem.

  Attributes:
    mixture: the estimate, always finite.
    log_likelihood: `[]`, mean log density per unit of weight.
    num_iters: `[]` int32.
    status: `[]` int32, a `Status`.
    history: the log-likelihood before each step, or None where none is kept.
    is_outside_range: `[]` bool, of a shipped network: whether the points look
      unlike those it was trained on; None where nobody asks.
  """

  mixture: Mixture
  log_likelihood: jax.Array
  num_iters: jax.Array
  status: jax.Array
  history: jax.Array | None = None
  is_outside_range: jax.Array | None = None


# `(key, points [N, d], num_components, *, sample_weight [N]) -> SolverResult`
# for ONE problem; whatever else a solver takes is bound beforehand.
Solver = Callable[..., SolverResult]
