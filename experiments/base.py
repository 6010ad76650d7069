"""Every field of an experiment's config, and what the library makes of it.

An experiment file has `get_config(variant)`, which starts from `get_config`
here, `sweep(config)`, the overrides of its job array, and `experiment(config,
workdir)`, what runs it.
"""

import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import ml_collections
from ml_collections import config_dict

from tgmm_jax import evaluate, optim, solver_groups, train_step
from tgmm_jax.learners import mixtures as mixture_learner
from tgmm_jax.models import factory
from tgmm_jax.tasks import mixtures

# The only run of an experiment that trains nothing.
BASELINES = "baselines"

# What may change between two starts of one run: it does not touch the training;
# tables are made anew where the evaluation is another.
FREE_KEYS = (
  "only",
  "max_to_keep",
  "restore_dir",
  "evaluation",
  "title",
  "question",
)

# Names become folders and files; these two are taken.
_NAME = re.compile(r"\w[\w-]*")
_TAKEN_NAMES = (BASELINES, "figures")


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
  config.restore_dir = ""  # folder of an earlier run to start from
  return config


def get_config() -> ml_collections.ConfigDict:
  """The fields of experiments with mixtures; `runs` is still empty."""
  config = common_config()

  # The law of the tasks, for training; the defaults are the paper's.
  config.tasks = ml_collections.ConfigDict()
  config.tasks.num_components = (2, 3, 4, 5)  # the set of K
  config.tasks.min_points = 64  # smallest N
  config.tasks.max_points = 128  # largest N, to which tasks are padded
  config.tasks.mean_range = 5.0  # means are uniform on [-5, 5]
  config.tasks.max_cosine = 0.8  # means are drawn again until all are below
  config.tasks.min_weight = 0.2  # weights before they are divided by their sum
  config.tasks.max_weight = 0.8
  config.tasks.covariance_type = "unit"  # or "diag": scales are estimated too

  config.evaluation = ml_collections.ConfigDict()
  config.evaluation.dims = (2, 8, 32, 128)  # d of the cells
  config.evaluation.num_components = (2, 3, 4, 5)  # K of the cells
  config.evaluation.num_points = (128,)  # N of the cells
  config.evaluation.shifts = (0.0,)  # sigma_p of the cells
  # Further shifts: by a kind of `tasks.shifts.KINDS`, sizes as in (0.1, 0.2).
  config.evaluation.other_shifts = ml_collections.ConfigDict()
  config.evaluation.num_tasks = 1280  # tasks in each cell
  config.evaluation.seed = 20_000  # of tasks and of solvers' draws
  config.evaluation.with_baselines = True  # score the classical solvers too
  config.evaluation.with_constructed = False  # and the constructed networks

  config.runs = ml_collections.ConfigDict()  # name -> tgmm_run or refiner_run
  return config


def tgmm_run(dim: int) -> ml_collections.ConfigDict:
  """One training of the paper's network; the defaults are the paper's."""
  run = _run("tgmm", (dim,), (64,))
  run.model.width = 128  # D
  run.model.num_layers = 12  # L
  run.model.num_heads = 4  # H; the paper's Mamba2 has 8
  run.model.embedding_width = 128  # of the embedding of K
  run.model.backbone = "transformer"  # or "mamba2"
  run.model.is_causal = False  # True: as released; transformer with positions
  run.model.state_size = 16  # this and the next three: of Mamba2
  run.model.num_groups = 2  # of heads, divides num_heads
  run.model.head_dim = 64  # num_heads x head_dim = width x expansion
  run.model.expansion = 4
  run.model.compute_dtype = "float32"  # "bfloat16" on accelerators
  return run


def refiner_run() -> ml_collections.ConfigDict:
  """One training of the refiner, for every dimension at once."""
  run = _run("refiner", (2, 3, 5, 8, 32, 128), (10, 5, 5, 5, 4, 3))
  run.optimizer.learning_rate = 1.5e-3
  run.optimizer.schedule = "cosine"
  run.optimizer.num_warmup_steps = 200
  run.optimizer.b2 = 0.98
  run.optimizer.max_grad_norm = 1.0
  run.model.rank = 4  # r, coordinates of the frame
  run.model.width = 64  # D
  run.model.num_layers = 5  # L
  run.model.num_heads = 4  # H
  run.model.origin_rate = 0.7  # share of tasks that know where the origin is
  run.model.compute_dtype = "float32"  # "bfloat16" on accelerators
  return run


def training_config() -> ml_collections.ConfigDict:
  """The fields of every training: how long, and the optimiser."""
  run = ml_collections.ConfigDict()
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


def _run(network, dims, batch_sizes):
  run = training_config()
  run.network = network  # "tgmm" or "refiner"
  run.solver = network  # its name in the tables
  run.dims = dims  # d of the tasks in a batch
  run.batch_sizes = batch_sizes  # tasks of each of them
  run.min_points = 0  # smallest N of its tasks; 0: as config.tasks has it
  run.max_points = 0  # largest N of its tasks; 0: as config.tasks has it
  run.loss = "matched"  # or "sorted" (the paper's), "likelihood"
  run.stage_weight = 0.3  # in the loss, of all stages but the last
  return run


def sweep(config: ml_collections.ConfigDict) -> list[dict[str, str]]:
  """One element of a job array for each training, one for the baselines."""
  names = [*sorted(config.runs), BASELINES]
  return [{"only": name} for name in names]


class Run(NamedTuple):
  """One training, as the library takes it."""

  name: str
  solver: str
  model: factory.ModelConfig
  tasks: mixture_learner.MixtureTraining
  train: train_step.TrainConfig

  @property
  def batch_size(self) -> int:
    """Tasks in a batch, of all dimensions."""
    return sum(self.tasks.batch_sizes)


class Plan(NamedTuple):
  """A whole experiment, checked."""

  runs: tuple[Run, ...]
  evaluation: evaluate.EvaluationConfig


def identity(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as JSON holds it."""
  return config_dict.ConfigDict(config).to_dict()


def make_plan(config: ml_collections.ConfigDict) -> Plan:
  """Checks the whole config and builds what the library takes.

  Raises:
    ValueError: a value is out of range; the message names the field.
  """
  check_types("config", config, get_config())
  check_common(config, BASELINES)
  runs = tuple(_make_run(config, name) for name in sorted(config.runs))
  cells = dict(config.evaluation)
  del cells["with_baselines"], cells["with_constructed"]
  cells["other_shifts"] = tuple(
    (kind, size)
    for kind, sizes in cells["other_shifts"].items()
    for size in sizes
  )
  evaluation = named(
    "config.evaluation",
    evaluate.EvaluationConfig,
    tasks=_law(config, "config.evaluation", config.evaluation.dims)[0],
    **cells,
  )
  served = set(config.tasks.num_components)
  if not served.issuperset(evaluation.num_components):
    raise ValueError(
      f"config.evaluation.num_components is {evaluation.num_components}, takes"
      f" a subset of config.tasks.num_components = {tuple(sorted(served))}"
    )
  _check_solvers(config, runs)
  _check_positions(runs, evaluation)
  return Plan(runs, evaluation)


def _make_run(config, name):
  run = config.runs[name]
  field = f"config.runs.{name}"
  if run.network not in factory.CONFIGS:
    raise ValueError(
      f"{field}.network is {run.network!r}, takes one of"
      f" {sorted(factory.CONFIGS)}"
    )
  template = tgmm_run(2) if run.network == "tgmm" else refiner_run()
  check_types(field, run, template)
  _check_name(f"{field}.solver", run.solver)
  laws = _law(config, field, run.dims, **_num_points(config, run))
  model = dict(run.model, num_components=config.tasks.num_components)
  covariance_type = config.tasks.covariance_type
  if run.network == "refiner":
    model.update(covariance_type=covariance_type)
  else:
    model.update(has_scales=covariance_type == "diag")
    if len(run.dims) != 1:
      raise ValueError(f"{field}.dims is {run.dims}, takes one d for a tgmm")
    model.update(dim=run.dims[0], max_points=laws[0].max_points)
  model = named(f"{field}.model", factory.CONFIGS[run.network], **model)
  tasks = named(
    field,
    mixture_learner.MixtureTraining,
    tasks=laws,
    batch_sizes=run.batch_sizes,
    loss=run.loss,
    stage_weight=run.stage_weight,
  )
  named(field, mixture_learner.check_model, model, laws)
  return Run(
    name=name,
    solver=run.solver,
    model=model,
    tasks=tasks,
    train=train_config(config, field, run),
  )


def check_common(config: ml_collections.ConfigDict, *more: str) -> None:
  """Checks the fields of `common_config` and the names of the runs.

  Args:
    config: of the experiment.
    *more: what `only` may name beside the runs.

  Raises:
    ValueError: a value is out of range; the message names the field.
  """
  _check_name("config.variant", config.variant or "none")
  for name in config.runs:
    _check_name(f"config.runs.{name}", name)
  names = [*sorted(config.runs), *more]
  if config.only and config.only not in names:
    raise ValueError(
      f"config.only is {config.only!r}, takes '' or one of {names}"
    )
  if config.max_to_keep < 1:
    raise ValueError(f"config.max_to_keep is {config.max_to_keep}, takes >= 1")


def train_config(
  config: ml_collections.ConfigDict, field: str, run: ml_collections.ConfigDict
) -> train_step.TrainConfig:
  """How a run with the fields of `training_config` is trained.

  Raises:
    ValueError: a value is out of range; the message names the field.
  """
  return named(
    field,
    train_step.TrainConfig,
    num_steps=run.num_steps,
    steps_per_call=run.steps_per_call,
    optimizer=named(
      f"{field}.optimizer", optim.OptimizerConfig, **run.optimizer
    ),
    seed=config.seed,
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


def _check_name(field, name):
  if not _NAME.fullmatch(name) or name in _TAKEN_NAMES:
    raise ValueError(
      f"{field} is {name!r}, takes letters, digits, _ and -, but none of"
      f" {_TAKEN_NAMES}"
    )


def classical_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  """The solvers of a table that nobody trains."""
  names = ()
  if config.evaluation.with_baselines:
    names += solver_groups.baseline_names(config.tasks.covariance_type)
  if config.evaluation.with_constructed:
    names += solver_groups.CONSTRUCTED_NAMES
  return names


def _check_solvers(config, runs):
  """Raises where two rows of the table would have one name."""
  if config.evaluation.with_constructed:
    if config.tasks.covariance_type != "unit":
      raise ValueError(
        "config.evaluation.with_constructed is True, takes False for"
        f" covariance_type {config.tasks.covariance_type!r}"
      )
  seen = set(classical_names(config))
  for run in runs:
    for tasks in run.tasks.tasks:
      for name in solver_groups.network_names(run.solver, run.model):
        if name in seen or (name, tasks.dim) in seen:
          raise ValueError(
            f"config.runs.{run.name}.solver is {run.solver!r}, takes a name"
            f" that no other solver has at d = {tasks.dim}"
          )
        seen.add((name, tasks.dim))


def _check_positions(runs, evaluation):
  """Raises where tasks have more points than a network has positions."""
  for run in runs:
    if not getattr(run.model, "has_positions", False):
      continue
    sizes = map(evaluation.padded_points, evaluation.num_points)
    largest = max(sizes)
    if largest > run.model.max_points:
      raise ValueError(
        f"config.evaluation.num_points is {evaluation.num_points}, takes N <="
        f" {run.model.max_points}, the learned positions of"
        f" config.runs.{run.name}"
      )


def _law(config, field, dims, **changes):
  if not dims or min(dims) < 1:
    raise ValueError(f"{field}.dims is {dims}, takes integers d >= 1")
  values = dict(config.tasks, **changes)
  return tuple(
    named(
      "config.tasks",
      mixtures.TaskConfig,
      # On a line there are two directions: the rule would end at K = 2.
      **(values | ({"dim": dim} if dim > 1 else {"dim": 1, "max_cosine": 1.0})),
    )
    for dim in dims
  )


def _num_points(config, run):
  """N of the tasks of a run, where it has its own."""
  return {
    name: run[name] or config.tasks[name]
    for name in ("min_points", "max_points")
  }


def named(field: str, make: Callable[..., Any], *args, **values) -> Any:
  """Calls `make`; its error also says where in the config the value is."""
  try:
    return make(*args, **values)
  except ValueError as error:
    raise ValueError(f"{field}: {error}") from error
