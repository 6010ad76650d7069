"""EM performed by a transformer: problems in, mixtures out.

The weights are in `em_network`. Covariances are the known identity. What the
network takes must be within its range, so points are moved (EM is
equivariant) until the box about them has its centre at the origin; they are
not scaled, since the unit of the points is their standard deviation within a
component.
"""

import functools

import jax
import jax.numpy as jnp

from tgmm_jax import types
from tgmm_jax.constructed import em_network, primitives
from tgmm_jax.solvers import checks, em
from tgmm_jax.solvers import problem as problem_lib

EmNetwork = em_network.EmNetwork
build = em_network.build


def encode(
  network: EmNetwork,
  points: jax.Array,
  mixture: types.Mixture,
  *,
  sample_weight: jax.Array | None = None,
) -> jax.Array:
  """The tokens of one problem: K components, the sink if any, N points.

  Args:
    network: whose tokens.
    points: `[N, d]`, within the range of the network; padding is finite.
    mixture: where EM starts; a component of weight 0 is padding.
    sample_weight: `[N]`, or None for ones; enters by its logarithm.

  Returns:
    `[D, T]` with T = N + K, and one more with three layers.

  Raises:
    ValueError: if d or K is larger than the network was built for.
  """
  check_sizes(network, points.shape[1], mixture.weights.size)
  dtype = network.transformer.layers[0].hidden.dtype
  slots, num_components = network.transformer.slots, mixture.weights.size
  first = num_components + (network.design == "three_layer")
  if sample_weight is None:
    sample_weight = jnp.ones(points.shape[0], dtype)
  weights, means = mixture.weights.astype(dtype), mixture.means.astype(dtype)
  is_component, is_point = weights > 0, sample_weight > 0
  means = jnp.where(is_component[:, None], means, 0.0)
  norms = jnp.sum(means**2, axis=-1)
  bias = jnp.log(jnp.where(is_component, weights, 1.0)) - 0.5 * norms
  largest = jnp.max(sample_weight)
  share = jnp.where(is_point, sample_weight / largest, 1.0).astype(dtype)
  state = jnp.zeros((slots.width, first + points.shape[0]), dtype)

  def fill(state, name, column, values):
    rows, size = slots[name].start, values.shape
    block = (slice(rows, rows + size[0]), slice(column, column + size[1]))
    return state.at[block].set(values.astype(dtype))

  for name, values in (
    ("mu", means.T),
    ("e", jnp.diag(is_component)),
    ("pi", weights[None]),
    ("b", bias[None]),
    ("g", is_component[None]),
  ):
    state = fill(state, name, 0, values)
  points = jnp.where(is_point[:, None], points.astype(dtype), 0.0)
  for name, values in (
    ("x", points.T),
    ("f", is_point[None]),
    ("w", jnp.log(share)[None]),
  ):
    state = fill(state, name, first, values)
  if network.design == "three_layer":
    state = fill(state, "h", num_components, jnp.ones((1, 1)))
  return fill(state, "one", 0, jnp.ones((1, state.shape[1])))


def decode(
  network: EmNetwork, state: jax.Array, num_components: int, dim: int
) -> types.Mixture:
  """The mixture that a state `[D, T]` between two steps holds.

  Args:
    network: whose state.
    state: after any number of steps.
    num_components: K of the mixture that was encoded; static.
    dim: d of the points; static.
  """
  slots = network.transformer.slots
  means = slots.read(state, "mu")[:dim, :num_components].T
  return types.Mixture(slots.read(state, "pi")[0, :num_components], means)


def step(network: EmNetwork, state: jax.Array) -> jax.Array:
  """One step of EM on a state `[D, T]`: all layers, once."""
  return primitives.apply(network.transformer, state, network.schedule(1))


def fit(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  network: EmNetwork,
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  init: str | types.Mixture = "ward",
  num_steps: int = 30,
) -> types.SolverResult:
  """A solver: `num_steps` of EM by the network, from one start.

  Args:
    key: consumed; draws the start.
    points: `[N, d]`; padding may hold anything.
    num_components: K; may be traced if `max_components` is given.
    network: from `build`.
    sample_weight: `[N]`, or None for ones; 0 is padding.
    max_components: static K of the result, or None for `num_components`.
    init: as in `solvers.em.fit`.
    num_steps: static.

  Returns:
    A `SolverResult` in the dtype of the points. MAX_ITER, since the network
    knows no stopping rule. DEGENERATE if a weight was ever below
    `em_network.MIN_WEIGHT`, where its logarithm is not approximated any more
    (a component that dies), or if components coincide. INVALID_INPUT as in
    `solvers.em.fit` and if the box about the points, or a given start, is
    beyond the range of the network: then log_likelihood is -inf.

  Raises:
    ValueError: for d or K (`max_components`) above what the network was built
      for, and for options that no data could make right.
  """
  plan = em.make_plan(
    {"init": init},
    points,
    num_components,
    covariance_type="unit",
    max_components=max_components,
  )
  check_sizes(network, points.shape[1], plan.form.max_components)
  checks.integer("num_steps", num_steps, lowest=0)
  inputs = em.Inputs(key, points, num_components, sample_weight, plan.given)
  return _fit(inputs, network, plan.limits, form=plan.form, num_steps=num_steps)


def check_sizes(network: EmNetwork, dim: int, num_components: int) -> None:
  """Refuses more coordinates or components than the network has rows for."""
  if dim > network.max_dim:
    raise ValueError(
      f"points have d = {dim}, takes at most max_dim = {network.max_dim} of"
      " the network"
    )
  if num_components > network.max_components:
    raise ValueError(
      f"num_components is {num_components}, takes at most max_components ="
      f" {network.max_components} of the network"
    )


@functools.partial(jax.jit, static_argnames=("form", "num_steps"))
def _fit(inputs, network, limits, *, form, num_steps):
  problem, starts = em.set_up(inputs, limits, form)
  start = jax.tree.map(lambda leaf: leaf[0], starts)
  problem, start, centre = _move_into_range(problem, start, network)
  state = encode(
    network,
    problem.columns.T - centre,
    start.mixture._replace(means=start.mixture.means - centre),
    sample_weight=problem.sample_weight,
  )
  is_component = start.mixture.weights > 0
  size, dim = start.mixture.means.shape

  def advance(carry, _):
    state, lowest = carry
    state = step(network, state)
    weights = decode(network, state, size, dim).weights
    weights = jnp.where(is_component, weights, 1.0)
    return (state, jnp.minimum(lowest, jnp.min(weights))), None

  lowest = jnp.ones((), state.dtype)
  (state, lowest), _ = jax.lax.scan(advance, (state, lowest), length=num_steps)
  mixture = decode(network, state, size, dim)
  dtype = problem.columns.dtype
  mixture = types.Mixture(
    weights=mixture.weights.astype(dtype),
    means=mixture.means.astype(dtype) + centre,
  )
  log_density = em.log_density(problem.columns, mixture)
  run = em.begin(problem, start)._replace(
    mixture=mixture,
    num_iters=jnp.full((), num_steps, jnp.int32),
    is_converged=jnp.zeros((), bool),
  )
  result = em.conclude(
    problem,
    run,
    jnp.sum(problem.sample_weight * log_density),
    covariance_type="unit",
  )
  # Statuses rise with what is wrong.
  has_died = lowest < em_network.MIN_WEIGHT
  least = jnp.where(has_died, types.Status.DEGENERATE, types.Status.CONVERGED)
  return result._replace(status=jnp.maximum(result.status, least))


def _move_into_range(
  problem: problem_lib.PreparedProblem, start: em.Start, network: EmNetwork
) -> tuple[problem_lib.PreparedProblem, em.Start, jax.Array]:
  """Centre of the box about the points, and what is beyond the range as 0."""
  is_point = problem.sample_weight > 0
  low = jnp.min(problem.columns, axis=1, where=is_point, initial=jnp.inf)
  high = jnp.max(problem.columns, axis=1, where=is_point, initial=-jnp.inf)
  centre = 0.5 * (low + high)
  means = start.mixture.means
  is_component = (start.mixture.weights > 0)[:, None]
  shifts = jnp.where(is_component, jnp.abs(means - centre), 0.0)
  is_in_range = jnp.all(high - centre <= network.max_range)
  is_in_range &= jnp.all(shifts <= network.max_range)
  problem = problem._replace(
    columns=jnp.where(is_in_range, problem.columns, 0.0),
    is_valid=problem.is_valid & is_in_range,
  )
  means = jnp.where(is_in_range, means, 0.0)
  start = start._replace(mixture=start.mixture._replace(means=means))
  return problem, start, jnp.where(is_in_range, centre, 0.0)
