"""One large problem: every door, beside scikit-learn and gmmx, in one run.

  python -m experiments.benchmarks.large_problem [--cases=a,b] [--dtypes=...]

All take the same number of steps from the same start; each in a process of its
own, one after the other, so that memory is its own. `tgmm_jax.fit` takes no
start: its row is a whole fit, with its own starts and stop.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable

import jax
import numpy as np
import rich.console
import rich.table
from absl import app, flags
from sklearn import mixture as sklearn_mixture

import tgmm_jax
from experiments.benchmarks import timing
from tgmm_jax import types
from tgmm_jax.solvers import em

_CASES = flags.DEFINE_list(
  "cases", ["wide", "square", "many"], "Names of `CASES`."
)
_DTYPES = flags.DEFINE_list(
  "dtypes", ["float32", "float64"], "Of the points; scikit-learn has float64."
)

_RIDGE = 1e-6


@dataclasses.dataclass(frozen=True)
class Case:
  """Sizes of a problem, and how many steps are taken."""

  num_points: int
  dim: int
  num_components: int
  num_steps: int


CASES = {
  "wide": Case(500_000, 8, 8, 20),
  "square": Case(100_000, 10, 10, 30),
  "many": Case(50_000, 14, 30, 30),
}


@dataclasses.dataclass(frozen=True)
class Measured:
  """What a door took.

  Attributes:
    first: seconds of the first call, compilation included.
    seconds: of a later one, the median.
    memory: bytes above what the process had with the points in it.
    score: mean log-likelihood by scikit-learn in float64.
  """

  first: float
  seconds: float
  memory: int
  score: float


def make(case: Case) -> tuple[np.ndarray, types.Mixture]:
  """Points `[N, d]` in float64, and where all start."""
  generator = np.random.default_rng(0)
  size = case.num_components, case.dim
  means = 3.0 * generator.normal(size=size)
  factors = generator.normal(size=(*size, case.dim)) / np.sqrt(case.dim)
  factors += 0.5 * np.eye(case.dim)
  labels = generator.integers(case.num_components, size=case.num_points)
  points = np.empty((case.num_points, case.dim))
  for k in range(case.num_components):
    is_own = labels == k
    noise = generator.normal(size=(is_own.sum(), case.dim))
    points[is_own] = means[k] + noise @ factors[k].T
  index = generator.choice(case.num_points, case.num_components, replace=False)
  start = types.Mixture(
    np.full(case.num_components, 1.0 / case.num_components),
    points[index],
    np.stack([np.cov(points.T)] * case.num_components),
  )
  return points, start


def by_sklearn(points, start, case):
  """scikit-learn's own mixture."""
  return _estimator(
    sklearn_mixture.GaussianMixture, np.float64(points), start, case
  )


def by_estimator(points, start, case):
  """Ours with scikit-learn's interface."""
  return _estimator(tgmm_jax.GaussianMixture, points, start, case)


def _estimator(kind, points, start, case):
  estimator = kind(
    case.num_components,
    max_iter=case.num_steps,
    tol=0.0,
    reg_covar=_RIDGE,
    weights_init=start.weights,
    means_init=start.means,
    precisions_init=np.linalg.inv(start.covariances),
  )
  with warnings.catch_warnings(action="ignore"):  # it has not converged
    estimator.fit(points)
  return types.Mixture(
    estimator.weights_, estimator.means_, estimator.covariances_
  )


def by_gmmx(points, start, case):
  """gmmx, whose steps are one program each."""
  from experiments.benchmarks import mixture_peers

  batch = jax.tree.map(lambda leaf: np.float32(leaf)[None], (points, start))
  (fitted,) = mixture_peers.fit_gmmx_loop(
    *batch, covariance_type="full", tol=0.0, max_iter=case.num_steps
  )
  found = fitted.gmm.weights, fitted.gmm.means, fitted.gmm.covariances.values
  return types.Mixture(
    *(
      np.reshape(leaf, np.shape(expected))
      for leaf, expected in zip(found, start, strict=True)
    )
  )


def _options(start, case):
  return {
    "covariance_type": "full",
    "init": start,
    "max_iter": case.num_steps,
    "tol": 0.0,
    "reg_share": 0.0,
    "reg_covar": _RIDGE,
  }


def by_em(points, start, case):
  """`em.fit`, in the precision of the points."""
  with jax.enable_x64(points.dtype == np.float64):
    return em.fit(
      jax.random.key(0), points, case.num_components, **_options(start, case)
    ).mixture


def by_sharded(points, start, case):
  """`em.fit_sharded` over the devices there are."""
  mesh = jax.make_mesh((jax.device_count(),), ("data",))
  return em.fit_sharded(
    jax.random.key(0),
    points,
    case.num_components,
    mesh=mesh,
    **_options(start, case),
  ).mixture


def by_stream(points, start, case):
  """`em.fit_stream`, which reads the points in each step."""
  return em.fit_stream(
    jax.random.key(0), points, case.num_components, **_options(start, case)
  ).mixture


def by_fit(points, start, case):
  """`tgmm_jax.fit`: a whole fit."""
  del start
  return tgmm_jax.fit(
    points, case.num_components, covariance_type="full"
  ).mixture


DOORS = {
  "GaussianMixture": by_estimator,
  "em.fit": by_em,
  "em.fit_sharded": by_sharded,
  "em.fit_stream": by_stream,
  "fit (whole)": by_fit,
}


def measure(
  door: Callable[..., types.Mixture], case: Case, dtype: str, repeats: int
) -> Measured:
  """Calls a door again and again; in a process of its own."""
  points, start = make(case)
  points = points.astype(dtype)
  before = _peak_memory()
  seconds, found = [], None
  for _ in range(1 + repeats):
    begin = time.perf_counter()
    found = jax.block_until_ready(door(points, start, case))
    seconds.append(time.perf_counter() - begin)
  memory = _peak_memory() - before
  peer = sklearn_mixture.GaussianMixture(case.num_components)
  found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)
  peer.weights_, peer.means_, peer.covariances_ = found
  inverse = np.linalg.inv(np.linalg.cholesky(peer.covariances_))
  peer.precisions_cholesky_ = inverse.swapaxes(1, 2)
  return Measured(
    seconds[0], np.median(seconds[1:]), memory, peer.score(np.float64(points))
  )


def _peak_memory():
  return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _alone(*args):
  """`measure` in a new process."""
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
    return pool.submit(measure, *args).result()


def compare(name: str, dtypes: list[str], repeats: int) -> rich.table.Table:
  """All doors of one case."""
  case = CASES[name]
  table = rich.table.Table(
    "door",
    "dtype",
    title=(
      f"{case.num_points:,} x {case.dim}, K = {case.num_components}, full,"
      f" {case.num_steps} steps"
    ),
  )
  for heading in ("first", "seconds", "times faster", "score", "MB over data"):
    table.add_column(heading, justify="right")
  peer = _alone(by_sklearn, case, "float64", 2)
  rows = [("scikit-learn", "float64", peer)]
  if timing.is_installed("gmmx"):
    rows.append(("gmmx", "float32", _alone(by_gmmx, case, "float32", repeats)))
  for dtype in dtypes:
    for door, function in DOORS.items():
      rows.append((door, dtype, _alone(function, case, dtype, repeats)))
  for door, dtype, measured in rows:
    table.add_row(
      door,
      dtype,
      f"{measured.first:.2f}",
      f"{measured.seconds:.3f}",
      f"{peer.seconds / measured.seconds:.1f}",
      f"{measured.score - peer.score:+.1e}"
      if measured is not peer
      else f"{peer.score:.4f}",
      f"{measured.memory / 1e6:,.0f}",
    )
  return table


def main(argv):
  """Prints a table for each case."""
  if len(argv) > 1:
    raise app.UsageError(f"arguments are {argv[1:]}, takes flags only")
  console = rich.console.Console(width=100)
  console.print(timing.describe(("scikit-learn", "gmmx")), highlight=False)
  one = functools.partial(compare, repeats=timing.REPEATS.value)
  for name in _CASES.value:
    console.print(one(name, _DTYPES.value))


if __name__ == "__main__":
  app.run(main)
