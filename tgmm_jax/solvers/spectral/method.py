"""The spectral method for spherical mixtures, from points or from moments.

Hsu and Kakade 2013 with the tensor power method of Anandkumar et al. 2014.
About the origin, as there, it needs linearly independent means, so K <= d:
near dependence the estimate has heavy tails, and centred data, whose means
are dependent, cannot be fitted. About the mean (`moments.central_moments`)
the means need only span K - 1 dimensions, K may be d + 1 if the variance is
known, and moving the points moves the means and no more. On the paper's
tasks with N = 128 the squared error of the means at d = K = 2 is then 0.027
instead of thousands, at d = 8, K = 5 it is 0.07 instead of 0.1 to 30.

The moments do not determine the components, and the status is DEGENERATE, for
fewer points than K, for K > d (d + 1 about the mean), for a whitening
eigenvalue that noise alone may give, as of equal means, for eigenvalues whose
weights do not add up to about 1, and for a variance at its floor, which is
1e-6 of the points' own. The means are then what was found, or, if that is
nothing, all the overall mean, with equal weights. K = 1 is the mean, which is
always right, and degenerate only by an estimated variance of 0.
"""

import math
import numbers
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.spectral import frame as moment_frame
from tgmm_jax.solvers.spectral import moments, tensor_power

ABOUT = ("origin", "mean")

# The eigenvalues' own weights add up to 1 in exact moments.
_LEAST_TOTAL, _MOST_TOTAL = 0.5, 2.0


class MomentFit(NamedTuple):
  """A mixture read from given moments; always finite.

  Attributes:
    mixture: weights and means; covariances None, for moments without noise
      do not tell.
    rank: `[]` int32, of the second moment, at most K.
    residual: `[]`, what the components leave of the whitened third moment,
      relative to it: 0 if the moments are those of the mixture.
    status: `[]` int32, as that of `fit`.
  """

  mixture: types.Mixture
  rank: jax.Array
  residual: jax.Array
  status: jax.Array


def fit(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  variance: jax.Array | float | None = 1.0,
  about: str = "origin",
  min_eigenvalue: float = 1e-3,
  **options,
) -> types.SolverResult:
  """Reads weights and means from the second and third moments of points.

  Args:
    key: consumed; starts of the power method.
    points: `[N, d]`; padding may hold anything.
    num_components: K; may be traced if `max_components` is given.
    sample_weight: `[N]`, or None for ones; 0 is padding.
    max_components: static K of the result, or None for `num_components`.
    variance: of the noise, in squared units of the points, a number or `[]`;
      None estimates it (`moments.residual_variance`).
    about: the point that the moments are about, "origin" or "mean".
    min_eigenvalue: in units of the variance; smaller ones of the whitening
      are raised to it, which bounds the means; 0.25 fails less often.
    **options: fields of `tensor_power.Options`.

  Returns:
    A `SolverResult`. With the number 1.0 as variance its mixture and
    likelihood have unit covariance (None), otherwise the variance, known or
    estimated (tied_spherical, `[]`). MAX_ITER: a power iteration has not
    settled; INVALID_INPUT: as in `em.fit`, and for a variance that is NaN,
    infinite or negative; DEGENERATE: see the module.

  Raises:
    ValueError: what no data can make right.
  """
  max_components = problem_lib.static_components(num_components, max_components)
  _check(variance, about, min_eigenvalue)
  options = _checked(options)
  problem = problem_lib.prepare(
    points,
    num_components,
    sample_weight=sample_weight,
    max_components=max_components,
  )
  frame = moment_frame.rescale(problem, variance, about, max_components)
  whitened = _whiten(problem, frame, about, min_eigenvalue, max_components)
  mixture, status = _fit_in_frame(
    key, problem, frame, whitened, options, points.shape[-1] + (about == "mean")
  )
  return problem_lib.conclude(
    problem,
    moment_frame.in_data_space(
      mixture, frame, problem.num_components, variance
    ),
    log_likelihood=moment_frame.log_likelihood(mixture, frame, problem),
    status=status,
    num_iters=2 * options.num_iters,
  )


def _whiten(problem, frame, about, min_eigenvalue, max_components):
  """The whitened moments of the points in the frame."""
  whiten = moments.whitened_moments
  if about == "mean":
    whiten = moments.central_moments
  return whiten(
    frame.points,
    problem.num_components,
    frame.variance,
    sample_weight=problem.sample_weight,
    max_components=max_components,
    # In the frame the points are of size 1, so this bounds the third powers.
    min_eigenvalue=min_eigenvalue * frame.variance
    + jnp.finfo(frame.points.dtype).eps,
  )


def _fit_in_frame(key, problem, frame, whitened, options, max_rank):
  """The mixture in the coordinates of the frame, and its status."""
  weight = problem.sample_weight
  mixture, status, _ = _solve(
    key,
    whitened,
    problem.num_components,
    options,
    max_rank=jnp.minimum(max_rank, jnp.sum(weight > 0)),
    mean=linalg.weighted_mean(frame.points, sample_weight=weight),
  )
  status = jnp.where(frame.is_spread, status, types.Status.DEGENERATE)
  status = jnp.where(frame.is_valid, status, types.Status.INVALID_INPUT)
  return mixture, status


def fit_moments(
  key: jax.Array,
  second: jax.Array,
  third: jax.Array,
  num_components: jax.Array | int,
  *,
  mean: jax.Array | None = None,
  variance: jax.Array | float | None = None,
  max_components: int | None = None,
  **options,
) -> MomentFit:
  """Reads weights and means from given second and third moments.

  Either moments without noise, `sum_k w_k m_k m_k^T` and the same of third
  order, or raw moments `E[x x^T]` and `E[x (x) x (x) x]` with the mean and the
  known variance of the spherical noise, which is then taken off. Those of a
  population give it back to 1e-11 in float64 and 1e-4 in float32.

  Args:
    key: consumed; starts of the power method.
    second: `[d, d]`, symmetric.
    third: `[d, d, d]`, symmetric.
    num_components: K <= d; may be traced if `max_components` is given.
    mean: `[d]`, of x, or None for moments without noise.
    variance: of the noise; given if the mean is.
    max_components: static K of the result, or None for `num_components`.
    **options: fields of `tensor_power.Options`.

  Returns:
    A `MomentFit`. INVALID_INPUT: NaN, inf, no symmetry, a negative variance, K
    out of range; DEGENERATE: see the module.

  Raises:
    ValueError: only one of mean and variance is given.
  """
  max_components = problem_lib.static_components(num_components, max_components)
  options = _checked(options)
  own = _in_own_unit(jnp.asarray(second), jnp.asarray(third), mean, variance)
  is_valid = (num_components >= 1) & (num_components <= max_components)
  is_valid &= own.is_valid
  num_components = jnp.clip(num_components, 1, max_components)
  whitened = moments.whiten(
    jnp.where(is_valid, own.second, 0.0),
    jnp.where(is_valid, own.third, 0.0),
    num_components,
    max_components=max_components,
  )
  mixture, status, residual = _solve(
    key, whitened, num_components, options, max_rank=len(second)
  )
  status = jnp.where(is_valid, status, types.Status.INVALID_INPUT)
  return MomentFit(
    mixture._replace(means=own.unit * mixture.means),
    whitened.rank,
    residual,
    status.astype(jnp.int32),
  )


class _Moments(NamedTuple):
  """Moments without noise in a unit of length that suits them."""

  second: jax.Array
  third: jax.Array
  unit: jax.Array
  is_valid: jax.Array


def _in_own_unit(second, third, mean, variance):
  """Lengths such that the points' are about 1: no power leaves the range."""
  if (mean is None) != (variance is None):
    raise ValueError(
      f"mean is {mean!r} with variance = {variance!r}; takes both or neither"
    )
  unit = jnp.sqrt(jnp.max(jnp.abs(second)))
  is_valid = jnp.isfinite(unit)
  unit = jnp.where((unit > 0) & (unit < jnp.inf), unit, 1.0)
  second, third = second / unit / unit, third / unit / unit / unit
  if mean is not None:
    is_valid &= linalg.is_variance(variance)
    second, third = moments.remove_noise(
      mean / unit, second, third, variance / unit / unit
    )
  is_valid &= _is_symmetric(second) & tensor_power.is_symmetric(third)
  return _Moments(second, third, unit, is_valid)


def recover(
  eigenvalues: jax.Array,
  vectors: jax.Array,
  status: jax.Array,
  whitened: moments.WhitenedMoments,
  num_components: jax.Array | int,
  *,
  max_rank: jax.Array | int,
  mean: jax.Array | None = None,
) -> tuple[types.Mixture, jax.Array]:
  """The mixture that eigenpairs of a whitened tensor tell: undoes whitening.

  Component k has the weight `value_k^-2` and the mean `value_k U v_k`, U the
  inverse of the whitening (Anandkumar et al. 2014, theorem 4.3).

  Args:
    eigenvalues: `[K]`; of components above 0, if they could be found.
    vectors: `[K, K]`, a unit vector in each row.
    status: `[]`, that of the decomposition.
    whitened: the moments.
    num_components: K of the problem, may be traced.
    max_rank: the largest K that the points or moments determine.
    mean: `[d]`, of the points: the result for K = 1, whatever the pairs are,
      and where they cannot be used. None takes the centre of the moments for
      the latter, and K = 1 as any other.

  Returns:
    The mixture, finite, in the coordinates of the moments, with covariances
    None; and the status `[]`, DEGENERATE where the pairs cannot be used or the
    moments do not determine the components.
  """
  is_component = jnp.arange(eigenvalues.size) < num_components
  means, weights, total = _unwhiten(
    eigenvalues, vectors, whitened, is_component
  )
  is_usable = jnp.all((eigenvalues > 0) | ~is_component)
  is_usable &= jnp.all(jnp.isfinite(means)) & jnp.all(jnp.isfinite(weights))
  is_usable &= num_components <= max_rank
  is_determined = (
    is_usable
    & (whitened.rank >= num_components)
    & (total > _LEAST_TOTAL)
    & (total < _MOST_TOTAL)
    & (status != types.Status.INVALID_INPUT)
  )
  status = jnp.where(is_determined, status, types.Status.DEGENERATE)
  if mean is None:
    mean = whitened.centre
  else:
    is_one = jnp.equal(num_components, 1)
    is_usable &= ~is_one
    status = jnp.where(is_one, types.Status.CONVERGED, status)
  uniform = (is_component / num_components).astype(weights.dtype)
  means = jnp.where(is_usable, means, mean)
  mixture = types.Mixture(
    jnp.where(is_usable, weights, uniform),
    jnp.where(is_component[:, None], means, 0.0),
  )
  return mixture, status.astype(jnp.int32)


def _unwhiten(eigenvalues, vectors, whitened, is_component):
  """Means, weights that sum to 1, and what they summed to before."""
  safe = jnp.where(eigenvalues > 0, eigenvalues, 1.0)
  means = whitened.centre + linalg.matmul(
    vectors * safe[:, None], whitened.unwhitening.T
  )
  weights = jnp.where(is_component, safe**-2, 0.0)
  total = jnp.sum(weights)
  return means, weights / total, total


def _check(variance, about, min_eigenvalue):
  """Refuses what no data can make right."""
  if isinstance(variance, numbers.Real) and not 0 <= variance < math.inf:
    raise ValueError(f"variance is {variance!r}, takes a number >= 0 or None")
  if about not in ABOUT:
    raise ValueError(f"about is {about!r}, takes {ABOUT}")
  if min_eigenvalue < 0:
    raise ValueError(f"min_eigenvalue is {min_eigenvalue}, takes >= 0")


def _checked(options):
  """Those of the power method."""
  options = checks.options(options, tensor_power.Options)
  for name, value in options._asdict().items():
    checks.integer(name, value, lowest=1)
  return options


def _solve(key, whitened, num_components, options, **known):
  """Takes the whitened tensor apart: mixture, status and residual."""
  found = tensor_power.decompose(key, whitened.tensor, num_components, options)
  mixture, status = recover(
    found.eigenvalues,
    found.vectors,
    found.status,
    whitened,
    num_components,
    **known,
  )
  return mixture, status, found.residual


def _is_symmetric(matrix):
  """As `tensor_power.is_symmetric`; of the size of entries, not of rounding."""
  largest = jnp.max(jnp.abs(matrix))
  tolerance = jnp.finfo(matrix.dtype).eps ** (1 / 3) * largest
  return jnp.all(jnp.abs(matrix - matrix.T) <= tolerance)
