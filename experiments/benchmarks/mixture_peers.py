"""EM of scikit-learn and of gmmx on a batch of problems, for comparison.

Both fit one problem at a time; gmmx also under `jax.vmap`. All start from the
same weights, means and covariances and stop by the same rule: a step changes
the mean log-likelihood by less than `tol`. Needs the extra `bench`; nothing
else imports this file.
"""

import warnings
from typing import NamedTuple

import gmmx
import jax
import numpy as np
import sklearn.exceptions
import sklearn.mixture

from tgmm_jax import types

# Problems of one call of gmmx under `vmap`.
_VMAP_SIZE = 64


class Fits(NamedTuple):
  """What a peer says of each problem.

  Attributes:
    log_likelihood: `[B]`, mean over the points, at the fitted parameters.
    num_iters: `[B]`.
  """

  log_likelihood: np.ndarray
  num_iters: np.ndarray


def fit_sklearn(
  points: np.ndarray,
  start: types.Mixture,
  *,
  covariance_type: str,
  tol: float,
  max_iter: int,
) -> list[sklearn.mixture.GaussianMixture]:
  """A loop over the problems; "unit" and "tied_spherical" are unknown to it."""
  fitted = []
  with warnings.catch_warnings():
    warnings.simplefilter(
      "ignore", category=sklearn.exceptions.ConvergenceWarning
    )
    for index, one in enumerate(points):
      covariances = np.asarray(start.covariances[index])
      precisions = 1.0 / covariances
      if covariance_type in ("full", "tied"):
        precisions = np.linalg.inv(covariances)
      model = sklearn.mixture.GaussianMixture(
        start.weights.shape[1],
        covariance_type=covariance_type,
        tol=tol,
        max_iter=max_iter,
        weights_init=start.weights[index],
        means_init=start.means[index],
        precisions_init=precisions,
      )
      fitted.append(model.fit(one))
  return fitted


def score_sklearn(
  points: np.ndarray, fitted: list[sklearn.mixture.GaussianMixture]
) -> Fits:
  """The log-likelihoods of fitted models."""
  pairs = zip(fitted, points, strict=True)
  return Fits(
    np.array([model.score(one) for model, one in pairs]),
    np.array([model.n_iter_ for model in fitted]),
  )


def fit_gmmx_loop(
  points: jax.Array,
  start: types.Mixture,
  *,
  covariance_type: str,
  tol: float,
  max_iter: int,
) -> list[gmmx.EMFitterResult]:
  """A loop over the problems: one compiled program for all of them."""
  fitter = gmmx.EMFitter(tol=tol, max_iter=max_iter)
  return [
    fitter.fit(
      one,
      _gmmx_mixture(
        jax.tree.map(lambda leaf, index=index: leaf[index], start),
        covariance_type,
      ),
    )
    for index, one in enumerate(points)
  ]


def fit_gmmx_vmap(
  points: jax.Array,
  start: types.Mixture,
  *,
  covariance_type: str,
  tol: float,
  max_iter: int,
) -> list[tuple[jax.Array, ...]]:
  """Chunks under `vmap`; each goes on until its slowest problem stops."""
  fitter = gmmx.EMFitter(tol=tol, max_iter=max_iter)

  @jax.jit
  @jax.vmap
  def fit(one, start):
    result = fitter.fit(one, _gmmx_mixture(start, covariance_type))
    # Bare arrays: gmmx's records refuse a leading axis.
    return (
      result.gmm.weights,
      result.gmm.means,
      result.gmm.covariances.values,
      result.n_iter,
    )

  chunks = [
    jax.tree.map(
      lambda leaf, first=first: leaf[first : first + _VMAP_SIZE],
      (points, start),
    )
    for first in range(0, points.shape[0], _VMAP_SIZE)
  ]
  return jax.block_until_ready([fit(*chunk) for chunk in chunks])


def _gmmx_mixture(start, covariance_type):
  return gmmx.GaussianMixtureModelJax.from_squeezed(
    means=start.means,
    covariances=start.covariances,
    weights=start.weights,
    covariance_type=covariance_type,
  )
