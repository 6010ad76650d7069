import io
import logging as python_logging

import pytest
import rich.console
from absl import logging

from experiments.runner import progress


@pytest.fixture
def lines():
  """What absl logs, as a growing list of lines."""
  found = []

  class Handler(python_logging.Handler):
    def emit(self, record):
      found.append(record.getMessage())

  logger = logging.get_absl_logger()
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.INFO)
  handler = Handler()
  logger.addHandler(handler)
  yield found
  logger.removeHandler(handler)
  logging.set_verbosity(verbosity)


def make_progress(is_terminal, clock=lambda: 0.0):
  console = rich.console.Console(
    file=io.StringIO(),
    force_terminal=is_terminal,
    width=90,
    height=20,
    color_system=None,
    legacy_windows=False,
    # Otherwise taken from the environment.
    _environ={},
  )
  return progress.ProgressDisplay(console=console, clock=clock), console.file


def last_bar(stream):
  return [line for line in stream.getvalue().splitlines() if "loss" in line][-1]


def test_log_has_the_first_and_last_line_and_one_every_ten_seconds(lines):
  now = [0.0]
  shown, stream = make_progress(False, lambda: now[0])
  with shown:
    for step in range(1, 101):
      now[0] = 0.25 * step
      shown("refiner", step, 100, {"loss": 1 / step}, 4.0)
  # At 0.25 s, then 10 s later, then 10 s later, then the end.
  assert lines == [
    "refiner: step 1/100, loss 1, 4 steps/s, 25 s left",
    "refiner: step 41/100, loss 0.02439, 4 steps/s, 15 s left",
    "refiner: step 81/100, loss 0.01235, 4 steps/s, 5 s left",
    "refiner: step 100/100, loss 0.01, 4 steps/s, 0 s left",
  ]
  assert stream.getvalue() == ""


def test_log_of_an_interrupted_run_ends_with_where_it_was(lines):
  def interrupted_run():
    shown, _ = make_progress(False)
    with shown:
      for step in (10, 20, 30):
        shown("tgmm", step, 100, {"loss": 2.0}, 1.0)
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    interrupted_run()
  assert [line.split(",")[0] for line in lines] == [
    "tgmm: step 10/100",
    "tgmm: step 30/100",
  ]


def test_each_run_has_its_first_line(lines):
  shown, _ = make_progress(False)
  with shown:
    for run in ("one", "two"):
      shown(run, 1, 2, {"loss": 1.0}, 1.0)
      shown(run, 2, 2, {"loss": 1.0}, 1.0)
  assert [line.split(",")[0] for line in lines] == [
    "one: step 1/2",
    "one: step 2/2",
    "two: step 1/2",
    "two: step 2/2",
  ]


def test_bar_on_a_terminal_and_no_log_lines(lines):
  shown, stream = make_progress(True)
  with shown:
    shown("refiner [x]", 50, 200, {"loss": 0.125, "lr": 1.0}, 2.0)
  text = last_bar(stream)
  for part in (
    "refiner [x]",
    "50/200",
    "loss 0.125",
    "2 steps/s",
    "1 min 15 s left",
  ):
    assert part in text
  assert lines == []


def test_bar_of_a_resumed_run_counts_all_its_steps():
  shown, stream = make_progress(True)
  with shown:
    shown("refiner", 900, 1000, {"loss": 1.0}, 10.0)
    shown("refiner", 1000, 1000, {"loss": 1.0}, 10.0)
  assert "1000/1000" in last_bar(stream)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_unknown_loss_and_speed(lines, is_terminal):
  shown, stream = make_progress(is_terminal)
  with shown:
    shown("refiner", 1, 10, {}, float("nan"))
  text = stream.getvalue() + "".join(lines)
  assert "loss nan" in text
  assert "? steps/s" in text
  assert "? left" in text


@pytest.mark.parametrize(
  ("num_steps", "steps_per_second", "text"),
  [
    (0, 5.0, "0 s"),
    (0, 0.0, "0 s"),
    (59, 1.0, "59 s"),
    (260, 1.0, "4 min 20 s"),
    (3900, 1.0, "1 h 05 min"),
    (10**6, 5.0, "2 d 7 h"),
    (10, 0.0, "?"),
    (10, float("nan"), "?"),
    (10, float("inf"), "?"),
  ],
)
def test_format_time_left(num_steps, steps_per_second, text):
  assert progress.format_time_left(num_steps, steps_per_second) == text


@pytest.mark.parametrize(
  ("speed", "text"),
  [(0.0471, "0.0471"), (20.333, "20.3"), (1234.6, "1,235"), (-1.0, "?")],
)
def test_format_speed(speed, text):
  assert progress.format_speed(speed) == text
