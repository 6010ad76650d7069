"""The robust tensor power method (Anandkumar et al. 2014, algorithm 1).

It finds `T = sum_r value_r v_r (x) v_r (x) v_r` where such a sum with
orthonormal `v_r` exists, and is close to it where one nearly does (their
theorem 5.1: the error stays within a constant times that of the tensor, in
spite of the deflation). Of another tensor it finds some terms and says what
they leave.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types

# An eigenvalue below this many roundings of the tensor is none.
_NUM_ROUNDINGS = 100.0


class Options(NamedTuple):
  """How the power method goes on for each component.

  Attributes:
    num_restarts: random unit vectors that it starts from.
    num_iters: power steps, always as many, from each of them and again from
      the best; they converge quadratically.
  """

  num_restarts: int = 10
  num_iters: int = 30


class Decomposition(NamedTuple):
  """Eigenpairs of a symmetric tensor, padded ones 0; always finite.

  Attributes:
    eigenvalues: `[K]`, not negative, in the order in which they were found.
      `T(v, v, v)` changes its sign with v, so the sign is in the vector.
    vectors: `[K, K]`, a unit vector in each row.
    errors: `[K]`, `|T(I, v, v) - value v|` in the deflated tensor in which
      the pair was found, over the norm of the whole tensor.
    residual: `[]`, norm of what the terms leave over that of the tensor; 0
      of the zero tensor. Near 0 only where the terms are the tensor.
    status: `[]` int32. CONVERGED: every pair is one, to the root of the
      rounding error; MAX_ITER: some is not yet, and perhaps never will be;
      DEGENERATE: there are fewer terms than asked for, the rest has
      eigenvalues of about 0 and arbitrary vectors; INVALID_INPUT: NaN or
      inf, no symmetry, or K out of range, and all eigenvalues are 0.
  """

  eigenvalues: jax.Array
  vectors: jax.Array
  errors: jax.Array
  residual: jax.Array
  status: jax.Array


def power_step(tensor: jax.Array, vector: jax.Array) -> jax.Array:
  """`T(I, v, v)` over its norm; a vector mapped to 0 stays where it is.

  Args:
    tensor: `[K, K, K]`, symmetric, its entries neither so large nor so small
      that their squares leave the range of the dtype.
    vector: `[K]`, of norm 1.
  """
  mapped = _map(tensor, vector)
  norm = jnp.sqrt(jnp.sum(mapped**2))
  return jnp.where(norm > 0, mapped / jnp.where(norm > 0, norm, 1.0), vector)


def decompose(
  key: jax.Array,
  tensor: jax.Array,
  num_components: jax.Array | int,
  options: Options = Options(),  # noqa: B008 a NamedTuple does not change
) -> Decomposition:
  """Finds the eigenpairs one after the other, with restarts and deflation.

  For each: power steps from random unit vectors, as many more from the best of
  them, then the rank-one term is taken off the tensor.
  Equal eigenvalues are no difficulty, unlike those of a matrix. Fails (see
  `residual`) on tensors that are far from a sum of orthogonal terms; there
  the steps may not even settle. Quadratic convergence is slow at first from
  a start between two vectors: that is what the restarts are for.

  Args:
    key: consumed; folded with the number of each component, for its starts.
    tensor: `[K, K, K]`, symmetric, of any scale; what is beyond
      `num_components` in any axis is not read.
    num_components: K of the problem, may be traced.
    options: how each is found.
  """
  size = tensor.shape[0]
  is_in_range = (num_components >= 1) & (num_components <= size)
  num_components = jnp.clip(num_components, 1, size)
  is_component = jnp.arange(size) < num_components
  tensor, scale, is_valid = _normalise(tensor, is_component)
  norm = jnp.sqrt(jnp.sum(tensor**2))

  def find(tensor, index):
    starts = draw_starts(
      jax.random.fold_in(key, index),
      is_component,
      options.num_restarts,
      tensor.dtype,
    )
    value, vector = _best_of(tensor, starts, options.num_iters)
    value = jnp.where(is_component[index], value, 0.0)
    error = _map(tensor, vector) - value * vector
    rank_one = linalg.einsum("i,j,k->ijk", vector, vector, vector)
    return tensor - value * rank_one, (value, vector, _norm(error))

  left, (values, vectors, errors) = jax.lax.scan(find, tensor, jnp.arange(size))
  safe_norm = jnp.where(norm > 0, norm, 1.0)
  errors = jnp.where(is_component, errors, 0.0) / safe_norm
  eps = jnp.finfo(tensor.dtype).eps
  is_found = (values > _NUM_ROUNDINGS * eps * norm) | ~is_component
  status = jnp.where(
    jnp.all(errors <= eps**0.5), types.Status.CONVERGED, types.Status.MAX_ITER
  )
  status = jnp.where(jnp.all(is_found), status, types.Status.DEGENERATE)
  status = jnp.where(is_valid & is_in_range, status, types.Status.INVALID_INPUT)
  return Decomposition(
    eigenvalues=values * scale,
    vectors=jnp.where(is_component[:, None], vectors, 0.0),
    errors=errors,
    residual=_norm(left) / safe_norm,
    status=status.astype(jnp.int32),
  )


def draw_starts(
  key: jax.Array,
  is_component: jax.Array,
  num_restarts: int,
  dtype: jax.typing.DTypeLike,
) -> jax.Array:
  """Random unit vectors `[R, K]` in the coordinates of the components.

  Args:
    key: consumed.
    is_component: `[K]` bool, some True; the other coordinates are 0, and the
      vectors do not depend on how many there are.
    num_restarts: R.
    dtype: of the vectors.
  """
  # Coordinates first, so that they do not depend on the padding.
  starts = jax.random.normal(key, (is_component.size, num_restarts), dtype).T
  starts = jnp.where(is_component, starts, 0.0)
  return starts / jnp.linalg.norm(starts, axis=-1, keepdims=True)


def is_symmetric(tensor: jax.Array) -> jax.Array:
  """Whether `[K, K, K]` is finite and the same with its axes in any order.

  To the cube root of the rounding error of its largest entry: in moments
  large terms cancel.
  """
  tolerance = jnp.finfo(tensor.dtype).eps ** (1 / 3) * jnp.max(jnp.abs(tensor))
  return (
    jnp.all(jnp.isfinite(tensor))
    & jnp.all(jnp.abs(tensor - tensor.transpose(1, 0, 2)) <= tolerance)
    & jnp.all(jnp.abs(tensor - tensor.transpose(0, 2, 1)) <= tolerance)
  )


def _normalise(tensor, is_component):
  """The tensor with entries of at most 1, their scale, and if it is valid."""
  mask = is_component[:, None, None] & is_component[:, None] & is_component
  tensor = jnp.where(mask, tensor, 0.0)
  is_valid = is_symmetric(tensor)
  tensor = jnp.where(is_valid, tensor, 0.0)
  largest = jnp.max(jnp.abs(tensor))
  scale = jnp.where(largest > 0, largest, 1.0)
  return tensor / scale, scale, is_valid


def _best_of(tensor, starts, num_iters):
  """Value and vector that the best start climbs to."""

  def climb(vector):
    vector = jax.lax.fori_loop(
      0, num_iters, lambda _, vector: power_step(tensor, vector), vector
    )
    value = jnp.sum(_map(tensor, vector) * vector)
    # A step forgets the sign; it is negative only where none has settled.
    sign = jnp.where(value < 0, -1.0, 1.0).astype(tensor.dtype)
    return sign * value, sign * vector

  values, vectors = jax.vmap(climb)(starts)
  return climb(vectors[jnp.argmax(values)])


def _map(tensor, vector):
  return linalg.einsum("ijk,j,k->i", tensor, vector, vector)


def _norm(array):
  return jnp.sqrt(jnp.sum(array**2))
