"""The spectral method for mixtures with the constructed tensor power network.

Theorem 2 of arXiv 2505.11918 is one part of that method: `spectral.fit` about
the origin, with its whitening. Outside the network are the whitening, the
tokens for noise and deflation, the starts and, after every pass, the length of
the vector; all products with the tensor are the network's. The tensor itself is
never formed.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types
from tgmm_jax.constructed import primitives, tensor_power
from tgmm_jax.solvers import checks
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers import spectral as classical


class Options(NamedTuple):
  """How the network is used.

  Attributes:
    min_eigenvalue: smaller eigenvalues of the whitening are raised to it.
    num_restarts: random starts for each component.
    num_passes: how often the network is run on each start.
    steps_per_pass: its steps; their growth has to stay in range.
  """

  min_eigenvalue: float = 1e-3
  num_restarts: int = 10
  num_passes: int = 5
  steps_per_pass: int = 3


def fit(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  network: primitives.ConstructedTransformer | None = None,
  **options,
) -> types.SolverResult:
  """The spectral method for unit variance, its power steps by the network.

  Args:
    key: consumed; folded with the number of each component, for its starts.
    points: `[N, d]`; padding may hold anything.
    num_components: K; may be traced if `max_components` is given.
    sample_weight: `[N]`, or None for ones; 0 is padding.
    max_components: static K of the result, or None for `num_components`.
    network: from `tensor_power.build` for K dimensions and N + 3 K + 1
      tokens, or None to build one.
    **options: fields of `Options`.

  Returns:
    A `SolverResult` of unit covariance, with the statuses of `spectral.fit`.

  Raises:
    ValueError: unknown or impossible options, a network of other sizes.
  """
  max_components = problem_lib.static_components(num_components, max_components)
  options = _checked(options)
  problem = problem_lib.prepare(
    points,
    num_components,
    sample_weight=sample_weight,
    max_components=max_components,
  )
  scaled = _scale(problem)
  whitened, tokens = _whiten(problem, scaled, options, max_components)
  values, vectors, status = _decompose(
    key, network, tokens, problem.num_components, max_components, options
  )
  mean = linalg.matmul(problem.columns, problem.sample_weight) + problem.centre
  mixture, status = classical.recover(
    values,
    vectors,
    status,
    whitened,
    problem.num_components,
    max_rank=jnp.minimum(points.shape[1], jnp.sum(problem.sample_weight > 0)),
    mean=mean / scaled.scale,
  )
  mixture = mixture._replace(means=scaled.scale * mixture.means)
  return problem_lib.conclude(
    problem,
    mixture,
    log_likelihood=problem_lib.log_likelihood(problem, mixture),
    status=status,
    num_iters=options.num_passes * options.steps_per_pass,
  )


def _checked(options):
  """Refuses what no data can make right."""
  options = checks.options(options, Options)
  checks.number("min_eigenvalue", options.min_eigenvalue, lowest=0.0)
  for name in ("num_restarts", "num_passes", "steps_per_pass"):
    checks.integer(name, getattr(options, name), lowest=1)
  return options


class _Scaled(NamedTuple):
  """The points over a power of two that leaves none above 1."""

  points: jax.Array
  scale: jax.Array
  variance: jax.Array  # of the noise


def _scale(problem):
  points = problem.columns.T + problem.centre
  exponent = jnp.frexp(jnp.maximum(jnp.max(jnp.abs(points)), 1.0))[1]
  scale = jnp.ldexp(jnp.ones((), points.dtype), exponent)
  least = jnp.finfo(points.dtype).eps ** 2
  return _Scaled(points / scale, scale, jnp.maximum(1.0 / scale / scale, least))


def _whiten(problem, scaled, options, max_components):
  """The whitened moments, and tokens whose tensor is the third of them."""
  least = options.min_eigenvalue * scaled.variance
  whitened = classical.whitened_moments(
    scaled.points,
    problem.num_components,
    scaled.variance,
    sample_weight=problem.sample_weight,
    max_components=max_components,
    min_eigenvalue=least + jnp.finfo(scaled.points.dtype).eps,
  )
  tokens = _whitened_tokens(scaled.points, whitened, scaled.variance, problem)
  return whitened, tokens


def _whitened_tokens(data, whitened, variance, problem):
  """Tokens whose tensor is the whitened third moment without the noise."""
  squares = jnp.sum(whitened.unwhitening**2, axis=0)
  safe = jnp.where(squares > 0, squares, 1.0)
  rows = linalg.matmul(data, whitened.unwhitening / safe)
  mean = linalg.matmul(problem.sample_weight, rows)
  scales = jnp.where(squares > 0, jnp.sqrt(variance / safe), 0.0)
  return jnp.concatenate(
    [
      tensor_power.weighted_tokens(rows, sample_weight=problem.sample_weight),
      tensor_power.noise_tokens(mean, scales),
    ]
  )


def _decompose(key, network, tokens, num_components, max_components, options):
  """Eigenvalues `[K]`, vectors `[K, K]`, and whether all have settled."""
  if network is None:
    network = tensor_power.build(
      max_components, len(tokens) + max_components, dtype=tokens.dtype
    )
  is_component = jnp.arange(max_components) < num_components
  first = len(tokens)
  tokens = jnp.pad(tokens, ((0, max_components), (0, 0)))
  eps = jnp.finfo(tokens.dtype).eps

  def climb(tokens, vector):
    def advance(_, vector):
      state = primitives.apply(
        network,
        tensor_power.encode(network, tokens, vector),
        tensor_power.schedule(network, options.steps_per_pass),
      )
      mapped = network.slots.read(state, "v")[:max_components, 0]
      # First the size, whose square may not be in range.
      mapped = mapped.astype(vector.dtype)
      size = jnp.max(jnp.abs(mapped))
      is_mapped = (size > 0) & (size < jnp.inf)
      mapped = mapped / jnp.where(is_mapped, size, 1.0)
      norm = jnp.sqrt(jnp.sum(mapped**2))
      return jnp.where(
        is_mapped, mapped / jnp.where(is_mapped, norm, 1.0), vector
      )

    vector = jax.lax.fori_loop(0, options.num_passes, advance, vector)
    projections = linalg.matmul(tokens, vector)
    value = jnp.sum(projections**3)
    error = linalg.matmul(projections**2, tokens) - value * vector
    sign = jnp.where(value < 0, -1.0, 1.0).astype(value.dtype)
    is_settled = jnp.sqrt(jnp.sum(error**2)) <= eps**0.5 * jnp.abs(value)
    return sign * value, sign * vector, is_settled

  def find(tokens, index):
    starts = classical.draw_starts(
      jax.random.fold_in(key, index),
      is_component,
      options.num_restarts,
      tokens.dtype,
    )
    climbed = jax.vmap(functools.partial(climb, tokens))(starts)
    best = jnp.argmax(climbed[0])
    value, vector, is_settled = jax.tree.map(lambda a: a[best], climbed)
    value = jnp.where(is_component[index], value, 0.0)
    vector = jnp.where(is_component[index], vector, 0.0)
    term = -jnp.cbrt(value) * vector
    tokens = tokens.at[first + index].set(term)
    return tokens, (value, vector, is_settled | ~is_component[index])

  _, (values, vectors, is_settled) = jax.lax.scan(
    find, tokens, jnp.arange(max_components)
  )
  status = jnp.where(
    jnp.all(is_settled), types.Status.CONVERGED, types.Status.MAX_ITER
  )
  return values, vectors, status
