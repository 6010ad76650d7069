"""Experiments with labels: trainings, each scored by curves of its accuracy."""

import functools
import itertools
import pathlib
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from experiments import spectra as spectrum_experiments
from experiments.labels import config as label_config
from experiments.labels import figures as label_figures
from experiments.runner import trainings
from tgmm_jax.evaluation import evaluator, results
from tgmm_jax.evaluation import labels as label_evaluation
from tgmm_jax.models import factory
from tgmm_jax.tasks import images
from tgmm_jax.training.learners import labels as label_learner
from tgmm_jax.training.learners import learner as learner_lib


def experiment(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> trainings.TrainingExperiment:
  """What runs a config of labels."""
  runs = label_config.make_runs(config)
  kind = trainings.Kind(
    row_type=results.CurveRow,
    learner_of=learner_of,
    measure=functools.partial(measure, config.evaluation),
    draw=functools.partial(label_figures.draw, runs),
  )
  return trainings.TrainingExperiment(config, workdir, runs, kind)


def learner_of(run: label_config.LabelRun) -> learner_lib.Learner:
  """What a run trains; reads its images if it has any."""
  model = factory.build_set(run.model)
  if isinstance(run.problems, images.ImageConfig):
    split = spectrum_experiments.prepared(run.problems).train
    return label_learner.make_on_images(
      model, split, run.problems, run.batch_size
    )
  return label_learner.make(model, run.problems, run.batch_size)


def measure(
  settings: ml_collections.ConfigDict,
  run: label_config.LabelRun,
  params,
  on_contender: trainings.OnContender,
) -> list[results.CurveRow]:
  """Accuracies of a run and of what stands beside it."""
  is_synthetic = run.source in label_config.SYNTHETIC
  labellers = {
    label_evaluation.NETWORK: label_evaluation.network(
      factory.build_set(run.model), params
    )
  }
  labellers |= label_evaluation.references(
    run.model.num_targets, run.model.dim, has_unit_covariance=is_synthetic
  )
  make = functools.partial(
    label_evaluation.make,
    labellers,
    num_classes=run.model.num_targets,
    seed=settings.seed,
  )
  if is_synthetic:
    own = make(
      {x: _sampler(law) for x, law in run.tests.items()},
      num_instances=settings.num_instances,
      rows=functools.partial(label_evaluation.at, study=run.name),
    )
  else:
    own = _on_images(run, make, settings.num_instances)
  rows = evaluator.run(
    own,
    on_contender=lambda place, name: on_contender(f"{run.name}, {place}", name),
    is_shared=True,
  )
  if run.source == label_config.TWO_CLASSES:
    rows += label_evaluation.bayes_rows(run.tests, study=run.name)
  return rows


def _sampler(law):
  draw = jax.jit(
    lambda key, size: label_learner.sample_batch(key, law, size),
    static_argnums=1,
  )
  return lambda key, first, size: draw(key, size)


def _on_images(run, make, num_instances):
  """Scores all pairs of classes in turn, each at least once."""
  prepared = spectrum_experiments.prepared(run.problems)
  pairs = list(itertools.combinations(range(len(prepared.classes)), 2))
  draw = jax.jit(
    jax.vmap(
      functools.partial(images.sample_pair, num_points=run.model.num_points),
      in_axes=(0, None, 0),
    )
  )

  def sample(key, first, size):
    classes = np.array(pairs)[np.arange(first, first + size) % len(pairs)]
    return draw(jax.random.split(key, size), prepared.test, classes)

  def rows_of(x, values):
    rows = label_evaluation.at(x, values, study=run.name)
    return rows + _rows_by_pair(values, pairs, prepared.classes, run.name)

  return make(
    {float(run.model.num_points): sample},
    num_instances=max(num_instances, len(pairs)),
    rows=rows_of,
  )


def _rows_by_pair(values, pairs: Sequence[tuple[int, int]], classes, name):
  """The accuracy for each pair, in the order of the limit."""
  by_pair = {
    pair: {
      series: {
        metric: array[place :: len(pairs)]
        for metric, array in by_metric.items()
      }
      for series, by_metric in values.items()
    }
    for place, pair in enumerate(pairs)
  }

  def limit_of(pair):
    limit = by_pair[pair][label_evaluation.CLASS_MOMENTS]
    return np.mean(limit[label_evaluation.METRIC])

  study = name + label_figures.PAIRS
  rows = []
  for x, pair in enumerate(sorted(pairs, key=limit_of), 1):
    rows += label_evaluation.at(float(x), by_pair[pair], study=study)
    rows += [
      results.mean_point(study, "class", series, x, np.array([classes[index]]))
      for series, index in zip(("first", "second"), pair, strict=True)
    ]
  return rows
