"""Theorem C.1's bound with its N: EM's distance from the true parameters."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.constructed import em as em_study
from experiments.studies.constructed import rows as constructed_rows
from tgmm_jax import types
from tgmm_jax.constructed import em
from tgmm_jax.solvers import em as reference

_NUM_RESAMPLES = 200
# Of a percentile interval.
_LEVELS = (0.05, 0.95)
# Distances from the limit, relative to the first, in which a rate is read.
_NEAR, _FAR = 1e-9, 1e-1


class Cell(NamedTuple):
  """A kind of problem.

  Attributes:
    dim: d.
    num_components: K.
    separation: distance of each mean from the nearest, in units of the noise.
  """

  dim: int
  num_components: int
  separation: float

  def __str__(self):
    """The name of its rows."""
    return (
      f"d = {self.dim}, K = {self.num_components}, distance {self.separation:g}"
    )


def draw_problems(
  seed: int, cell: Cell, num_points: int, num_problems: int
) -> tuple[jax.Array, types.Mixture, types.Mixture]:
  """Points `[B, N, d]`, the true mixture and a start near it.

  Means are a regular simplex, or where K > d a regular polygon, turned at
  random; weights are equal. A start is off by 0.3 in each coordinate.

  Args:
    seed: of everything.
    cell: which kind.
    num_points: N.
    num_problems: B.
  """
  dim, size, separation = cell
  generator = np.random.default_rng([seed, dim, size, num_points])
  if size <= dim:
    corners = np.eye(dim)[:size] * separation / np.sqrt(2.0)
  else:
    angles = 2.0 * np.pi * np.arange(size) / size
    radius = separation / (2.0 * np.sin(np.pi / size))
    corners = np.zeros((size, dim))
    corners[:, 0] = radius * np.cos(angles)
    corners[:, 1] = radius * np.sin(angles)
  turns = np.linalg.qr(generator.normal(size=(num_problems, dim, dim)))[0]
  means = (corners - corners.mean(axis=0)) @ turns
  labels = generator.integers(size, size=(num_problems, num_points))
  points = np.take_along_axis(means, labels[:, :, None], axis=1)
  points = points + generator.normal(size=points.shape)
  start = means + 0.3 * generator.normal(size=means.shape)
  weights = jnp.full((num_problems, size), 1.0 / size)
  return (
    jnp.asarray(points),
    types.Mixture(weights, jnp.asarray(means)),
    types.Mixture(weights, jnp.asarray(start)),
  )


@functools.partial(jax.jit, static_argnames=("num_steps", "num_exact"))
def _trace(network, problems, num_steps, num_exact):
  """Distances from the truth and from EM's limit, `[B, L + 1]` each.

  Of EM itself if there is no network.
  """

  def one(problem):
    points, truth, start = problem
    weight = jnp.ones(len(points))
    step = functools.partial(reference.step, points, sample_weight=weight)
    limit, _ = jax.lax.scan(
      lambda mixture, _: (step(mixture), None), start, length=num_exact
    )

    def distances(mixture):
      return tuple(
        jnp.max(jnp.linalg.norm(mixture.means - other.means, axis=1))
        for other in (truth, limit)
      )

    return em_study.trace(
      *(network, points, start, num_steps, distances), sample_weight=weight
    )

  return jax.lax.map(one, problems, batch_size=4)


def rates(from_limit: np.ndarray) -> np.ndarray:
  """By what each problem's distance from its limit shrinks in a step, `[B]`.

  Args:
    from_limit: `[B, L + 1]`; NaN where too few steps are within reach.
  """
  found = []
  for distance in from_limit:
    share = distance / distance[0]
    # A network's distance ends at its own error.
    near = max(_NEAR, 10.0 * share[-1])
    steps = np.flatnonzero((share > near) & (share < _FAR))
    if len(steps) < 3:
      found.append(np.nan)
      continue
    found.append(np.exp(np.polyfit(steps, np.log(share[steps]), 1)[0]))
  return np.array(found)


def interval(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
  """Median and a 90% bootstrap interval of it, `[3]`.

  Args:
    values: one for each problem; NaN is left out.
    generator: of the resamples.
  """
  values = values[~np.isnan(values)]
  if not len(values):
    return np.full(3, np.nan)
  chosen = generator.integers(len(values), size=(_NUM_RESAMPLES, len(values)))
  medians = np.median(values[chosen], axis=1)
  return np.r_[np.median(values), np.quantile(medians, _LEVELS)]


def order(
  num_points: np.ndarray, floors: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
  """The p of `N^-p` of the median floor, with a 90% interval, `[3]`.

  Args:
    num_points: `[n]`.
    floors: `[n, B]`.
    generator: of the resamples.
  """

  def slope(floors):
    return -np.polyfit(
      np.log(num_points), np.log(np.median(floors, axis=1)), 1
    )[0]

  count = floors.shape[1]
  found = [
    slope(
      np.take_along_axis(
        floors, generator.integers(count, size=floors.shape), axis=1
      )
    )
    for _ in range(_NUM_RESAMPLES)
  ]
  return np.r_[slope(floors), np.quantile(found, _LEVELS)]


@constructed_rows.in_float64
def em_truth(settings, seed, on_step):
  """Rate and floor of EM, of the network, and of EM on very many points."""
  cells = [
    Cell(*cell)
    for cell in zip(
      settings.dims, settings.num_components, settings.separations, strict=True
    )
  ]
  generator, rows = np.random.default_rng(seed), []
  for done, cell in enumerate(cells):
    floors = []
    for num_points in (*settings.num_points, settings.num_population):
      is_population = num_points == settings.num_population
      count = 4 if is_population else settings.num_problems
      problems = draw_problems(seed, cell, num_points, count)
      traces = {"EM": _measure(None, problems, settings)}
      if num_points <= settings.max_network:
        network = em.build(
          *cell[:2],
          segments=settings.segments,
          design="three_layer",
          dtype="float64",
        )
        traces["network"] = _measure(network, problems, settings)
      for solver, (from_truth, from_limit) in traces.items():
        rows += _cell_rows(
          f"{cell}, {solver}", num_points, from_truth, from_limit, generator
        )
      if not is_population:
        floors.append(traces["EM"][0][:, -1])
    found = order(np.array(settings.num_points), np.stack(floors), generator)
    rows += _with_interval(
      "order of the floor", f"{cell}, EM", 0, found, settings.num_problems
    )
    on_step(done + 1, len(cells))
  return rows


def _measure(network, problems, settings):
  traces = _trace(network, problems, settings.num_steps, settings.num_exact)
  return tuple(np.asarray(trace) for trace in traces)


def _cell_rows(series, num_points, from_truth, from_limit, generator):
  """Rate, floor, and how far from EM's own limit the last step is."""
  count = len(from_truth)
  rows = _with_interval(
    "beta", series, num_points, interval(rates(from_limit), generator), count
  )
  floor = interval(from_truth[:, -1], generator)
  rows += _with_interval("floor", series, num_points, floor, count)
  last = np.median(from_limit[:, -1])
  point = functools.partial(constructed_rows.point, "em_truth", count=count)
  return [*rows, point("from the limit", series, num_points, last)]


def _with_interval(metric, series, x, values, count):
  return [
    constructed_rows.point(
      "em_truth", metric + suffix, series, x, value, count=count
    )
    for suffix, value in zip(("", ", low", ", high"), values, strict=True)
  ]
