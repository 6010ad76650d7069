"""Tables with holes: how near fits come to the truth, and what a step takes.

  python -m experiments.benchmarks.holes

Mixtures of K = 3 correlated components in d = 4, N = 300 points; a share of the
cells is left out at random. They are fitted from the likelihood of what is
seen, with the mean of its column in every hole, and from complete rows alone;
beside them the fit of all cells. Written as a figure. The time of a step is
that of N = 10,000 points in d = 8 with K = 4 and a tenth of the cells missing.
"""

import functools
import operator
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
from absl import app, flags

from experiments.benchmarks import timing
from tgmm_jax import metrics, types
from tgmm_jax.evaluation import results
from tgmm_jax.figures import curves, style
from tgmm_jax.solvers import em

_PER_SHARE = flags.DEFINE_integer("per_share", 16, "tables", lower_bound=2)
_OUTPUT = flags.DEFINE_string(
  "output", "docs/pictures/tables_with_holes.png", "the figure"
)
_TIMES = flags.DEFINE_bool("times", True, "whether steps are timed")
_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
_METRIC = "squared error of the means"
_WAYS = ("all cells", "what is seen", "column means", "complete rows")
_FULL = {"covariance_type": "full"}


def make_problems(
  num_problems: int, num_points: int, num_components: int, dim: int
) -> tuple[np.ndarray, np.ndarray]:
  """Points `[B, N, d]` float32 and centres `[B, K, d]`.

  Args:
    num_problems: B.
    num_points: N.
    num_components: K.
    dim: d.
  """
  generator = np.random.default_rng(0)
  shape = (num_problems, num_components, dim)
  centres = 3.0 * generator.normal(size=shape)
  factors = generator.normal(size=(*shape, dim))
  labels = generator.integers(num_components, size=(num_problems, num_points))
  index = np.arange(num_problems)[:, None]
  noise = generator.normal(size=(num_problems, num_points, dim))
  noise = np.einsum("bnij,bnj->bni", factors[index, labels], noise)
  points = centres[index, labels] + noise
  return points.astype(np.float32), centres


def with_holes(points: np.ndarray, share: float) -> np.ndarray:
  """The points with NaN in a share of the cells, nested by share."""
  generator = np.random.default_rng(1)
  is_missing = generator.random(points.shape) < share
  return np.where(is_missing, np.float32(np.nan), points)


def fit_all(
  points: np.ndarray, shares: tuple[float, ...], num_components: int
) -> dict[str, types.SolverResult]:
  """Fits by every way, results with the axis B, or S B for S shares.

  Two calls in all, so that there are two programs to compile.

  Args:
    points: `[B, N, d]`.
    shares: S of them, of cells that are left out; above 0.
    num_components: K.
  """
  options = {"num_init": 5, "prior_if_degenerate": 1.0, **_FULL}
  fit = functools.partial(
    em.fit_batch, jax.random.key(0), num_components=num_components, **options
  )
  holes = np.concatenate([with_holes(points, share) for share in shares])
  is_missing = np.isnan(holes)
  filled = np.where(is_missing, np.nanmean(holes, axis=1, keepdims=True), holes)
  complete = ~np.any(is_missing, axis=-1)
  parts = {
    "all cells": (points, np.ones(points.shape[:2], bool)),
    "column means": (filled, np.ones_like(complete)),
    "complete rows": (filled, complete),
  }
  stacked = map(np.concatenate, zip(*parts.values(), strict=True))
  points, weight = stacked
  plain = fit(points, sample_weight=weight)
  found = {"what is seen": fit(holes, missing="observed")}
  first = 0
  for name, (own, _) in parts.items():
    rows = slice(first, first + len(own))
    found[name] = jax.tree.map(operator.itemgetter(rows), plain)
    first = rows.stop
  return found


def measure_errors(
  num_problems: int, shares: tuple[float, ...] = _SHARES, num_points: int = 300
) -> list[results.CurveRow]:
  """A row for each way and share of missing cells.

  Args:
    num_problems: B.
    shares: of missing cells; with 0 all ways are the same.
    num_points: N.
  """
  points, centres = make_problems(num_problems, num_points, 3, 4)
  some = tuple(share for share in shares if share > 0)
  found = fit_all(points, some, 3)
  error = jax.jit(
    jax.vmap(functools.partial(metrics.l2_error, num_components=3))
  )
  rows = []
  for way in _WAYS:
    for share in shares:
      name = way if share > 0 else "all cells"
      first = 0 if name == "all cells" else some.index(share) * num_problems
      own = slice(first, first + num_problems)
      means = found[name].mixture.means[own]
      errors = np.asarray(error(means, jnp.asarray(centres, means.dtype)))
      is_bad = np.asarray(found[name].status[own]) > types.Status.MAX_ITER
      rows.append(
        results.CurveRow(
          "holes",
          _METRIC,
          way,
          100.0 * share,
          float(np.mean(errors)),
          float(np.std(errors) / np.sqrt(num_problems)),
          num_problems,
          int(np.sum(is_bad)),
        )
      )
  return rows


def measure_steps(
  repeats: int, num_points: int = 10_000, dim: int = 8
) -> dict[str, float]:
  """Seconds of a step: complete, in tiles, and a factor for each point.

  Args:
    repeats: of which the median is taken.
    num_points: N.
    dim: d.
  """
  points = make_problems(1, num_points, 4, dim)[0]
  holes = with_holes(points, 0.1)[0]
  start = types.Mixture(
    jnp.full(4, 0.25), jnp.asarray(points[0, :4]), jnp.stack([jnp.eye(dim)] * 4)
  )

  def run(points, max_iter):
    return em.fit(
      jax.random.key(0),
      points,
      4,
      init=start,
      max_iter=max_iter,
      tol=0.0,
      missing="observed",
      **_FULL,
    ).log_likelihood

  programs = {
    "complete": functools.partial(run, points[0]),
    "in tiles": functools.partial(run, holes),
    "point by point": functools.partial(jax.jit(run), holes),
  }
  seconds = {name: [] for name in programs}
  for turn in range(repeats + 1):
    for name, program in programs.items():
      lengths = []
      for max_iter in (2, 22):
        begun = time.perf_counter()
        jax.block_until_ready(program(max_iter))
        lengths.append(time.perf_counter() - begun)
      if turn:  # the first compiles
        seconds[name].append((lengths[1] - lengths[0]) / 20.0)
  return {name: float(np.median(own)) for name, own in seconds.items()}


def draw(rows: list[results.CurveRow]):
  """The errors over the share of missing cells."""
  panel = curves.Panel(
    "holes",
    _METRIC,
    "Fits of tables with holes",
    "cells that are missing, in percent",
    _METRIC,
  )
  with style.style():
    figure = curves.draw(rows, [panel], emphasised="what is seen")
    figure.set_size_inches(4.8, 3.6)
    figure.axes[0].set_xticks(sorted({row.x for row in rows}))
  return figure


def main(argv):
  """Prints the times and the errors, and writes the figure."""
  del argv
  console = rich.console.Console()
  console.print(timing.describe(()))
  if _TIMES.value:
    for name, seconds in measure_steps(timing.REPEATS.value).items():
      console.print(f"a step, {name}: {1e3 * seconds:.2f} ms")
  rows = measure_errors(_PER_SHARE.value)
  table = rich.table.Table("missing, %", *_WAYS)
  for share in _SHARES:
    own = [row for row in rows if row.x == 100.0 * share]
    values = (f"{row.value:.3f} ({row.failures} failed)" for row in own)
    table.add_row(f"{100.0 * share:g}", *values)
  console.print(table)
  pathlib.Path(_OUTPUT.value).write_bytes(style.render(draw(rows), "png"))


if __name__ == "__main__":
  app.run(main)
