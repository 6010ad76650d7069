"""A line now and then about a fit that takes long, to the logger of this file.

The command line shows it; in a program `logging` decides:

  logging.getLogger("tgmm_jax.fitting.progress").setLevel("INFO")
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

_LOGGER = logging.getLogger(__name__)
# Seconds until the first line; each further one takes twice as long to come.
_FIRST = 2.0


class _Task:
  """What is under way, and since when."""

  def __init__(self, text):
    self.text, self.step = text, ""
    self.start = time.monotonic()
    self.is_done = threading.Event()

  def tell(self):
    """Logs lines until it is done; in a thread, for XLA is not to be asked."""
    due = _FIRST
    while not self.is_done.wait(self.start + due - time.monotonic()):
      step = f", {self.step}" if self.step else ""
      _LOGGER.info("%s%s: %.0f s so far", self.text, step, due)
      due *= 2.0


_UNDER_WAY = threading.local()


@contextlib.contextmanager
def reported(text: str) -> Iterator[None]:
  """Logs a line after two seconds of the body, after four, eight and so on.

  Args:
    text: what is under way. Of a body within another the outer one's is said.
  """
  is_inner = getattr(_UNDER_WAY, "task", None) is not None
  if is_inner or not _LOGGER.isEnabledFor(logging.INFO):
    yield
    return
  task = _Task(text)
  _UNDER_WAY.task = task
  threading.Thread(target=task.tell, daemon=True).start()
  try:
    yield
  finally:
    task.is_done.set()
    _UNDER_WAY.task = None


def step(text: str) -> None:
  """What is done from now on, as part of what is reported in this thread."""
  task = getattr(_UNDER_WAY, "task", None)
  if task is not None:
    task.step = text
