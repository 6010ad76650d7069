"""`GaussianMixture`: EM behind scikit-learn's interface, for one data set.

For many problems at once, or inside `jit`, take `solvers.em`.
"""

import jax
import numpy as np
from sklearn import base
from sklearn.utils import validation

from tgmm_jax import gmm, types
from tgmm_jax.fitting import fitted, sizes
from tgmm_jax.fitting.estimator import (
  derived,
  door,
  holes,
  noise,
  online,
  running,
  start,
)
from tgmm_jax.solvers import checks, selection


class GaussianMixture(
  derived.Derived, online.PartialFit, base.DensityMixin, base.BaseEstimator
):
  """A Gaussian mixture fitted by EM, as `sklearn.mixture.GaussianMixture`.

  From the same weights, means and precisions it takes the same steps as
  scikit-learn. It also takes `sample_weight`. float32 data is fitted in
  float32, all other in float64.

  What differs: starts that are drawn come from other random numbers, with equal
  weights and one covariance for all components (`solvers.em.start`); a result
  with a component that has lost its points, is the same as another or has
  hardly any variance but `reg_covar` does not count as converged; the steps
  run as one compiled loop, so that `verbose` has one line for each start to
  tell, to the logger of this module, and `verbose_interval` has no effect;
  `lower_bounds_` is not kept. The first fit of data of a new size compiles,
  which takes a second or two.

  scikit-learn's `check_estimator` passes. With more than one component
  `check_sample_weight_equivalence_on_dense_data` cannot: a draw from weighted
  points is another than that from repeated points in another order.

  Args:
    n_components: K.
    covariance_type: "full", "tied", "diag", "spherical", "tied_spherical" (one
      variance for all) or "unit" (known identity).
    tol: the fit stops when a step changes the mean log-likelihood by less.
    reg_covar: added to every variance.
    max_iter: steps at most.
    n_init: starts; the result of the largest likelihood is kept, one that is
      not degenerate before one that is.
    init_params: scikit-learn's "kmeans", "k-means++", "random_from_data" or
      "random"; "ward", clusters merged from many small ones; or "network": from
      what a shipped network proposes, a ValueError where none covers K, d and
      the type.
    weights_init: `[K]` or None; replaces what is drawn.
    means_init: `[K, d]` or None; with it nothing is drawn, weights that are not
      given are equal, and covariances that are not given are all the one of
      the points about their nearest means.
    precisions_init: inverse covariances, shaped as `covariances_`, or None.
    random_state: an int, a NumPy generator or `RandomState`, which moves on,
      or None for a fresh draw.
    warm_start: a further `fit` begins where the last one ended.
    decay: of `partial_fit`: what a point counts for when one more has come;
      about `1 / (1 - decay)` points are remembered, with 1 all of them.
    verbose: 0 is silent.
    verbose_interval: not used.
    noise: True, or a share to begin with, for outliers (`em.noise`): `predict`
      answers -1, rows of `predict_proba` sum to 1 less the noise's
      probability, and `sample` draws none.
    fixed: an `em.Fixed` of bool arrays, or None: which parameters stay as
      `weights_init`, `means_init` and `precisions_init` say; `covariances_`
      then are the inverses. `bic`, `aic` and `icl` count them all the same.
    min_weight: of every component.
    prior: None, "fraley-raftery" (mclust's) or an `em.Prior`: means and
      covariances are then the mode of the posterior.
    missing: "refused", or "observed": NaN in X is a cell that is missing at
      random; see `solvers.em.Options`. All methods then take such X.

  Attributes:
    weights_: `[K]`.
    means_: `[K, d]`.
    covariances_: full `[K, d, d]`, tied `[d, d]`, diag `[K, d]`, spherical
      `[K]`, tied_spherical and unit `[]`.
    precisions_: their inverses.
    precisions_cholesky_: upper triangular factors `U` with `U U^T` the
      precisions; for the other types their square roots.
    converged_: whether the fit is one that stopped by `tol`.
    status_: the `types.Status` of the fit.
    n_iter_: steps taken from the start that is kept.
    lower_bound_: mean log-likelihood before the last step, with `noise` after
      it; -inf without steps.
    noise_weight_: the noise's share of the data; 0 without. `weights_` sum to
      1 beside it.
    noise_log_density_: the logarithm of its density.
    n_features_in_: d.
    remembered_: weight of the points that the parameters rest on: of `fit` all
      that it was given, of `partial_fit` what has not been forgotten.

  Raises:
    ValueError: from `fit` for parameters and data that cannot be; one line
      that names the argument, what it is and what is taken. Degenerate data
      and too few steps are a `ConvergenceWarning`.
  """

  def __init__(
    self,
    n_components=1,
    *,
    covariance_type="full",
    tol=1e-3,
    reg_covar=1e-6,
    max_iter=100,
    n_init=1,
    init_params="kmeans",
    weights_init=None,
    means_init=None,
    precisions_init=None,
    random_state=None,
    warm_start=False,
    decay=1.0,
    verbose=0,
    verbose_interval=10,
    noise=False,
    fixed=None,
    min_weight=0.0,
    prior=None,
    missing="refused",
  ):
    """Keeps the parameters; `fit` checks them."""
    self.n_components = n_components
    self.covariance_type = covariance_type
    self.tol = tol
    self.reg_covar = reg_covar
    self.max_iter = max_iter
    self.n_init = n_init
    self.init_params = init_params
    self.weights_init = weights_init
    self.means_init = means_init
    self.precisions_init = precisions_init
    self.random_state = random_state
    self.warm_start = warm_start
    self.decay = decay
    self.verbose = verbose
    self.verbose_interval = verbose_interval
    self.noise = noise
    self.fixed = fixed
    self.min_weight = min_weight
    self.prior = prior
    self.missing = missing

  def __sklearn_tags__(self):
    """scikit-learn asks whether NaN is taken."""
    tags = super().__sklearn_tags__()
    tags.input_tags.allow_nan = self.missing == "observed"
    return tags

  def fit(self, X, y=None, sample_weight=None):
    """Fits the mixture to `X [N, d]` and returns the estimator.

    Args:
      X: `[N, d]`, N at least K and 2.
      y: not used.
      sample_weight: `[N]`, a number for all, or None for ones.
    """
    self._fit(X, sample_weight)
    return self

  def fit_predict(self, X, y=None, sample_weight=None):
    """Fits the mixture and returns the labels `[N]` of X.

    Args:
      X: as in `fit`.
      y: not used.
      sample_weight: as in `fit`.
    """
    self._fit(X, sample_weight)
    return self.predict(X)

  def predict(self, X):
    """The most probable component of each point of `X [N, d]`, `[N]`."""
    return self._posterior(X, "labels").astype(np.int64)

  def predict_proba(self, X):
    """The probability of each component at each point, `[N, K]`."""
    return self._posterior(X, "shares")

  def score_samples(self, X):
    """Log density of the mixture at each point of `X [N, d]`, `[N]`."""
    return self._posterior(X, "log_density")

  def score(self, X, y=None, sample_weight=None):
    """Mean log density per unit of weight.

    Args:
      X: `[N, d]`.
      y: not used.
      sample_weight: as in `fit`.
    """
    values = self.score_samples(X)
    if sample_weight is not None:
      sample_weight = door.check_sample_weight(sample_weight, values)
    return float(np.average(values, weights=sample_weight))

  def impute(self, X):
    """`X [N, d]` with the mean of each missing cell given what is seen."""
    X, mixture = self._evaluated(X)
    return holes.impute(X, mixture, covariance_type=self.covariance_type)

  def sample(self, n_samples=1):
    """Draws points `[n_samples, d]` and their labels, by ascending label."""
    validation.check_is_fitted(self, "weights_")
    checks.integer("n_samples", n_samples, lowest=1)
    mixture = self._mixture()
    with jax.enable_x64(self.means_.dtype == np.float64):
      # Not the draws of `fit`, whose key it is as well.
      key = jax.random.fold_in(start.key_of(self.random_state), 1)
      points, labels = _SAMPLE(
        key, mixture, int(n_samples), covariance_type=self.covariance_type
      )
    order = np.argsort(labels, kind="stable")
    return np.asarray(points)[order], np.asarray(labels, np.int64)[order]

  def bic(self, X, sample_weight=None):
    """The Bayesian information criterion on `X [N, d]`; lower is better."""
    return float(self._criteria(X, sample_weight).bic)

  def aic(self, X, sample_weight=None):
    """Akaike's information criterion on `X [N, d]`; lower is better."""
    return float(self._criteria(X, sample_weight).aic)

  def icl(self, X, sample_weight=None):
    """The integrated completed likelihood on `X [N, d]`; lower is better."""
    return float(self._criteria(X, sample_weight).icl)

  def standard_errors(self, X, sample_weight=None, **options):
    """Of weights, means and covariances, a `types.Mixture` shaped as they are.

    Args:
      X: as in `uncertainty`.
      sample_weight: as in `uncertainty`.
      **options: of `uncertainty`.
    """
    return self.uncertainty(X, sample_weight, **options).standard_errors

  def uncertainty(
    self, X, sample_weight=None, *, method="bootstrap", **options
  ):
    """How far the parameters may be off, an `em.Uncertainty` in NumPy.

    Args:
      X: `[N, d]`, the points of the fit.
      sample_weight: as in the fit.
      method: as in `Fit.uncertainty`. A fit with a `tol` of 1e-3 may not be
        near enough to the maximum for "information"; see `distance`.
      **options: `num_replicates` and `level`, as there; the seed of the
        bootstrap is `random_state`.
    """
    X, mixture = self._evaluated(X)
    with jax.enable_x64(X.dtype == np.float64):
      # Not the draws of `fit` or `sample`, whose key it is as well.
      key = jax.random.fold_in(start.key_of(self.random_state), 2)
    return fitted.uncertainty_of(
      key,
      X,
      mixture,
      method,
      covariance_type=self.covariance_type,
      sample_weight=door.check_sample_weight(sample_weight, X),
      reg_covar=float(self.reg_covar),
      reg_share=0.0,
      **options,
    )

  def _fit(self, X, sample_weight):
    X = self._check_points(X, ensure_min_samples=2)
    sample_weight = door.check_sample_weight(sample_weight, X)
    running.check(self, len(X))
    total = float(np.sum(sample_weight, dtype=np.float64))
    given = start.given(
      self.weights_init,
      self.means_init,
      self.precisions_init,
      shape=(int(self.n_components), X.shape[1]),
      dtype=X.dtype,
      covariance_type=self.covariance_type,
    )
    num_init = self.n_init
    if self.warm_start and hasattr(self, "converged_"):
      given, num_init = self._mixture(), 1
    X, sample_weight = sizes.padded(X), sizes.padded(sample_weight)
    with jax.enable_x64(X.dtype == np.float64):
      keys = jax.random.split(start.key_of(self.random_state), num_init)
      result, before = running.run(
        self, keys, X, given, sample_weight=sample_weight
      )
    if result.status == types.Status.INVALID_INPUT:
      raise ValueError(
        f"X has values from {np.nanmin(X)} to {np.nanmax(X)}, takes numbers"
        f" whose squares are within the range of {X.dtype}, as those of their"
        " differences"
      )
    running.keep(self, result, before)
    self.remembered_ = total
    if self.max_iter > 0 and not self.converged_:
      running.warn(self)

  def _check_points(self, X, **options):
    is_observed = isinstance(self.missing, str) and self.missing == "observed"
    return door.check_points(self, X, takes_holes=is_observed, **options)

  def _mixture(self):
    is_known = gmm.kind_of(self.covariance_type).is_known
    return types.Mixture(
      self.weights_, self.means_, None if is_known else self.covariances_
    )

  def _evaluated(self, X):
    """X and the mixture, in the wider of their dtypes."""
    validation.check_is_fitted(self, "weights_")
    X = self._check_points(X, reset=False)
    dtype = np.result_type(X, self.means_)
    mixture = jax.tree.map(lambda leaf: leaf.astype(dtype), self._mixture())
    return X.astype(dtype, copy=False), mixture

  def _has_noise(self):
    """Fits that were kept before there was noise have no such attribute."""
    return getattr(self, "noise_weight_", 0.0) > 0

  def _posterior(self, X, field):
    X, mixture = self._evaluated(X)

    def of_mixture(field):
      if np.any(np.isnan(X)):
        return holes.posterior(
          X, mixture, field, covariance_type=self.covariance_type
        )
      return fitted.of_batch(
        X[None],
        jax.tree.map(lambda leaf: leaf[None], mixture),
        field,
        covariance_type=self.covariance_type,
      )[0]

    if not self._has_noise():
      return of_mixture(field)
    own = of_mixture("shares"), of_mixture("log_density")
    said = noise.posterior(*own, self.noise_weight_, self.noise_log_density_)
    return said if field is None else getattr(said, field)

  def _criteria(self, X, sample_weight):
    X, mixture = self._evaluated(X)
    sample_weight = door.check_sample_weight(sample_weight, X)
    if self._has_noise():
      return noise.criteria(
        self._posterior(X, None),
        *self.means_.shape,
        covariance_type=self.covariance_type,
        sample_weight=sample_weight,
      )
    with jax.enable_x64(X.dtype == np.float64):
      return _CRITERIA(
        sizes.padded(X),
        mixture,
        covariance_type=self.covariance_type,
        sample_weight=sizes.padded(sample_weight),
        missing="observed" if np.any(np.isnan(X)) else "refused",
      )


_SAMPLE = jax.jit(
  gmm.sample, static_argnums=2, static_argnames="covariance_type"
)
_CRITERIA = jax.jit(
  selection.criteria, static_argnames=("covariance_type", "missing")
)
