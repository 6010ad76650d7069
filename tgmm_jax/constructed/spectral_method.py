"""The spectral method performed by a transformer: problems in, mixtures out.

The weights are in `spectral_network`. Between the first state, which holds the
points and what is the same for every problem, and the last, of which weights
and means are read, there are layers alone. Outside them is only what says how
far the answer can be trusted.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import linalg, types
from tgmm_jax.constructed import (
  primitives,
  spectral_network,
  spectral_whitening,
)
from tgmm_jax.solvers import checks
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers import spectral as classical

SpectralNetwork = spectral_network.SpectralNetwork
Steps = spectral_network.Steps
build = spectral_network.build

# Of the weights that the values tell, as in `solvers.spectral`.
_LEAST_TOTAL, _MOST_TOTAL = 0.5, 2.0
# Which key draws the starts of eigenvectors; components have the first ones.
_EIGENVECTORS = 2**32 - 1


class Starts(NamedTuple):
  """The auxiliary matrix: where power iterations begin; unit vectors.

  Attributes:
    eigenvectors: `[K, d]`.
    seekers: `[K, R, K]`, in the coordinates of the eigenvectors.
  """

  eigenvectors: jax.Array
  seekers: jax.Array


def num_tokens(
  num_points: int, dim: int, num_components: int, num_restarts: int
) -> int:
  """T: `N + d + (4 + R) K`."""
  return num_points + dim + (4 + num_restarts) * num_components


def draw_starts(
  key: jax.Array,
  dim: int,
  is_component: jax.Array,
  num_restarts: int,
  dtype: jax.typing.DTypeLike,
) -> Starts:
  """Random unit vectors; those of seekers are what `spectral.fit` draws.

  Args:
    key: consumed.
    dim: d.
    is_component: `[K]` bool, some True.
    num_restarts: R.
    dtype: of the vectors.
  """

  def draw(key, is_coordinate, count):
    def one(index):
      own = jax.random.fold_in(key, index)
      return classical.draw_starts(own, is_coordinate, count, dtype)

    return jax.vmap(one)(jnp.arange(is_component.size))

  own = jax.random.fold_in(key, _EIGENVECTORS)
  vectors = draw(own, jnp.ones(dim, bool), 1)[:, 0]
  return Starts(vectors, draw(key, is_component, num_restarts))


def encode(
  network: SpectralNetwork,
  points: jax.Array,
  starts: Starts,
  *,
  sample_weight: jax.Array | None = None,
  num_components: jax.Array | int | None = None,
) -> jax.Array:
  """The first state, `[D, T]`: points, and what every problem has.

  Args:
    network: from `build`.
    points: `[N, d]`, in units of the noise's standard deviation; finite.
    starts: of K components.
    sample_weight: `[N]`, or None for ones; 0 is padding.
    num_components: of the problem, at most K; the rest is padding, with
      starts of 0 in its coordinates. None for K.

  Raises:
    ValueError: for more dimensions, components or tokens than the network
      was built for.
  """
  (num_points, dim), dtype = points.shape, points.dtype
  size, num_restarts, _ = starts.seekers.shape
  total = num_tokens(num_points, dim, size, num_restarts)
  slots = network.transformer.slots
  for name, value, highest in (
    ("points have d", dim, network.max_dim),
    ("starts have K", size, min(network.max_components, dim)),
    ("tokens have T", total, network.max_tokens),
  ):
    if value > highest:
      raise ValueError(f"{name} = {value}, takes at most {highest}")
  if sample_weight is None:
    sample_weight = jnp.ones(num_points, dtype)
  share = (sample_weight / jnp.sum(sample_weight)).astype(dtype)
  count = size if num_components is None else num_components
  is_component = (jnp.arange(size) < count).astype(dtype)
  binary = (np.arange(total)[:, None] >> np.arange(slots.size("c"))) & 1
  parts = [
    {"x": points, "w": share[:, None]},
    {"q": jnp.eye(dim, dtype=dtype), "mf": jnp.ones((dim, 1), dtype)},
    *_component_tokens(starts, is_component),
  ]
  firsts = np.cumsum([0] + [len(next(iter(part.values()))) for part in parts])
  parts = [{"c": binary, "one": np.ones((total, 1))}, *parts]
  state = jnp.zeros((slots.width, total), dtype)
  for first, part in zip((0, *firsts[:-1]), parts, strict=True):
    for name, rows in part.items():
      place = (slots[name].start, int(first))
      rows = jnp.asarray(rows, dtype).T
      state = jax.lax.dynamic_update_slice(state, rows, place)
  return state


def _component_tokens(starts, is_component):
  """What the tokens of components, noise and seekers are told."""
  code = jnp.diag(is_component)
  num_restarts = starts.seekers.shape[1]
  seekers = starts.seekers * is_component[:, None, None]
  components = {
    "fl": code,
    "st": code,
    "cf": is_component[:, None],
    "p": starts.eigenvectors * is_component[:, None],
  }
  return (
    components,
    _noise_tokens(is_component),
    {
      "s": seekers.reshape(-1, len(code)),
      "sr": jnp.repeat(code, num_restarts, axis=0),
    },
  )


def _noise_tokens(is_component):
  """What the tokens of `m + s_l e_l`, `m - s_l e_l` and m are told, `[3 K]`."""
  code = jnp.diag(is_component)
  sign = jnp.concatenate([code, -code, jnp.zeros_like(code)])
  term = jnp.repeat(jnp.array([-0.5, -0.5, 1.0], code.dtype), len(code))
  is_there = jnp.tile(is_component, 3)[:, None]
  term = term[:, None] * is_there
  return {"ns": sign, "nf": is_there, "nc": term, "ncs": term * sign}


def decode(
  network: SpectralNetwork,
  state: jax.Array,
  num_points: int,
  dim: int,
  size: int,
) -> types.Mixture:
  """The mixture in a last state; padded components are 0.

  Args:
    network: from `build`.
    state: `[D, T]`.
    num_points: N.
    dim: d.
    size: K, static.
  """
  return types.Mixture(
    read(network, state, "pi", num_points, dim, size)[:, 0],
    read(network, state, "mean", num_points, dim, size)[:, :dim],
  )


def read(
  network: SpectralNetwork,
  state: jax.Array,
  name: str,
  num_points: int,
  dim: int,
  size: int,
) -> jax.Array:
  """What a slot holds in the tokens of the components, `[K, rows]`.

  Args:
    network: from `build`.
    state: `[D, T]`.
    name: of the slot.
    num_points: N.
    dim: d.
    size: K, static.
  """
  first = num_points + dim
  return network.transformer.slots.read(state, name)[:, first : first + size].T


def fit(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  sample_weight: jax.Array | None = None,
  max_components: int | None = None,
  network: SpectralNetwork | None = None,
  num_restarts: int = 10,
  steps: Steps = Steps(),  # noqa: B008 a NamedTuple does not change
) -> types.SolverResult:
  """A solver: `solvers.spectral.fit` about the origin, variance 1, by layers.

  Args:
    key: consumed; draws the starts.
    points: `[N, d]`; padding may hold anything.
    num_components: K; may be traced if `max_components` is given.
    sample_weight: `[N]`, or None for ones; 0 is padding.
    max_components: static K of the result, or None for `num_components`.
    network: from `build`, or None to build one.
    num_restarts: starts for each component.
    steps: how often what is repeated.

  Returns:
    A `SolverResult` of unit covariance. CONVERGED: the last state holds
    whitened points, and vectors that are eigenvectors of their tensor, to the
    root of the rounding error; MAX_ITER: it does not, as with eigenvalues so
    close that the power method needs more steps; DEGENERATE and INVALID_INPUT
    as in `spectral.fit`.

  Raises:
    ValueError: impossible options, a network of other sizes.
  """
  size = problem_lib.static_components(num_components, max_components)
  checks.integer("num_restarts", num_restarts, lowest=1)
  for name, value in steps._asdict().items():
    checks.integer(name, value, lowest=0)
  problem = problem_lib.prepare(
    points,
    num_components,
    sample_weight=sample_weight,
    max_components=size,
  )
  dim, num_points = problem.columns.shape
  if network is None:
    kept = min(size, dim)
    total = num_tokens(num_points, dim, kept, num_restarts)
    network = build(dim, kept, total, dtype=problem.columns.dtype)
  return _fit(
    key, problem, network, size=size, num_restarts=num_restarts, steps=steps
  )


# The network is an argument of the program: as constants its weights would
# take long to compile.
@functools.partial(jax.jit, static_argnames=("size", "num_restarts", "steps"))
def _fit(key, problem, network, *, size, num_restarts, steps):
  dim, dtype = problem.columns.shape[0], problem.columns.dtype
  kept = min(size, dim)
  count = jnp.minimum(problem.num_components, kept)
  state = encode(
    network,
    problem.columns.T + problem.centre,
    draw_starts(key, dim, jnp.arange(kept) < count, num_restarts, dtype),
    sample_weight=problem.sample_weight,
    num_components=count,
  )
  state = primitives.apply(
    network.transformer, state, spectral_network.schedule(kept, steps)
  ).astype(dtype)
  mixture, status = _conclude(network, state, problem, kept, size)
  return problem_lib.conclude(
    problem,
    mixture,
    log_likelihood=problem_lib.log_likelihood(problem, mixture),
    status=status,
    num_iters=steps.num_iters + steps.num_polish,
  )


def _conclude(network, state, problem, kept, size):
  """The mixture `[size]`, the mean where there is none, and its status."""
  dim, num_points = problem.columns.shape
  num_components = problem.num_components
  look = functools.partial(
    read, network, state, num_points=num_points, dim=dim, size=kept
  )
  mixture = decode(network, state, num_points, dim, kept)
  mixture = jax.tree.map(
    lambda a: jnp.pad(a, [(0, size - kept)] + [(0, 0)] * (a.ndim - 1)), mixture
  )
  is_component = jnp.arange(size) < num_components
  is_one = num_components == 1
  values = look("lv")[:, 0]
  is_found = (values > 0) | ~is_component[:kept]
  is_usable = jnp.all(is_found) & (num_components <= kept) & ~is_one
  is_usable &= jnp.all(jnp.isfinite(mixture.means))
  is_usable &= jnp.all(jnp.isfinite(mixture.weights))
  eigenvalues = jnp.sum(look("back") ** 2, axis=1)
  is_determined = is_usable & _is_determined(
    values, eigenvalues, is_component[:kept], problem
  )
  status = jnp.where(
    _has_settled(network, state, problem, kept),
    types.Status.CONVERGED,
    types.Status.MAX_ITER,
  )
  status = jnp.where(is_determined, status, types.Status.DEGENERATE)
  status = jnp.where(is_one, types.Status.CONVERGED, status)
  mean = linalg.matmul(problem.columns, problem.sample_weight) + problem.centre
  means = jnp.where(is_usable, mixture.means, mean)
  uniform = (is_component / num_components).astype(mean.dtype)
  weights = jnp.where(is_usable, mixture.weights, uniform)
  means = jnp.where(is_component[:, None], means, 0.0)
  return types.Mixture(weights, means), status


def _is_determined(values, eigenvalues, is_component, problem):
  """Whether moments tell the components, by the rules of `spectral.fit`."""
  safe = jnp.where(is_component & (values > 0), values, 1.0)
  total = jnp.sum(jnp.where(is_component, safe**-2, 0.0))
  edge = classical.noise_edge(
    jnp.ones((), values.dtype),
    problem.columns.shape[0] - problem.num_components + 1,
    1.0 / jnp.sum(problem.sample_weight**2),
  )
  is_present = (eigenvalues + 1.0 > edge) | ~is_component
  # Beyond the range of the curves lengths mean nothing.
  is_present &= eigenvalues <= spectral_whitening.MOST
  return (total > _LEAST_TOTAL) & (total < _MOST_TOTAL) & jnp.all(is_present)


def _has_settled(network, state, problem, kept):
  """Whether the whitened second moment is 1 and all vectors stay in place."""
  dim, num_points = problem.columns.shape
  slots, tol = network.transformer.slots, jnp.finfo(state.dtype).eps ** 0.5
  look = functools.partial(
    read, network, state, num_points=num_points, dim=dim, size=kept
  )
  rows, terms = (slots.read(state, name)[:kept] for name in ("t", "ct"))
  to = look("to")
  second = linalg.matmul(rows[:, :num_points], terms[:, :num_points].T)
  second = second - linalg.matmul(to, to.T)
  is_component = jnp.arange(kept) < problem.num_components
  error = jnp.abs(second - jnp.diag(is_component.astype(second.dtype)))
  values = look("lv")
  vectors = -look("ct")[:, :kept] / jnp.where(values > 0, values, 1.0)
  first = num_points + dim
  rows = rows.at[:, first : first + kept].set(vectors.T)
  squares = linalg.matmul(vectors, rows) ** 2
  # What was on the tensor when a component was found: not itself, not those
  # found later.
  token = jnp.arange(rows.shape[1]) - first
  index = jnp.arange(kept)[:, None]
  is_later = (token >= index) & (token < kept)
  mapped = linalg.matmul(jnp.where(is_later, 0.0, squares), terms.T)
  left = jnp.abs(mapped - values * vectors)
  return (jnp.max(error) <= tol) & jnp.all(left <= tol * jnp.maximum(values, 1))
