"""Starts of `GaussianMixture` from what a shipped network proposes."""

import operator
from collections.abc import Sequence

import jax
import numpy as np

from tgmm_jax import types
from tgmm_jax.fitting import networks, search, sizes

# As `fit` has by default.
_NUM_VIEWS = 8
# EM steps after each proposal.
_NUM_STEPS = 10


def propose(
  seeds: Sequence[int],
  points: np.ndarray,
  num_components: int,
  *,
  covariance_type: str,
  sample_weight: np.ndarray,
) -> types.Mixture:
  """The network's proposal for each seed, as a mixture `[S, ...]`.

  The network that covers the problem looks from eight views, and of these and
  one drawn start that is taken which is the likeliest after ten EM steps.

  Args:
    seeds: S of them; of the views and, of many points, the sample.
    points: `[N, d]`, finite where there is a weight.
    num_components: K.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]`.

  Raises:
    ValueError: no network covers the problem.
  """
  name = networks.network_for(
    points.shape[-1], [num_components], covariance_type=covariance_type
  )
  if name is None:
    raise ValueError(
      f"init_params is 'network' with n_components = {num_components} and d ="
      f" {points.shape[-1]}, takes what a network covers:"
      f" {networks.coverage(covariance_type=covariance_type)}"
    )
  found = []
  for seed in seeds:
    problems = sizes.problems_of(
      points[None], sample_weight=sample_weight[None], seed=seed
    )
    options = {"max_iter": _NUM_STEPS, "tol": 0.0}
    settings = search.Settings(covariance_type, _NUM_VIEWS, 1, options, seed)
    mixture = search.find(
      problems, np.array([num_components]), settings
    ).mixture
    one = jax.tree.map(operator.itemgetter(0), mixture)
    found.append(
      sizes.resized(one, num_components, covariance_type=covariance_type)
    )
  return jax.tree.map(lambda *leaves: np.stack(leaves), *found)
