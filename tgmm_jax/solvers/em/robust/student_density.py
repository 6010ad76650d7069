"""The density of Student t components, to the last digits at any degrees."""

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, types

# From here on the series of `_half_step` has all digits.
_LARGE = 24.0


def log_joint(
  mixture: types.Mixture,
  degrees: jax.Array,
  distances: jax.Array,
  log_det: jax.Array,
  dim: int,
) -> jax.Array:
  """`log(weight_k) + log density_k(x_n)`, `[K, N]`, without -d/2 log(2 pi).

  Args:
    mixture: its weights are used.
    degrees: `[K]`, of freedom.
    distances: `[K, N]`, squared, in the scale matrices, as is
    log_det: `[K]` or `[]`; both from `gmm.distances`.
    dim: d.
  """
  bias = gmm.log_weights(mixture) - 0.5 * log_det + _log_ratio(degrees, dim)
  half = 0.5 * (degrees + dim)[:, None]
  return bias[:, None] - half * jnp.log1p(distances / degrees[:, None])


def _log_ratio(degrees, dim):
  """`log Gamma((v + d) / 2) - log Gamma(v / 2) - d / 2 log(v / 2)`, `[K]`.

  What a t density has and a normal one has not. As products of v / 2 + i, for
  of large degrees the difference of the gammas would be rounding.
  """
  half, steps = 0.5 * degrees, jnp.arange(dim // 2, dtype=degrees.dtype)
  first, ratio = 0.0, 0.0
  if dim % 2:
    first, ratio = 0.5, _half_step(half)
  terms = jnp.log1p((first + steps) / half[:, None])
  return ratio + jnp.sum(terms, axis=-1)


def _half_step(x):
  """`log Gamma(x + 1/2) - log Gamma(x) - log(x) / 2`."""
  small = jnp.minimum(x, _LARGE)
  exact = jax.lax.lgamma(small + 0.5) - jax.lax.lgamma(small)
  exact -= 0.5 * jnp.log(small)
  y = 1.0 / jnp.maximum(x, _LARGE)
  square = y * y
  series = 1.0 / 640.0 - square * (17.0 / 14336.0 - square * (31.0 / 18432.0))
  series = -y * (1.0 / 8.0 - square * (1.0 / 192.0 - square * series))
  return jnp.where(x < _LARGE, exact, series)
