"""Weighted moments and leading directions of one set of points.

What both the classical solvers and the networks need, below both.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Above this dimension a few subspace iterations replace the full
# eigendecomposition, which costs O(d^3) and whose cost we would not use.
_MAX_DENSE_DIM = 16
_NUM_SUBSPACE_ITERS = 8
_EXTRA_COLUMNS = 12


def weighted_mean(points: jax.Array, sample_weight: jax.Array) -> jax.Array:
  """Mean of `points [N, d]` under `sample_weight [N]`, `[d]`.

  With no weight at all it is 0.
  """
  total = jnp.sum(sample_weight)
  normalised = sample_weight / jnp.where(total > 0, total, 1.0)
  return normalised @ points


def weighted_covariance(
  points: jax.Array, sample_weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Mean `[d]` and covariance `[d, d]` (divisor: the total weight).

  In centred form, so that float32 points far from the origin stay right.
  """
  mean = weighted_mean(points, sample_weight)
  centred = points - mean
  total = jnp.sum(sample_weight)
  normalised = sample_weight / jnp.where(total > 0, total, 1.0)
  return mean, (centred * normalised[:, None]).T @ centred


class PrincipalSubspace(NamedTuple):
  """The leading principal directions of a set of points.

  Attributes:
    mean: `[d]`.
    directions: `[d, r]`, orthonormal columns; zero columns beyond d.
    eigenvalues: `[r]`, variance along each, descending; 0 beyond d.
  """

  mean: jax.Array
  directions: jax.Array
  eigenvalues: jax.Array


def principal_subspace(
  points: jax.Array, sample_weight: jax.Array, rank: int
) -> PrincipalSubspace:
  """The `rank` leading principal directions of weighted points.

  For d > 16 by subspace iteration from a fixed start, so the directions are
  those of the sample covariance only up to the gap between its eigenvalues:
  means of a mixture stand far above the noise.

  Args:
    points: `[N, d]`.
    sample_weight: `[N]`.
    rank: r, static; may exceed d, the rest is zero.
  """
  mean = weighted_mean(points, sample_weight)
  total = jnp.sum(sample_weight)
  normalised = sample_weight / jnp.where(total > 0, total, 1.0)
  scaled = (points - mean) * jnp.sqrt(normalised)[:, None]
  eigenvalues, directions = leading_directions(scaled, rank)
  return PrincipalSubspace(mean, directions, eigenvalues)


def leading_directions(
  rows: jax.Array, rank: int
) -> tuple[jax.Array, jax.Array]:
  """Leading eigenvalues and eigenvectors of `rows^T rows`.

  For d > 16 by subspace iteration from a fixed start: eigenvalues close to
  the next ones come out a little low and their vectors mixed.

  Args:
    rows: `[N, d]`.
    rank: r, static; may exceed d, the rest is zero.

  Returns:
    Eigenvalues `[r]`, descending and not negative, and orthonormal vectors
    `[d, r]`.
  """
  dim = rows.shape[-1]
  kept = min(rank, dim)
  if dim <= _MAX_DENSE_DIM:
    eigenvalues, vectors = jnp.linalg.eigh(_matmul(rows.T, rows))
    eigenvalues = eigenvalues[::-1][:kept]
    directions = vectors[:, ::-1][:, :kept]
  else:
    eigenvalues, directions = _subspace_iteration(rows, kept)
  return (
    jnp.pad(jnp.maximum(eigenvalues, 0.0), (0, rank - kept)),
    jnp.pad(directions, ((0, 0), (0, rank - kept))),
  )


def _subspace_iteration(rows, rank):
  """Orthogonal iteration on X^T X, then Rayleigh-Ritz."""
  num_rows, dim = rows.shape
  # More columns than asked for: a direction converges at the ratio of the
  # eigenvalue after the block to its own, and noise eigenvalues are dense.
  block = min(rank + _EXTRA_COLUMNS, dim)
  basis = jax.random.normal(jax.random.key(0), (dim, block), rows.dtype)
  gram = _matmul(rows.T, rows) if dim <= num_rows else None

  def iterate(_, basis):
    if gram is None:
      product = _matmul(rows.T, _matmul(rows, basis))
    else:
      product = _matmul(gram, basis)
    return jnp.linalg.qr(product)[0]

  basis = jax.lax.fori_loop(0, _NUM_SUBSPACE_ITERS, iterate, basis)
  projected = _matmul(rows, basis)
  eigenvalues, vectors = jnp.linalg.eigh(_matmul(projected.T, projected))
  directions = _matmul(basis, vectors[:, ::-1][:, :rank])
  return eigenvalues[::-1][:rank], directions


_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
