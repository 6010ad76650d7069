"""What the experiments with clustering have in common (arXiv 2501.01312).

A run trains one network to label the points of problems of one d, N and K, and
is scored on new ones by the accuracy of its labels: mixtures over how far
their means are apart, images for random pairs of classes and for each pair.
"""

import functools
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from experiments import base, clustering_figures, curves, pca_base
from tgmm_jax.evaluation import labels as label_evaluation
from tgmm_jax.evaluation import results
from tgmm_jax.models import factory, set_transformer
from tgmm_jax.tasks import images, mixtures, spectra
from tgmm_jax.training import interrupts, loop
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import labels as label_learner
from tgmm_jax.training.learners import learner as learner_lib

# Where problems are mixtures and no images.
TWO_CLASSES, MIXTURES = "two-class", "mixtures"
SYNTHETIC = (TWO_CLASSES, MIXTURES)
SOURCES = (*SYNTHETIC, *images.SOURCES)
# By source the label of the axis, and the caption of the figure.
_SHOWN = {
  TWO_CLASSES: (
    "|mu|, half the distance of the means",
    "Two classes, over their separation",
  ),
  MIXTURES: (
    "range of the means' entries",
    "Mixtures, over the range of their means",
  ),
}

sweep = pca_base.sweep


def get_config() -> ml_collections.ConfigDict:
  """The fields of all such experiments; `runs` is still empty."""
  config = base.common_config()
  config.evaluation = ml_collections.ConfigDict()
  # Problems of each law; of images in all, the pairs of classes in turn and
  # each at least once.
  config.evaluation.num_instances = 2048
  # |mu| of two classes, half the distance of their means.
  config.evaluation.separations = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
  # Of mixtures: entries of their means are uniform on [-r, r].
  config.evaluation.mean_ranges = (1.0, 2.0, 3.0, 5.0)
  config.evaluation.seed = 20_000  # of problems and starts

  # Of runs whose source is images; see `tasks.images.ImageConfig`.
  config.images = pca_base.get_config().images
  config.runs = ml_collections.ConfigDict()  # name -> clustering_run
  return config


def clustering_run() -> ml_collections.ConfigDict:
  """One training; the network's defaults are the paper's small one."""
  run = base.training_config()
  run.source = TWO_CLASSES  # or "mixtures", or a source of images
  run.dim = 10  # d, of images after the projection
  run.num_points = 50  # N
  run.num_classes = 2  # K; other than 2 for "mixtures" only
  run.min_separation = 0.5  # |mu| of two classes is uniform from here on
  run.max_separation = 4.0  # up to here
  run.mean_ranges = (1.0, 2.0, 3.0, 5.0)  # of mixtures, equal parts of a batch
  run.batch_size = 64
  run.num_steps = 100_000
  run.optimizer.learning_rate = 1e-3
  run.optimizer.weight_decay = 0.0
  run.model = pca_base.pca_run().model
  # Labels are read off the states of the points.
  del run.model.readout, run.model.num_queries
  return run


def make_smoke(config: ml_collections.ConfigDict) -> None:
  """Everything in seconds: tiny problems and networks, few steps."""
  config.evaluation.num_instances = 16
  config.evaluation.separations = (1.0, 3.0)
  config.evaluation.mean_ranges = (2.0, 5.0)
  for run in config.runs.values():
    run.num_steps, run.steps_per_call, run.checkpoint_every = 20, 5, 10
    run.batch_size = 8
    run.num_points = 12
    run.dim = max(run.dim // 5, 2)
    run.mean_ranges = (5.0,)
    run.model.width = 8
    run.model.num_layers = 2


class Run(NamedTuple):
  """One training, as the library takes it.

  Attributes:
    name: of its folder.
    source: one of `SOURCES`.
    model: the network's sizes.
    problems: the laws of the problems, or which images.
    tests: by abscissa the laws that it is scored on; none of images.
    batch_size: problems in a batch.
    train: how it is trained.
  """

  name: str
  source: str
  model: set_transformer.SetTransformerConfig
  problems: tuple[label_learner.Law, ...] | images.ImageConfig
  tests: dict[float, label_learner.Law]
  batch_size: int
  train: train_step.TrainConfig

  @property
  def sizes(self) -> tuple[int, int, int]:
    """K, d and N."""
    return self.model.num_targets, self.model.dim, self.model.num_points

  @property
  def title(self) -> str:
    """Of its panels."""
    count, dim, num_points = self.sizes
    title = f"d = {dim}, N = {num_points}"
    if self.source == MIXTURES:
      return f"K = {count}, {title}"
    return title if self.source == TWO_CLASSES else f"{self.name}, {title}"


def make_runs(config: ml_collections.ConfigDict) -> tuple[Run, ...]:
  """Checks the whole config and builds what the library takes.

  Raises:
    ValueError: a value is out of range; the message names the field.
  """
  base.check_types("config", config, get_config())
  base.check_common(config)
  evaluation = config.evaluation
  base.check_evaluation(evaluation)
  for name in ("separations", "mean_ranges"):
    values = evaluation[name]
    if not values or len(set(values)) < len(values):
      raise ValueError(
        f"config.evaluation.{name} is {values}, takes different numbers, at"
        " least one"
      )
  return tuple(_make_run(config, name) for name in sorted(config.runs))


def _make_run(config, name):
  run, field = config.runs[name], f"config.runs.{name}"
  base.check_types(field, run, clustering_run())
  if run.source not in SOURCES:
    raise ValueError(
      f"{field}.source is {run.source!r}, takes one of {SOURCES}"
    )
  if run.source != MIXTURES and run.num_classes != 2:
    raise ValueError(
      f"{field}.num_classes is {run.num_classes}, takes 2 for the source"
      f" {run.source!r}"
    )
  model = base.named(
    f"{field}.model",
    set_transformer.SetTransformerConfig,
    dim=run.dim,
    answer="labels",
    num_targets=run.num_classes,
    num_points=run.num_points,
    **run.model,
  )
  problems, tests = _problems(config, field, run)
  if run.source in SYNTHETIC:
    base.named(field, label_learner.check_laws, model, problems, run.batch_size)
  return Run(
    name=name,
    source=run.source,
    model=model,
    problems=problems,
    tests=tests,
    batch_size=run.batch_size,
    train=base.train_config(config, field, run),
  )


def _problems(config, field, run):
  """What a run is trained on, and by abscissa the laws it is scored on."""
  evaluation = config.evaluation
  if run.source == TWO_CLASSES:
    problems = (_law(field, run, run.min_separation, run.max_separation),)
    places = evaluation.separations
  elif run.source == MIXTURES:
    problems = tuple(
      _law(field, run, value, value) for value in run.mean_ranges
    )
    places = evaluation.mean_ranges
  else:
    problems = base.named(
      field,
      images.ImageConfig,
      source=run.source,
      dim=run.dim,
      num_points=run.num_points,
      has_pairs=True,
      **config.images,
    )
    places = ()
  tests = {float(x): _law("config.evaluation", run, x, x) for x in places}
  return problems, tests


def _law(field, run, low, high):
  """With separations of two classes, or a range of means, from low to high."""
  sizes = {
    "dim": run.dim,
    "min_points": run.num_points,
    "max_points": run.num_points,
  }
  if run.source == TWO_CLASSES:
    return base.named(
      field,
      spectra.TwoClassConfig,
      min_separation=low,
      max_separation=high,
      **sizes,
    )
  return base.named(
    field,
    mixtures.TaskConfig,
    num_components=(run.num_classes,),
    mean_range=high,
    **sizes,
  )


def experiment(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> curves.Experiment:
  """What runs a config of clustering."""
  runs = make_runs(config)
  return curves.Experiment(
    config,
    workdir,
    runs,
    learner_of=learner_of,
    measure=functools.partial(measure, config),
    draw=functools.partial(draw, runs),
  )


def learner_of(run: Run) -> learner_lib.Learner:
  """What a run trains; reads its images if it has any."""
  model = factory.build_set(run.model)
  if isinstance(run.problems, images.ImageConfig):
    split = pca_base.prepared(run.problems).train
    return label_learner.make_on_images(
      model, split, run.problems, run.batch_size
    )
  return label_learner.make(model, run.problems, run.batch_size)


def measure(
  config: ml_collections.ConfigDict,
  run: Run,
  params: Any,
  stop: interrupts.StopRequest,
) -> curves.Rows:
  """Accuracies of a run and of what stands beside it."""
  if stop.is_requested():
    raise loop.StoppedError(f"stopped by a signal before {run.name} is scored")
  settings = config.evaluation
  is_synthetic = run.source in SYNTHETIC
  labellers = {
    label_evaluation.NETWORK: label_evaluation.network(
      factory.build_set(run.model), params
    )
  }
  labellers |= label_evaluation.references(
    run.model.num_targets, run.model.dim, has_unit_covariance=is_synthetic
  )
  score = functools.partial(
    label_evaluation.score,
    labellers,
    num_classes=run.model.num_targets,
    seed=settings.seed,
  )
  if not is_synthetic:
    return _measure_images(run, score, settings.num_instances)
  samples = {x: _sampler(law) for x, law in run.tests.items()}
  rows = label_evaluation.rows(
    score(samples, num_instances=settings.num_instances), study=run.name
  )
  if run.source == TWO_CLASSES:
    rows += label_evaluation.bayes_rows(run.tests, study=run.name)
  return rows


def _sampler(law):
  draw = jax.jit(
    lambda key, size: label_learner.sample_batch(key, law, size),
    static_argnums=1,
  )
  return lambda key, first, size: draw(key, size)


def _measure_images(run, score, num_instances):
  """The mean over all pairs at x = N, and each pair in the limit's order."""
  prepared = pca_base.prepared(run.problems)
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

  num_instances = max(num_instances, len(pairs))
  values = score({"": sample}, num_instances=num_instances)[""]
  rows = label_evaluation.rows(
    {float(run.model.num_points): values}, study=run.name
  )
  by_pair = {
    pair: {name: array[place :: len(pairs)] for name, array in values.items()}
    for place, pair in enumerate(pairs)
  }
  limit = label_evaluation.CLASS_MOMENTS
  order = sorted(pairs, key=lambda pair: np.mean(by_pair[pair][limit]))
  study = run.name + clustering_figures.PAIRS
  rows += label_evaluation.rows(
    {float(x): by_pair[pair] for x, pair in enumerate(order, 1)}, study=study
  )
  rows += [
    results.mean_point(
      study, "class", series, x, np.array([prepared.classes[pair[index]]])
    )
    for x, pair in enumerate(order, 1)
    for index, series in enumerate(("first", "second"))
  ]
  return rows


def draw(runs: Sequence[Run], rows: curves.Rows) -> curves.Figures:
  """A figure for each kind of mixtures, and one of the pairs of classes."""
  rows = [row for row in rows if row.metric == label_evaluation.METRIC]
  studies = {row.study for row in rows}
  found = {}
  for source, (axis, caption) in _SHOWN.items():
    shown = [run for run in runs if run.source == source]
    shown = [run for run in shown if run.name in studies]
    if shown:
      shown.sort(key=lambda run: run.sizes)
      figure = clustering_figures.over_distance(rows, shown, axis)
      found[caption] = (source.replace("-", "_"), figure)
  shown = [
    run for run in runs if run.name + clustering_figures.PAIRS in studies
  ]
  if shown:
    figure = clustering_figures.by_pair(rows, shown)
    found["Each pair of classes"] = ("by_pair", figure)
  return found
