"""What a fit is: the mixture, how sure it is, and what can be done with it."""

import dataclasses
import operator
import os
import pathlib
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.fitting import saved
from tgmm_jax.fitting.fitted import (
  derived,
  door,
  posterior,
  sampling,
  shown,
  uncertainty,
)
from tgmm_jax.solvers import checks, em

if TYPE_CHECKING:
  import sklearn.mixture


def _static(**options):
  return dataclasses.field(metadata={"static": True}, **options)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Fit:
  """What `fit` returns; one problem without the axis B.

  A pytree: `jax.tree.map`, `jax.jit` and `jax.vmap` take it, and the fit of
  problem i of a batch is `found[i]`. Methods take new points `[N, d]`, or
  `[B, N, d]` for a batch, and answer in NumPy, in the precision of the points
  or the wider one of the mixture (integers count as float64); within `jit`
  they are traced like everything else, and the values are not checked.

  Attributes:
    mixture: the fit, components by ascending weight; padded to the largest K.
    num_components: `[B]` int32, K of each problem: as asked for, or as found.
    log_likelihood: `[B]`, mean log density per unit of weight.
    labels: `[B, N]` int32, the most probable component; -1 on padding.
    status: `[B]` int32, a `types.Status`.
    method_index: `[B]` int32, which of `methods` the fit comes from.
    is_outside_range: `[B]` bool, whether the points look unlike those that the
      type's first network was trained on, where it does not guess their scale.
    num_iters: `[B]` int32, steps of EM after the start, or None.
    probabilities: `[B, R]` of each of the candidates, or None; too sure where
      components overlap.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    methods: "network NAME" or "EM".
    candidates: the R numbers of components that were tried, or None.
    columns: d names of the coordinates, or None.
  """

  mixture: types.Mixture
  num_components: jax.Array | np.ndarray
  log_likelihood: jax.Array | np.ndarray
  labels: jax.Array | np.ndarray
  status: jax.Array | np.ndarray
  method_index: jax.Array | np.ndarray
  is_outside_range: jax.Array | np.ndarray
  num_iters: jax.Array | np.ndarray | None = None
  probabilities: jax.Array | np.ndarray | None = None
  covariance_type: str = _static()
  methods: tuple[str, ...] = _static()
  candidates: tuple[int, ...] | None = _static(default=None)
  columns: tuple[str, ...] | None = _static(default=None)

  @property
  def method(self) -> np.ndarray:
    """`[B]` strings, where each fit comes from."""
    return np.asarray(self.methods)[np.asarray(self.method_index)]

  @property
  def is_batch(self) -> bool:
    """Whether there is an axis B."""
    return self.mixture.weights.ndim == 2

  def __getitem__(self, index: int) -> "Fit":
    """The fit of one problem of a batch, without padded components."""
    self._require(True, "takes an index")
    count = self.mixture.weights.shape[0]
    if not -count <= operator.index(index) < count:
      raise IndexError(f"index is {index}, takes one of {count} problems")
    one = jax.tree.map(operator.itemgetter(index), self)
    return one._without_padding()

  def _replace(self, **changes) -> "Fit":
    """The fit with other values, as of a NamedTuple."""
    return dataclasses.replace(self, **changes)

  def predict(self, points: Any, *, sample_weight: Any = None) -> np.ndarray:
    """The most probable component of each point, `[N]` int32.

    Args:
      points: `[N, d]`, or a table with the columns of the fit.
      sample_weight: `[N]` or None; where it is 0 the label is -1.

    Raises:
      ValueError: for another d, and for NaN or inf where there is a weight.
    """
    return self._posterior(points, sample_weight, "labels")

  def predict_proba(
    self, points: Any, *, sample_weight: Any = None
  ) -> np.ndarray:
    """The probability of each component at each point, `[N, K]`.

    Args:
      points: as in `predict`.
      sample_weight: `[N]` or None; where it is 0 all probabilities are.
    """
    return self._posterior(points, sample_weight, "shares")

  def score_samples(
    self, points: Any, *, sample_weight: Any = None
  ) -> np.ndarray:
    """Log density of the mixture at each point, `[N]`.

    Args:
      points: as in `predict`.
      sample_weight: `[N]` or None; where it is 0 the value is 0.
    """
    return self._posterior(points, sample_weight, "log_density")

  def score(self, points: Any, *, sample_weight: Any = None) -> Any:
    """Mean log density per unit of weight, a float or `[B]`.

    Args:
      points: as in `predict`.
      sample_weight: `[N]` or None for ones; -inf where all of it is 0.
    """
    values = self.score_samples(points, sample_weight=sample_weight)
    return posterior.weighted_mean(values, sample_weight=sample_weight)

  def predict_conditional(
    self, points: Any, given: Any, *, return_std: bool = False
  ) -> Any:
    """Regression by the fit of one problem: mean of the other coordinates.

    Args:
      points: `[N, g]`, the coordinates that are known, or a table that has
        them.
      given: which these are: g indices, or names where the fit has columns.
      return_std: whether to return the standard deviation as well.

    Returns:
      `[N, d - g]`, or two of them; the others in their order.
    """
    self._require(False, "predicts coordinates")
    self._require_valid("predict by")
    dim, columns = self.mixture.means.shape[-1], self.columns
    given = derived.indices_of(given, dim, columns)
    points, _ = door.arrays(
      points,
      sample_weight=None,
      status=self.status,
      dim=len(given),
      columns=None if columns is None else tuple(columns[i] for i in given),
    )
    mixture = jax.tree.map(np.asarray, self.mixture)
    found = derived.regress(
      np.asarray(points), mixture, given, covariance_type=self.covariance_type
    )
    return tuple(found) if return_std else found.mean

  def merge(self, points: Any, *, sample_weight: Any = None) -> gmm.Merging:
    """Clusters that are unions of components, see `gmm.merge`; of one problem.

    Args:
      points: `[N, d]`, those of the fit or others: their probabilities tell
        which components overlap.
      sample_weight: `[N]`, some of it above 0; or None for ones.
    """
    self._require(False, "is merged")
    self._require_valid("merge")
    return derived.merge(
      self.predict_proba(points, sample_weight=sample_weight),
      np.asarray(self.mixture.weights),
      sample_weight=sample_weight,
    )

  def entropy_bounds(self) -> gmm.EntropyBounds:
    """Bounds of the mixture's entropy in nats; of one problem."""
    self._require(False, "has an entropy")
    self._require_valid("measure")
    return derived.entropy_bounds(
      self.mixture, covariance_type=self.covariance_type
    )

  def sample(
    self, key: jax.Array | int, num_points: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Draws points `[N, d]` and their labels `[N]`, in no order.

    The first points of a longer draw are those of a shorter one.

    Args:
      key: of JAX, consumed; or a seed, an integer less than 2^32.
      num_points: N.

    Raises:
      ValueError: a status is INVALID_INPUT, so that there is no mixture.
    """
    is_key = isinstance(key, jax.Array) and jnp.issubdtype(
      key.dtype, jax.dtypes.prng_key
    )
    if not is_key:
      checks.integer("key", key, lowest=0, highest=2**32 - 1)
      key = int(key)
    checks.integer("num_points", num_points, lowest=1)
    self._require_valid("draw from")
    return sampling.sample(
      key,
      self.mixture,
      int(num_points),
      covariance_type=self.covariance_type,
    )

  def uncertainty(
    self,
    points: Any,
    *,
    sample_weight: Any = None,
    method: str = "bootstrap",
    num_replicates: int = 200,
    level: float = 0.9,
    seed: int = 0,
  ) -> em.Uncertainty:
    """How far the parameters of one problem may be off, in NumPy.

    Args:
      points: `[N, d]`, those of the fit.
      sample_weight: `[N]` or None, those of the fit.
      method: "bootstrap" (`em.bootstrap`) or the faster "information"
        (`em.information`), which takes the points for a Gaussian mixture.
      num_replicates: of the bootstrap.
      level: the probability that an interval is to hold.
      seed: of the bootstrap, less than 2^32.

    Raises:
      ValueError: for a batch (take one of its problems, `found[i]`), for other
        arguments that cannot be, and where the status is INVALID_INPUT.
    """
    self._require(False, "has its uncertainty told")
    self._require_valid("be sure of")
    checks.integer("seed", seed, lowest=0, highest=2**32 - 1)
    points, sample_weight = self._door(points, sample_weight)
    return uncertainty.of_fit(
      seed,
      points,
      self._without_padding().mixture,
      method,
      covariance_type=self.covariance_type,
      sample_weight=sample_weight,
      num_replicates=num_replicates,
      level=level,
    )

  def save(
    self, path: str | os.PathLike, *, overwrite: bool = False
  ) -> pathlib.Path:
    """Writes the fit to a file that `tgmm_jax.load` reads, bit for bit.

    Args:
      path: ends in `.safetensors`, or in `.json` for a text.
      overwrite: whether a file that exists is replaced.

    Raises:
      FileExistsError: there is such a file.
      ValueError: another suffix.
    """
    weights, means, covariances = self.mixture
    fields = {
      own.name: getattr(self, own.name) for own in dataclasses.fields(self)
    }
    del fields["mixture"]
    fields |= {"weights": weights, "means": means, "covariances": covariances}
    return saved.write(path, fields, overwrite=overwrite)

  def to_sklearn(self) -> "sklearn.mixture.GaussianMixture":
    """A fitted `sklearn.mixture.GaussianMixture` of one problem, in float64.

    Of "tied_spherical" it is a tied one, of "unit" a spherical one.

    Raises:
      ValueError: for a batch (take one of its problems, `found[i]`), and where
        the status is INVALID_INPUT.
    """
    from tgmm_jax.fitting.fitted import as_sklearn  # takes a second

    self._require(False, "becomes an estimator")
    self._require_valid("make an estimator of")
    own = self._without_padding()
    return as_sklearn.estimator(
      own.mixture,
      covariance_type=own.covariance_type,
      is_converged=bool(own.status == types.Status.CONVERGED),
      num_iters=0 if own.num_iters is None else int(own.num_iters),
      log_likelihood=float(own.log_likelihood),
      columns=own.columns,
    )

  def __repr__(self) -> str:
    """A line about the fit and a table of its components."""
    if self._is_readable():
      return shown.text(self if self.is_batch else self._without_padding())
    values = [
      f"{own.name}={getattr(self, own.name)!r}"
      for own in dataclasses.fields(self)
    ]
    return f"Fit({', '.join(values)})"

  def _without_padding(self):
    """The fit of one problem with its own components alone."""
    weights, means, covariances = self.mixture
    size = slice(max(int(self.num_components), 1))
    is_each = gmm.kind_of(self.covariance_type).is_per_component
    if is_each and covariances is not None:
      covariances = covariances[size]
    mixture = types.Mixture(weights[size], means[size], covariances)
    return self._replace(mixture=mixture)

  def _is_readable(self):
    """Whether this is a fit, and no tree of tracers, shapes or the like."""
    leaves = jax.tree.leaves(self)
    kinds = (np.ndarray, np.generic, jax.Array)
    if checks.is_traced(leaves) or not all(
      isinstance(leaf, kinds) for leaf in leaves
    ):
      return False
    leading = np.ndim(self.status)
    return (
      leading <= 1
      and self.mixture.means.ndim == leading + 2
      and self.mixture.weights.shape == self.mixture.means.shape[:-1]
      and self.labels.ndim == leading + 1
    )

  def _require(self, is_batch, what):
    if self.is_batch != is_batch:
      found = "a batch" if self.is_batch else "one problem"
      other = "one problem" if self.is_batch else "a batch"
      hint = "; take one of them, fit[i]" if self.is_batch else ""
      raise ValueError(
        f"this is the fit of {found}, only that of {other} {what}{hint}"
      )

  def _require_valid(self, what):
    if np.any(np.asarray(self.status) == types.Status.INVALID_INPUT):
      raise ValueError(
        f"status is INVALID_INPUT, so there is no mixture to {what}"
      )

  def _door(self, points, sample_weight):
    return door.arrays(
      points,
      sample_weight=sample_weight,
      status=self.status,
      dim=self.mixture.means.shape[-1],
      columns=self.columns,
    )

  def _posterior(self, points, sample_weight, field):
    points, sample_weight = self._door(points, sample_weight)
    return posterior.of_fit(
      points,
      self.mixture,
      self.status,
      field,
      covariance_type=self.covariance_type,
      sample_weight=sample_weight,
    )
