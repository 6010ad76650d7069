"""The training loop of one network: dispatch, log, save, stop.

All randomness is in `train_step`; here is what the host does between two
compiled calls. A run killed at any moment and started again ends with the
same bits as one that was never stopped.
"""

import functools
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from tgmm_jax.training import (
  checkpoints,
  hosts,
  interrupts,
  metric_writer,
  run_folder,
  sharding,
)
from tgmm_jax.training import step as train_step
from tgmm_jax.training.learners import learner as learner_lib


class NonFiniteError(RuntimeError):
  """Too many updates in a row were not finite; the parameters still are."""


class StepReport(NamedTuple):
  """What the loop reports after each call.

  Attributes:
    step: steps done.
    num_steps: steps of the whole run.
    steps_per_second: of the last call, from the end of the one before.
    scalars: means over the steps of the last call.
  """

  step: int
  num_steps: int
  steps_per_second: float
  scalars: dict[str, float]


def run(
  folder: str | os.PathLike,
  learner: learner_lib.Learner,
  config: train_step.TrainConfig,
  mesh: jax.sharding.Mesh,
  *,
  identity: dict[str, Any],
  stop: interrupts.StopRequest,
  restore_dir: str | os.PathLike = "",
  max_to_keep: int = 3,
  save_interval: float = math.inf,
  on_progress: Callable[[StepReport], None] = lambda report: None,
) -> Any:
  """Trains until `config.num_steps`, from where the folder's run stands.

  Args:
    folder: of this run; `checkpoints/`, `metrics.jsonl`, `timing.jsonl` and
      TensorBoard events are written there. Of a finished run nothing changes.
    learner: what is trained.
    config: how.
    mesh: the devices.
    identity: the config as JSON, stored in each checkpoint.
    stop: asked after each call.
    restore_dir: folder of another run to start from where this one has no
      checkpoint yet: its parameters, optimiser and step.
    max_to_keep: checkpoints that stay, of those by step.
    save_interval: seconds after which a checkpoint is saved between those by
      step; it goes as soon as there is a newer one.
    on_progress: called on the host after each call.

  Returns:
    The trained parameters.

  Raises:
    StoppedError: `stop` was requested; the state is saved.
    NonFiniteError: `config.max_skipped_in_row` updates were not finite.
    CheckpointError: see `checkpoints`.
  """
  folder = pathlib.Path(folder)
  with (
    checkpoints.Checkpointer(
      folder / run_folder.CHECKPOINTS,
      config=identity,
      max_to_keep=max_to_keep,
      kept_every=config.checkpoint_every,
    ) as checkpointer,
    metric_writer.MetricWriter(folder) as writer,
    jax.set_mesh(mesh),
  ):
    state, step = _begin(learner, config, mesh, checkpointer, restore_dir)
    if step < config.num_steps:
      num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
      run_folder.check_space(folder, num_bytes)
      writer.truncate(step)
      loop = _Loop(learner, config, mesh, checkpointer, writer, on_progress)
      state = loop.run(state, step, stop, _Clock(save_interval))
    return state.params


def _begin(learner, config, mesh, checkpointer, restore_dir):
  """From the run's own folder, from `restore_dir`, or from scratch."""
  abstract = train_step.abstract_state(learner, config)
  shardings = sharding.state_shardings(
    abstract, mesh, rule=config.state_sharding
  )
  template = jax.tree.map(
    lambda leaf, where: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=where
    ),
    abstract,
    shardings,
  )
  restored = checkpointer.restore_latest(
    template,
    restore_dir=restore_dir
    and pathlib.Path(restore_dir) / run_folder.CHECKPOINTS,
  )
  if restored is None:
    init = functools.partial(train_step.init_state, learner, config)
    return jax.jit(init, out_shardings=shardings)(), 0
  if restored.step > config.num_steps:
    raise checkpoints.CheckpointError(
      f"step {restored.step} was restored, takes at most num_steps ="
      f" {config.num_steps}, which counts the steps of an earlier run too"
    )
  if checkpointer.latest_step() is None:  # it came from `restore_dir`
    checkpointer.save(restored.step, restored.state)
  return restored.state, restored.step


class _Clock:
  """Says when it is time for a save; of several processes by the first's."""

  def __init__(self, interval):
    self._interval = interval
    self._start = time.monotonic()

  def is_due(self):
    is_over = time.monotonic() - self._start >= self._interval
    if not hosts.is_several():
      return is_over
    if is_over and hosts.is_first():
      hosts.ask(hosts.SAVE)
      self._start = time.monotonic()
    return hosts.take(hosts.SAVE)

  def restart(self):
    self._start = time.monotonic()


class _Loop:
  """Calls the compiled step; handles each call's scalars one call late."""

  def __init__(self, learner, config, mesh, checkpointer, writer, on_progress):
    self._config = config
    self._make_call = functools.partial(
      train_step.make_train_call, learner, config, mesh
    )
    self._data = jax.device_put(learner.data, sharding.replicated(mesh))
    self._checkpointer = checkpointer
    self._writer = writer
    self._on_progress = on_progress
    self._pending = None
    self._last_time = 0.0

  def run(self, state, step, stop, clock):
    config = self._config
    # Compiled ahead, so that the speed of the first call is a speed.
    call = self._make_call().lower(state, self._data).compile()
    self._last_time = time.monotonic()
    while step < config.num_steps and not stop.is_requested():
      state, scalars = call(state, self._data)
      step += config.steps_per_call
      # Read while the device works on this call, so that it never waits for
      # the host.
      self._flush()
      self._pending = (step, scalars)
      is_due = clock.is_due()
      is_last = step >= config.num_steps
      if is_last or is_due or step % config.checkpoint_every == 0:
        self._flush()
        self._checkpointer.save(step, state)
        clock.restart()
    self._flush()
    if step < config.num_steps:
      if step:
        self._checkpointer.save(step, state)
      raise hosts.StoppedError(f"stopped by a signal at step {step}")
    return state

  def _flush(self):
    """Waits for the pending call and writes its scalars."""
    if self._pending is None:
      return
    step, scalars = jax.device_get(self._pending)
    self._pending = None
    _check_finite(step, scalars["num_skipped_in_row"], self._config)
    now = time.monotonic()
    speed = self._config.steps_per_call / (now - self._last_time)
    self._last_time = now
    del scalars["num_skipped_in_row"]
    num_skipped = int(scalars.pop("num_skipped")[-1])
    means = {name: float(np.mean(values)) for name, values in scalars.items()}
    means["num_skipped"] = num_skipped
    self._writer.write(step, means, timing={"steps_per_second": speed})
    self._on_progress(StepReport(step, self._config.num_steps, speed, means))


def _check_finite(step, num_skipped_in_row, config):
  """Raises at the step at which the limit was reached."""
  is_over = num_skipped_in_row >= config.max_skipped_in_row
  if np.any(is_over):
    first = step - config.steps_per_call + int(np.argmax(is_over)) + 1
    raise NonFiniteError(
      f"step {first}: {config.max_skipped_in_row} updates in a row were not"
      " finite and were skipped; the parameters are those before the first"
    )
