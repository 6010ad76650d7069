"""Experiments with spectra: trainings, each scored by curves."""

import functools
import pathlib

import jax
import ml_collections

from experiments.runner import trainings
from experiments.spectra import config as spectrum_config
from experiments.spectra import figures as spectrum_figures
from experiments.spectra import probe
from tgmm_jax.evaluation import evaluator, results
from tgmm_jax.evaluation import spectra as spectrum_evaluation
from tgmm_jax.models import factory
from tgmm_jax.tasks import images, spectra
from tgmm_jax.training.learners import learner as learner_lib
from tgmm_jax.training.learners import spectra as spectrum_learner


def experiment(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> trainings.TrainingExperiment:
  """What runs a config of spectra."""
  kind = trainings.Kind(
    row_type=results.CurveRow,
    learner_of=learner_of,
    measure=functools.partial(measure, config.evaluation),
    draw=spectrum_figures.draw,
  )
  runs = spectrum_config.make_runs(config)
  return trainings.TrainingExperiment(config, workdir, runs, kind)


def learner_of(run: spectrum_config.SpectrumRun) -> learner_lib.Learner:
  """What a run trains; reads its images if it has any."""
  model = factory.build_set(run.model)
  if isinstance(run.problems, images.ImageConfig):
    return spectrum_learner.make_on_images(
      model,
      run.loss,
      prepared(run.problems).train,
      run.problems,
      run.batch_size,
    )
  return spectrum_learner.make(model, run.loss, run.problems, run.batch_size)


# Several runs may share images, and each asks for them more than once.
prepared = functools.cache(images.prepare)


def samplers(
  run: spectrum_config.SpectrumRun,
) -> tuple[spectrum_evaluation.Sample, spectrum_evaluation.Sample]:
  """Draws problems of training and of testing, `(key, size) -> batch`."""
  law = run.problems
  if isinstance(law, spectra.CovarianceConfig):
    sample = jax.jit(
      lambda key, size: spectra.sample_batch(key, law, size),
      static_argnums=1,
    )
    return sample, sample
  draw = jax.jit(
    functools.partial(
      images.sample_batch,
      num_points=law.num_points,
      num_targets=law.num_targets,
    ),
    static_argnums=2,
  )
  found = prepared(law)
  return (
    lambda key, size: draw(key, found.train, size),
    lambda key, size: draw(key, found.test, size),
  )


def measure(
  settings: ml_collections.ConfigDict,
  run: spectrum_config.SpectrumRun,
  params,
  on_contender: trainings.OnContender,
) -> list[results.CurveRow]:
  """The curves of a run: by target, and its point over what varies."""
  of_training, of_testing = samplers(run)
  model = factory.build_set(run.model)
  answers = {
    spectrum_evaluation.NETWORK: lambda batch: model.apply(
      params, batch.points, batch.sample_weight
    )
  }
  answers |= spectrum_evaluation.references(
    run.loss,
    of_training,
    run.model.num_targets,
    num_steps=settings.num_steps,
    seed=settings.seed,
  )

  def rows_of(values):
    rows = spectrum_evaluation.by_target(values, study=run.name)
    if run.varies:
      study = spectrum_config.study_of(run)
      rows += spectrum_evaluation.at(values, run.x, study=study)
    return rows

  rows = evaluator.run(
    spectrum_evaluation.make(
      answers,
      of_testing,
      run.loss,
      settings.num_instances,
      settings.seed,
      rows=rows_of,
    ),
    on_contender=lambda place, name: on_contender(run.name, name),
    is_shared=True,
  )
  if settings.probed == run.name:
    rows += probe.layer_rows(run.model, params, of_testing, settings.seed)
  if run.varies == "num_layers" and run.loss == "eigenvectors":
    rows += probe.depth_rows(
      run.model, params, of_testing, settings.num_instances, settings.seed
    )
  return rows
