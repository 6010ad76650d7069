"""One owner of the signals that ask a run to stop.

SIGTERM (a scheduler takes the machine back) and SIGINT (Ctrl-C) do not stop a
training by themselves: loops ask `StopRequest.is_requested` at their batch
boundaries, save, and leave with `EXIT_STOPPED`. Nothing is saved inside a
handler, and further signals while the state is being saved do no harm. What
has no state to save, an evaluation or a report, is left at once.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

from tgmm_jax.training import hosts

# Exit statuses of a run: 0 done, 1 an error, 75 (EX_TEMPFAIL: try again later)
# stopped by a signal with the state saved.
EXIT_STOPPED = 75

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
  """Context manager that turns SIGTERM and SIGINT into a flag to poll.

  Of several processes (`hosts`) each passes its signal on, and all agree on the
  moment to stop: then every process must poll at the same places.

  Handlers are set on entering, which must be in the main thread, and restored
  on leaving. A signal that the caller ignores stays ignored.
  """

  def __init__(self):
    """Sets nothing up yet."""
    self._received: signal.Signals | None = None
    self._previous = {}
    self._doing = ""

  def __enter__(self) -> "StopRequest":
    """Installs the handlers."""
    for number in _SIGNALS:
      if signal.getsignal(number) is not signal.SIG_IGN:
        self._previous[number] = signal.signal(number, self._on_signal)
    if hosts.is_several() and signal.SIGTERM in self._previous:
      # Another's signal comes as if it were ours.
      main = threading.main_thread().ident
      hosts.on_stop(lambda: signal.pthread_kill(main, signal.SIGTERM))
    return self

  def __exit__(self, *exc_info):
    """Restores the handlers that were there before."""
    if hosts.is_several():
      hosts.on_stop(lambda: None)
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}

  def is_requested(self) -> bool:
    """Whether to save and leave now; from then on it stays so."""
    if hosts.is_several():
      hosts.poll()
      return hosts.is_now(hosts.STOP)
    return self._received is not None

  @contextlib.contextmanager
  def at_once(self, doing: str) -> Iterator[None]:
    """Within, a signal raises; for what has no state of its own.

    Args:
      doing: what, as in "the evaluation of ...".

    Raises:
      StoppedError: a signal has come, before or meanwhile.
    """
    self._doing = doing
    try:
      self._raise_if_stopped()
      yield
      # A library may have swallowed it.
      self._doing = doing
      self._raise_if_stopped()
    finally:
      self._doing = ""

  def _raise_if_stopped(self):
    if self._received is not None and self._doing:
      doing, self._doing = self._doing, ""  # once: it is on its way out
      raise hosts.StoppedError(f"stopped by a signal during {doing}")

  def _on_signal(self, number: int, frame):
    del frame
    self._received = signal.Signals(number)
    if hosts.is_several():
      hosts.ask(hosts.STOP)
    self._raise_if_stopped()
