"""Fits whose mixtures are known: nothing is fitted, nothing compiled."""

import numpy as np

from tgmm_jax import fitting, gmm, types

K, DIM, NUM_POINTS = 3, 2, 12


def mixture_of(covariance_type, seed=0, dtype=np.float64):
  """Parameters of every type, by NumPy."""
  rng = np.random.default_rng(seed)
  weights = np.array([0.2, 0.3, 0.5])
  means = 3.0 * rng.normal(size=(K, DIM))
  shape = gmm.kind_of(covariance_type).shape(K, DIM)
  if covariance_type == "unit":
    covariances = None
  elif gmm.kind_of(covariance_type).structure == "matrix":
    factors = rng.normal(size=(*shape[:-1], 4))
    covariances = np.einsum("...ij,...kj->...ik", factors, factors) / 4.0
  else:
    covariances = np.asarray(rng.uniform(0.3, 2.0, size=shape))
  values = (weights, means, covariances)
  return types.Mixture(
    *(None if leaf is None else np.asarray(leaf, dtype) for leaf in values)
  )


def matrices(covariance_type, mixture):
  """The covariance of each component, `[K, d, d]`."""
  covariances, eye = mixture.covariances, np.eye(DIM)
  return {
    "unit": lambda: np.broadcast_to(eye, (K, DIM, DIM)),
    "tied_spherical": lambda: np.stack(K * [covariances * eye]),
    "spherical": lambda: covariances[:, None, None] * eye,
    "diag": lambda: covariances[:, :, None] * eye,
    "tied": lambda: np.stack(K * [covariances]),
    "full": lambda: covariances,
  }[covariance_type]()


def one(covariance_type="full", seed=0, dtype=np.float64, **changes):
  """The fit of one problem of 12 points."""
  values = {
    "mixture": mixture_of(covariance_type, seed, dtype),
    "num_components": np.int32(K),
    "log_likelihood": np.float32(-3.25 - seed),
    "labels": np.arange(NUM_POINTS, dtype=np.int32) % K,
    "status": np.int32(types.Status.CONVERGED),
    "method_index": np.int32(0),
    "is_outside_range": np.bool_(False),
    "num_iters": np.int32(7),
    "covariance_type": covariance_type,
    "methods": ("network full", "EM"),
  }
  return fitting.Fit(**values | changes)


def batch(covariance_type="full", count=2):
  """The fit of several problems; the last has no mixture."""
  fits = [one(covariance_type, seed) for seed in range(count)]
  values = {
    name: np.stack([getattr(own, name) for own in fits])
    for name in ("num_components", "log_likelihood", "labels", "status")
    + ("method_index", "is_outside_range", "num_iters")
  }
  covariances = [own.mixture.covariances for own in fits]
  mixture = types.Mixture(
    np.stack([own.mixture.weights for own in fits]),
    np.stack([own.mixture.means for own in fits]),
    None if covariance_type == "unit" else np.stack(covariances),
  )
  found = fits[0]._replace(mixture=mixture, **values)
  status = found.status.copy()
  status[-1] = types.Status.INVALID_INPUT
  return found._replace(status=status)
