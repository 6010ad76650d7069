"""What `GaussianMixture.fit` is made of: checks, the run, what it leaves."""

import logging
import warnings

import jax
import numpy as np
from sklearn import exceptions

from tgmm_jax import gmm, types
from tgmm_jax.fitting.estimator import holes, noise, start
from tgmm_jax.solvers import checks, combine, em

_LOGGER = logging.getLogger(__name__)

# What `prior` takes besides a record.
PRIORS = ("fraley-raftery",)


def check(estimator, num_points):
  """Refuses parameters that cannot be, alone or with so many points.

  Args:
    estimator: a `GaussianMixture`.
    num_points: N.
  """
  checks.integer("n_components", estimator.n_components, lowest=1)
  if estimator.n_components > num_points:
    raise ValueError(
      f"n_components is {estimator.n_components}, takes no more than n_samples,"
      f" {num_points}"
    )
  checks.name(
    "covariance_type", estimator.covariance_type, gmm.COVARIANCE_TYPES
  )
  checks.name("missing", estimator.missing, em.MISSING)
  if isinstance(estimator.prior, str):
    checks.name("prior", estimator.prior, PRIORS, "or an em.Prior")
    checks.name("missing", estimator.missing, em.MISSING[:1], "with this prior")
  checks.name("init_params", estimator.init_params, tuple(start.INITS))
  checks.number("tol", estimator.tol, lowest=0.0)
  checks.number("reg_covar", estimator.reg_covar, lowest=0.0)
  checks.integer("max_iter", estimator.max_iter, lowest=0)
  checks.integer("n_init", estimator.n_init, lowest=1)
  if not isinstance(estimator.verbose, bool):
    checks.integer("verbose", estimator.verbose, lowest=0)
  checks.integer("verbose_interval", estimator.verbose_interval, lowest=1)
  noise.check(estimator.noise)
  if estimator.noise:
    checks.name("missing", estimator.missing, em.MISSING[:1], "with noise")
  start.check_fixed(
    estimator.fixed,
    estimator.weights_init,
    estimator.means_init,
    estimator.precisions_init,
  )
  if not isinstance(estimator.warm_start, bool | np.bool_):
    raise ValueError(f"warm_start is {estimator.warm_start!r}, takes a bool")
  checks.number("decay", estimator.decay, lowest=0.0)
  if not 0.0 < estimator.decay <= 1.0:
    raise ValueError(f"decay is {estimator.decay!r}, takes a number in (0, 1]")


def run(estimator, keys, X, given, *, sample_weight):
  """The best fit of all starts, and its log-likelihood before the end.

  Args:
    estimator: a `GaussianMixture`; what its noise is is set.
    keys: `[S]`, one for each start.
    X: `[N, d]`, padded.
    given: of the start, from `start.given`.
    sample_weight: `[N]`; 0 is padding.
  """
  num_components = int(estimator.n_components)
  options = {
    "covariance_type": estimator.covariance_type,
    "sample_weight": sample_weight,
    "reg_covar": float(estimator.reg_covar),
    "reg_share": 0.0,
  }
  prior = estimator.prior
  if isinstance(prior, str):
    prior = em.fraley_raftery(
      X,
      num_components,
      covariance_type=estimator.covariance_type,
      sample_weight=sample_weight,
    )
  init = start.begin(
    keys,
    holes.filled(X, given, estimator.init_params, sample_weight=sample_weight),
    num_components,
    given,
    estimator.init_params,
    **options,
  )
  options |= {"max_iter": int(estimator.max_iter), "tol": float(estimator.tol)}
  options |= {"prior": prior}
  options |= {
    "fixed": estimator.fixed,
    "min_weight": float(estimator.min_weight),
  }
  estimator.noise_weight_, estimator.noise_log_density_ = 0.0, -np.inf
  if estimator.noise:
    found = noise.run(keys, X, num_components, estimator.noise, init, **options)
    estimator.noise_weight_ = float(found.noise_weight)
    estimator.noise_log_density_ = float(found.noise_log_density)
    return found.result, found.result.log_likelihood
  ended = em.fit_each(
    keys, X, num_components, init=init, missing=estimator.missing, **options
  )
  if estimator.verbose:
    results = ended.results
    rows = (results.num_iters, results.log_likelihood, results.status)
    for num_iters, value, status in zip(*rows, strict=True):
      name = types.Status(int(status)).name
      _LOGGER.info("%d steps, log-likelihood %.6g, %s", num_iters, value, name)
  best = int(combine.most_likely(ended.results))
  return jax.tree.map(
    lambda leaf: np.array(leaf[best]), (ended.results, ended.before)
  )


def keep(estimator, result, before):
  """Sets the attributes of a `GaussianMixture`."""
  mixture = result.mixture
  estimator.weights_ = mixture.weights
  estimator.means_ = mixture.means
  estimator.covariances_ = mixture.covariances
  if mixture.covariances is None:
    estimator.covariances_ = np.ones((), estimator.means_.dtype)
  if gmm.kind_of(estimator.covariance_type).structure == "matrix":
    inverse = np.linalg.inv(np.linalg.cholesky(estimator.covariances_))
    factor = np.triu(np.swapaxes(inverse, -1, -2))
    estimator.precisions_cholesky_ = factor
    estimator.precisions_ = factor @ np.swapaxes(factor, -1, -2)
  else:
    estimator.precisions_ = np.asarray(1.0 / estimator.covariances_)
    estimator.precisions_cholesky_ = np.asarray(np.sqrt(estimator.precisions_))
  estimator.status_ = types.Status(int(result.status))
  estimator.converged_ = estimator.status_ == types.Status.CONVERGED
  estimator.n_iter_ = int(result.num_iters)
  estimator.lower_bound_ = float(before)


def warn(estimator):
  """Says why a fit did not converge."""
  if estimator.status_ == types.Status.DEGENERATE:
    message = (
      f"The data does not determine n_components = {estimator.n_components}: a"
      " component has lost its points, is the same as another or has hardly"
      f" any variance but reg_covar = {estimator.reg_covar:g}. Take fewer, or a"
      " simpler covariance_type."
    )
  else:
    message = (
      f"{estimator.n_iter_} steps were not enough. Take a larger max_iter, a"
      " larger tol or another start."
    )
  warnings.warn(message, exceptions.ConvergenceWarning, stacklevel=4)
