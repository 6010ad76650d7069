"""Two classes by the side of the leading direction, by the constructed network.

Of a symmetric mixture of two, `x = y mu + z` with y = 1 or -1 and z standard
normal (arXiv 2501.01312), mu is the leading eigenvector of `E[x x^T]`, and the
sign of the projection on it errs at the rate Phi(-|mu|), as no rule does less.
The network is that of `power_method` with k = 1 and one more layer. It errs
more than Bayes by the angle between mu and the leading direction of the
sample: at N = 512, d = 16 hardly any from |mu| = 2 on.

`fit` makes a mixture of the labels. Its means are not consistent: a class lacks
the tail that lies on the other side, so at `|mu| = 1` its mean is at 1.17, at 2
at 2.02, and from 3 on no difference is left.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types
from tgmm_jax.constructed import eigenvectors, power_method, primitives
from tgmm_jax.solvers import problem as problem_lib


class Clusters(NamedTuple):
  """Two classes of points; finite.

  Attributes:
    labels: `[N]` int32, 0 or 1, up to exchanging the two; -1 on padding.
    direction: `[d]`, the leading one, of length 1 or 0.
    status: `[]` int32. CONVERGED: the direction is an eigenvector to the
      tolerance; MAX_ITER: it is not; DEGENERATE: the points are all equal or
      on one side; INVALID_INPUT: NaN or inf, or no weight.
  """

  labels: jax.Array
  direction: jax.Array
  status: jax.Array


def cluster(
  key: jax.Array,
  points: jax.Array,
  *,
  sample_weight: jax.Array | None = None,
  num_steps: int = 30,
  tol: float = 1e-3,
  network: primitives.ConstructedTransformer | None = None,
) -> Clusters:
  """Labels points by the sign of their projection on the leading direction.

  Outside the network are the centre of the points, their scale and the sign
  of what it returns.

  Args:
    key: consumed; the start.
    points: `[N, d]`; padding may hold anything.
    sample_weight: `[N]`, or None for ones; 0 is padding.
    num_steps: tau.
    tol: `|A v - value v|` over the value, for the status only.
    network: from `power_method.build`, or None to build one.

  Raises:
    ValueError: for a `num_steps` below 1, or d above that of the network.
  """
  if num_steps < 1:
    raise ValueError(f"num_steps is {num_steps}, takes an integer >= 1")
  num_points, dim = points.shape
  scaled = eigenvectors.prepare(points, sample_weight=sample_weight)
  data = scaled.points
  if network is None:
    network = power_method.build(dim, dtype=data.dtype)
  start = jax.random.normal(key, (1, dim), data.dtype)
  state = primitives.apply(
    network,
    power_method.encode(network, data, start / jnp.linalg.norm(start)),
    power_method.label_schedule(num_steps),
  )
  sides = network.slots.read(state, "lab")[0, :num_points]
  direction = power_method.read_vector(network, state, dim)
  direction = direction.astype(data.dtype)
  norm = jnp.sqrt(jnp.sum(direction**2))
  direction = direction / jnp.where(norm > 0, norm, 1.0)
  labels = (sides > 0).astype(jnp.int32)
  is_point = jnp.ones(num_points, bool)
  if sample_weight is not None:
    is_point = sample_weight > 0
  is_split = jnp.any(is_point & (sides > 0)) & jnp.any(is_point & (sides < 0))
  status = jnp.where(
    _is_eigenvector(data, direction, tol),
    types.Status.CONVERGED,
    types.Status.MAX_ITER,
  )
  status = jnp.where(is_split, status, types.Status.DEGENERATE)
  status = jnp.where(scaled.is_valid, status, types.Status.INVALID_INPUT)
  return Clusters(
    labels=jnp.where(is_point, labels, -1),
    direction=direction,
    status=status.astype(jnp.int32),
  )


def _is_eigenvector(data, direction, tol):
  """Whether the second moment of the data only stretches the direction."""
  mapped = linalg.matmul(data.T, linalg.matmul(data, direction))
  value = jnp.sum(direction * mapped)
  error = jnp.sqrt(jnp.sum((mapped - value * direction) ** 2))
  return error <= tol * value


def fit(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  num_steps: int = 30,
  **options,
) -> types.SolverResult:
  """A mixture of two with unit covariance from the network's labels.

  Meant for classes of about the same weight whose means are apart in a
  direction of much variance.

  Args:
    key: consumed, as in `cluster`.
    points: `[N, d]`; padding may hold anything.
    num_components: 2; may be traced if `max_components` is given.
    sample_weight: `[N]`, or None for ones; 0 is padding.
    max_components: static K of the result, or None for 2.
    num_steps: as in `cluster`.
    **options: `tol` and `network` of `cluster`.

  Returns:
    A `SolverResult` with the status of `cluster`; INVALID_INPUT also where
    there are not two components. Where there is no split, both means are that
    of all points.

  Raises:
    ValueError: for a static K other than 2, and as `cluster`.
  """
  max_components = problem_lib.static_components(num_components, max_components)
  if isinstance(num_components, int) and num_components != 2:
    raise ValueError(f"num_components is {num_components}, takes 2")
  if max_components < 2:
    raise ValueError(f"max_components is {max_components}, takes >= 2")
  problem = problem_lib.prepare(
    points,
    num_components,
    sample_weight=sample_weight,
    max_components=max_components,
  )
  options |= {"sample_weight": sample_weight, "num_steps": num_steps}
  found = cluster(key, points, **options)
  mixture = _mixture_of(found.labels, problem, max_components)
  status = jnp.where(
    num_components == 2, found.status, types.Status.INVALID_INPUT
  )
  return problem_lib.conclude(
    problem,
    mixture,
    log_likelihood=problem_lib.log_likelihood(problem, mixture),
    status=status,
    num_iters=num_steps,
  )


def _mixture_of(labels, problem, max_components):
  """Shares and means of the classes, or of all points where one is empty."""
  is_class = labels == jnp.arange(max_components)[:, None]
  weights = is_class * problem.sample_weight
  totals = jnp.sum(weights, axis=1)
  data = problem.columns.T + problem.centre
  is_component = jnp.arange(max_components) < 2
  is_split = jnp.all((totals > 0) | ~is_component)
  # About the centre, so that points far from the origin lose nothing.
  safe = jnp.where(totals > 0, totals, 1.0)[:, None]
  means = problem.centre + linalg.matmul(weights, problem.columns.T) / safe
  mean = linalg.weighted_mean(data, sample_weight=problem.sample_weight)
  means = jnp.where(is_split, means, mean)
  return types.Mixture(
    jnp.where(is_split, totals, jnp.where(is_component, 0.5, 0.0)),
    jnp.where(is_component[:, None], means, 0.0),
  )
