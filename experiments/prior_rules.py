"""How near to Bayes does one come who knows the law of the tasks?

  python -m experiments.main --config=experiments/prior_rules.py[:VARIANT]

RQ1's tasks at d = 2, where the likelihood often prefers a wrong answer. EM from
k-means++ starts until it converges, and the views of the shipped network, each
followed by five EM steps as in RQ1's table (100 steps instead find maxima of
the likelihood that are wrong); of all answers the likeliest is kept, or the
likeliest that the law of the tasks allows (means in the box, directions apart,
weights in their range), or the mean over the modes of the posterior is taken.
Both are given the same rules.

No variant: 1,280 tasks for K = 2 to 5, 8 and 32 answers.
`:quick`: the same with 8 answers; a minute or two on 2 CPU cores.
`:smoke`: goes through everything in seconds, for the tests.
"""

import functools

import jax
import ml_collections
import numpy as np

from experiments import results_pages
from experiments.runner import fields, studies
from tgmm_jax import metrics, pretrained
from tgmm_jax.evaluation import mixtures as mixture_evaluation
from tgmm_jax.evaluation import posterior, results
from tgmm_jax.figures import curves as curve_figures
from tgmm_jax.models import factory
from tgmm_jax.solvers import combine, em
from tgmm_jax.tasks import mixtures

VARIANTS = ("", "quick", "smoke")
ERROR = "l2_error"
START, NETWORK = "EM starts", "network views"
RULES = ("likeliest", "likeliest that the law allows", "mean over modes")
_LIMIT = "EM started at the truth"
# EM steps after a view.
_NUM_STEPS = 5
# Tasks in a call of one program.
_BATCH_SIZE = 64

sweep = studies.sweep

CONCLUSION = (
  "The rules help restarts of EM, most for K = 4 and 5, and hardly the views of"
  " the network, which obey them by themselves; the mean over the modes of the"
  " views is as near as EM started at the truth."
  " With all the rules restarts stay behind the network's likeliest view for"
  " K = 4 and 5; for K = 2 nothing makes a difference."
)
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Squared error of the means at d = 2, N = 128, {count} tasks in each"
      " cell, with its standard error.",
      results_pages.series(
        *(f"8 {kind}, {rule}" for kind in (START, NETWORK) for rule in RULES),
        _LIMIT,
      ),
      results_pages.across("x", (2.0, 3.0, 4.0, 5.0), "K = {:g}"),
    ),
    figures={"rules": "Error of the means against K, by rule"},
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = studies.get_config()
  config.title = "The prior's rules"
  config.question = (
    "How near to Bayes do EM and the shipped network come, once they know the"
    " law of the tasks?"
  )
  config.variant = variant
  is_smoke = variant == "smoke"
  config.studies.rules = ml_collections.ConfigDict(
    {
      "dim": 2,
      "num_components": (2,) if is_smoke else (2, 3, 4, 5),
      "num_points": 32 if is_smoke else 128,
      "num_tasks": 16 if is_smoke else 1280,
      "num_answers": (8, 32) if not variant else (8,),
    }
  )
  return config


def _measure(settings, seed, on_step):
  rows = []
  total = len(settings.num_components) * len(settings.num_answers) * 2
  done = 0
  for count in settings.num_components:
    law = mixtures.TaskConfig(
      dim=settings.dim,
      num_components=(count,),
      min_points=settings.num_points,
      max_points=settings.num_points,
    )
    size = law.padded_components
    batch, _ = mixture_evaluation.sample_tasks(law, settings.num_tasks, seed)
    key = jax.random.fold_in(jax.random.key(seed), count)
    start = em.fit_batch(
      key,
      batch.points,
      batch.num_components,
      max_components=size,
      init=batch.mixture,
    )
    rows.append(_point(_LIMIT, count, _errors(start.mixture, batch)))
    for num_answers in settings.num_answers:
      for kind, solve in ((START, _starts(size)), (NETWORK, _views())):
        mixtures_of = _answers(solve, law, num_answers)(key, batch)
        for rule, mixture in zip(RULES, mixtures_of, strict=True):
          series = f"{num_answers} {kind}, {rule}"
          rows.append(_point(series, count, _errors(mixture, batch)))
        done += 1
        on_step(done, total)
  return rows


def _starts(max_components):
  return functools.partial(
    em.fit, max_components=max_components, init="k-means++"
  )


def _views():
  card, params = pretrained.load_params("unit")
  solve = factory.solver(factory.build(card.config), params)
  return combine.then_em(solve, max_iter=_NUM_STEPS)


def _answers(solve, law, num_answers):
  """`(key, batch) -> mixtures` by each rule, from the same runs."""
  size = law.padded_components

  def answer_one(inputs):
    key, task = inputs
    count, num_points = task.num_components, law.max_points

    def run_once(key):
      result = solve(key, task.points, count, sample_weight=task.sample_weight)
      weights, means, _ = result.mixture
      mixture = result.mixture._replace(
        weights=weights[:size], means=means[:size], covariances=None
      )
      return result._replace(mixture=mixture)

    found = jax.vmap(run_once)(jax.random.split(key, num_answers))
    possible = jax.vmap(posterior.is_possible, in_axes=(0, None, None, None))(
      found.mixture, count, num_points, law
    )
    chosen = (
      combine.most_likely(found),
      posterior.most_likely(found, possible),
    )
    kept = tuple(
      jax.tree.map(lambda leaf, i=index: leaf[i], found.mixture)
      for index in chosen
    )
    return *kept, posterior.mean(found, possible, count, num_points)

  @jax.jit
  def answer(key, batch):
    keys = jax.random.split(key, len(batch.points))
    return jax.lax.map(answer_one, (keys, batch), batch_size=_BATCH_SIZE)

  return answer


def _errors(mixture, batch):
  errors = jax.jit(jax.vmap(metrics.l2_error))(
    mixture.means, batch.mixture.means, batch.num_components
  )
  return np.asarray(errors)


def _point(series, count, errors):
  return results.mean_point("rules", ERROR, series, count, errors)


def _draw(rows):
  panel = curve_figures.Panel(
    "rules", ERROR, "", "number of components", "squared error of the means"
  )
  return curve_figures.draw(rows, [panel])


def _tabulate(rows):
  """A line for each way, a column for each K."""
  table = {}
  for row in rows:
    cell = f"{row.value:.4f} ± {row.standard_error:.4f}"
    table.setdefault(row.series, {})[f"K = {row.x:g}"] = cell
  return table


STUDIES = {
  "rules": studies.Study("The prior's rules", _measure, _draw, _tabulate)
}

experiment = studies.experiment_of(STUDIES, get_config)
