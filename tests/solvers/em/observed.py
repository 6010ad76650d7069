"""The textbook's EM of points with holes and noise, in NumPy, point by point.

Ghahramani and Jordan (1994) and Bovy, Hogg and Roweis (2011): nothing but the
formulas, with the block of what is seen cut out of every matrix.
"""

import numpy as np
import scipy.special
import scipy.stats

from tests.solvers.em import problems as em_problems
from tgmm_jax import types


def posterior(point, noise, mean, covariance):
  """Log density of what is seen, mean and covariance of the latent point."""
  seen = np.flatnonzero(~np.isnan(point))
  if not seen.size:
    return 0.0, mean, covariance
  block = np.ix_(seen, seen)
  total = covariance[block] + noise[block]
  gain = covariance[:, seen] @ np.linalg.inv(total)
  density = scipy.stats.multivariate_normal(mean[seen], total)
  return (
    density.logpdf(point[seen]),
    mean + gain @ (point[seen] - mean[seen]),
    covariance - gain @ covariance[seen],
  )


def posteriors(points, noise, weights, means, covariances):
  """Log joint `[N, K]`, means `[N, K, d]`, covariances `[N, K, d, d]`."""
  found = [
    [posterior(*one, *own) for own in zip(means, covariances, strict=True)]
    for one in zip(points, noise, strict=True)
  ]
  log_joint, latent, rest = (
    np.array([[one[index] for one in row] for row in found])
    for index in range(3)
  )
  return log_joint + np.log(weights), latent, rest


def matrices_of(noise, points):
  """Noise as matrices `[N, d, d]`."""
  dim = points.shape[1]
  if noise is None:
    return np.zeros((len(points), dim, dim))
  return noise[:, :, None] * np.eye(dim) if noise.ndim == 2 else noise


def numpy_em(
  points, noise, sample_weight, start, num_steps, covariance_type, reg_covar
):
  """The mixture, and the mean log-likelihood before each step and after."""
  weights, means = np.asarray(start.weights), np.asarray(start.means)
  shape = means.shape
  covariances = em_problems.expand(start.covariances, *shape, covariance_type)
  noise = matrices_of(noise, points)
  is_empty = np.all(np.isnan(points), axis=1)
  sample_weight = np.where(is_empty, 0.0, sample_weight)
  history = []
  for step in range(num_steps + 1):
    log_joint, latent, rest = posteriors(
      points, noise, weights, means, covariances
    )
    log_density = scipy.special.logsumexp(log_joint, axis=1)
    history.append(np.average(log_density, weights=sample_weight))
    if step == num_steps:
      break
    share = np.exp(log_joint - log_density[:, None]) * sample_weight[:, None]
    mass = share.sum(axis=0)
    weights = mass / mass.sum()
    means = np.einsum("nk,nkd->kd", share, latent) / mass[:, None]
    centred = latent - means
    second = centred[..., None] * centred[..., None, :] + rest
    estimates = np.einsum("nk,nkij->kij", share, second) / mass[:, None, None]
    estimates = estimates + reg_covar * np.eye(shape[1])
    restricted = em_problems.restrict(estimates, weights, covariance_type)
    covariances = em_problems.expand(restricted, *shape, covariance_type)
  restricted = em_problems.restrict(covariances, weights, covariance_type)
  return types.Mixture(weights, means, restricted), np.array(history)


def holed_points(num_points=60, share=0.2, seed=0):
  """Three clusters in d = 3 with holes, one row without any cell; weights."""
  generator = np.random.default_rng(seed)
  points = em_problems.long_clusters(generator, num_points)
  is_missing = generator.random(points.shape) < share
  is_missing[:, 0] &= ~np.all(is_missing, axis=1)
  is_missing[5] = True
  weight = generator.uniform(0.5, 2.0, num_points)
  return np.where(is_missing, np.nan, points), weight


def noise_of(kind, num_points=60, seed=1):
  """Noise of each point, as variances or as matrices; or None."""
  generator = np.random.default_rng(seed)
  if kind == "variances":
    return generator.uniform(0.0, 2.0, (num_points, 3))
  if kind == "matrices":
    factor = generator.normal(size=(num_points, 3, 3))
    return 0.5 * factor @ np.swapaxes(factor, 1, 2)
  return None
