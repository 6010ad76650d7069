"""`GaussianMixture` with a noise component: its fit, what it says of points.

In NumPy, of what the mixture alone says: density and shares of the components.
"""

from typing import Any

import jax
import numpy as np

from tgmm_jax import types
from tgmm_jax.fitting import fitted
from tgmm_jax.solvers import checks, combine, em, selection
from tgmm_jax.solvers import problem as problem_lib

# mclust counts the weight and the volume.
_NUM_PARAMETERS = 2


def check(noise: Any) -> None:
  """Refuses what is neither a bool nor a share."""
  if isinstance(noise, bool | np.bool_) or noise is None:
    return
  checks.number("noise", noise, lowest=0.0)
  if noise >= 1.0:
    raise ValueError(f"noise is {noise!r}, takes a bool or a share below 1")


def run(
  keys: jax.Array,
  X: np.ndarray,
  num_components: int,
  noise: bool | float,
  init: types.Mixture | str,
  **options,
) -> em.noise.NoiseFit:
  """The best fit of several starts.

  Args:
    keys: `[S]`, one for each start.
    X: `[N, d]`.
    num_components: K.
    noise: its share at the start, or True for the usual one.
    init: a name, or mixtures `[S, ...]`.
    **options: of `em.noise.fit`.
  """
  if noise is not True:
    options["noise_share"] = float(noise)
  found = []
  for index in range(len(keys)):
    start = init
    if not isinstance(init, str):
      start = jax.tree.map(lambda leaf, index=index: leaf[index], init)
    found.append(
      em.noise.fit(keys[index], X, num_components, init=start, **options)
    )
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *found)
  best = int(combine.most_likely(stacked.result))
  return jax.tree.map(lambda leaf: np.array(leaf[best]), stacked)


def posterior(
  shares: np.ndarray,
  log_density: np.ndarray,
  noise_weight: float,
  noise_log_density: float,
) -> fitted.Posterior:
  """What mixture and noise say together: labels are -1 for noise.

  Shares sum to 1 less the noise's.

  Args:
    shares: `[N, K]`, of the mixture alone.
    log_density: `[N]`, of the mixture alone.
    noise_weight: above 0.
    noise_log_density: the same everywhere.
  """
  with np.errstate(divide="ignore"):
    own = np.log1p(-noise_weight) + log_density
  outside = np.log(noise_weight) + noise_log_density
  total = np.logaddexp(own, outside).astype(log_density.dtype)
  shares = shares * np.exp(own - total)[:, None]
  is_noise = np.exp(outside - total) > shares.max(axis=1)
  labels = np.where(is_noise, -1, shares.argmax(axis=1))
  return fitted.Posterior(labels, shares.astype(log_density.dtype), total)


def criteria(
  said: fitted.Posterior,
  num_components: int,
  dim: int,
  *,
  covariance_type: str,
  sample_weight: np.ndarray,
) -> selection.Criteria:
  """As `selection.criteria`; the noise has two parameters, as in mclust.

  Args:
    said: of the points.
    num_components: K.
    dim: d.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]`.
  """
  size = problem_lib.effective_number(sample_weight)
  weight = sample_weight * (size / sample_weight.sum())
  count = _NUM_PARAMETERS + selection.num_parameters(
    num_components, dim, covariance_type=covariance_type
  )
  deviance = -2.0 * np.sum(weight * said.log_density)
  noise = np.maximum(1.0 - said.shares.sum(axis=1, keepdims=True), 0.0)
  share = np.concatenate([said.shares, noise], axis=1)
  log_share = np.log(np.where(share > 0, share, 1.0))
  entropy = -np.sum(share * log_share, axis=1)
  bic = deviance + count * np.log(size)
  return selection.Criteria(
    bic=bic,
    aic=deviance + 2.0 * count,
    icl=bic + 2.0 * np.sum(weight * entropy),
  )
