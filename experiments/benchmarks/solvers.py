"""Times EM on many small mixtures, beside scikit-learn and gmmx.

  OMP_NUM_THREADS=1 python -m experiments.benchmarks.solvers

1280 problems of N = 128 points in d = 8 with K = 4 components. All start from
the same mixtures (means at random points) and stop by the same rule; each time
is the median of repeated runs after compilation, in which the programs take
turns. scikit-learn fits in float64 in a loop with one BLAS thread; gmmx in a
loop and under `vmap`, of which the faster counts; ours is one call of
`em.fit_batch`. scikit-learn does not know the unit and tied_spherical types:
its spherical one stands in. A second table has what limits us: XLA's own count
of FLOPs and bytes of a step against this machine's measured ceilings. A third
shows how time grows with B, N, K and d, and what compiling takes. Peers need
the extra `bench`.
"""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
from absl import app, flags

from experiments.benchmarks import ceilings, timing
from tgmm_jax import gmm, types
from tgmm_jax.solvers import em
from tgmm_jax.tasks import mixtures

_PROBLEMS = flags.DEFINE_integer("problems", 1280, "B", lower_bound=64)
_TOLS = flags.DEFINE_list(
  "tols", ["1e-3", "1e-6"], "change of the mean log-likelihood to stop at"
)
_PEERS = ("scikit-learn", "gmmx")
_MAX_ITER = 100
# Of scikit-learn's types, the nearest to ours.
_STAND_IN = {"unit": "spherical", "tied_spherical": "spherical"}


class Case(NamedTuple):
  """A batch of problems and where all programs start.

  Attributes:
    points: `[B, N, d]` float32.
    start: mixtures with a leading axis B.
    num_components: K.
    covariance_type: of ours.
  """

  points: jax.Array
  start: types.Mixture
  num_components: int
  covariance_type: str


def make_case(
  covariance_type: str,
  *,
  num_problems: int = 1280,
  num_points: int = 128,
  dim: int = 8,
  num_components: int = 4,
) -> Case:
  """Tasks of the paper's law, and means at random points."""
  law = mixtures.TaskConfig(
    dim=dim,
    num_components=(num_components,),
    min_points=num_points,
    max_points=num_points,
    covariance_type="unit",
  )
  points = mixtures.sample_batch(jax.random.key(0), law, num_problems).points
  start = functools.partial(
    em.start,
    num_components=num_components,
    covariance_type=covariance_type,
    init="random_points",
  )
  keys = jax.random.split(jax.random.key(1), num_problems)
  return Case(
    points,
    jax.jit(jax.vmap(start))(keys, points),
    num_components,
    covariance_type,
  )


def fit_ours(
  case: Case, tol: float, max_iter: int = _MAX_ITER
) -> types.SolverResult:
  """One call for all problems, with scikit-learn's ridge."""
  result = em.fit_batch(
    jax.random.key(0),
    case.points,
    case.num_components,
    covariance_type=case.covariance_type,
    init=case.start,
    max_iter=max_iter,
    tol=tol,
    reg_share=0.0,
    reg_covar=1e-6,
  )
  return jax.block_until_ready(result)


def peer_functions(case: Case, tol: float) -> dict[str, Callable[[], object]]:
  """What the installed peers do with the same problems."""
  if not all(map(timing.is_installed, _PEERS)):
    return {}
  # Imported here: the extra `bench` may not be installed.
  from experiments.benchmarks import mixture_peers

  covariance_type = _STAND_IN.get(case.covariance_type, case.covariance_type)
  options = {
    "covariance_type": covariance_type,
    "tol": tol,
    "max_iter": _MAX_ITER,
  }
  start = case.start
  if case.covariance_type in _STAND_IN:
    variances = jnp.ones(start.weights.shape, start.weights.dtype)
    if start.covariances is not None:
      variances *= start.covariances[:, None]
    start = start._replace(covariances=variances)
  as_numpy = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), start)
  # Weights that sum to 1 in float32 need not do so in float64.
  weights = as_numpy.weights
  as_numpy = as_numpy._replace(weights=weights / weights.sum(1, keepdims=True))
  points = np.asarray(case.points, np.float64)
  functions = {
    "scikit-learn": functools.partial(
      mixture_peers.fit_sklearn, points, as_numpy, **options
    )
  }
  if covariance_type == case.covariance_type and covariance_type in (
    "full",
    "diag",
  ):
    for name, fit in (
      ("gmmx loop", mixture_peers.fit_gmmx_loop),
      ("gmmx vmap", mixture_peers.fit_gmmx_vmap),
    ):
      functions[name] = functools.partial(fit, case.points, start, **options)
  return functions


def check_agreement(case: Case, tol: float) -> str:
  """Ours and scikit-learn's in float64: likelihoods and steps, in a line."""
  with jax.enable_x64(True):
    wide = jax.tree.map(
      lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64),
      (case.points, case.start),
    )
    ours = jax.device_get(
      fit_ours(case._replace(points=wide[0], start=wide[1]), tol)
    )
  line = (
    f"{case.covariance_type}: ours {np.mean(ours.log_likelihood):.6f} after"
    f" {np.mean(ours.num_iters):.2f} steps"
  )
  if case.covariance_type in _STAND_IN:
    return line
  from experiments.benchmarks import mixture_peers

  fitted = peer_functions(case, tol)["scikit-learn"]()
  theirs = mixture_peers.score_sklearn(
    np.asarray(case.points, np.float64), fitted
  )
  change = np.abs(theirs.log_likelihood - ours.log_likelihood)
  return line + (
    f", scikit-learn {np.mean(theirs.log_likelihood):.6f} after"
    f" {np.mean(theirs.num_iters):.2f}; the same to 1e-8 in"
    f" {np.mean(change < 1e-8):.1%} of problems"
  )


def compare(tol: float, num_problems: int, repeats: int) -> rich.table.Table:
  """Problems a second of every program, for every covariance type."""
  table = rich.table.Table(
    "covariance", title=f"Problems a second, tol {tol:g}", min_width=78
  )
  for heading in (
    "steps",
    "ours",
    "scikit-learn",
    "ratio",
    "gmmx loop",
    "gmmx vmap",
    "ratio",
  ):
    table.add_column(heading, justify="right")
  for covariance_type in gmm.COVARIANCE_TYPES:
    case = make_case(covariance_type, num_problems=num_problems)
    functions = {"ours": functools.partial(fit_ours, case, tol)}
    functions |= peer_functions(case, tol)
    seconds = timing.median_seconds(functions, repeats)
    rate = {name: num_problems / value for name, value in seconds.items()}
    faster = max(rate.get("gmmx loop", 0.0), rate.get("gmmx vmap", 0.0))
    table.add_row(
      covariance_type,
      f"{np.mean(fit_ours(case, tol).num_iters):.1f}",
      f"{rate['ours']:,.0f}",
      *_rate_and_ratio(rate, ("scikit-learn",), rate.get("scikit-learn")),
      *_rate_and_ratio(rate, ("gmmx loop", "gmmx vmap"), faster),
    )
  return table


def _rate_and_ratio(rate, names, best):
  cells = [f"{rate[name]:,.0f}" if name in rate else "-" for name in names]
  return [*cells, f"{rate['ours'] / best:.1f}" if best else "-"]


def limits(
  num_problems: int, repeats: int, covariance_types: tuple[str, ...]
) -> rich.table.Table:
  """What a step costs, and how near to the ceilings it runs."""
  best = ceilings.measure()
  table = rich.table.Table(
    "covariance",
    title=(
      f"A step, against {best.product / 1e9:,.0f} GFLOP/s (products),"
      f" {best.fused / 1e9:,.0f} GFLOP/s (fused),"
      f" {best.exponentials / 1e9:.1f} G exp/s,"
      f" {best.memory / 1e9:,.0f} GB/s (copy)"
    ),
  )
  for heading in (
    "us a step",
    "GFLOP/s",
    "share",
    "GB/s",
    "share",
    "exp's share",
    "outside steps",
  ):
    table.add_column(heading, justify="right")
  for covariance_type in covariance_types:
    case = make_case(covariance_type, num_problems=num_problems)
    seconds = timing.median_seconds(
      {
        "all": functools.partial(fit_ours, case, 1e-6),
        "start": functools.partial(fit_ours, case, 1e-6, 0),
      },
      repeats,
    )
    num_steps = float(np.sum(fit_ours(case, 1e-6).num_iters))
    step = (seconds["all"] - seconds["start"]) / num_steps
    flops, num_bytes = step_cost(case)
    num_exps = case.num_components * case.points.shape[1]
    table.add_row(
      covariance_type,
      f"{step * 1e6:.2f}",
      f"{flops / step / 1e9:,.1f}",
      f"{flops / step / best.product:.0%}",
      f"{num_bytes / step / 1e9:,.1f}",
      f"{num_bytes / step / best.memory:.0%}",
      f"{num_exps / best.exponentials / step:.0%}",
      f"{seconds['start'] / seconds['all']:.0%}",
    )
  return table


def step_cost(case: Case) -> tuple[float, float]:
  """FLOPs, and bytes between fused operations, of a step of one problem.

  As XLA counts them in the compiled step of 64 problems.
  """
  points = case.points[:64]
  start = jax.tree.map(lambda leaf: leaf[:64], case.start)
  step = functools.partial(
    em.step, covariance_type=case.covariance_type, reg_covar=1e-6
  )
  compiled = jax.jit(jax.vmap(step)).lower(points, start).compile()
  cost = compiled.cost_analysis()
  return cost["flops"] / 64, cost["bytes accessed"] / 64


def growth(num_problems: int, repeats: int) -> rich.table.Table:
  """Time of a problem's step as each size grows, and of compiling."""
  table = rich.table.Table(
    "covariance",
    "size",
    title="Growth: 20 steps of each problem (us a problem and step)",
  )
  table.add_column("us", justify="right")
  table.add_column("compiled in", justify="right")
  sizes = [
    {},
    {"num_problems": num_problems // 16},
    {"num_problems": 8 * num_problems},
    {"num_points": 512},
    {"num_components": 16},
    {"dim": 2},
    {"dim": 32},
  ]
  for covariance_type in ("unit", "diag", "full"):
    for size in sizes:
      case = make_case(
        covariance_type, **({"num_problems": num_problems} | size)
      )
      call = functools.partial(fit_ours, case, 0.0, 20)
      begin = time.perf_counter()
      call()
      first = time.perf_counter() - begin
      seconds = timing.median_seconds({"call": call}, repeats)
      steps = 20 * case.points.shape[0]
      names = {
        "num_problems": "B",
        "num_points": "N",
        "num_components": "K",
        "dim": "d",
      }
      label = ", ".join(f"{names[name]} = {n}" for name, n in size.items())
      table.add_row(
        covariance_type,
        label or f"B = {num_problems}, N = 128, K = 4, d = 8",
        f"{seconds['call'] / steps * 1e6:.2f}",
        f"{first - seconds['call']:.1f} s",
      )
  return table


def main(argv):
  """Measures everything and prints the tables."""
  if len(argv) > 1:
    raise app.UsageError(f"arguments are {argv[1:]}, takes flags only")
  console = rich.console.Console(width=100)
  console.print(timing.describe(_PEERS), highlight=False)
  if all(map(timing.is_installed, _PEERS)):
    for covariance_type in gmm.COVARIANCE_TYPES:
      case = make_case(covariance_type, num_problems=64)
      console.print(check_agreement(case, 1e-6), highlight=False)
  else:
    console.print("Peers: install the extra `bench` to compare")
  for tol in map(float, _TOLS.value):
    console.print(compare(tol, _PROBLEMS.value, timing.REPEATS.value))
  console.print(
    limits(_PROBLEMS.value, timing.REPEATS.value, gmm.COVARIANCE_TYPES)
  )
  console.print(growth(_PROBLEMS.value, timing.REPEATS.value))


if __name__ == "__main__":
  app.run(main)
