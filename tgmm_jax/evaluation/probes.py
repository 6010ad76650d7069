"""What the layers of a trained network know of the leading eigenvector.

The power method started at each point maps `x_i` to `A^l x_i`: step by step
the points turn towards the leading eigenvector v. If a network does the same,
the part of each point along v, `<x_i, v> v`, can be read off the states of its
layers by a linear map, better from layer to layer (a linear probe).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tgmm_jax import linalg
from tgmm_jax.tasks import spectra

# Of the mean square of the states: the ridge of the probe.
_RIDGE = 1e-6


def fit(states: jax.Array, targets: jax.Array) -> jax.Array:
  """The linear map from states, and a constant, of least squared error.

  Args:
    states: `[M, D]`.
    targets: `[M, d]`.

  Returns:
    `[D + 1, d]`; the last row is the constant.
  """
  inputs = _with_constant(states)
  gram = linalg.matmul(inputs.T, inputs) / len(inputs)
  ridge = _RIDGE * jnp.trace(gram) / len(gram)
  cross = linalg.matmul(inputs.T, targets) / len(inputs)
  return jnp.linalg.solve(gram + ridge * jnp.eye(len(gram)), cross)


def apply(probe: jax.Array, states: jax.Array) -> jax.Array:
  """What a probe reads off states `[..., D]`, as `[..., d]`."""
  return linalg.matmul(_with_constant(states), probe)


def cosines_by_layer(
  states_of: Callable[[spectra.SpectralBatch], tuple[jax.Array, ...]],
  training: spectra.SpectralBatch,
  testing: spectra.SpectralBatch,
) -> jax.Array:
  """`|cos|` of what probes read off each point with the leading eigenvector.

  Args:
    states_of: L + 1 arrays `[B, N, D]` of a batch.
    training: problems on which the probes are fitted.
    testing: problems on which they are applied, without padding.

  Returns:
    `[L + 1, B]`, means over the points of each problem.
  """
  targets = _parts_along(training)
  found = []
  for before, states in zip(
    states_of(training), states_of(testing), strict=True
  ):
    width = before.shape[-1]
    probe = fit(
      before.reshape(-1, width), targets.reshape(-1, targets.shape[-1])
    )
    found.append(_mean_cosine(apply(probe, states), testing))
  return jnp.stack(found)


def cosines_by_step(batch: spectra.SpectralBatch, num_steps: int) -> jax.Array:
  """The same for the iterates `A^l x_i` of the power method, l = 0 ... tau.

  Args:
    batch: problems without padding.
    num_steps: tau.

  Returns:
    `[tau + 1, B]`.
  """
  points = _centred(batch)
  iterate, found = points, []
  for _ in range(num_steps + 1):
    found.append(_mean_cosine(iterate, batch))
    projections = linalg.matmul(iterate, jnp.swapaxes(points, 1, 2))
    iterate = linalg.matmul(projections, points)
    # The length does not matter and would grow out of the range.
    iterate /= jnp.max(jnp.abs(iterate), axis=(1, 2), keepdims=True)
  return jnp.stack(found)


def _parts_along(batch):
  """`<x_i, v> v`, `[B, N, d]`: the sign of v drops out."""
  leading = batch.eigenvectors[:, :, 0]
  projections = jnp.sum(_centred(batch) * leading[:, None], axis=-1)
  return projections[..., None] * leading[:, None]


def _centred(batch):
  return batch.points - jnp.mean(batch.points, axis=1, keepdims=True)


def _mean_cosine(vectors, batch):
  leading = batch.eigenvectors[:, None, :, 0]
  norms = jnp.linalg.norm(vectors, axis=-1)
  cosines = jnp.abs(jnp.sum(vectors * leading, axis=-1))
  return jnp.mean(cosines / jnp.where(norms > 0, norms, 1.0), axis=1)


def _with_constant(states):
  return jnp.concatenate([states, jnp.ones_like(states[..., :1])], axis=-1)
