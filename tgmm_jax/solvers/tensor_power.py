"""The robust tensor power method (Anandkumar et al. 2014, algorithm 1)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Decomposition(NamedTuple):
  """Eigenpairs of a symmetric tensor, padded ones 0.

  Attributes:
    eigenvalues: `[K]`, in the order in which they were found.
    vectors: `[K, K]`, a unit vector in each row.
  """

  eigenvalues: jax.Array
  vectors: jax.Array


def power_step(tensor: jax.Array, vector: jax.Array) -> jax.Array:
  """`T(I, v, v)` over its norm; a vector mapped to 0 stays where it is."""
  mapped = jnp.einsum("ijk,j,k->i", tensor, vector, vector)
  norm = jnp.sqrt(jnp.sum(mapped**2))
  return jnp.where(norm > 0, mapped / jnp.where(norm > 0, norm, 1.0), vector)


def decompose(
  key: jax.Array,
  tensor: jax.Array,
  num_components: jax.Array | int,
  *,
  num_restarts: int = 10,
  num_iters: int = 30,
) -> Decomposition:
  """Finds the eigenpairs one after the other, with restarts and deflation.

  For each: `num_iters` power steps from random unit vectors, as many more
  from the best of them, then the rank-one term is taken off the tensor.

  Args:
    key: consumed; folded with the number of each component.
    tensor: `[K, K, K]`, symmetric; padding must be 0.
    num_components: K of the problem, may be traced.
    num_restarts: random vectors for each component.
    num_iters: power steps; they converge quadratically.
  """
  size = tensor.shape[0]
  is_component = jnp.arange(size) < num_components

  def climb(tensor, vector):
    return jax.lax.fori_loop(
      0, num_iters, lambda _, vector: power_step(tensor, vector), vector
    )

  def find(tensor, index):
    # Coordinates first, so that they do not depend on the padding.
    starts = jax.random.normal(
      jax.random.fold_in(key, index), (size, num_restarts), tensor.dtype
    ).T
    starts = jnp.where(is_component, starts, 0.0)
    starts = starts / jnp.linalg.norm(starts, axis=-1, keepdims=True)
    vectors = jax.vmap(climb, in_axes=(None, 0))(tensor, starts)
    values = jax.vmap(_value, in_axes=(None, 0))(tensor, vectors)
    vector = climb(tensor, vectors[jnp.argmax(values)])
    value = _value(tensor, vector)
    rank_one = jnp.einsum("i,j,k->ijk", vector, vector, vector)
    return tensor - value * rank_one, (value, vector)

  _, (values, vectors) = jax.lax.scan(find, tensor, jnp.arange(size))
  return Decomposition(
    jnp.where(is_component, values, 0.0),
    jnp.where(is_component[:, None], vectors, 0.0),
  )


def _value(tensor, vector):
  return jnp.einsum("ijk,i,j,k->", tensor, vector, vector, vector)
