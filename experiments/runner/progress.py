"""What a training run shows: a bar on a terminal, log lines elsewhere."""

import math
import time
from collections.abc import Callable, Mapping

import jax
import rich.console
import rich.progress
from absl import logging

from tgmm_jax.training import loop

# Seconds between log lines of one run.
LOG_INTERVAL = 10.0
# A training that would take longer than this on a CPU is likely a mistake.
_LONG_HOURS = 2.0


class ProgressDisplay:
  """A callback for the train loop, and a context manager around it.

  On a terminal each run has a bar with step, loss, steps/s and time left.
  Elsewhere there is one absl log line now and then: for the first and the last
  report of a run, and in between after `LOG_INTERVAL` seconds.
  """

  def __init__(
    self,
    *,
    console: rich.console.Console | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Sets where to show it.

    Args:
      console: where the bar goes; standard error by default.
      clock: seconds.
    """
    console = console or rich.console.Console(stderr=True)
    self._clock = clock
    self._bar = _make_bar(console) if console.is_terminal else None
    self._tasks = {}
    self._logged_at = {}
    self._unlogged = {}

  def __call__(
    self,
    run: str,
    step: int,
    num_steps: int,
    scalars: Mapping[str, float],
    steps_per_second: float,
  ) -> None:
    """Shows where a run is.

    Args:
      run: its name.
      step: steps done.
      num_steps: steps to do in all.
      scalars: the latest ones; `loss` is shown.
      steps_per_second: speed; nan or 0 while there is none.
    """
    loss = float(scalars.get("loss", math.nan))
    left = format_time_left(num_steps - step, steps_per_second)
    if self._bar is not None:
      self._show(run, step, num_steps, loss, steps_per_second, left)
      return
    line = (
      f"{run}: step {step}/{num_steps}, loss {loss:.4g}, "
      f"{format_speed(steps_per_second)} steps/s, {left} left"
    )
    now = self._clock()
    last = self._logged_at.get(run, -math.inf)
    if step >= num_steps or now - last >= LOG_INTERVAL:
      logging.info("%s", line)
      self._logged_at[run] = now
      self._unlogged.pop(run, None)
    else:
      self._unlogged[run] = line

  def _show(self, run, step, num_steps, loss, steps_per_second, left):
    fields = {
      "loss": f"{loss:.4g}",
      "speed": format_speed(steps_per_second),
      "left": left,
    }
    if run not in self._tasks:
      self._tasks[run] = self._bar.add_task(run, total=num_steps, **fields)
    self._bar.update(self._tasks[run], completed=step, **fields)

  def __enter__(self) -> "ProgressDisplay":
    """Starts the bar."""
    if self._bar is not None:
      self._bar.start()
    return self

  def __exit__(self, *error) -> None:
    """Stops the bar, or logs where an interrupted run was."""
    if self._bar is not None:
      self._bar.stop()
    for line in self._unlogged.values():
      logging.info("%s", line)
    self._unlogged = {}


def format_speed(steps_per_second: float) -> str:
  """`0.123`, `20.3` or `1,235`; `?` if unknown."""
  if not (math.isfinite(steps_per_second) and steps_per_second > 0):
    return "?"
  if steps_per_second >= 100:
    return f"{steps_per_second:,.0f}"
  return f"{steps_per_second:.3g}"


def format_time_left(num_steps: int, steps_per_second: float) -> str:
  """Time for steps as `2 d 3 h`, `1 h 05 min` or `4 min 20 s`, `?` if unknown.

  Args:
    num_steps: steps still to do.
    steps_per_second: speed; not positive or nan if unknown.
  """
  if num_steps <= 0:
    return "0 s"
  if not (math.isfinite(steps_per_second) and steps_per_second > 0):
    return "?"
  seconds = round(num_steps / steps_per_second)
  minutes, seconds = divmod(seconds, 60)
  hours, minutes = divmod(minutes, 60)
  days, hours = divmod(hours, 24)
  if days:
    return f"{days} d {hours} h"
  if hours:
    return f"{hours} h {minutes:02d} min"
  return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _make_bar(console):
  # Rich's own speed and time left would count the steps before a restore.
  return rich.progress.Progress(
    rich.progress.TextColumn("{task.description}", markup=False),
    rich.progress.BarColumn(bar_width=None),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TextColumn("loss {task.fields[loss]}"),
    rich.progress.TextColumn("{task.fields[speed]} steps/s"),
    rich.progress.TextColumn("{task.fields[left]} left"),
    console=console,
    expand=True,
  )


class Reporter:
  """Passes progress on; warns once where a CPU would take hours."""

  def __init__(self, name: str, shown: ProgressDisplay):
    """Begins with a training that has not reported yet.

    Args:
      name: of the training.
      shown: where its progress is shown.
    """
    self._name = name
    self._shown = shown
    self._is_first = True

  def __call__(self, update: loop.StepReport) -> None:
    """Takes what the loop says after a call."""
    self._shown(
      self._name,
      update.step,
      update.num_steps,
      update.scalars,
      update.steps_per_second,
    )
    num_left = update.num_steps - update.step
    hours = num_left / update.steps_per_second / 3600
    is_cpu = jax.default_backend() == "cpu"
    if self._is_first and is_cpu and hours > _LONG_HOURS:
      logging.warning(
        "%s will take %s on this CPU; the config's variant :quick is made for"
        " CPUs and takes minutes",
        self._name,
        format_time_left(num_left, update.steps_per_second),
      )
    self._is_first = False
