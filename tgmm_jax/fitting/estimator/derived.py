"""What follows from a fitted `GaussianMixture`."""

from tgmm_jax import gmm
from tgmm_jax.fitting import fitted
from tgmm_jax.fitting.estimator import door


class Derived:
  """Regression, clusters of components, and the entropy: for the estimator."""

  def predict_conditional(self, X_given, given, *, return_std=False):
    """Regression by the mixture: mean of the coordinates that are not given.

    Args:
      X_given: `[N, g]`, the coordinates that are known; a frame is read by
        name.
      given: which these are: g indices, or names where X had them in `fit`.
      return_std: whether to return the standard deviation as well.

    Returns:
      `[N, d - g]`, or two of them; the others in their order.
    """
    X_given, given = door.check_given(self, X_given, given)
    found = fitted.derived.regress(
      X_given, self._mixture(), given, covariance_type=self.covariance_type
    )
    return tuple(found) if return_std else found.mean

  def merge(self, X, sample_weight=None) -> gmm.Merging:
    """Clusters that are unions of components, see `gmm.merge`.

    Args:
      X: `[N, d]`, the points of `fit` or others: their probabilities tell
        which components overlap.
      sample_weight: as in `fit`.
    """
    shares = self.predict_proba(X)
    weight = door.check_sample_weight(sample_weight, shares)
    return fitted.derived.merge(shares, self.weights_, sample_weight=weight)

  def entropy_bounds(self) -> gmm.EntropyBounds:
    """Bounds of the mixture's entropy, in nats."""
    door.check_fitted(self)
    return fitted.derived.entropy_bounds(
      self._mixture(), covariance_type=self.covariance_type
    )
