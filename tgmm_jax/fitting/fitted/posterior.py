"""What a mixture says of points on the host: a block at a time."""

import functools
import itertools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, types
from tgmm_jax.solvers import checks
from tgmm_jax.solvers.execution import programs

# Blocks have one of these numbers of rows, so that sets of all sizes share a
# few compiled programs.
_ROWS = (128, 512, 2048, 8192)
# Of so many points it takes less time than an optimising compiler.
MOST_QUICK = 32_768


class Posterior(NamedTuple):
  """What a mixture says of points.

  Attributes:
    labels: `[N]` int32, the most probable component, see `gmm.predict`.
    shares: `[N, K]`, the probability of each component.
    log_density: `[N]`, of the mixture.
  """

  labels: jax.Array
  shares: jax.Array
  log_density: jax.Array


def of_batch(
  points: np.ndarray,
  mixture: types.Mixture,
  field: str,
  *,
  covariance_type: str,
  sample_weight: np.ndarray | None = None,
) -> np.ndarray:
  """One field of the posterior; nothing in it is NaN.

  Where no density can be told from 0 the shares are the weights. The dtype is
  the wider of points and mixture; integers count as float64.

  Args:
    points: `[B, N, d]`, of NumPy.
    mixture: with the axis B.
    field: of `Posterior`.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[B, N]`, or None; what is 0 may hold anything.

  Returns:
    `[B, N]`, or `[B, N, K]` for "shares".
  """
  dtype = points.dtype if jnp.issubdtype(points.dtype, jnp.floating) else float
  dtype = np.result_type(jnp.promote_types(dtype, np.float32), mixture.means)
  mixture = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), mixture)
  num_problems, num_points, dim = points.shape
  num_rows, most = rows_of_block(num_points, gmm.rows_of_block(mixture))
  num_sets = _sets_of_block(num_problems, most // num_rows)
  found, is_small = None, num_problems * num_points <= MOST_QUICK
  evaluate = _evaluate if is_small else _evaluate.optimized
  for first, start in itertools.product(
    range(0, num_problems, num_sets), range(0, num_points, num_rows)
  ):
    place = slice(first, first + num_sets), slice(start, start + num_rows)
    given = points[place]
    inside = slice(given.shape[0]), slice(given.shape[1])
    block = np.zeros((num_sets, num_rows, dim), dtype)
    block[inside] = given
    if sample_weight is not None:
      block[inside][sample_weight[place] == 0] = 0.0
    own = np.minimum(np.arange(first, first + num_sets), num_problems - 1)
    own = jax.tree.map(operator.itemgetter(own), mixture)
    with jax.enable_x64(dtype == np.float64):
      values = evaluate(block, own, covariance_type=covariance_type)
    values = np.asarray(getattr(values, field))
    if found is None:
      found = np.empty(points.shape[:2] + values.shape[2:], values.dtype)
    found[place] = values[inside]
  return found


def of_fit(
  points: Any,
  mixture: types.Mixture,
  status: Any,
  field: str,
  *,
  covariance_type: str,
  sample_weight: Any = None,
) -> Any:
  """One field of the posterior of points that have passed the door.

  Where the weight is 0 there is no point: the label is -1, shares and log
  density are 0. Where the status is INVALID_INPUT there is no mixture: the
  labels are -1, shares 0 and log densities -inf.

  Args:
    points: `[N, d]` or `[B, N, d]`.
    mixture: with the axis B where the points have it.
    status: `[]` or `[B]`.
    field: of `Posterior`.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
    sample_weight: `[N]` or `[B, N]`, or None.

  Returns:
    `[N]` or `[N, K]`, with the axis B where the points have it: NumPy's, or
    traced where anything is that was given.
  """
  given = (points, mixture, status, sample_weight)
  evaluate, where, asarray = of_batch, np.where, np.asarray
  if checks.is_traced(given):
    evaluate, where, asarray = _traced, jnp.where, jnp.asarray
  given = jax.tree.map(asarray, given)
  is_single = given[0].ndim == 2
  if is_single:
    given = jax.tree.map(lambda leaf: leaf[None], given)
  points, mixture, status, sample_weight = given
  values = evaluate(
    points,
    mixture,
    field,
    covariance_type=covariance_type,
    sample_weight=sample_weight,
  )
  is_valid = (status != types.Status.INVALID_INPUT)[:, None]
  is_point = np.True_ if sample_weight is None else sample_weight > 0
  if checks.is_traced(given) or not np.all(is_point & is_valid):
    if field == "log_density":
      values = where(is_valid, values, -np.inf)
      values = where(is_point, values, 0.0)
    else:
      is_known = is_point & is_valid
      is_known = is_known[..., None] if field == "shares" else is_known
      values = where(is_known, values, -1 if field == "labels" else 0)
  return values[0] if is_single else values


def weighted_mean(values: Any, *, sample_weight: Any = None) -> Any:
  """Mean of values `[N]` or `[B, N]` per unit of weight, a float or `[B]`.

  Args:
    values: finite where there is a weight, else 0; or all -inf.
    sample_weight: shaped as the values, or None for ones.

  Returns:
    -inf where there is no weight at all.
  """
  if checks.is_traced((values, sample_weight)):
    numpy, dtype = jnp, values.dtype
  else:
    numpy, dtype = np, np.float64
  values = numpy.asarray(values, dtype)
  if sample_weight is None:
    mean = numpy.mean(values, axis=-1)
  else:
    sample_weight = numpy.asarray(sample_weight, dtype)
    total = numpy.sum(sample_weight, axis=-1)
    values = numpy.where(sample_weight > 0, values * sample_weight, 0.0)
    mean = numpy.sum(values, axis=-1) / numpy.where(total > 0, total, 1.0)
    mean = numpy.where(total > 0, mean, -numpy.inf)
  return float(mean) if numpy is np and mean.ndim == 0 else mean


def rows_of_block(num_points: int, most: int) -> tuple[int, int]:
  """The rows of a block, and the most that there may be.

  Args:
    num_points: N.
    most: rows that memory is for, see `gmm.rows_of_block`.
  """
  allowed = [rows for rows in _ROWS if rows <= most]
  enough = [rows for rows in allowed if rows >= num_points]
  return (enough or allowed[-1:])[0], allowed[-1]


def _sets_of_block(num_problems, most):
  """The power of four above the number of problems, if it is at most `most`."""
  count = 1
  while count < num_problems and 4 * count <= most:
    count *= 4
  return count


@functools.partial(programs.quick, most_programs=8)
def _evaluate(points, mixture, *, covariance_type):
  one = functools.partial(_evaluate_one, covariance_type=covariance_type)
  return jax.vmap(one)(points, mixture)


def _evaluate_one(points, mixture, *, covariance_type):
  """The posterior of points `[n, d]` of one problem."""
  values = gmm.log_joint(points, mixture, covariance_type=covariance_type)
  return of_log_joint(values, mixture)


def of_log_joint(values: jax.Array, mixture: types.Mixture) -> Posterior:
  """The posterior of points of one problem; nothing in it is NaN.

  Args:
    values: `[n, K]`, of points and components.
    mixture: its weights are the shares where no density differs from 0.
  """
  values = jnp.where(jnp.isnan(values), -jnp.inf, values)
  log_density = jax.nn.logsumexp(values, axis=-1)
  is_lost = jnp.isneginf(log_density)[:, None]
  values = jnp.where(is_lost, gmm.log_weights(mixture), values)
  labels = jnp.argmax(values, axis=-1).astype(jnp.int32)
  return Posterior(labels, jax.nn.softmax(values, axis=-1), log_density)


def _traced(points, mixture, field, *, covariance_type, sample_weight):
  """As `of_batch`, for use within `jit`."""
  if sample_weight is not None:
    points = jnp.where((sample_weight > 0)[..., None], points, 0.0)

  def evaluate(points, mixture):
    return gmm.in_blocks(
      lambda rows: getattr(
        _evaluate_one(rows, mixture, covariance_type=covariance_type), field
      ),
      points,
      mixture,
    )

  return jax.vmap(evaluate)(points, mixture)
