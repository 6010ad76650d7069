"""What does a millisecond buy: restarts of EM, or a shipped network?

  python -m experiments.main --config=experiments/frontier.py[:VARIANT]

Error of the means against time per task, for EM with 1 to 100 starts by Ward's
rule, from k-means++ and from N(0, I), in the full and in the projected space,
for the spectral method with EM, and for the shipped network with 1 to 8 views
and 0 to 10 EM steps: one task at a time, and a batch of them. All are told the
unit covariance. Times are medians of runs that follow one another, compilation
left out.

No variant: 1,280 tasks for K = 3 and 5 at d = 2, 8, 32 and 128.
`:quick`: d = 2 and 8, at most 30 starts; minutes on 2 CPU cores.
`:smoke`: goes through everything in seconds, for the tests.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from experiments import results_pages
from experiments.runner import fields, studies
from tgmm_jax import metrics, pretrained, types
from tgmm_jax.evaluation import mixtures as mixture_evaluation
from tgmm_jax.evaluation import references, results
from tgmm_jax.figures import curves as curve_figures
from tgmm_jax.models import factory
from tgmm_jax.solvers import combine, em
from tgmm_jax.tasks import mixtures

VARIANTS = ("", "quick", "smoke")
NETWORK = "shipped network"
ERROR = "l2_error"
# What knowing the truth gives, drawn as lines.
_REFERENCES = (
  "EM started at the truth (reference)",
  "true clusters (reference)",
)
# Tasks in a call of one program.
_BATCH_SIZE = 128

sweep = studies.sweep

CONCLUSION = (
  "At d = 2 no number of restarts, up to thirty, is as near as the network; and"
  " one task at a time the network is at its best, for d = 8 the limit, before"
  " EM has an answer from one start."
  " In a batch at d = 8 it loses for K = 3 to the spectral method with EM and"
  " to ten restarts, which are at the limit sooner, and for K = 5 ten restarts"
  " take as long as it does."
)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = studies.get_config()
  config.title = "Error against time"
  config.question = (
    "Is a network as good as restarts of EM that take as long, for one task"
    " and for a thousand?"
  )
  config.variant = variant
  dims = {"": (2, 8, 32, 128), "quick": (2, 8), "smoke": (2,)}[variant]
  for dim in dims:
    config.studies[f"d{dim}"] = ml_collections.ConfigDict(
      {
        "dim": dim,
        "num_components": (3, 5),
        "num_points": 128,
        "num_tasks": 1280,
        "num_starts": (1, 3, 10, 30, 100),  # of EM
        # Views and EM steps of the network.
        "efforts": ((1, 0), (1, 5), (2, 5), (4, 5), (8, 5), (8, 10)),
        "num_single": 30,  # tasks that are timed one at a time
        "repeats": 3,  # timed calls of a batch
      }
    )
  for settings in config.studies.values():
    if variant == "quick":
      settings.num_starts = (1, 3, 10, 30)
    elif variant == "smoke":
      settings.update(num_components=(2,), num_points=16, num_tasks=8)
      settings.update(num_starts=(2,), efforts=((2, 5),))
      settings.update(num_single=2, repeats=1)
  return config


class Contender(NamedTuple):
  """A solver with its effort.

  Attributes:
    series: the curve it is a point of.
    solve: `(key, TaskBatch) -> SolverResult` with a leading axis.
  """

  series: str
  solve: Callable[[jax.Array, types.TaskBatch], types.SolverResult]


def contenders(
  dim: int, num_starts: Sequence[int], efforts: Sequence[tuple[int, int]]
) -> Iterator[Contender]:
  """All solvers that are compared, those of one curve by rising effort.

  Args:
    dim: d; above 4 EM runs in the projected space too.
    num_starts: of EM.
    efforts: views and EM steps of the network.
  """
  labels = {"ward": "Ward", "k-means++": "k-means++", "normal": "N(0, I)"}
  for init, label in labels.items():
    for count in num_starts:
      yield Contender(f"EM, {label} starts", _em(init=init, num_init=count))
  if dim > 4:
    for count in num_starts:
      yield Contender(
        "EM, Ward starts, projected",
        _em(init="ward", num_init=count, is_projected=True),
      )
  if dim >= 5:  # K <= d
    yield Contender("spectral, then EM", _em(init="spectral"))
  card, params = pretrained.load_params("unit")
  solve = factory.solver(factory.build(card.config), params)
  for num_views, num_steps in efforts:
    yield Contender(NETWORK, _network(solve, num_views, num_steps))


def _em(**options):
  def solve(key, batch):
    return em.fit_batch(
      key,
      batch.points,
      batch.num_components,
      sample_weight=batch.sample_weight,
      max_components=batch.mixture.weights.shape[-1],
      **options,
    )

  return solve


def _network(solve, num_views, num_steps):
  if num_steps:
    solve = combine.then_em(solve, max_iter=num_steps)
  if num_views > 1:
    solve = combine.best_of(solve, num_views)

  @jax.jit
  def solve_batch(key, batch):
    keys = jax.random.split(key, len(batch.points))

    size = batch.mixture.weights.shape[-1]

    def solve_one(inputs):
      key, points, count, weight = inputs
      result = solve(key, points, count, sample_weight=weight)
      # The network's arrays are as large as its largest K.
      weights, means, _ = result.mixture
      return result._replace(
        mixture=types.Mixture(weights[:size], means[:size])
      )

    inputs = (keys, batch.points, batch.num_components, batch.sample_weight)
    return jax.lax.map(solve_one, inputs, batch_size=_BATCH_SIZE)

  return solve_batch


def _measure(settings, seed, on_step):
  """Error and both times of every contender, K by K."""
  rows, done = [], 0
  kinds = list(contenders(settings.dim, settings.num_starts, settings.efforts))
  total = len(kinds) * len(settings.num_components)
  for count in settings.num_components:
    law = mixtures.TaskConfig(
      dim=settings.dim,
      num_components=(count,),
      min_points=settings.num_points,
      max_points=settings.num_points,
    )
    batch, _ = mixture_evaluation.sample_tasks(law, settings.num_tasks, seed)
    key = jax.random.fold_in(jax.random.key(seed), count)
    studies_of = {
      size: f"d = {settings.dim}, K = {count}, {label}"
      for size, label in (
        (1, "one at a time"),
        (settings.num_tasks, f"{settings.num_tasks} at once"),
      )
    }
    times = {size: [] for size in studies_of}
    for kind in kinds:
      errors = _errors(kind.solve(key, batch), batch)
      for size, study in studies_of.items():
        spent = _milliseconds(kind.solve, key, batch, size, settings)
        times[size].append(spent)
        rows.append(
          results.mean_point(study, ERROR, kind.series, spent, errors)
        )
      done += 1
      on_step(done, total)
    for size, study in studies_of.items():
      rows += _limit_rows(study, batch, times[size], key)
  return rows


def _errors(result, batch):
  errors = jax.jit(jax.vmap(metrics.l2_error))(
    result.mixture.means, batch.mixture.means, batch.num_components
  )
  return np.asarray(errors)


def _milliseconds(solve, key, batch, size, settings):
  """Median time for a task, in batches of a size."""
  parts = [
    jax.tree.map(lambda leaf, i=index: leaf[i : i + size], batch)
    for index in range(settings.num_single if size == 1 else 1)
  ]
  repeats = 1 if size == 1 else settings.repeats
  jax.block_until_ready(solve(key, parts[0]))
  seconds = []
  for part in parts * repeats:
    start = time.perf_counter()
    jax.block_until_ready(solve(key, part))
    seconds.append(time.perf_counter() - start)
  return 1e3 * float(np.median(seconds)) / size


def _limit_rows(study, batch, times, key):
  """Lines from the shortest to the longest time."""
  start = _em(init=batch.mixture)(key, batch)
  labels = jax.jit(jax.vmap(references.label_limit))(batch)
  return [
    results.mean_point(study, ERROR, name, spent, _errors(result, batch))
    for name, result in zip(_REFERENCES, (start, labels), strict=True)
    for spent in (min(times), max(times))
  ]


def _draw(rows):
  """A panel for each K and size of a batch."""
  panels = [
    curve_figures.Panel(
      study,
      ERROR,
      study,
      "milliseconds for a task",
      "squared error of the means",
      is_log_x=True,
    )
    for study in dict.fromkeys(row.study for row in rows)
  ]
  return curve_figures.draw(rows, panels, num_columns=2, emphasised=NETWORK)


def _tabulate(rows):
  """A line for each point, by its time."""
  table = {}
  for row in sorted(rows, key=lambda row: (row.study, row.series, row.x)):
    if row.series not in _REFERENCES:
      table[f"{row.study}: {row.series}, {row.x:.3g} ms"] = {
        "error": f"{row.value:.4f} ± {row.standard_error:.4f}"
      }
  return table


def _first_near(rows):
  """The fastest point of each series that is as near as it comes."""
  columns = sorted(
    {row.study for row in rows}, key=lambda study: (study[-7:], study)
  )
  found = sorted({row.series for row in rows} - {NETWORK, *_REFERENCES})
  lines = {series: {} for series in (NETWORK, *found, *_REFERENCES)}
  for series, line in lines.items():
    for study in columns:
      own = [row for row in rows if (row.study, row.series) == (study, series)]
      if not own:
        line[study] = "–"
        continue
      best = min(own, key=lambda row: row.value)
      most = best.value + best.standard_error
      first = min(
        (row for row in own if row.value <= most), key=lambda row: row.x
      )
      line[study] = results_pages.text_of(first)
      if series not in _REFERENCES:
        line[study] += f", {first.x:.2g} ms"
  return results_pages.Table(
    f"Squared error of the means at N = 128, {rows[0].count:,} tasks, with its"
    " standard error, and milliseconds for a task: of each curve the fastest"
    " point that is within one standard error of its nearest.",
    lines,
  )


def _studies(config):
  """One study for each d of the config."""
  return {
    name: studies.Study(
      f"Error against time, d = {settings.dim}", _measure, _draw, _tabulate
    )
    for name, settings in config.studies.items()
  }


experiment = studies.experiment_of(_studies, get_config)

PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    _first_near,
    figures={
      "d2": "Error against time for a task at d = 2",
      "d8": "Error against time for a task at d = 8",
    },
  ),
}
