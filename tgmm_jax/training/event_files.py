"""TensorBoard's event files, written in the thread that calls.

tensorboardX's own writer has a thread, which dies where a disk is full and then
keeps its process alive for ever.
"""

import os
import pathlib
import socket
import time

# The parts of tensorboardX that do no more than encode and write.
from tensorboardX import record_writer, summary
from tensorboardX.proto import event_pb2

_FLUSH_INTERVAL = 30.0  # seconds


class EventFile:
  """A new event file in a folder."""

  def __init__(self, folder: pathlib.Path, *, purge_step: int | None = None):
    """Opens it.

    Args:
      folder: of the run; must exist.
      purge_step: what earlier files have from this step on is hidden.

    Raises:
      OSError: it cannot be written.
    """
    # Whole seconds would have an old file overwritten.
    name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
    self.path = folder / f"{name}.{os.getpid()}"
    self._records = record_writer.RecordWriter(str(self.path))
    self._flushed_at = time.monotonic()
    self._add(file_version="brain.Event:2")
    if purge_step is not None:
      start = event_pb2.SessionLog.START
      self._add(step=purge_step, session_log=event_pb2.SessionLog(status=start))

  def add_scalar(self, tag: str, value: float, step: int) -> None:
    """Writes a number."""
    self._add(step=step, summary=summary.scalar(tag, value))
    if time.monotonic() - self._flushed_at > _FLUSH_INTERVAL:
      self._records.flush()
      self._flushed_at = time.monotonic()

  def close(self) -> None:
    """Writes what is left; after an error nothing is tried again."""
    self._records.close()

  def _add(self, **fields):
    event = event_pb2.Event(wall_time=time.time(), **fields)
    self._records.write(event.SerializeToString())
