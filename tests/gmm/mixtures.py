"""Mixtures of every type, and their covariances written out, in NumPy."""

import numpy as np

from tgmm_jax import gmm, types

K, DIM = 3, 4
WEIGHTS = np.array([0.5, 0.2, 0.3])


def matrices_of(mixture, covariance_type):
  """`[K, d, d]` of any type."""
  size, dim = np.shape(mixture.means)
  identity, own = np.eye(dim), mixture.covariances
  match covariance_type:
    case "unit":
      return np.stack([identity] * size)
    case "tied_spherical":
      return np.stack([own * identity] * size)
    case "spherical":
      return np.stack([value * identity for value in own])
    case "diag":
      return np.stack([np.diag(row) for row in own])
    case "tied":
      return np.stack([own] * size)
    case "full":
      return np.asarray(own)


def made(covariance_type, seed=0, spread=1.5):
  """A mixture of three components in four dimensions, in float64."""
  generator = np.random.default_rng(seed)
  factors = generator.normal(size=(K, DIM, DIM)) + np.eye(DIM)
  full = factors @ factors.transpose(0, 2, 1) / 2 + 0.2 * np.eye(DIM)
  covariances = {
    "unit": None,
    "tied_spherical": np.float64(1.7),
    "spherical": generator.uniform(0.3, 3.0, K),
    "diag": generator.uniform(0.3, 3.0, (K, DIM)),
    "tied": full[0],
    "full": full,
  }[covariance_type]
  means = spread * generator.normal(size=(K, DIM))
  return types.Mixture(WEIGHTS, means, covariances)


def padded(mixture, covariance_type):
  """The same with two components of weight 0, as a batch would have it."""
  weights, means, covariances = mixture
  size, dim = means.shape
  if gmm.COVARIANCE_TYPES[covariance_type].is_per_component:
    extra = gmm.COVARIANCE_TYPES[covariance_type].shape(2, dim)
    covariances = np.concatenate([covariances, np.zeros(extra)])
  return types.Mixture(
    np.concatenate([weights, np.zeros(2)]),
    np.concatenate([means, np.zeros((2, dim))]),
    covariances,
  )
