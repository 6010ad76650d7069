"""How far estimated eigenvalues and eigenvectors are from the true ones.

An eigenvector has no sign: what is compared is the absolute value of the
cosine. (The cosine itself, as the published code of arXiv 2501.01312 takes it,
scores a right vector with the other sign as wrong.) A principal space has no
basis either: projectors are compared. Every function takes one problem and
vmaps.
"""

import functools

import jax
import jax.numpy as jnp

_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def relative_squared_error(estimate: jax.Array, truth: jax.Array) -> jax.Array:
  """`((estimate - truth) / truth)^2`, eigenvalue by eigenvalue.

  Args:
    estimate: `[k]`.
    truth: `[k]`, above 0; for an eigenvalue of 0 the error is not finite.

  Returns:
    `[k]`.
  """
  return ((estimate - truth) / truth) ** 2


def abs_cosine(estimate: jax.Array, truth: jax.Array) -> jax.Array:
  """`|cos|` of the angles between vectors, column by column; sign is free.

  Args:
    estimate: `[d, k]`, of any length; of length 0 the cosine is 0.
    truth: `[d, k]`, unit vectors.

  Returns:
    `[k]`, from 0 to 1.
  """
  estimate = _scale_columns(estimate)
  squared = jnp.sum(estimate**2, axis=0)
  is_zero = squared == 0
  # The root of 0 has no gradient: 1 stands there instead.
  norms = jnp.sqrt(jnp.where(is_zero, 1.0, squared))
  cosine = jnp.abs(jnp.sum(estimate * truth, axis=0)) / norms
  return jnp.minimum(cosine, 1.0)


def projector_distance(estimate: jax.Array, truth: jax.Array) -> jax.Array:
  """`1/2 |P - F F^T|_F^2`, P the projector on the span of the estimate.

  The sum of the squared sines of the principal angles: 0 for the same space, k
  for an orthogonal one, whatever bases describe the two. Not to be trained by:
  the gradient is not finite for every estimate.

  Args:
    estimate: `[d, k]`, any basis of the estimated space, its columns of any
      length; columns that depend on each other span less, and what is missing
      counts as orthogonal.
    truth: `[d, k]`, orthonormal columns.

  Returns:
    `[]`, from 0 to k; nan for an estimate that is not finite.
  """
  basis, sizes, _ = jnp.linalg.svd(
    _scale_columns(estimate), full_matrices=False
  )
  # What the columns do not span has singular values of 0 but for rounding.
  rounding = jnp.finfo(estimate.dtype).eps * max(8, *estimate.shape)
  spanning = jnp.where(sizes <= rounding * sizes[0], 0.0, basis)
  shared = jnp.sum(_matmul(spanning.T, truth) ** 2)
  return jnp.clip(truth.shape[1] - shared, 0.0, truth.shape[1])


def projector_loss(estimate: jax.Array, truth: jax.Array) -> jax.Array:
  """`1/2 |E E^T - F F^T|_F^2` of arXiv 2501.01312: E as it comes.

  0 where the estimate is an orthonormal basis of the true space, in any order
  and with any signs; it also asks the columns to have length 1.

  Args:
    estimate: `[d, k]`, E.
    truth: `[d, k]`, F, orthonormal columns.
  """
  gram = _matmul(estimate.T, estimate)
  shared = _matmul(estimate.T, truth)
  total = jnp.sum(gram**2) - 2.0 * jnp.sum(shared**2) + truth.shape[1]
  return 0.5 * total


def _scale_columns(columns):
  """Columns with a largest entry of 1 to 2, so that squares are in range."""
  # Angles do not change with it: no gradient has to pass. Nor does rounding,
  # with powers of two.
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(columns), axis=0))
  exponent = jnp.frexp(largest)[1] - 1
  return columns / jnp.ldexp(jnp.ones((), columns.dtype), exponent)
