"""One owner of the signals that ask a run to stop.

SIGTERM (a scheduler takes the machine back) and SIGINT (Ctrl-C) do not stop
anything by themselves: loops ask `StopRequest.is_requested` at their batch
boundaries, save, and leave with `EXIT_STOPPED`. Nothing is saved inside a
handler, and further signals while the state is being saved do no harm.
"""

import signal

import jax
from jax.experimental import multihost_utils

# Exit statuses of a run: 0 done, 1 an error, 75 (EX_TEMPFAIL: try again later)
# stopped by a signal with the state saved.
EXIT_STOPPED = 75

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
  """Context manager that turns SIGTERM and SIGINT into a flag to poll.

  Under `jax.distributed` JAX itself takes SIGTERM as the notice and agrees
  between the processes on the moment to stop; a Python handler would keep the
  notice from it, so none is installed. Then every process must poll at the
  same places.

  Handlers are set on entering, which must be in the main thread, and restored
  on leaving. A signal that the caller ignores stays ignored.
  """

  def __init__(self):
    """Sets nothing up yet."""
    self._received: signal.Signals | None = None
    self._previous = {}
    self._num_polls = 0

  def __enter__(self) -> "StopRequest":
    """Installs the handlers, unless JAX owns the signals."""
    if not jax.distributed.is_initialized():
      for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
          self._previous[number] = signal.signal(number, self._on_signal)
    return self

  def __exit__(self, *exc_info):
    """Restores the handlers that were there before."""
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}

  def is_requested(self) -> bool:
    """Whether to save and leave now; from then on it stays so."""
    if jax.distributed.is_initialized() and self._received is None:
      # JAX picks "the largest number polled anywhere, plus one" as the common
      # moment: the numbers must be consecutive, which steps are not where one
      # call makes many.
      self._num_polls += 1
      if multihost_utils.reached_preemption_sync_point(self._num_polls):
        self._received = signal.SIGTERM
    return self._received is not None

  def _on_signal(self, number: int, frame):
    del frame
    self._received = signal.Signals(number)
