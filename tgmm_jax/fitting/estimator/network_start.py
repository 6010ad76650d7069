"""Starts of `GaussianMixture` from what a shipped network proposes."""

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.fitting import networks, proposals
from tgmm_jax.solvers import checks

# As `fit` has by default.
_NUM_VIEWS = 8
# A network reads a sample of more: it was trained on 128 at most.
_MOST_POINTS = 2048


def propose(
  keys: jax.Array,
  points: np.ndarray,
  num_components: int,
  *,
  covariance_type: str,
  sample_weight: np.ndarray,
) -> types.Mixture:
  """The network's proposal for each key, as a mixture `[S, ...]`.

  The first of the networks that cover the problem looks from eight views, ten
  EM steps follow each, and the likeliest is taken.

  Args:
    keys: `[S]`, consumed.
    points: `[N, d]`, finite where there is a weight.
    num_components: K.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]`.

  Raises:
    ValueError: no network covers the problem.
  """
  names = networks.networks_for(
    points.shape[-1], [num_components], covariance_type=covariance_type
  )
  if not names:
    raise ValueError(
      f"init_params is 'network' with n_components = {num_components} and d ="
      f" {points.shape[-1]}, takes what a network covers:"
      f" {networks.coverage(covariance_type=covariance_type)}"
    )
  is_point = sample_weight > 0
  points, weight = points[is_point], sample_weight[is_point]
  found = [
    _propose_one(key, points, weight, num_components, names[0], covariance_type)
    for key in keys
  ]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


def _propose_one(key, points, weight, num_components, name, covariance_type):
  """One proposal; the network works in float32 about the mean."""
  sample_key, view_key = jax.random.split(key)
  count = min(len(points), _MOST_POINTS)
  if count < len(points):
    seed = np.asarray(jax.random.key_data(sample_key)).tolist()
    rows = np.random.default_rng(seed).choice(len(points), count, replace=False)
    points, weight = points[rows], weight[rows]
  dtype = points.dtype
  points, weight = points.astype(float), weight.astype(float)
  centre = np.average(points, axis=0, weights=weight)
  scale = 1.0
  if not gmm.kind_of(covariance_type).is_known:
    extent = np.max(np.abs(points - centre))
    scale = 2.0 ** np.floor(np.log2(extent)) if extent > 0 else 1.0
  # Rounded up to a few sizes, which share a compiled program.
  padding = 2 ** (count - 1).bit_length() - count
  shape = (1, count + padding)
  with jax.enable_x64(False):
    card, params = networks.loaded(name)
    batch = checks.Batch(
      points=jnp.zeros((*shape, points.shape[1]), jnp.float32)
      .at[0, :count]
      .set((points - centre) / scale),
      num_components=jnp.full(1, num_components, jnp.int32),
      sample_weight=jnp.zeros(shape, jnp.float32).at[0, :count].set(weight),
      max_components=num_components,
    )
    mixture = proposals.best(
      view_key,
      batch,
      config=card.config,
      params=params,
      covariance_type=covariance_type,
      num_views=_NUM_VIEWS,
    )
  weights, means, covariances = jax.tree.map(
    lambda leaf: np.asarray(leaf[0], float), mixture
  )
  if covariances is not None:
    covariances = (covariances * scale**2).astype(dtype)
  means = (means * scale + centre).astype(dtype)
  return types.Mixture(weights.astype(dtype), means, covariances)
