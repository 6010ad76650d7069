"""Covariances of a few components, whole and reduced to a type."""

import numpy as np

from tests.solvers.em import problems
from tgmm_jax import gmm

K, DIM = 3, 4
# All that are estimated.
TYPES = tuple(gmm.COVARIANCE_TYPES)[1:]


def make_full(seed=0):
  """Positive definite `[K, d, d]`."""
  roots = np.random.default_rng(seed).normal(size=(K, DIM, DIM))
  return np.einsum("kij,klj->kil", roots, roots) + 0.5 * np.eye(DIM)


def shaped(matrices, weights, covariance_type):
  """Matrices `[K, d, d]` reduced to the type; tied ones are averaged."""
  weights = np.asarray(weights) / np.sum(weights)
  return problems.restrict(np.asarray(matrices), weights, covariance_type)
