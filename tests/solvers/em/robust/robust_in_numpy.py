"""EM with a noise component and with Student t components, in NumPy and SciPy.

The textbook with full matrices, which `problems.restrict` shapes as a type.
"""

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats

from tests.solvers.em import problems as em_problems
from tgmm_jax import types


def hypervolume(points):
  """The smaller box, along the axes or the principal directions."""
  centred = points - points.mean(axis=0)
  _, _, directions = np.linalg.svd(centred, full_matrices=False)
  return min(
    np.prod(np.ptp(box, axis=0)) for box in (points, centred @ directions.T)
  )


def with_noise(points, weight, start, noise, volume, num_steps, kind):
  """Mixture (weights sum to 1), the noise's weight, the log-likelihood."""
  weights, means = np.asarray(start.weights), np.asarray(start.means)
  covariances = em_problems.expand(start.covariances, *means.shape, kind)
  total = weight.sum()
  for step in range(num_steps + 1):
    normals = map(scipy.stats.multivariate_normal, means, covariances)
    joint = [normal.pdf(points) for normal in normals]
    joint = np.stack(joint) * weights[:, None] * (1.0 - noise)
    density = joint.sum(axis=0) + noise / volume
    if step == num_steps:
      break
    share = joint / density * weight
    noise = np.sum(noise / volume / density * weight) / total
    weights, means, covariances = _m_step(points, share, share, kind)
  value = np.average(np.log(density), weights=weight)
  restricted = em_problems.restrict(covariances, weights, kind)
  return types.Mixture(weights, means, restricted), noise, value


def student(points, weight, start, degrees, num_steps, kind, bounds=None):
  """Mixture, degrees of freedom (estimated within bounds), log-likelihood."""
  weights, means = np.asarray(start.weights), np.asarray(start.means)
  covariances = em_problems.expand(start.covariances, *means.shape, kind)
  dim, degrees = means.shape[1], np.array(degrees, float)
  for step in range(num_steps + 1):
    joint = np.stack(
      [
        scipy.stats.multivariate_t(*one).pdf(points)
        for one in zip(means, covariances, degrees, strict=True)
      ]
    )
    joint = joint * weights[:, None]
    density = joint.sum(axis=0)
    if step == num_steps:
      break
    share = joint / density * weight
    gamma = np.stack(
      [
        (own + dim) / (own + _distances(points, mean, covariance))
        for mean, covariance, own in zip(
          means, covariances, degrees, strict=True
        )
      ]
    )
    weights, means, covariances = _m_step(points, share, share * gamma, kind)
    if bounds is not None:
      degrees = np.array(
        [
          _degrees(*one, dim, bounds)
          for one in zip(degrees, share, gamma, strict=True)
        ]
      )
  value = np.average(np.log(density), weights=weight)
  restricted = em_problems.restrict(covariances, weights, kind)
  return types.Mixture(weights, means, restricted), degrees, value


def _m_step(points, share, weighted, kind):
  """Means of the weighted points; covariances divided by the shares."""
  dim, mass = points.shape[1], share.sum(axis=1)
  means = weighted @ points / weighted.sum(axis=1)[:, None]
  covariances = []
  for mean, own, one in zip(means, weighted, mass, strict=True):
    centred = points - mean
    moment = (own[:, None] * centred).T @ centred / one
    covariances.append(moment + em_problems.REG_COVAR * np.eye(dim))
  weights = mass / mass.sum()
  restricted = em_problems.restrict(np.stack(covariances), weights, kind)
  return weights, means, em_problems.expand(restricted, *means.shape, kind)


def _distances(points, mean, covariance):
  centred = points - mean
  return np.sum(centred * np.linalg.solve(covariance, centred.T).T, axis=1)


def _degrees(before, share, gamma, dim, bounds):
  """The root of Peel and McLachlan (2000), equation 29, within bounds."""
  tails = np.average(np.log(gamma) - gamma, weights=share)
  half = 0.5 * (before + dim)
  rest = 1.0 + tails + scipy.special.digamma(half) - np.log(half)

  def slope(degrees):
    half = 0.5 * degrees
    return np.log(half) - scipy.special.digamma(half) + rest

  low, high = bounds
  if slope(low) <= 0.0:
    return low
  if slope(high) >= 0.0:
    return high
  return scipy.optimize.brentq(slope, low, high, xtol=1e-13, rtol=1e-14)
