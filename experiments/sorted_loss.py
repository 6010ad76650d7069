"""Where does the published loss lead, even who knows the means exactly?

  python -m experiments.main --config=experiments/sorted_loss.py[:VARIANT]

The published loss compares means in the order of ascending weights, which N
points tell only in part. Its optimum is given the exact means without their
order, knows the law of the weights, and answers with the posterior mean of the
means in that order (`evaluation.sorted_loss`). It is scored in that order, as
the loss does, and by the right alignment, beside EM and the shipped network,
which was trained by the least loss over all orders, on RQ1's tasks. The library
draws the optimum where networks are shown that were trained by that loss.

No variant: 12,800 tasks in each cell. `:quick`: 1,280 tasks, minutes on 2 CPU
cores. `:smoke`: goes through everything in seconds, for the tests.
"""

import functools

import jax
import ml_collections
import numpy as np

from experiments import results_pages
from experiments.runner import fields, studies
from tgmm_jax import metrics, pretrained
from tgmm_jax.evaluation import contenders, evaluator, results, sorted_loss
from tgmm_jax.evaluation import mixtures as mixture_evaluation
from tgmm_jax.figures import cells as cell_figures
from tgmm_jax.models import factory
from tgmm_jax.tasks import mixtures

VARIANTS = ("", "quick", "smoke")
_ERROR, _SORTED = "l2_error", "sorted_error"
_BASELINES = ("em/normal", "em/oracle")
_NETWORK = "pretrained"

sweep = studies.sweep

CONCLUSION = (
  "Whoever minimises the published loss stays behind one start of EM at d = 2"
  " and 8 at every K, though told the exact means: {optimum} against {em} at"
  " d = 2, K = 4, by the alignment that counts. The loss itself, which knows"
  " one order only, does not get below {sorted} there. The shipped network,"
  " which was trained by the least loss over all orders, has no such limit."
)


def _at(solver, metric=_ERROR):
  return {"solver": solver, "metric": metric, "dim": 2, "num_components": 4}


def _lines():
  lines = {
    "optimum, in the order of the weights": {
      "solver": sorted_loss.OPTIMUM,
      "metric": _SORTED,
    }
  }
  names = (sorted_loss.OPTIMUM, "em/normal", _NETWORK, "em/oracle")
  for head, fields_of in results_pages.solvers(*names).items():
    lines[head] = fields_of | {"metric": _ERROR}
  return lines


def _columns():
  places = [(2, count) for count in (2, 3, 4, 5)]
  places += [(8, 2), (8, 5), (32, 5), (128, 5)]
  return {
    f"d = {dim}, K = {count}": {"dim": dim, "num_components": count}
    for dim, count in places
  }


PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Squared error of the means at N = 128, {count} tasks in each cell, with"
      " its standard error; but for the first line by the right alignment.",
      _lines(),
      _columns(),
    ),
    figures={"optimum": "Error of the means against K, by the right alignment"},
    numbers={
      "optimum": _at(sorted_loss.OPTIMUM),
      "em": _at("em/normal"),
      "sorted": _at(sorted_loss.OPTIMUM, _SORTED),
    },
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = studies.get_config()
  config.title = "The optimum of the sorted loss"
  config.question = (
    "The published loss compares means in the order of their weights. How far"
    " from the truth is what minimises it?"
  )
  config.variant = variant
  is_smoke = variant == "smoke"
  # The seed of RQ1's tables.
  config.seed = 20_000
  config.studies.optimum = ml_collections.ConfigDict(
    {
      "dims": (2,) if is_smoke else (2, 8, 32, 128),
      "num_components": (2, 3) if is_smoke else (2, 3, 4, 5),
      "num_points": 32 if is_smoke else 128,
      "num_tasks": {"": 12800, "quick": 1280, "smoke": 16}[variant],
      "num_draws": 256 if is_smoke else 8192,
    }
  )
  return config


def _measure(settings, seed, on_step):
  plan = mixture_evaluation.EvaluationConfig(
    tasks=mixtures.TaskConfig(dim=2),
    dims=settings.dims,
    num_components=settings.num_components,
    num_points=(settings.num_points,),
    num_tasks=settings.num_tasks,
    seed=seed,
  )
  rows, laws = [], list(plan.laws())
  for done, law in enumerate(laws):
    rows += _rows_of_optimum(law, settings, seed)
    made = mixture_evaluation.make(_others(), [law], settings.num_tasks, seed)
    rows += [row for row in evaluator.run(made) if row.metric == _ERROR]
    on_step(done + 1, len(laws))
  return rows


def _others():
  """Who is shown beside the optimum."""
  found = contenders.baselines()
  groups = {name: found[name] for name in _BASELINES}
  card, params = pretrained.load_params("unit")
  groups[_NETWORK] = contenders.network(
    _NETWORK, factory.build(card.config), params
  )
  return groups


def _rows_of_optimum(law, settings, seed):
  batch, _ = mixture_evaluation.sample_tasks(law, settings.num_tasks, seed)
  values = _score(jax.random.key(seed), batch, law, settings.num_draws)
  rows = []
  for index, count in enumerate(law.num_components):
    part = slice(index * settings.num_tasks, (index + 1) * settings.num_tasks)
    own = {name: np.asarray(value[part]) for name, value in values.items()}
    rows += results.summarise(
      own,
      solver=sorted_loss.OPTIMUM,
      dim=law.dim,
      num_components=count,
      num_points=law.max_points,
      shift=law.shift,
      failed=~(own[_ERROR] <= metrics.FAILURE_THRESHOLD),
    )
  return rows


@functools.partial(jax.jit, static_argnames=("law", "num_draws"))
def _score(key, batch, law, num_draws):
  """The optimum's errors on each task, by metric."""

  def score_one(inputs):
    key, task = inputs
    found = sorted_loss.optimum(key, task, law, num_draws=num_draws)
    told = found.means, task.mixture.means, task.num_components
    return {
      _ERROR: metrics.l2_error(*told),
      _SORTED: metrics.sorted_error(*told),
    }

  # One at a time: all draws of a task fill a cache.
  return jax.lax.map(
    score_one, (jax.random.split(key, len(batch.points)), batch)
  )


def _draw(rows):
  return cell_figures.error_against_components(
    [row for row in rows if "+em" not in row.solver]
  )


STUDIES = {"optimum": studies.Study("Error against K", _measure, _draw)}

experiment = studies.experiment_of(STUDIES, get_config)
