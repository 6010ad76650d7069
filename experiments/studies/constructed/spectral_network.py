"""How near the network of the whole spectral method is to that method."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.constructed import rows as constructed_rows
from tgmm_jax import linalg, types
from tgmm_jax.constructed import (
  primitives,
  spectral_method,
  spectral_network,
)
from tgmm_jax.solvers import spectral
from tgmm_jax.tasks import mixtures

# What the power method may leave of a direction for a problem to be in range.
_IN_RANGE = 1e-10
# What counts as equal.
_EQUAL = 1e-6


class Problems(NamedTuple):
  """Problems of one size and what decides whether they are within range.

  Attributes:
    points: `[B, N, d]`.
    starts: of the network, the same as those of `spectral.fit`.
    exact: what `spectral.fit` finds, B results.
    ratios: `[B]`, the largest ratio of eigenvalues that follow each other, of
      the K + 1 largest in size of the second moment less the noise.
    is_apart: `[B]`, whether the K largest in size are positive and
      `spectral.fit` says that the moments tell the components.
  """

  points: jax.Array
  starts: spectral_method.Starts
  exact: types.SolverResult
  ratios: np.ndarray
  is_apart: np.ndarray


def draw_problems(
  seed: int,
  dim: int,
  num_components: int,
  num_points: int,
  num_problems: int,
  num_restarts: int = 10,
) -> Problems:
  """The papers' mixtures with unit variance, in float64.

  Args:
    seed: of everything.
    dim: d.
    num_components: K.
    num_points: N.
    num_problems: B.
    num_restarts: R.
  """
  law = mixtures.TaskConfig(
    dim=dim,
    num_components=(num_components,),
    max_points=num_points,
    min_points=num_points,
  )
  key = jax.random.key(seed)
  batch = mixtures.sample_batch(key, law, num_problems)
  points = batch.points.astype(jnp.float64)
  keys = jax.random.split(jax.random.fold_in(key, 1), num_problems)

  def solve(problem):
    own, points = problem
    exact = spectral.fit(own, points, num_components, num_restarts=num_restarts)
    return exact, _starts(own, points, num_components, num_restarts)

  exact, starts = jax.jit(
    lambda problems: jax.lax.map(solve, problems, batch_size=64)
  )((keys, points))
  second = np.einsum("bnd,bne->bde", points, points) / num_points
  values = np.linalg.eigvalsh(second) - 1.0
  order = np.argsort(-np.abs(values), axis=1)
  values = np.take_along_axis(values, order, axis=1)
  leading = values[:, :num_components]
  following = np.pad(np.abs(values), ((0, 0), (0, 1)))
  ratios = following[:, 1 : num_components + 1] / np.abs(leading)
  is_apart = np.all(leading > 0, axis=1)
  is_apart &= np.asarray(exact.status) == types.Status.CONVERGED
  return Problems(points, starts, exact, ratios.max(axis=1), is_apart)


def _starts(key, points, num_components, num_restarts):
  """Starts of eigenvectors on the side on which `eigh` has its own.

  Axes have no side; with these the coordinates, in which the starts of the
  tensor power method are drawn, are the same.
  """
  starts = spectral_method.draw_starts(
    key,
    points.shape[1],
    jnp.ones(num_components, bool),
    num_restarts,
    points.dtype,
  )
  rows = points / np.sqrt(len(points))
  _, directions = linalg.leading_directions(rows, num_components)
  sides = jnp.sum(starts.eigenvectors * directions.T, axis=1, keepdims=True)
  return starts._replace(eigenvectors=starts.eigenvectors * jnp.sign(sides))


@functools.partial(jax.jit, static_argnames=("steps",))
def _solve(network, points, starts, steps):
  num_components = starts.seekers.shape[1]
  num_points, dim = points.shape[1:]
  schedule = spectral_network.schedule(num_components, steps)

  def solve(problem):
    state = spectral_method.encode(network, *problem)
    state = primitives.apply(network.transformer, state, schedule)
    return spectral_method.decode(
      network, state, num_points, dim, num_components
    )

  size = constructed_rows.BATCH_SIZE
  return jax.lax.map(solve, (points, starts), batch_size=size)


def is_in_range(
  problems: Problems, steps: spectral_network.Steps
) -> np.ndarray:
  """Whether the power method leaves little enough of other directions, `[B]`.

  Args:
    problems: from `draw_problems`.
    steps: how many of them there are.
  """
  power = steps.num_multiplications * 2**steps.num_squarings
  return problems.is_apart & (problems.ratios**power <= _IN_RANGE)


def differences(
  network: spectral_network.SpectralNetwork,
  problems: Problems,
  steps: spectral_network.Steps,
) -> np.ndarray:
  """Largest difference of a mean or weight from the exact, `[B]`.

  Components that come in another order are put into the same one.

  Args:
    network: the weights.
    problems: from `draw_problems`.
    steps: how often what is repeated.
  """
  found = _solve(network, problems.points, problems.starts, steps)
  exact, count = problems.exact.mixture, problems.starts.seekers.shape[1]

  def one(found, exact):
    cost = jnp.sum((exact.means[:, None] - found.means[None]) ** 2, axis=-1)
    order = linalg.align(jnp.where(jnp.isfinite(cost), cost, 1e300), count)
    found = jax.tree.map(lambda a: a[order], found)
    return jnp.maximum(
      jnp.max(jnp.abs(found.means - exact.means)),
      jnp.max(jnp.abs(found.weights - exact.weights)),
    )

  largest = np.asarray(jax.jit(jax.vmap(one))(found, exact))
  return np.where(np.isfinite(largest), largest, np.inf)


@constructed_rows.in_float64
def equality(settings, seed, on_step):
  """Problems in range, and the largest difference in them and outside."""
  steps, rows = spectral_network.Steps(), []
  cells = [
    (dim, num_components, num_points)
    for dim in settings.dims
    for num_components in settings.num_components
    for num_points in settings.num_points
  ]
  for done, (dim, num_components, num_points) in enumerate(cells):
    problems = draw_problems(
      seed, dim, num_components, num_points, settings.num_problems
    )
    network = _build(problems, segments=settings.segments)
    largest = differences(network, problems, steps)
    is_inside = is_in_range(problems, steps)
    point = functools.partial(
      constructed_rows.point,
      "spectral_equality",
      series=f"K = {num_components}, N = {num_points}",
      x=dim,
      count=len(largest),
      failures=int(np.sum(largest > _EQUAL)),
    )
    rows.append(point(metric="in range", value=np.mean(is_inside)))
    for name, chosen in (("in", is_inside), ("out of", ~is_inside)):
      if not chosen.any():
        continue
      own, count = largest[chosen], int(chosen.sum())
      point = functools.partial(
        point, count=count, failures=int(np.sum(own > _EQUAL))
      )
      rows += [
        point(metric=f"median, {name} range", value=np.median(own)),
        # Where it has no number for an answer, what has none is left out.
        point(
          metric=f"largest, {name} range",
          value=np.max(own, where=own < np.inf, initial=0.0),
        ),
      ]
    on_step(done + 1, len(cells))
  return rows


def _build(problems, segments):
  num_points, dim = problems.points.shape[1:]
  _, size, num_restarts, _ = problems.starts.seekers.shape
  total = spectral_method.num_tokens(num_points, dim, size, num_restarts)
  return spectral_network.build(
    dim, size, total, segments=segments, dtype="float64"
  )


@constructed_rows.in_float64
def errors(settings, seed, on_step):
  """Largest differences against segments, power steps and tensor steps.

  Of problems in range alone, so that what is varied is what limits.
  """
  full = spectral_network.Steps()
  problems = draw_problems(
    seed,
    settings.dim,
    settings.num_components,
    settings.num_points,
    settings.num_problems,
  )
  chosen = np.flatnonzero(is_in_range(problems, full))
  problems = jax.tree.map(lambda a: a[chosen], problems)
  network = functools.cache(functools.partial(_build, problems))
  # Metric, series, x, segments, steps.
  runs = [
    (
      *("against segments", f"{newton} Newton steps", segments, segments),
      full._replace(num_newton=newton),
    )
    for newton in settings.num_newton
    for segments in settings.segments
  ]
  runs += [
    (
      *("against power steps", "all problems", 2**squarings, runs[-1][3]),
      full._replace(num_squarings=squarings, num_multiplications=1),
    )
    for squarings in settings.num_squarings
  ]
  runs += [
    (
      *("against tensor steps", "all problems", count, runs[-1][3]),
      full._replace(num_iters=count, num_polish=count),
    )
    for count in settings.num_iters
  ]
  rows = []
  for done, (metric, series, x, segments, steps) in enumerate(runs):
    found = differences(network(segments=segments), problems, steps)
    rows += _quantiles(f"{{}}, {metric}", series, x, found)
    on_step(done + 1, len(runs))
  for squarings in settings.num_squarings:
    left = problems.ratios ** (2.0**squarings)
    rows += _quantiles(
      "{}, against power steps", "ratio^tau", 2**squarings, left
    )
  return rows


def _quantiles(metric, series, x, values):
  """Median and largest of the problems; those without an answer have failed."""
  values = np.where(np.isfinite(values), values, np.nan)
  return [
    constructed_rows.point(
      "spectral_errors",
      metric.format(name),
      series,
      x,
      value,
      count=len(values),
      failures=int(np.sum(~np.isfinite(values))),
    )
    for name, value in (
      ("median", np.median(values)),
      ("largest", np.fmax.reduce(values)),
    )
  ]


def order_of(segments: np.ndarray, values: np.ndarray) -> float:
  """The p for which values fall as `segments^-p`, by least squares of logs.

  Args:
    segments: `[n]`.
    values: `[n]`, positive.
  """
  return float(-np.polyfit(np.log(segments), np.log(values), 1)[0])
