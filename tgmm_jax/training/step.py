"""One train step: tasks drawn, network, loss and update in one compiled call.

Randomness is a function of (seed, step, purpose), so a resumed run is the run
that was never stopped and the tasks do not depend on the devices.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tgmm_jax.training import optim, sharding
from tgmm_jax.training.learners import learner as learner_lib

# Purposes of a run's random streams; never renumber.
_INIT, _TASKS = range(2)


class TrainState(NamedTuple):
  """All that a run needs to go on.

  Attributes:
    step: `[]` int32, steps done.
    params: the network's parameters, a pytree of float32 arrays.
    opt_state: the optimiser's, for the parameters as one vector.
    num_skipped: `[]` int32, updates left out because something was not
      finite.
    num_skipped_in_row: `[]` int32, the last of them without a good one since.
  """

  step: jax.Array
  params: Any
  opt_state: optax.OptState
  num_skipped: jax.Array
  num_skipped_in_row: jax.Array


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """How one network is trained, whatever it learns.

  Attributes:
    num_steps: length of the run.
    steps_per_call: steps in one compiled call; divides the other two
      counts of steps.
    optimizer: AdamW's settings.
    seed: of all random streams.
    max_skipped_in_row: the run stops at so many updates that were not finite.
    checkpoint_every: steps between saves.
    state_sharding: "replicated" or "sharded" (`sharding.state_shardings`).
  """

  num_steps: int = 1_000_000
  steps_per_call: int = 20
  optimizer: optim.OptimizerConfig = optim.OptimizerConfig()
  seed: int = 0
  max_skipped_in_row: int = 20
  checkpoint_every: int = 10_000
  state_sharding: str = "replicated"

  def __post_init__(self):
    """Refuses what cannot be run, before anything is compiled."""
    if self.steps_per_call < 1:
      raise ValueError(f"steps_per_call is {self.steps_per_call}, takes >= 1")
    for name in ("num_steps", "checkpoint_every"):
      value = getattr(self, name)
      if value < 1 or value % self.steps_per_call:
        raise ValueError(
          f"{name} is {value}, takes a positive multiple of steps_per_call ="
          f" {self.steps_per_call}"
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


# `(state, learner.data)` to the next state and what is logged.
Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
  learner: learner_lib.Learner, config: TrainConfig, mesh: jax.sharding.Mesh
) -> Step:
  """One step, pure and not yet compiled: draw, predict, compare, update.

  An update is left out, and counted, where the loss, the gradient or the
  parameters it leads to are not finite: parameters and optimiser keep their
  bits.
  """
  sharding.check_divisible(learner.batch_size, mesh)
  optimizer = optim.make(config.optimizer, config.num_steps)
  over_tasks = sharding.over_tasks(mesh)

  def train_step(state, data):
    key = jax.random.fold_in(_stream(config.seed, _TASKS), state.step)
    examples = learner.sample(key, data)
    examples = jax.lax.with_sharding_constraint(examples, over_tasks)
    (loss, more), grads = jax.value_and_grad(learner.loss, has_aux=True)(
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
    scalars = {
      **more,
      "loss": loss,
      "grad_norm": jnp.linalg.norm(grads),
      "num_skipped": new_state.num_skipped,
      "num_skipped_in_row": in_row,
    }
    return new_state, scalars

  return train_step


def make_train_call(
  learner: learner_lib.Learner, config: TrainConfig, mesh: jax.sharding.Mesh
) -> Step:
  """`steps_per_call` steps as one compiled call; the state is donated.

  The data are an argument, not a constant of the program, which would be
  compiled into it. The scalars come back for each step, `[steps_per_call]`.
  """
  train_step = make_train_step(learner, config, mesh)

  def call(state, data):
    return jax.lax.scan(
      lambda carry, _: train_step(carry, data),
      state,
      length=config.steps_per_call,
    )

  shardings = sharding.state_shardings(
    abstract_state(learner, config), mesh, rule=config.state_sharding
  )
  return jax.jit(
    call,
    in_shardings=(shardings, sharding.replicated(mesh)),
    out_shardings=(shardings, sharding.replicated(mesh)),
    donate_argnums=0,
  )


def init_state(learner: learner_lib.Learner, config: TrainConfig) -> TrainState:
  """The state before the first step, from the seed."""
  params = learner.init(_stream(config.seed, _INIT))
  optimizer = optim.make(config.optimizer, config.num_steps)
  # One array for each counter: donated buffers must not be shared.
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(optim.to_vector(params)),
    num_skipped=jnp.zeros((), jnp.int32),
    num_skipped_in_row=jnp.zeros((), jnp.int32),
  )


def abstract_state(
  learner: learner_lib.Learner, config: TrainConfig
) -> TrainState:
  """Shapes and dtypes of the state; allocates nothing."""
  return jax.eval_shape(lambda: init_state(learner, config))


def _stream(seed: int, purpose: int) -> jax.Array:
  return jax.random.fold_in(jax.random.key(seed), purpose)
