"""`partial_fit`: new data for a `GaussianMixture`, a block at a time."""

import math
from typing import NamedTuple

import jax
import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.fitting import sizes
from tgmm_jax.fitting.estimator import door, running, start
from tgmm_jax.solvers import em


class _Kept(NamedTuple):
  """What is kept from block to block, in NumPy.

  Attributes:
    state: after the last block.
    mixture: the attributes that it has set: where they are others by now,
      what is remembered begins with those.
    options: with which the state has begun.
  """

  state: em.OnlineState
  mixture: types.Mixture
  options: tuple


class PartialFit:
  """Stepwise EM, for the estimator."""

  def partial_fit(self, X, y=None, sample_weight=None):
    """Takes new points into account and returns the estimator.

    One step of EM by the sums over what is remembered and over X (see
    `solvers.em.online`, and `decay`). The first call begins as `fit` would,
    from one start, and needs at least K points, enough to tell groups from each
    other; later ones take any number. After `fit` it goes on from there, and
    what was fitted counts as remembered. `n_iter_` counts the blocks,
    `lower_bound_` is the mean log-likelihood of X before the step, and
    `converged_` is False: a stream has no end.

    Args:
      X: `[N, d]`.
      y: not used.
      sample_weight: as in `fit`; a point of weight w makes the others forget
        as w points would.

    Raises:
      ValueError: as `fit`, and for other parameters than those of the mixture
        that there is.
    """
    self._partial_fit(X, sample_weight)
    return self

  def _partial_fit(self, X, sample_weight):
    is_first = not hasattr(self, "weights_")
    X = door.check_points(self, X, reset=is_first)
    sample_weight = door.check_sample_weight(sample_weight, X)
    running.check(self, len(X) if is_first else math.inf)
    if not is_first:
      self._require_the_same()
      X = X.astype(np.result_type(X, self.means_), copy=False)
    kept = getattr(self, "_kept_sums", None)
    options = self.covariance_type, float(self.reg_covar)
    has_state = (
      not is_first
      and kept is not None
      and kept.options == options
      and _is_same(kept.mixture, self._mixture())
    )
    state = kept.state if has_state else None
    dtype = X.dtype if state is None else state.frame.scale.dtype
    X = sizes.padded(X.astype(dtype, copy=False))
    sample_weight = sizes.padded(sample_weight.astype(dtype, copy=False))
    with jax.enable_x64(dtype == np.float64):
      if state is None:
        state = self._begin(X, sample_weight, is_first)
      state, result = em.absorb(
        state,
        X,
        sample_weight=sample_weight,
        covariance_type=self.covariance_type,
        decay=self.decay,
      )
      state, result = jax.tree.map(np.array, (state, result))
    if result.status == types.Status.INVALID_INPUT:
      raise ValueError(
        f"X has values from {X.min()} to {X.max()}, takes numbers whose"
        f" squares are within the range of {X.dtype}, as those of their"
        " differences"
      )
    was_degenerate = has_state and self.status_ == types.Status.DEGENERATE
    running.keep(self, result, result.log_likelihood)
    self.remembered_ = float(state.remembered)
    self._kept_sums = _Kept(state, self._mixture(), options)
    # Once, and not at every block of a stream.
    if self.status_ == types.Status.DEGENERATE and not was_degenerate:
      running.warn(self)

  def _begin(self, X, sample_weight, is_first):
    """A state that has begun: drawn, given, or what `fit` has found."""
    remembered = 0.0
    if is_first:
      mixture = self._first_mixture(X, sample_weight)
    else:
      mixture = jax.tree.map(lambda leaf: leaf.astype(X.dtype), self._mixture())
      remembered = getattr(self, "remembered_", 0.0)
    return em.begin_online(
      X,
      mixture,
      sample_weight=sample_weight,
      covariance_type=self.covariance_type,
      remembered=remembered,
      reg_share=0.0,
      reg_covar=float(self.reg_covar),
    )

  def _first_mixture(self, X, sample_weight):
    """Where the first block starts: as `fit` with one start."""
    num_components = int(self.n_components)
    given = start.given(
      self.weights_init,
      self.means_init,
      self.precisions_init,
      shape=(num_components, X.shape[1]),
      dtype=X.dtype,
      covariance_type=self.covariance_type,
    )
    options = {
      "covariance_type": self.covariance_type,
      "sample_weight": sample_weight,
      "reg_covar": float(self.reg_covar),
      "reg_share": 0.0,
    }
    keys = jax.random.split(start.key_of(self.random_state), 1)
    init = start.begin(
      keys, X, num_components, given, self.init_params, **options
    )
    if isinstance(init, str):
      ended = em.fit_each(
        keys, X, num_components, init=init, max_iter=0, **options
      )
      init = ended.results.mixture
    return jax.tree.map(lambda leaf: leaf[0], init)

  def _require_the_same(self):
    """Refuses parameters that another mixture would have."""
    found = len(self.weights_)
    if int(self.n_components) != found:
      raise ValueError(
        f"n_components is {self.n_components}, takes {found} as the mixture"
        " that partial_fit goes on with"
      )
    shape = gmm.kind_of(self.covariance_type).shape(*self.means_.shape)
    if self.covariances_.shape != shape:
      raise ValueError(
        f"covariance_type is {self.covariance_type!r} with covariances_ of"
        f" shape {self.covariances_.shape}, takes {shape}: call fit first"
      )


def _is_same(mixture, other):
  pairs = zip(mixture, other, strict=True)
  return all(
    (one is None and two is None)
    or (one is not None and two is not None and np.array_equal(one, two))
    for one, two in pairs
  )
