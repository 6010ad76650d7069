"""Problems and starts for comparing EM with others, in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import gmm, types

REG_COVAR = 1e-6


def fast_only(fast, names):
  """All the names, slow all but some."""
  slow = pytest.mark.slow
  return [
    pytest.param(name, marks=() if name in fast else slow) for name in names
  ]


def restrict(covariances, weights, covariance_type):
  """Covariances `[K, d, d]` of the components, shaped as the type."""
  dim = covariances.shape[-1]
  tied = np.einsum("k,kij->ij", weights, covariances)
  return {
    "unit": None,
    "tied_spherical": np.trace(tied) / dim,
    "spherical": np.trace(covariances, axis1=1, axis2=2) / dim,
    "diag": np.einsum("kii->ki", covariances),
    "tied": tied,
    "full": covariances,
  }[covariance_type]


def expand(covariances, num_components, dim, covariance_type):
  """The inverse of `restrict`."""
  identity = np.eye(dim)
  if covariance_type == "unit":
    return np.broadcast_to(identity, (num_components, dim, dim))
  covariances = np.asarray(covariances)
  return {
    "tied_spherical": lambda: (
      covariances * np.stack([identity] * num_components)
    ),
    "spherical": lambda: covariances[:, None, None] * identity,
    "diag": lambda: covariances[:, :, None] * identity,
    "tied": lambda: np.stack([covariances] * num_components),
    "full": lambda: covariances,
  }[covariance_type]()


def make_start(points, num_components, covariance_type, seed=0):
  """Random weights, random points as means, the covariance of all points."""
  generator = np.random.default_rng(seed)
  weights = generator.uniform(0.3, 1.0, num_components)
  index = generator.choice(len(points), num_components, replace=False)
  pooled = np.stack([np.cov(points.T)] * num_components) / num_components
  weights /= weights.sum()
  covariances = restrict(pooled, weights, covariance_type)
  return types.Mixture(weights, points[index], covariances)


def clusters(shape, num_points, seed=0, spread=2.0):
  """Points `[N, d]` about K random centres; the shape is (K, d)."""
  generator = np.random.default_rng(seed)
  centres = spread * generator.normal(size=shape)
  labels = generator.integers(shape[0], size=num_points)
  return centres[labels] + generator.normal(size=(num_points, shape[1]))


def long_clusters(generator, num_points):
  """Points `[N, 3]` about three centres, in turn."""
  centres = np.array([[0.0, 0.0, 0.0], [4.0, 1.0, 0.0], [0.0, 5.0, 3.0]])
  points = centres[np.arange(num_points) % 3]
  return points + generator.normal(size=points.shape) * [1.0, 0.6, 1.5]


def spoiled_clusters(num_points, every):
  """Long clusters and weights in float32; each so-manieth is NaN, of none."""
  generator = np.random.default_rng(0)
  points = long_clusters(generator, num_points)
  weight = generator.uniform(0.2, 2.0, num_points)
  weight[::every] = 0.0
  points[::every] = np.nan
  return points.astype(np.float32), weight.astype(np.float32)


def start_of_long_clusters(covariance_type):
  """A start a little off the centres of `long_clusters`."""
  means = np.array([[1.0, 0.0, 0.0], [3.0, 1.0, 1.0], [1.0, 4.0, 2.0]])
  shape = gmm.COVARIANCE_TYPES[covariance_type].shape(3, 3)
  covariances = np.full(shape, 2.0)
  if covariance_type in ("full", "tied"):
    covariances = np.broadcast_to(2.0 * np.eye(3), shape)
  leaves = ([0.2, 0.3, 0.5], means, covariances)
  return types.Mixture(*map(jnp.asarray, leaves))


def random_problems(num_problems, spread=2.0, roughness=1.0, distance=0.0):
  """`[B, 60, 3]` points of three clusters of unlike shapes, and centres."""
  generator = np.random.default_rng(5)
  centres = generator.normal(size=(num_problems, 3, 3))
  centres = spread * centres + distance * np.eye(3)
  shapes = roughness * generator.normal(size=(num_problems, 3, 3, 3))
  shapes += 2.0 * np.eye(3)
  labels = generator.integers(3, size=(num_problems, 60))
  noise = generator.normal(size=(num_problems, 60, 3))
  index = np.arange(num_problems)[:, None]
  noise = np.einsum("bnij,bnj->bni", shapes[index, labels], noise)
  return centres[index, labels] + noise, centres
