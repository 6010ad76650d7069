"""Mixtures: every solver on the same tasks.

Tasks come from a seed and the cell (d, N, shift, K), never from the solver.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, metrics, types
from tgmm_jax.evaluation import contenders, evaluator, results
from tgmm_jax.tasks import mixtures, trained_range

# `l2_error_released` of the answers that the published evaluation keeps: their
# number is the row's count.
AS_RELEASED = "l2_error_as_released"


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """The cells of a table.

  Attributes:
    tasks: the law of the tasks; dim, N, K and shift are replaced cell by cell.
    dims: d of the cells.
    num_components: K of the cells.
    num_points: N of the cells.
    shifts: sigma_p of the cells.
    other_shifts: further cells, each with a kind of `shifts.KINDS` and a size.
    num_tasks: tasks in each cell.
    seed: of the tasks and of the solvers' own draws.
  """

  tasks: mixtures.TaskConfig
  dims: tuple[int, ...]
  num_components: tuple[int, ...] = (2, 3, 4, 5)
  num_points: tuple[int, ...] = (128,)
  shifts: tuple[float, ...] = (0.0,)
  other_shifts: tuple[tuple[str, float], ...] = ()
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
        for kind, shift in self._all_shifts():
          yield dataclasses.replace(
            self.tasks,
            dim=dim,
            num_components=self.num_components,
            min_points=num_points,
            max_points=num_points,
            shift=shift,
            shift_kind=kind,
            max_components=max(
              self.tasks.padded_components, *self.num_components
            ),
          )

  def padded_points(self, num_points: int) -> int:
    """To what N is padded, so that several N of a table share programs.

    The largest N over a power of 4: a program for each N would be compiled
    longer than it runs, and attention among 512 points where there are 16
    would run longer.
    """
    padded = max(self.num_points)
    while padded % 4 == 0 and padded // 4 >= num_points:
      padded //= 4
    return padded

  def _all_shifts(self):
    return [("means", size) for size in self.shifts] + list(self.other_shifts)


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def sample_tasks(
  law: mixtures.TaskConfig,
  num_tasks: int,
  seed: jax.Array | int,
  max_points: int | None = None,
) -> tuple[types.TaskBatch, jax.Array]:
  """The tasks of the cells of one law, and fresh points of each task.

  Args:
    law: one of `EvaluationConfig.laws`.
    num_tasks: tasks for each K.
    seed: of the tasks.
    max_points: to which N is padded, so that all N of a table share their
      programs; None does not pad.

  Returns:
    A `TaskBatch` of `num_tasks` for each K in turn, and `max_points` fresh
    points of each, `[B, max_points, d]`.
  """
  key = jax.random.split(_cell_key(seed, law), 2)[0]
  num_points = law.max_points
  max_points = max_points or num_points
  # Fresh points are drawn together with the others: all go through one shift.
  num_drawn = num_points + max_points
  together = dataclasses.replace(
    _sampling_law(law), min_points=num_drawn, max_points=num_drawn
  )
  index = jnp.arange(num_tasks)
  counts = jnp.repeat(jnp.asarray(law.num_components, jnp.int32), num_tasks)

  def sample_one(index, num_components):
    own_key = jax.random.fold_in(jax.random.fold_in(key, num_components), index)
    task = mixtures.sample_task(own_key, together, num_components)
    is_point = jnp.arange(max_points) < num_points
    # What is beyond N is padding, whatever stands there.
    points = jnp.where(is_point[:, None], task.points[:max_points], 0.0)
    own = task._replace(
      points=points,
      sample_weight=is_point.astype(points.dtype),
      labels=jnp.where(is_point, task.labels[:max_points], -1),
    )
    return own, task.points[num_points:]

  indices = jnp.tile(index, len(law.num_components))
  return jax.vmap(sample_one)(indices, counts)


def counts_of(law: mixtures.TaskConfig) -> tuple[int, ...]:
  """The K of a law that have cells: all, or those whose stated K is one too."""
  if law.shift_kind != "stated_components":
    return law.num_components
  served = law.num_components
  return tuple(count for count in served if count + law.shift in served)


def setting_of(law: mixtures.TaskConfig) -> results.Setting:
  """The setting of the cells of a law of `EvaluationConfig.laws`."""
  return results.Setting(law.dim, law.max_points, law.shift_kind, law.shift)


class Problems(NamedTuple):
  """The tasks of the cells of one law.

  Attributes:
    tasks: a `TaskBatch`, all K in turn.
    stated: the same with the K that solvers are told.
    fresh: `[B, M, d]`, further points of each task.
  """

  tasks: types.TaskBatch
  stated: types.TaskBatch
  fresh: jax.Array


def make(
  groups: Mapping[str, contenders.SolverGroup],
  laws: Iterable[mixtures.TaskConfig],
  num_tasks: int,
  seed: int,
  *,
  max_points: Callable[[int], int] | None = None,
  trained: mixtures.TaskConfig | None = None,
) -> evaluator.Evaluator:
  """Scores solvers in the cells of laws.

  Args:
    groups: who is scored, by name.
    laws: some of `EvaluationConfig.laws`; of one covariance type.
    num_tasks: tasks for each K.
    seed: of the tasks and of the solvers' own draws.
    max_points: to what an N is padded, as `EvaluationConfig.padded_points`
      says it; None does not pad.
    trained: a law of training, to say under the name `results.TASKS` how many
      tasks are outside its range; its dimension is replaced. None does not.
  """
  laws = list(laws)
  if not laws:
    raise ValueError("laws is empty, takes at least one")
  scored = {
    name: functools.partial(
      _score_group,
      group,
      is_reference=name in results.REFERENCES,
      covariance_type=laws[0].covariance_type,
    )
    for name, group in groups.items()
  }
  if trained is not None:
    scored[results.TASKS] = functools.partial(_score_range, trained, seed)

  def draw(law):
    size = max_points(law.max_points) if max_points else None
    tasks, fresh = sample_tasks(law, num_tasks, seed, size)
    key = jax.random.fold_in(_cell_key(seed, law), 2)
    return [(key, Problems(tasks, _stated(tasks, law), fresh))]

  return evaluator.Evaluator(
    contenders=scored,
    problems={law: functools.partial(draw, law) for law in laws},
    rows=functools.partial(_rows_of_law, num_tasks=num_tasks),
  )


def _stated(tasks, law):
  """Tasks with the K that solvers are told."""
  if law.shift_kind != "stated_components":
    return tasks
  # The clipped ones have no cell: one shape for all laws, not one more for
  # these.
  count = tasks.num_components + int(law.shift)
  count = jnp.clip(count, min(law.num_components), max(law.num_components))
  return tasks._replace(num_components=count)


def _score_group(group, key, problems, *, is_reference, covariance_type):
  """By solver of a group, the values of its answers."""
  told = problems.tasks if is_reference else problems.stated
  found = {}
  for name, result in group(key, problems.stated).items():
    scores = _score(
      result.mixture,
      problems.tasks,
      problems.fresh,
      told.num_components,
      covariance_type=covariance_type,
    )
    values = scores._asdict()
    if gmm.kind_of(covariance_type).is_known:
      del values["scale_error"]
    values["num_iters"] = result.num_iters
    values["degenerate"] = result.status >= types.Status.DEGENERATE
    found[name] = values
  return found


def _score_range(trained, seed, key, problems):
  """Whether each task is outside the range of a law of training."""
  del key
  points, weight = problems.tasks.points, problems.tasks.sample_weight
  law = dataclasses.replace(trained, dim=points.shape[-1])
  limits = _trained_range(law, seed)
  is_outside = jax.vmap(
    lambda points, weight: trained_range.is_outside(
      limits, points, sample_weight=weight
    )
  )(points, weight)
  return {results.TASKS: {"outside_range": is_outside.astype(jnp.float32)}}


# All shifts of a dimension are held against one range.
@functools.cache
def _trained_range(law, seed):
  key = jax.random.fold_in(_cell_key(seed, law), 3)
  return trained_range.measure(key, law)


def _rows_of_law(law, values, *, num_tasks):
  """Rows of all solvers from values of the tasks, K by K."""
  rows = []
  for solver, by_metric in values.items():
    by_metric = dict(by_metric)
    size = num_tasks * len(law.num_components)
    has_failed = by_metric.pop("failure", np.zeros(size)) > 0
    is_kept = ~(by_metric.pop("is_left_out", np.ones(size)) > 0)
    for index, num_components in enumerate(law.num_components):
      if num_components not in counts_of(law):
        continue
      summarise = functools.partial(
        results.summarise,
        solver=solver,
        dim=law.dim,
        num_components=num_components,
        num_points=law.max_points,
        shift=law.shift,
        shift_kind=law.shift_kind,
      )
      part = slice(index * num_tasks, (index + 1) * num_tasks)
      rows += summarise(
        {metric: value[part] for metric, value in by_metric.items()},
        failed=has_failed[part],
      )
      kept = np.flatnonzero(is_kept[part]) + part.start
      if kept.size:
        # The published evaluation's way; no other row leaves tasks out.
        released = {AS_RELEASED: by_metric["l2_error_released"][kept]}
        rows += summarise(released, failed=has_failed[kept])
  return rows


def _sampling_law(law):
  """The same law with proposals for the means that no cell has a say in."""
  return dataclasses.replace(law, num_components=(law.padded_components,))


def _cell_key(seed, law):
  """Streams of a law; its shift moves the same tasks, so it takes no part."""
  key = jax.random.fold_in(jax.random.key(seed), law.dim)
  return jax.random.fold_in(key, law.max_points)


@functools.partial(jax.jit, static_argnames="covariance_type")
def _score(estimates, batch, fresh, num_estimated, *, covariance_type):
  def score_one(inputs):
    estimate, task, fresh, count = inputs
    return metrics.score(
      estimate,
      task,
      fresh,
      num_estimated=count,
      covariance_type=covariance_type,
    )

  return jax.lax.map(
    score_one,
    (estimates, batch, fresh, num_estimated),
    batch_size=contenders.BATCH_SIZE,
  )
