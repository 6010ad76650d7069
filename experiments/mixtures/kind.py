"""Experiments with mixtures: trainings, and solvers in cells of one table."""

import pathlib
from collections.abc import Callable, Iterable, Mapping

import ml_collections

from experiments.mixtures import config as mixture_config
from experiments.mixtures import figures as mixture_figures
from experiments.mixtures import shipped
from experiments.runner import pages, trainings
from tgmm_jax import gmm, pretrained
from tgmm_jax.evaluation import contenders, evaluator, results
from tgmm_jax.evaluation import mixtures as mixture_evaluation
from tgmm_jax.figures import style as figure_style
from tgmm_jax.models import factory
from tgmm_jax.training.learners import mixtures as mixture_learner

METRICS = (
  "l2_error",
  "l2_error_released",
  "weight_error",
  "accuracy",
  "log_likelihood",
  "log_likelihood_fresh",
)


def experiment(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  *,
  draw_more: Callable[..., pages.Figures] = lambda config, rows: {},
) -> trainings.TrainingExperiment:
  """What runs a config of mixtures.

  Args:
    config: to be run; it is checked whole.
    workdir: its folder.
    draw_more: `(config, rows) -> figures` that this experiment alone has.

  Raises:
    ValueError: a value is out of range; the message names the field.
  """
  plan = mixture_config.make_plan(config)

  def measure(run, params, on_contender):
    model = factory.build(run.model)
    groups = {run.solver: contenders.network(run.solver, model, params)}
    dims = set(plan.evaluation.dims) & set(run.tasks.dims)
    return _score(plan.evaluation, groups, dims, on_contender)

  def measure_rest(on_contender):
    rows = []
    for dim, groups in rest.items():
      rows += _score(
        plan.evaluation, groups, (dim,), on_contender, with_range=True
      )
    return rows

  rest = _rest(config, plan)
  kind = trainings.Kind(
    row_type=results.Row,
    learner_of=lambda run: mixture_learner.make(
      factory.build(run.model), run.tasks
    ),
    measure=measure,
    measure_rest=measure_rest if rest else None,
    draw=lambda rows: (
      dict(mixture_figures.draw(rows)) | draw_more(config, rows)
    ),
    expected=_expected(config, plan),
    sources=_sources(config),
  )
  return trainings.TrainingExperiment(config, workdir, plan.runs, kind)


def _sources(config):
  """The shipped networks' digests: other weights, other scores."""
  return {own.card.name: own.card.sha256 for own in shipped.networks(config)}


def _rest(config, plan):
  """The solvers that nobody trains, by d and by group."""
  evaluation, groups = plan.evaluation, {}
  if config.evaluation.with_baselines:
    groups |= contenders.baselines(
      covariance_type=evaluation.tasks.covariance_type
    )
  if config.evaluation.with_constructed:
    groups |= contenders.constructed(
      max(evaluation.dims), evaluation.tasks.padded_components
    )
  found = {dim: dict(groups) for dim in evaluation.dims}
  for own in shipped.networks(config):
    _, params = pretrained.load_params(own.name)
    model = factory.build(own.card.config)
    group = contenders.network(own.solver, model, params)
    for dim in own.dims:
      found[dim][own.solver] = group
  return {dim: groups for dim, groups in found.items() if groups}


def _score(
  config: mixture_evaluation.EvaluationConfig,
  groups: Mapping[str, contenders.SolverGroup],
  dims: Iterable[int],
  on_contender: trainings.OnContender,
  *,
  with_range: bool = False,
) -> list[results.Row]:
  """Scores solvers in the cells with these dimensions."""
  cells = [mixture_evaluation.setting_of(law) for law in config.laws()]
  laws = [law for law in config.laws() if law.dim in dims]
  if not laws:
    return []

  def on_law(law, name):
    setting = mixture_evaluation.setting_of(law)
    on_contender(figure_style.setting_label(setting, cells), name)

  return evaluator.run(
    mixture_evaluation.make(
      groups,
      laws,
      config.num_tasks,
      config.seed,
      max_points=config.padded_points,
      trained=config.tasks if with_range else None,
    ),
    on_contender=on_law,
    is_shared=True,
  )


def _expected(config, plan):
  """All planned cells: those without a row are shown as missing."""
  evaluation = plan.evaluation
  dims = {}  # where each solver has cells
  for name, dim, _ in mixture_config.solvers_at(config, plan.runs):
    dims.setdefault(name, set()).add(dim)
  metrics = METRICS
  if not gmm.kind_of(evaluation.tasks.covariance_type).is_known:
    metrics += ("scale_error",)
  return [
    (name, mixture_evaluation.setting_of(law), num_components, metric)
    for name, served in dims.items()
    for law in evaluation.laws()
    if law.dim in served
    for num_components in mixture_evaluation.counts_of(law)
    for metric in metrics
  ]
