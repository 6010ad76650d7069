"""Every field of an experiment with labels, and what the library takes.

A run trains one network to label the points of problems of one d, N and K, and
is scored on new ones by the accuracy of its labels: mixtures over how far
their means are apart, images for random pairs of classes and for each pair.
"""

from typing import NamedTuple

import ml_collections

from experiments.runner import fields
from experiments.spectra import config as spectrum_config
from tgmm_jax.models import set_transformer
from tgmm_jax.tasks import images, mixtures, spectra
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import labels as label_learner

# Where problems are mixtures and no images.
TWO_CLASSES, MIXTURES = "two-class", "mixtures"
SYNTHETIC = (TWO_CLASSES, MIXTURES)
SOURCES = (*SYNTHETIC, *images.SOURCES)

sweep = spectrum_config.sweep


def get_config() -> ml_collections.ConfigDict:
  """The fields of all such experiments; `runs` is still empty."""
  config = fields.common_config()
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
  config.images = spectrum_config.get_config().images
  config.runs = ml_collections.ConfigDict()  # name -> training_run
  return config


def training_run() -> ml_collections.ConfigDict:
  """One training; the network's defaults are the paper's small one."""
  run = fields.training_config()
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
  run.model = spectrum_config.training_run().model
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


class LabelRun(NamedTuple):
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


def make_runs(config: ml_collections.ConfigDict) -> tuple[LabelRun, ...]:
  """Checks the whole config and builds what the library takes.

  Raises:
    ValueError: a value is out of range; the message names the field.
  """
  fields.check_types("config", config, get_config())
  fields.check_common(config)
  evaluation = config.evaluation
  fields.check_evaluation(evaluation)
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
  fields.check_types(field, run, training_run())
  if run.source not in SOURCES:
    raise ValueError(
      f"{field}.source is {run.source!r}, takes one of {SOURCES}"
    )
  if run.source != MIXTURES and run.num_classes != 2:
    raise ValueError(
      f"{field}.num_classes is {run.num_classes}, takes 2 for the source"
      f" {run.source!r}"
    )
  model = fields.named(
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
    fields.named(
      field, label_learner.check_laws, model, problems, run.batch_size
    )
  return LabelRun(
    name=name,
    source=run.source,
    model=model,
    problems=problems,
    tests=tests,
    batch_size=run.batch_size,
    train=fields.train_config(config, field, run),
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
    problems = fields.named(
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
    return fields.named(
      field,
      spectra.TwoClassConfig,
      min_separation=low,
      max_separation=high,
      **sizes,
    )
  return fields.named(
    field,
    mixtures.TaskConfig,
    num_components=(run.num_classes,),
    mean_range=high,
    **sizes,
  )
