"""The fields of configs, and what they take.

The file of a question has `get_config(variant)`, which starts from the fields
of its kind (`mixtures`, `spectra`, `labels`, `studies`), `sweep(config)`, the
overrides of its job array, and `experiment(config, workdir)`, what runs it.
"""

import math
import pathlib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import ml_collections
from ml_collections import config_dict

from tgmm_jax.training import optim, run_folder
from tgmm_jax.training import step as train_step

# What may change between two starts of one run, for it does not touch the
# training: what a page is of (rows are measured anew where it is another),
PAGE_KEYS = ("evaluation", "studies", "title", "question")
# and how a start does its work.
_START_KEYS = ("only", "max_to_keep", "restore_dir", "start")
FREE_KEYS = (*PAGE_KEYS, *_START_KEYS)

# Names become folders and files; these two are taken.
_NAME = re.compile(r"\w[\w-]*")

# The folder of what nobody trains.
BASELINES = "baselines"
_TAKEN_NAMES = (BASELINES, run_folder.FIGURES, run_folder.PROGRAMS)


class Timeouts(NamedTuple):
  """When the other processes of a run are given up, in seconds."""

  start: int
  heartbeat: int
  shutdown: int


def start_config() -> ml_collections.ConfigDict:
  """How a start does its work: fields that every experiment has."""
  start = ml_collections.ConfigDict()
  start.save_minutes = 15.0  # to a checkpoint between those by step; 0: none
  # Folder of compiled programs; "" takes `programs` in the work folder, unless
  # JAX_COMPILATION_CACHE_DIR names another, and "none" keeps none.
  start.programs = ""
  # Seconds after which other processes are given up: they have not started,
  # they are silent, they do not come to the end.
  start.start_timeout = 300
  start.heartbeat_timeout = 100
  start.shutdown_timeout = 300
  return start


def timeouts(config: ml_collections.ConfigDict) -> Timeouts:
  """The time-outs of a config.

  Raises:
    ValueError: one is below a second.
  """
  own = config.get("start", start_config())
  found = Timeouts(
    own.start_timeout, own.heartbeat_timeout, own.shutdown_timeout
  )
  for name, value in found._asdict().items():
    if value < 1:
      raise ValueError(
        f"config.start.{name}_timeout is {value}, takes at least 1 second"
      )
  return found


def check_variant(variant: str, variants: tuple[str, ...]) -> None:
  """Refuses a variant that an experiment does not have.

  Args:
    variant: what was asked for.
    variants: what there is, "" first.
  """
  if variant not in variants:
    raise ValueError(
      f"variant is {variant!r}, takes one of {', '.join(variants[1:])} or none"
    )


def check_workdir(workdir: pathlib.Path) -> None:
  """Raises where there is no folder of a run to report on."""
  if not workdir.is_dir():
    raise ValueError(
      f"--workdir is {str(workdir)!r}, takes the folder of a run for"
      " --mode=report"
    )


def common_config() -> ml_collections.ConfigDict:
  """The fields of all experiments that train something."""
  config = ml_collections.ConfigDict()
  config.title = ""  # of the report
  config.question = ""  # one paragraph, shown in the report
  config.variant = ""  # "", "quick", "smoke", ...
  config.seed = 0  # of initialisation and training tasks
  config.only = ""  # name of the one run to do, or "baselines"; "" does all
  config.num_devices = 0  # devices to train on; 0 takes all
  config.state_sharding = "replicated"  # or "sharded": split over the devices
  config.max_skipped_in_row = 20  # updates not finite before a run gives up
  config.max_to_keep = 3  # checkpoints of each run
  # Folder of an earlier run to go on from: its parameters, its optimiser and
  # its step, so that num_steps counts the steps that were done there.
  config.restore_dir = ""
  config.start = start_config()
  return config


def training_config() -> ml_collections.ConfigDict:
  """The fields of every training: how long, and the optimiser."""
  run = ml_collections.ConfigDict()
  run.seed = 0  # added to config.seed: runs that differ in it alone are repeats
  run.num_steps = 1_000_000
  run.steps_per_call = 20  # steps in one compiled call
  run.checkpoint_every = 10_000  # steps, a multiple of steps_per_call
  run.optimizer = ml_collections.ConfigDict()
  run.optimizer.learning_rate = 1e-4  # peak
  run.optimizer.schedule = "constant"  # or "cosine"
  run.optimizer.num_warmup_steps = 0
  run.optimizer.weight_decay = 1e-4
  run.optimizer.b2 = 0.999
  run.optimizer.max_grad_norm = 0.0  # 0: gradients are not clipped
  run.model = ml_collections.ConfigDict()
  return run


def identity(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as JSON holds it."""
  return config_dict.ConfigDict(config).to_dict()


def settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The identity without what no score of a training follows from."""
  free = (*_START_KEYS, "title", "question")
  return {
    key: value for key, value in identity(config).items() if key not in free
  }


def check_common(config: ml_collections.ConfigDict, *more: str) -> None:
  """Checks the fields of `common_config` and the names of the runs.

  Args:
    config: of the experiment.
    *more: what `only` may name beside the runs.

  Raises:
    ValueError: a value is out of range; the message names the field.
  """
  check_name("config.variant", config.variant or "none")
  for name in config.runs:
    check_name(f"config.runs.{name}", name)
  names = [*sorted(config.runs), *more]
  if config.only and config.only not in names:
    raise ValueError(
      f"config.only is {config.only!r}, takes '' or one of {names}"
    )
  if config.max_to_keep < 1:
    raise ValueError(f"config.max_to_keep is {config.max_to_keep}, takes >= 1")
  if not 0 <= config.start.save_minutes < math.inf:
    raise ValueError(
      f"config.start.save_minutes is {config.start.save_minutes}, takes >= 0,"
      " where 0 saves none by time"
    )
  timeouts(config)


def check_evaluation(evaluation: ml_collections.ConfigDict) -> None:
  """Raises where problems cannot be drawn, or have no standard error."""
  field = "config.evaluation"
  if evaluation.num_instances < 2:
    raise ValueError(
      f"{field}.num_instances is {evaluation.num_instances}, takes at least 2"
    )
  if not 0 <= evaluation.seed < 2**32:
    raise ValueError(f"{field}.seed is {evaluation.seed}, takes 0 to 2**32 - 1")


def check_places(runs: Sequence[Any], study_of: Callable[[Any], str]) -> None:
  """Raises where two runs would be the same point of a curve.

  Args:
    runs: with the fields name, varies and x.
    study_of: the curve of a run.
  """
  seen = {}
  for run in runs:
    if not run.varies:
      continue
    place = (study_of(run), run.x)
    if place in seen:
      raise ValueError(
        f"config.runs.{run.name} has {run.varies} = {run.x:g}, takes a value"
        f" that config.runs.{seen[place]} has not"
      )
    seen[place] = run.name


def train_config(
  config: ml_collections.ConfigDict, field: str, run: ml_collections.ConfigDict
) -> train_step.TrainConfig:
  """How a run with the fields of `training_config` is trained.

  Raises:
    ValueError: a value is out of range; the message names the field.
  """
  size = run.get("batch_size", 1)
  if size < 1:
    raise ValueError(f"{field}.batch_size is {size}, takes an integer >= 1")
  return named(
    field,
    train_step.TrainConfig,
    num_steps=run.num_steps,
    steps_per_call=run.steps_per_call,
    optimizer=named(
      f"{field}.optimizer", optim.OptimizerConfig, **run.optimizer
    ),
    seed=config.seed + run.seed,
    max_skipped_in_row=config.max_skipped_in_row,
    checkpoint_every=run.checkpoint_every,
    state_sharding=config.state_sharding,
  )


def varied(
  field: str, run: ml_collections.ConfigDict, variables: Collection[str]
) -> float:
  """The value of the field of a run, or of its model, that `varies` names.

  Args:
    field: of the run in the config.
    run: the run; its `varies` may be "", which has the value 0.
    variables: the fields that may vary.

  Raises:
    ValueError: `varies` names another field.
  """
  if run.varies not in ("", *variables):
    raise ValueError(
      f"{field}.varies is {run.varies!r}, takes '' or one of {tuple(variables)}"
    )
  if not run.varies:
    return 0.0
  return float(run.get(run.varies, run.model.get(run.varies)))


def check_types(
  field: str,
  values: ml_collections.ConfigDict,
  template: ml_collections.ConfigDict,
) -> None:
  """Raises where a value is of another type than the default's."""
  for name, default in template.items():
    key = f"{field}.{name}"
    if isinstance(default, ml_collections.ConfigDict):
      check_types(key, values[name], default)
    elif not _is_like(values[name], default):
      raise ValueError(
        f"{key} is {values[name]!r}, takes {type(default).__name__} as in"
        f" {default!r}"
      )


def _is_like(value, default):
  if isinstance(default, tuple):
    return isinstance(value, tuple) and all(
      _is_like(item, default[0]) for item in value
    )
  if isinstance(default, float):
    return type(value) in (int, float)
  return type(value) is type(default)


def check_name(field: str, name: str) -> None:
  """Raises where a name cannot be that of a folder and a file."""
  if not _NAME.fullmatch(name) or name in _TAKEN_NAMES:
    raise ValueError(
      f"{field} is {name!r}, takes letters, digits, _ and -, but none of"
      f" {_TAKEN_NAMES}"
    )


def named(field: str, make: Callable[..., Any], *args, **values) -> Any:
  """Calls `make`; its error also says where in the config the value is."""
  try:
    return make(*args, **values)
  except ValueError as error:
    raise ValueError(f"{field}: {error}") from error
