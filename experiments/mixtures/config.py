"""Every field of an experiment with mixtures, and what the library takes."""

from typing import NamedTuple

import ml_collections

from experiments.mixtures import shipped
from experiments.runner import fields
from tgmm_jax import gmm
from tgmm_jax.evaluation import contenders
from tgmm_jax.evaluation import mixtures as mixture_evaluation
from tgmm_jax.models import factory
from tgmm_jax.tasks import mixtures
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import mixtures as mixture_learner


def get_config() -> ml_collections.ConfigDict:
  """The fields of experiments with mixtures; `runs` is still empty."""
  config = fields.common_config()

  # The law of the tasks, for training; the defaults are the paper's.
  config.tasks = ml_collections.ConfigDict()
  config.tasks.num_components = (2, 3, 4, 5)  # the set of K
  config.tasks.min_points = 64  # smallest N
  config.tasks.max_points = 128  # largest N, to which tasks are padded
  config.tasks.mean_range = 5.0  # means are uniform on [-5, 5]
  config.tasks.max_cosine = 0.8  # means are drawn again until all are below
  config.tasks.min_weight = 0.2  # weights before they are divided by their sum
  config.tasks.max_weight = 0.8
  config.tasks.covariance_type = "unit"  # or another of the tasks' types
  config.tasks.has_scale_rule = False  # True: as released; scales of "diag"

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
  config.evaluation.with_pretrained = ""  # and shipped networks: "unit,tgmm-d2"

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
  run.model.max_points = 0  # learned positions; 0: as many as tasks have points
  run.model.pooling = "scaled"  # or "released"
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


def _run(network, dims, batch_sizes):
  run = fields.training_config()
  run.network = network  # "tgmm" or "refiner"
  run.solver = network  # its name in the tables
  run.dims = dims  # d of the tasks in a batch
  run.batch_sizes = batch_sizes  # tasks of each of them
  run.has_each_k = False  # True: as released; so many tasks of each K
  run.min_points = 0  # smallest N of its tasks; 0: as config.tasks has it
  run.max_points = 0  # largest N of its tasks; 0: as config.tasks has it
  run.loss = "matched"  # or "sorted" (the paper's), "likelihood"
  run.stage_weight = 0.3  # in the loss, of all stages but the last
  run.has_inverted_pooling = False  # True: a fault of the released training
  return run


def sweep(config: ml_collections.ConfigDict) -> list[dict[str, str]]:
  """One element of a job array for each training, one for the baselines."""
  names = [*sorted(config.runs), fields.BASELINES]
  return [{"only": name} for name in names]


class MixtureRun(NamedTuple):
  """One training, as the library takes it."""

  name: str
  solver: str
  model: factory.ModelConfig
  tasks: mixture_learner.MixtureTraining
  train: train_step.TrainConfig

  @property
  def batch_size(self) -> int:
    """Tasks in a batch, of all dimensions."""
    return self.tasks.batch_size


class Plan(NamedTuple):
  """A whole experiment, checked."""

  runs: tuple[MixtureRun, ...]
  evaluation: mixture_evaluation.EvaluationConfig


def make_plan(config: ml_collections.ConfigDict) -> Plan:
  """Checks the whole config and builds what the library takes.

  Raises:
    ValueError: a value is out of range; the message names the field.
  """
  fields.check_types("config", config, get_config())
  fields.check_common(config, fields.BASELINES)
  runs = tuple(_make_run(config, name) for name in sorted(config.runs))
  cells = dict(config.evaluation)
  for name in ("with_baselines", "with_constructed", "with_pretrained"):
    del cells[name]
  cells["other_shifts"] = tuple(
    (kind, size)
    for kind, sizes in cells["other_shifts"].items()
    for size in sizes
  )
  evaluation = fields.named(
    "config.evaluation",
    mixture_evaluation.EvaluationConfig,
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
  fields.check_types(field, run, template)
  fields.check_name(f"{field}.solver", run.solver)
  laws = _law(config, field, run.dims, **_num_points(config, run))
  model = dict(run.model, num_components=config.tasks.num_components)
  covariance_type = config.tasks.covariance_type
  if run.network == "refiner":
    model.update(covariance_type=covariance_type)
  else:
    model.update(has_scales=not gmm.kind_of(covariance_type).is_known)
    if len(run.dims) != 1:
      raise ValueError(f"{field}.dims is {run.dims}, takes one d for a tgmm")
    model.update(
      dim=run.dims[0], max_points=run.model.max_points or laws[0].max_points
    )
  model = fields.named(f"{field}.model", factory.CONFIGS[run.network], **model)
  tasks = fields.named(
    field,
    mixture_learner.MixtureTraining,
    tasks=laws,
    batch_sizes=run.batch_sizes,
    has_each_k=run.has_each_k,
    loss=run.loss,
    stage_weight=run.stage_weight,
    has_inverted_pooling=run.has_inverted_pooling,
  )
  fields.named(field, mixture_learner.check_model, model, tasks)
  return MixtureRun(
    name=name,
    solver=run.solver,
    model=model,
    tasks=tasks,
    train=fields.train_config(config, field, run),
  )


def solvers_at(
  config: ml_collections.ConfigDict, runs: tuple[MixtureRun, ...]
) -> list[tuple[str, int, str]]:
  """The solvers of a table at each d, and which field each comes from.

  Args:
    config: checked but for names.
    runs: its trainings.
  """
  names = ()
  if config.evaluation.with_baselines:
    names += contenders.baseline_names(
      covariance_type=config.tasks.covariance_type
    )
  if config.evaluation.with_constructed:
    names += contenders.CONSTRUCTED_NAMES
  field = "config.evaluation"
  found = [
    (name, dim, field) for name in names for dim in config.evaluation.dims
  ]
  networks = [
    (own.solver, own.card.config, own.dims, f"{field}.with_pretrained")
    for own in shipped.networks(config)
  ]
  networks += [
    (
      *(run.solver, run.model, tuple(law.dim for law in run.tasks.tasks)),
      f"config.runs.{run.name}.solver",
    )
    for run in runs
  ]
  for solver, model, dims, field in networks:
    for name in contenders.network_names(solver, model):
      found += [(name, dim, field) for dim in dims]
  return found


def _check_solvers(config, runs):
  """Raises where two rows of the table would have one name."""
  if config.evaluation.with_constructed:
    if not gmm.kind_of(config.tasks.covariance_type).is_known:
      raise ValueError(
        "config.evaluation.with_constructed is True, takes False for"
        f" covariance_type {config.tasks.covariance_type!r}"
      )
  seen = set()
  for name, dim, field in solvers_at(config, runs):
    if (name, dim) in seen:
      raise ValueError(
        f"{field} makes {name!r}, takes a name that no other solver has at"
        f" d = {dim}"
      )
    seen.add((name, dim))


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
    fields.named(
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
