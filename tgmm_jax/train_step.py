"""One train step: tasks drawn, network, loss and update in one compiled call.

Randomness is a function of (seed, step, purpose), so a resumed run is the run
that was never stopped and the tasks do not depend on the devices.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tgmm_jax import losses, metrics, optim, sharding, types
from tgmm_jax.models import factory
from tgmm_jax.models import prediction as prediction_lib
from tgmm_jax.tasks import mixtures

# Purposes of a run's random streams; never renumber.
_INIT, _TASKS = range(2)


class TrainState(NamedTuple):
  """All that a run needs to go on.

  Attributes:
    step: `[]` int32, steps done.
    params: the network's parameters, float32.
    opt_state: the optimiser's, for the parameters as one vector.
    num_skipped: `[]` int32, updates left out because something was not
      finite.
    num_skipped_in_row: `[]` int32, the last of them without a good one since.
  """

  step: jax.Array
  params: factory.Params
  opt_state: optax.OptState
  num_skipped: jax.Array
  num_skipped_in_row: jax.Array


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """How one network is trained.

  Attributes:
    tasks: the law of the tasks for each dimension in a batch.
    batch_sizes: tasks of each of them in a batch.
    num_steps: length of the run.
    steps_per_call: steps in one compiled call; divides the other two
      counts of steps.
    loss: a name in `losses.LOSSES`.
    stage_weight: weight in the loss of every stage but the last (weight 1).
    optimizer: AdamW's settings.
    seed: of all random streams.
    max_skipped_in_row: the run stops at so many updates that were not finite.
    checkpoint_every: steps between saves.
    state_sharding: "replicated" or "sharded" (`sharding.state_shardings`).
  """

  tasks: tuple[mixtures.TaskConfig, ...]
  batch_sizes: tuple[int, ...] = (64,)
  num_steps: int = 1_000_000
  steps_per_call: int = 20
  loss: str = "matched"
  stage_weight: float = 0.3
  optimizer: optim.OptimizerConfig = optim.OptimizerConfig()
  seed: int = 0
  max_skipped_in_row: int = 20
  checkpoint_every: int = 10_000
  state_sharding: str = "replicated"

  def __post_init__(self):
    """Refuses what cannot be run, before anything is compiled."""
    if len(self.tasks) != len(self.batch_sizes) or not self.tasks:
      raise ValueError(
        f"batch_sizes is {self.batch_sizes}, takes one number for each of the"
        f" {len(self.tasks)} dimensions"
      )
    if min(self.batch_sizes) < 1:
      raise ValueError(f"batch_sizes is {self.batch_sizes}, takes numbers >= 1")
    if self.loss not in losses.LOSSES:
      raise ValueError(
        f"loss is {self.loss!r}, takes one of {sorted(losses.LOSSES)}"
      )
    if self.steps_per_call < 1:
      raise ValueError(f"steps_per_call is {self.steps_per_call}, takes >= 1")
    for name in ("num_steps", "checkpoint_every"):
      value = getattr(self, name)
      if value < 1 or value % self.steps_per_call:
        raise ValueError(
          f"{name} is {value}, takes a positive multiple of steps_per_call ="
          f" {self.steps_per_call}"
        )
    dims = tuple(tasks.dim for tasks in self.tasks)
    if len(set(dims)) < len(dims):
      raise ValueError(f"dims is {dims}, takes each d once")
    if not 0 <= self.stage_weight < math.inf:
      raise ValueError(
        f"stage_weight is {self.stage_weight}, takes a finite number >= 0"
      )
    if not 0 <= self.seed < 2**32:
      raise ValueError(f"seed is {self.seed}, takes 0 to 2**32 - 1")
    if self.state_sharding not in sharding.RULES:
      raise ValueError(
        f"state_sharding is {self.state_sharding!r}, takes one of"
        f" {sharding.RULES}"
      )
    if self.max_skipped_in_row < 1:
      raise ValueError(
        f"max_skipped_in_row is {self.max_skipped_in_row}, takes >= 1"
      )


def check_model(
  config: factory.ModelConfig, tasks: tuple[mixtures.TaskConfig, ...]
) -> None:
  """Refuses tasks that a network cannot answer.

  Args:
    config: of the network.
    tasks: the law of the tasks for each dimension.

  Raises:
    ValueError: the tasks have other covariances than the network answers
      with, or more coordinates than it has for them.
  """
  answered = factory.covariance_type(config)
  for law in tasks:
    if law.covariance_type != answered:
      raise ValueError(
        f"covariance_type of the tasks is {law.covariance_type!r}, takes"
        f" {answered!r} as the network"
      )
    rank = getattr(config, "rank", law.dim)
    if answered == "diag" and law.dim > rank:
      raise ValueError(
        f"dim is {law.dim}, takes at most the network's rank = {rank} where"
        " scales are estimated"
      )


class Examples(NamedTuple):
  """Problems as the network reads them, and what it should answer."""

  problems: prediction_lib.Problem
  targets: types.Mixture


def sample_examples(
  key: jax.Array,
  model: factory.Model,
  tasks: tuple[mixtures.TaskConfig, ...],
  batch_sizes: tuple[int, ...],
) -> Examples:
  """Draws a batch that mixes dimensions.

  Args:
    key: consumed; split by dimension into tasks, views and who may know where
      the origin is.
    model: its `encode` gives all dimensions one shape.
    tasks: the law for each dimension.
    batch_sizes: tasks of each.

  Returns:
    `Examples` with a leading axis of `sum(batch_sizes)` tasks.
  """
  parts = []
  for index, (config, size) in enumerate(zip(tasks, batch_sizes, strict=True)):
    task_key, view_key, origin_key = jax.random.split(
      jax.random.fold_in(key, index), 3
    )
    batch = mixtures.sample_batch(task_key, config, size)
    problems, frames = jax.vmap(model.encode)(
      jax.random.split(view_key, size),
      batch.points,
      batch.sample_weight,
      batch.num_components,
    )
    if problems.knows_origin is not None:
      knows = jax.random.bernoulli(
        origin_key, model.config.origin_rate, (size,)
      )
      problems = problems._replace(knows_origin=knows.astype(jnp.float32))
    targets = jax.vmap(factory.encode_mixture)(batch.mixture, frames)
    parts.append(Examples(problems, targets))
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def make_loss(
  model: factory.Model, loss: str, stage_weight: float
) -> Callable[[factory.Params, Examples], tuple[jax.Array, jax.Array]]:
  """Mean over tasks of the loss of all stages, weighted.

  Beside it the `metrics.l2_error` of each task, `[B]`, after the last stage,
  in the network's coordinates. Tasks are drawn once and never again, so
  errors in training are errors on unseen tasks.
  """
  loss_of_stage = losses.LOSSES[loss]

  def loss_of_one(prediction, target, problem):
    values = jax.vmap(loss_of_stage, in_axes=(0, None, None))(
      prediction, target, problem
    )
    error = metrics.l2_error(
      jax.lax.stop_gradient(prediction.means[-1]),
      target.means,
      problem.num_components,
    )
    # The frame has r coordinates; the error counts per coordinate of the data.
    error *= problem.points.shape[-1] / problem.dim
    return values[-1] + stage_weight * jnp.sum(values[:-1]), error

  def loss_of_batch(params, examples):
    problems, targets = examples
    predictions = model.apply(params, problems)
    values, errors = jax.vmap(loss_of_one)(predictions, targets, problems)
    return jnp.mean(values), errors

  return loss_of_batch


def make_train_step(
  model: factory.Model, config: TrainConfig, mesh: jax.sharding.Mesh
) -> Callable[[TrainState], tuple[TrainState, dict[str, jax.Array]]]:
  """One step, pure and not yet compiled: draw, predict, compare, update.

  An update is left out, and counted, where the loss, the gradient or the
  parameters it leads to are not finite: parameters and optimiser keep their
  bits.
  """
  sharding.check_divisible(sum(config.batch_sizes), mesh)
  check_model(model.config, config.tasks)
  optimizer = optim.make(config.optimizer, config.num_steps)
  loss_of_batch = make_loss(model, config.loss, config.stage_weight)
  over_tasks = sharding.over_tasks(mesh)

  def train_step(state):
    key = jax.random.fold_in(_stream(config.seed, _TASKS), state.step)
    examples = sample_examples(key, model, config.tasks, config.batch_sizes)
    examples = jax.lax.with_sharding_constraint(examples, over_tasks)
    (loss, errors), grads = jax.value_and_grad(loss_of_batch, has_aux=True)(
      state.params, examples
    )
    params = optim.to_vector(state.params)
    grads = optim.to_vector(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, params)
    new_params = params + updates
    # The second moment may overflow where the gradient does not.
    is_good = jnp.isfinite(loss) & jnp.all(
      jnp.stack(
        [
          jnp.all(jnp.isfinite(leaf))
          for leaf in jax.tree.leaves((new_params, opt_state))
        ]
      )
    )
    new_params, opt_state = jax.tree.map(
      lambda new, old: jnp.where(is_good, new, old),
      (new_params, opt_state),
      (params, state.opt_state),
    )
    params = optim.from_vector(new_params, state.params)
    in_row = jnp.where(is_good, 0, state.num_skipped_in_row + 1)
    new_state = TrainState(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      num_skipped=state.num_skipped + ~is_good,
      num_skipped_in_row=in_row,
    )
    ends = np.cumsum(config.batch_sizes)[:-1]
    by_dim = zip(config.tasks, jnp.split(errors, ends), strict=True)
    scalars = {
      **{f"l2_error/d{tasks.dim}": jnp.mean(part) for tasks, part in by_dim},
      "loss": loss,
      "grad_norm": jnp.linalg.norm(grads),
      "num_skipped": new_state.num_skipped,
      "num_skipped_in_row": in_row,
    }
    return new_state, scalars

  return train_step


def make_train_call(
  model: factory.Model, config: TrainConfig, mesh: jax.sharding.Mesh
) -> Callable[[TrainState], tuple[TrainState, dict[str, jax.Array]]]:
  """`steps_per_call` steps as one compiled call; the state is donated.

  The scalars come back for each step, `[steps_per_call]`.
  """
  train_step = make_train_step(model, config, mesh)

  def call(state):
    return jax.lax.scan(
      lambda carry, _: train_step(carry), state, length=config.steps_per_call
    )

  shardings = sharding.state_shardings(
    abstract_state(model, config), mesh, rule=config.state_sharding
  )
  return jax.jit(
    call,
    in_shardings=(shardings,),
    out_shardings=(shardings, sharding.replicated(mesh)),
    donate_argnums=0,
  )


def init_state(model: factory.Model, config: TrainConfig) -> TrainState:
  """The state before the first step, from the seed."""
  params = model.init(_stream(config.seed, _INIT))
  optimizer = optim.make(config.optimizer, config.num_steps)
  # One array for each counter: donated buffers must not be shared.
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(optim.to_vector(params)),
    num_skipped=jnp.zeros((), jnp.int32),
    num_skipped_in_row=jnp.zeros((), jnp.int32),
  )


def abstract_state(model: factory.Model, config: TrainConfig) -> TrainState:
  """Shapes and dtypes of the state; allocates nothing."""
  return jax.eval_shape(lambda: init_state(model, config))


def _stream(seed: int, purpose: int) -> jax.Array:
  return jax.random.fold_in(jax.random.key(seed), purpose)
