"""What follows from the mixture of one problem, on the host.

Regression, clusters of components, bounds of the entropy: what `gmm` has as
pure functions, in NumPy, in blocks and in few compiled programs.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.fitting import sizes
from tgmm_jax.fitting.fitted import posterior
from tgmm_jax.solvers.execution import programs


def indices_of(
  given: Any, dim: int, columns: Sequence[str] | None
) -> tuple[int, ...]:
  """Indices of coordinates that are given by index or by name.

  Args:
    given: one or several, each once.
    dim: d.
    columns: d names, or None where there are none.

  Raises:
    ValueError: for what is not among them.
  """
  several = (given,) if isinstance(given, str) else given
  if columns is not None and hasattr(several, "__iter__"):
    several = tuple(several)
    names = list(columns)
    unknown = [
      own for own in several if isinstance(own, str) and own not in names
    ]
    if unknown:
      raise ValueError(
        f"given has {unknown[0]!r}, takes names among {', '.join(names)}"
      )
    several = tuple(
      names.index(own) if isinstance(own, str) else own for own in several
    )
  index = gmm.index_of("given", several, dim)
  if len(index) == dim:
    raise ValueError(f"given is {given!r}, takes less than all of {dim}")
  return index


def regress(
  values: np.ndarray,
  mixture: types.Mixture,
  given: tuple[int, ...],
  *,
  covariance_type: str,
) -> gmm.Moments:
  """`gmm.regress`, a block at a time, in the wider dtype.

  Args:
    values: `[N, g]`, finite.
    mixture: of NumPy.
    given: g indices.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  dtype, mixture = _in_one_dtype(values, mixture)
  count = len(values)
  num_rows, _ = posterior.rows_of_block(count, gmm.rows_of_block(mixture))
  run = _regress if count <= posterior.MOST_QUICK else _regress.optimized
  shape = (count, mixture.means.shape[1] - len(given))
  found = gmm.Moments(np.empty(shape, dtype), np.empty(shape, dtype))
  for start in range(0, count, num_rows):
    block = np.zeros((num_rows, len(given)), dtype)
    own = values[start : start + num_rows]
    block[: len(own)] = own
    with jax.enable_x64(dtype == np.float64):
      answer = run(block, mixture, given=given, covariance_type=covariance_type)
    for whole, part in zip(found, answer, strict=True):
      whole[start : start + num_rows] = np.asarray(part)[: len(own)]
  return found


def merge(
  shares: np.ndarray, weights: np.ndarray, *, sample_weight: np.ndarray | None
) -> gmm.Merging:
  """`gmm.merge` in NumPy.

  Args:
    shares: `[N, K]`, of the components.
    weights: `[K]`, of the mixture.
    sample_weight: `[N]`, some of it above 0; or None for ones.
  """
  if sample_weight is None:
    sample_weight = np.ones(len(shares), shares.dtype)
  sample_weight = np.asarray(sample_weight, shares.dtype)
  shares, sample_weight = map(sizes.padded, (shares, sample_weight))
  with jax.enable_x64(shares.dtype == np.float64):
    found = _merge(shares, sample_weight, np.asarray(weights, shares.dtype))
  return jax.tree.map(np.asarray, found)


def entropy_bounds(
  mixture: types.Mixture, *, covariance_type: str
) -> gmm.EntropyBounds:
  """`gmm.entropy_bounds` as two floats.

  Args:
    mixture: of NumPy.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  with jax.enable_x64(True):
    mixture = jax.tree.map(lambda leaf: np.asarray(leaf, float), mixture)
    found = _entropy_bounds(mixture, covariance_type=covariance_type)
  return gmm.EntropyBounds(*map(float, found))


def _in_one_dtype(values, mixture):
  dtype = np.result_type(values, mixture.means, np.float32)
  return dtype, jax.tree.map(lambda leaf: np.asarray(leaf, dtype), mixture)


@functools.partial(programs.quick, most_programs=8)
def _regress(values, mixture, *, given, covariance_type):
  return gmm.regress(values, mixture, given, covariance_type=covariance_type)


@programs.quick
def _merge(shares, sample_weight, weights):
  return gmm.merge(shares, sample_weight=sample_weight, weights=weights)


@programs.quick
def _entropy_bounds(mixture, *, covariance_type):
  return gmm.entropy_bounds(mixture, covariance_type=covariance_type)
