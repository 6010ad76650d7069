"""Scores every solver on the same tasks.

Classical solvers, trained networks and reference rows are all functions from
a batch of tasks to results; only the reference rows look at the truth. Tasks
come from a seed and the cell (d, N, shift, K), never from the solver.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, metrics, results, types
from tgmm_jax.models import factory
from tgmm_jax.solvers import combine, em, reference, spectral
from tgmm_jax.tasks import mixtures

# `(key, TaskBatch) -> {name: SolverResult}`, all with the leading axis B. One
# function for a solver and its refinements: the first answer is found once.
SolverGroup = Callable[
  [jax.Array, types.TaskBatch], dict[str, types.SolverResult]
]

# Tasks at a time: what fits the caches of a CPU.
_BATCH_SIZE = 64
_NUM_EM_STEPS = 5
_NUM_VIEWS = 8


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """The cells of a table.

  Attributes:
    tasks: the law of the tasks; dim, N, K and shift are replaced cell by cell.
    dims: d of the cells.
    num_components: K of the cells.
    num_points: N of the cells.
    shifts: sigma_p of the cells.
    num_tasks: tasks in each cell.
    seed: of the tasks and of the solvers' own draws.
  """

  tasks: mixtures.TaskConfig
  dims: tuple[int, ...]
  num_components: tuple[int, ...] = (2, 3, 4, 5)
  num_points: tuple[int, ...] = (128,)
  shifts: tuple[float, ...] = (0.0,)
  num_tasks: int = 1280
  seed: int = 0

  def __post_init__(self):
    """Refuses cells that cannot be sampled."""
    for name in ("dims", "num_components", "num_points", "shifts"):
      values = getattr(self, name)
      if not values:
        raise ValueError(f"{name} is empty, takes at least one value")
      if len(set(values)) < len(values):
        raise ValueError(f"{name} is {values}, takes each value once")
    if self.num_tasks < 2:
      raise ValueError(f"num_tasks is {self.num_tasks}, takes >= 2")
    if not 0 <= self.seed < 2**32:
      raise ValueError(f"seed is {self.seed}, takes 0 to 2**32 - 1")
    for law in self.laws():
      _sampling_law(law)

  def laws(self) -> Iterator[mixtures.TaskConfig]:
    """The law of the tasks for each d, N and shift; K is still a set."""
    for dim in self.dims:
      for num_points in self.num_points:
        for shift in self.shifts:
          yield dataclasses.replace(
            self.tasks,
            dim=dim,
            num_components=self.num_components,
            min_points=num_points,
            max_points=num_points,
            shift=shift,
            max_components=max(
              self.tasks.padded_components, *self.num_components
            ),
          )


@functools.partial(jax.jit, static_argnums=(0, 1))
def sample_tasks(
  law: mixtures.TaskConfig, num_tasks: int, seed: jax.Array | int
) -> tuple[types.TaskBatch, jax.Array]:
  """The tasks of the cells of one law, and fresh points of each task.

  Returns:
    A `TaskBatch` of `num_tasks` for each K in turn, and `[B, N, d]`.
  """
  keys = jax.random.split(_cell_key(seed, law), 2)
  sampling_law = _sampling_law(law)
  index = jnp.arange(num_tasks)
  counts = jnp.repeat(jnp.asarray(law.num_components, jnp.int32), num_tasks)

  def sample_one(index, num_components):
    key = jax.random.fold_in(jax.random.fold_in(keys[0], num_components), index)
    task = mixtures.sample_task(key, sampling_law, num_components)
    fresh_key = jax.random.fold_in(keys[1], num_components)
    fresh, _ = gmm.sample(
      jax.random.fold_in(fresh_key, index),
      task.mixture,
      law.max_points,
      covariance_type=law.covariance_type,
    )
    return task, fresh

  indices = jnp.tile(index, len(law.num_components))
  return jax.vmap(sample_one)(indices, counts)


def baselines() -> dict[str, SolverGroup]:
  """The classical solvers and the reference rows, by the name of a group."""
  ten = {"num_init": 10}
  return {
    "em/normal": _em_group("em/normal", init="normal"),
    "em/random_points": _em_group("em/random_points", init="random_points"),
    "em/k-means++": _em_group("em/k-means++", init="k-means++"),
    "em/k-means++-x10": _em_group("em/k-means++-x10", **ten),
    "em/k-means++-x10-projected": _em_group(
      "em/k-means++-x10-projected", is_projected=True, **ten
    ),
    "spectral": _spectral_group,
    "em/oracle": _oracle_group,
    "labels": _label_group,
  }


BASELINE_NAMES = (
  "em/normal",
  "em/random_points",
  "em/k-means++",
  "em/k-means++-x10",
  "em/k-means++-x10-projected",
  "spectral",
  "spectral+em",
  "em/oracle",
  "labels",
)


def network_names(name: str, config: factory.ModelConfig) -> tuple[str, ...]:
  """The names of the solvers that `network` makes of a trained network."""
  names = (name, f"{name}+em{_NUM_EM_STEPS}")
  if isinstance(config, factory.CONFIGS["refiner"]):
    names += (f"{name}-x{_NUM_VIEWS}+em{_NUM_EM_STEPS}",)
  return names


def network(
  name: str, model: factory.Model, params: factory.Params
) -> SolverGroup:
  """A trained network, alone and refined by EM; with a frame also 8 views."""
  names = network_names(name, model.config)
  solve = factory.solver(model, params)
  refined = combine.then_em(solve, max_iter=_NUM_EM_STEPS)
  one_view = jax.jit(_over_tasks(solve))
  many_views = jax.jit(_over_tasks(combine.best_of(refined, _NUM_VIEWS)))

  def group(key, batch):
    first = one_view(key, batch)
    answers = [first, _refine(key, batch, first)]
    if len(names) > len(answers):
      answers.append(many_views(key, batch))
    return dict(zip(names, answers, strict=True))

  return group


def evaluate(
  groups: dict[str, SolverGroup],
  law: mixtures.TaskConfig,
  num_tasks: int,
  seed: int,
  *,
  on_group: Callable[[str], None] = lambda name: None,
) -> list[results.Row]:
  """Rows of all solvers in the cells of one law.

  Args:
    groups: what to score, by name.
    law: one of `EvaluationConfig.laws`.
    num_tasks: tasks for each K.
    seed: of the tasks and of the solvers' own draws.
    on_group: called before each group with its name.

  Returns:
    For each solver, K and metric a row.
  """
  batch, fresh = sample_tasks(law, num_tasks, seed)
  key = jax.random.fold_in(_cell_key(seed, law), 2)
  rows = []
  for group_name, group in groups.items():
    on_group(group_name)
    for name, result in group(key, batch).items():
      scores = _score(
        result.mixture, batch, fresh, covariance_type=law.covariance_type
      )
      values = jax.device_get(scores)._asdict()
      has_failed = values.pop("failure") > 0
      values["num_iters"] = np.asarray(result.num_iters)
      values["degenerate"] = (
        np.asarray(result.status) >= types.Status.DEGENERATE
      )
      for index, num_components in enumerate(law.num_components):
        part = slice(index * num_tasks, (index + 1) * num_tasks)
        rows += results.summarise(
          {metric: value[part] for metric, value in values.items()},
          solver=name,
          dim=law.dim,
          num_components=num_components,
          num_points=law.max_points,
          shift=law.shift,
          failed=has_failed[part],
        )
  return rows


def _sampling_law(law):
  """The same law with proposals for the means that no cell has a say in."""
  return dataclasses.replace(law, num_components=(law.padded_components,))


def _cell_key(seed, law):
  """Streams of a law; its shift moves the same tasks, so it takes no part."""
  key = jax.random.fold_in(jax.random.key(seed), law.dim)
  return jax.random.fold_in(key, law.max_points)


def _over_tasks(solve):
  """A solver of one problem as a function of a batch of tasks."""

  def solve_batch(key, batch):
    keys = jax.random.split(key, batch.num_components.shape[0])

    def solve_one(inputs):
      key, task = inputs
      return solve(
        key,
        task.points,
        task.num_components,
        sample_weight=task.sample_weight,
      )

    return jax.lax.map(solve_one, (keys, batch), batch_size=_BATCH_SIZE)

  return solve_batch


def _fit_batch(key, batch, **options):
  return em.fit_batch(
    key,
    batch.points,
    batch.num_components,
    sample_weight=batch.sample_weight,
    max_components=batch.mixture.weights.shape[-1],
    **options,
  )


def _refine(key, batch, first):
  second = _fit_batch(
    key, batch, init=first.mixture, max_iter=_NUM_EM_STEPS, tol=0.0
  )
  return second._replace(num_iters=first.num_iters + second.num_iters)


def _em_group(name, **options):
  return lambda key, batch: {name: _fit_batch(key, batch, **options)}


def _oracle_group(key, batch):
  return {"em/oracle": _fit_batch(key, batch, init=batch.mixture)}


def _label_group(key, batch):
  del key
  return {"labels": jax.jit(jax.vmap(reference.label_limit))(batch)}


def _spectral_group(key, batch):
  solve = functools.partial(
    spectral.fit, max_components=batch.mixture.weights.shape[-1]
  )
  first = jax.jit(_over_tasks(solve))(key, batch)
  second = _fit_batch(key, batch, init=first.mixture)
  status = jnp.maximum(first.status, second.status)
  return {"spectral": first, "spectral+em": second._replace(status=status)}


@functools.partial(jax.jit, static_argnames="covariance_type")
def _score(estimates, batch, fresh, *, covariance_type):
  score_one = functools.partial(metrics.score, covariance_type=covariance_type)
  return jax.lax.map(
    lambda inputs: score_one(*inputs),
    (estimates, batch, fresh),
    batch_size=_BATCH_SIZE,
  )
