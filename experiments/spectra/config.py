"""Every field of an experiment with spectra, and what the library takes.

A run trains one network on problems of one size and is scored on new ones,
eigenvalue by eigenvalue or vector by vector. Runs that differ in one field
(`varies`) make a panel together, with that field as the abscissa.
"""

from typing import NamedTuple

import ml_collections

from experiments.runner import fields
from experiments.spectra import figures as spectrum_figures
from tgmm_jax.models import set_transformer
from tgmm_jax.tasks import images, spectra
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import spectra as spectrum_learner

# Where problems are random covariances and no images.
SYNTHETIC = "covariances"


def get_config() -> ml_collections.ConfigDict:
  """The fields of all such experiments; `runs` is still empty."""
  config = fields.common_config()
  config.evaluation = ml_collections.ConfigDict()
  config.evaluation.num_instances = 2048  # problems for each run
  config.evaluation.num_steps = (1, 2, 4, 8)  # tau of the power method
  config.evaluation.seed = 20_000  # of problems and starts
  config.evaluation.probed = ""  # run of eigenvectors whose layers are probed

  # Of runs whose source is images; see `tasks.images.ImageConfig`.
  config.images = ml_collections.ConfigDict()
  config.images.folder = images.ImageConfig().folder  # of IDX files
  config.images.images_file = ""  # a .npy, for the source "npy"
  config.images.labels_file = ""  # a .npy, may be missing
  config.images.test_share = 0.2  # where a source has no test split
  config.images.seed = 0  # of that split

  config.runs = ml_collections.ConfigDict()  # name -> training_run
  return config


def training_run() -> ml_collections.ConfigDict:
  """One training; the defaults are the paper's small network and problems."""
  run = fields.training_config()
  run.loss = "eigenvalues"  # or "eigenvectors", "subspace"
  run.varies = ""  # field that the runs of its panel differ in
  run.source = SYNTHETIC  # or a source of images
  run.dim = 20  # d, of images after the projection
  run.num_points = 50  # N
  run.num_targets = 10  # k
  run.spectrum = "random"  # or "geometric", "gap"; not for images
  run.ratio = 0.5  # of eigenvalues that follow each other, where they do
  run.batch_size = 64
  run.num_steps = 100_000
  run.optimizer.learning_rate = 1e-3
  run.optimizer.weight_decay = 0.0
  run.model.width = 64  # D
  run.model.num_layers = 3  # L
  run.model.num_heads = 2  # H
  run.model.attention = "softmax"  # or "relu", "relu/N"
  run.model.has_norm = True  # layer norms
  run.model.is_causal = False  # True: GPT-2 as it comes, with positions
  run.model.readout = "pooled"  # or "flat" (the paper's): one N, an order
  run.model.num_queries = 4  # of a pooled readout
  run.model.init_scale = 0.1  # of weights; GPT-2 has 0.02
  run.model.compute_dtype = "float32"  # "bfloat16" on accelerators
  return run


def make_large(run: ml_collections.ConfigDict) -> None:
  """The paper's large network."""
  run.model.width, run.model.num_layers, run.model.num_heads = 256, 12, 4
  run.model.init_scale = 0.02


def make_quick(run: ml_collections.ConfigDict, num_steps: int) -> None:
  """A training of a minute or less on 2 CPU cores.

  Args:
    run: changed.
    num_steps: of the training, a multiple of 100.
  """
  run.num_steps = num_steps
  run.steps_per_call = 50
  run.checkpoint_every = num_steps // 2
  run.optimizer.schedule = "cosine"
  run.optimizer.num_warmup_steps = 200
  run.optimizer.b2 = 0.98
  run.optimizer.max_grad_norm = 1.0


def make_smoke(config: ml_collections.ConfigDict) -> None:
  """Everything in seconds: tiny problems and networks, few steps."""
  config.evaluation.num_instances = 32
  config.evaluation.num_steps = (1, 2)
  for run in config.runs.values():
    run.num_steps, run.steps_per_call, run.checkpoint_every = 20, 5, 10
    run.batch_size = 8
    run.num_points = 8
    run.dim = max(run.dim // 5, 3)
    run.num_targets = min(run.num_targets, 2)
    run.model.width = 8
    run.model.num_layers = min(run.model.num_layers, 2)
    if run.source != SYNTHETIC:
      run.source = "digits"


def sweep(config: ml_collections.ConfigDict) -> list[dict[str, str]]:
  """One element of a job array for each training."""
  return [{"only": name} for name in sorted(config.runs)]


class SpectrumRun(NamedTuple):
  """One training, as the library takes it.

  Attributes:
    name: of its folder.
    loss: a name in `spectrum_learner.LOSSES`.
    varies: a name in `spectrum_figures.VARIABLES`, or "".
    x: its value.
    model: the network's sizes.
    problems: the law of the problems, or which images.
    batch_size: problems in a batch.
    train: how it is trained.
  """

  name: str
  loss: str
  varies: str
  x: float
  model: set_transformer.SetTransformerConfig
  problems: spectra.CovarianceConfig | images.ImageConfig
  batch_size: int
  train: train_step.TrainConfig


def make_runs(config: ml_collections.ConfigDict) -> tuple[SpectrumRun, ...]:
  """Checks the whole config and builds what the library takes.

  Raises:
    ValueError: a value is out of range; the message names the field.
  """
  fields.check_types("config", config, get_config())
  fields.check_common(config)
  evaluation = config.evaluation
  fields.check_evaluation(evaluation)
  if not evaluation.num_steps or min(evaluation.num_steps) < 1:
    raise ValueError(
      f"config.evaluation.num_steps is {evaluation.num_steps}, takes integers"
      " >= 1"
    )
  if len(set(evaluation.num_steps)) < len(evaluation.num_steps):
    raise ValueError(
      f"config.evaluation.num_steps is {evaluation.num_steps}, takes each once"
    )
  runs = tuple(_make_run(config, name) for name in sorted(config.runs))
  fields.check_places(runs, study_of)
  probable = [run.name for run in runs if run.loss == "eigenvectors"]
  if evaluation.probed not in ("", *probable):
    raise ValueError(
      f"config.evaluation.probed is {evaluation.probed!r}, takes '' or one of"
      f" {probable}"
    )
  return runs


def _make_run(config, name):
  run, field = config.runs[name], f"config.runs.{name}"
  fields.check_types(field, run, training_run())
  if run.loss not in spectrum_learner.LOSSES:
    raise ValueError(
      f"{field}.loss is {run.loss!r}, takes one of"
      f" {sorted(spectrum_learner.LOSSES)}"
    )
  x = fields.varied(field, run, spectrum_figures.VARIABLES)
  if run.source == SYNTHETIC:
    problems = fields.named(
      field,
      spectra.CovarianceConfig,
      dim=run.dim,
      num_targets=run.num_targets,
      min_points=run.num_points,
      max_points=run.num_points,
      spectrum=run.spectrum,
      ratio=run.ratio,
    )
  else:
    problems = fields.named(
      field,
      images.ImageConfig,
      source=run.source,
      dim=run.dim,
      num_points=run.num_points,
      num_targets=run.num_targets,
      **config.images,
    )
  model = fields.named(
    f"{field}.model",
    set_transformer.SetTransformerConfig,
    dim=run.dim,
    answer=spectrum_learner.LOSSES[run.loss][1],
    num_targets=run.num_targets,
    num_points=run.num_points,
    **run.model,
  )
  return SpectrumRun(
    name=name,
    loss=run.loss,
    varies=run.varies,
    x=x,
    model=model,
    problems=problems,
    batch_size=run.batch_size,
    train=fields.train_config(config, field, run),
  )


def study_of(run: SpectrumRun) -> str:
  """The study of the runs that share a panel: same field, same images."""
  problems = run.problems
  is_synthetic = isinstance(problems, spectra.CovarianceConfig)
  return f"over {run.varies}" + (
    "" if is_synthetic else f" of {problems.source}"
  )
