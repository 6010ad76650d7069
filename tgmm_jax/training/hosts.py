"""The processes of one run: what they tell each other, and how they end.

All of it goes through the coordinator of `jax.distributed`, never through the
devices: who waits here may wait for hours while another one computes, and
learns within seconds that one has failed. A thread in each process looks at
what the others say (`_Board`). Of one process alone everything here is
trivial.

What they agree on is a moment: polls are counted (`poll`), all processes poll
at the same places, and a moment is a number of polls that none has passed.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

# The store of the coordinator has no public name.
from jax._src import distributed

_PREFIX = "tgmm_jax"
_INTERVAL = 0.3  # seconds between two looks
# Seconds in which a process may end by itself after another has: with an error,
_GRACE = 3.0
_GRACE_STOPPED = 30.0  # and after a signal, of which it knows, too.
_LAST = 15.0  # seconds in which others notice that one has failed
_PIECE = 2**20  # bytes of one message to the coordinator

STOP, SAVE = "stop", "save"  # what a moment may be for
_STOPPED = "stopped by a signal"


class StoppedError(RuntimeError):
  """A signal asked the run to stop; its state is saved."""


class HostError(RuntimeError):
  """Another process of the run has failed; the message is one line."""


class Ended(NamedTuple):
  """How a process has ended: its status, and its line if it failed."""

  status: int
  message: str


class _Board:
  """What the processes say in the coordinator's store, and who reads it."""

  def __init__(self):
    state = distributed.global_state
    self._client = state.client
    self.rank, self.count = state.process_id, state.num_processes
    self.num_gathered = 0
    self.num_polls = 0
    self.asked = set()  # here, by a signal or a clock
    self.seen = set()  # asked by anybody
    # By what for, at which polls: one may be asked for before all had the last.
    self.moments = {STOP: [], SAVE: []}
    self._num_agreed = {STOP: 0, SAVE: 0}
    self.lock = threading.Lock()
    self.is_leaving = threading.Event()
    self.on_stop: Callable[[], None] = lambda: None
    self._thread = threading.Thread(target=self._watch, daemon=True)
    self._thread.start()

  def say(self, name: str, content: bytes = b"") -> None:
    """Writes under a name; large contents in pieces, the end of them last."""
    pieces = range(0, len(content), _PIECE)
    for number, first in enumerate(pieces):
      piece = content[first : first + _PIECE]
      self._client.key_value_set_bytes(
        f"{_PREFIX}/pieces/{name}/{self.rank}/{number}",
        piece,
        allow_overwrite=True,
      )
    self._client.key_value_set(
      f"{_PREFIX}/{name}/{self.rank}", str(len(pieces)), allow_overwrite=True
    )

  def who_said(self, name: str) -> dict[int, int]:
    """By rank, how many pieces it has said under a name."""
    found = self._client.key_value_dir_get(f"{_PREFIX}/{name}/")
    return {int(key.rpartition("/")[2]): int(size) for key, size in found}

  def read(self, name: str, rank: int, num_pieces: int) -> bytes:
    """What a process has said."""
    return b"".join(
      self._client.key_value_try_get_bytes(
        f"{_PREFIX}/pieces/{name}/{rank}/{number}"
      )
      for number in range(num_pieces)
    )

  def ended(self) -> dict[int, Ended]:
    """By rank, how those have ended that have."""
    return {
      rank: Ended(*json.loads(self.read("ended", rank, size)))
      for rank, size in self.who_said("ended").items()
    }

  def _watch(self):
    since = {}
    while not self.is_leaving.wait(_INTERVAL):
      # Where the coordinator is gone JAX itself ends this process.
      with contextlib.suppress(RuntimeError):
        for what in (STOP, SAVE):
          self._agree(what)
        for rank, ended in self.ended().items():
          first = since.setdefault(rank, time.monotonic())
          grace = _GRACE if ended.status == 1 else _GRACE_STOPPED
          is_late = time.monotonic() - first > grace
          # One that is done is missing only to those that wait for it.
          if is_late and ended.status and not self.is_leaving.is_set():
            self._follow(rank, ended)

  def _agree(self, what):
    """Finds the moment for what somebody has asked for."""
    if what == STOP and STOP in self.seen:  # there is one stop
      return
    name = f"{what}{self._num_agreed[what]}"
    if what in self.asked:
      self.say(f"asked/{name}")
      self.asked.discard(what)
    if not self.who_said(f"asked/{name}"):
      return
    with self.lock:  # nobody polls meanwhile, or the number would be another
      while True:
        try:
          polls = self._exchange(f"polls/{name}", self.num_polls)
          break
        except RuntimeError:  # a call that took too long
          if self.is_leaving.wait(_INTERVAL):
            raise
      self.moments[what].append(max(polls) + 1)
    self._num_agreed[what] += 1
    self.seen.add(what)
    if what == STOP:
      self.on_stop()

  def _exchange(self, name, number):
    """The numbers of all processes that have not ended."""
    self.say(name, str(number).encode())
    has_missing = False
    # One that has ended may have said its number before, so it comes first.
    while len(said := self.who_said(name)) < self.count and not has_missing:
      self.is_leaving.wait(_INTERVAL / 10)
      has_missing = bool(self.ended()) or self.is_leaving.is_set()
    return [int(self.read(name, rank, size)) for rank, size in said.items()]

  def _follow(self, rank, ended):
    """Ends this process, whose main thread waits for one that has gone."""
    kind = "error: " if ended.status == 1 else ""
    sys.stderr.write(f"{kind}{_other(rank, ended)}\n")
    _exit(self, ended.status, _other(rank, ended))


_board: _Board | None = None


def watch() -> None:
  """Begins to look at what the others say, after `initialize`."""
  global _board  # noqa: PLW0603 as there is one `jax.distributed`
  if jax.distributed.is_initialized() and _board is None:
    _board = _Board()


def is_first() -> bool:
  """Whether this process writes what is written once."""
  return _board is None or _board.rank == 0


def is_several() -> bool:
  """Whether there are other processes."""
  return _board is not None and _board.count > 1


def gather(value: Any) -> list[Any]:
  """The values of all processes, by rank; every process must call it.

  It waits as long as the others live.

  Args:
    value: what JSON can hold.

  Raises:
    HostError: another has failed.
    StoppedError: another was stopped by a signal.
  """
  return [json.loads(own) for own in gather_bytes(json.dumps(value).encode())]


def gather_bytes(content: bytes) -> list[bytes]:
  """As `gather`, of bytes."""
  if not is_several():
    return [content]
  name = f"gathered/{_board.num_gathered}"
  _board.num_gathered += 1
  _board.say(name, content)
  while len(said := _board.who_said(name)) < _board.count:
    for rank, ended in _board.ended().items():
      if rank not in said:
        if ended.status != 1:
          raise StoppedError(f"process {rank} was stopped by a signal")
        raise HostError(_other(rank, ended))
    time.sleep(_INTERVAL / 10)
  return [_board.read(name, rank, said[rank]) for rank in range(_board.count)]


def my_share(items: Sequence[Any]) -> list[Any]:
  """Those that are dealt out to this process, each to one."""
  if not is_several():
    return list(items)
  return list(items)[_board.rank :: _board.count]


def ask(what: str) -> None:
  """Asks for a moment, to be found with the others."""
  _board.asked.add(what)


def on_stop(call: Callable[[], None]) -> None:
  """Has a function called, in another thread, once a stop is asked for."""
  _board.on_stop = call
  if STOP in _board.seen:
    call()


def poll() -> None:
  """Counts; every process does so at the same places."""
  with _board.lock:
    _board.num_polls += 1


def is_now(what: str) -> bool:
  """Whether this poll is the moment, or one after it."""
  moments = _board.moments[what]
  return bool(moments) and _board.num_polls >= moments[0]


def take(what: str) -> bool:
  """As `is_now`, once for each time that it was asked for."""
  is_due = is_now(what)
  if is_due:
    del _board.moments[what][0]
  return is_due


def first_failure() -> str:
  """What another process has failed of, "" if none has within seconds."""
  deadline = time.monotonic() + _GRACE
  while is_several() and time.monotonic() < deadline:
    for rank, ended in _board.ended().items():
      if ended.status == 1 and rank != _board.rank:
        return _other(rank, ended)
    time.sleep(_INTERVAL)
  return ""


def leave(status: int, message: str = "") -> None:
  """Ends this process, and tells the others; of one alone it does nothing.

  JAX's own shutdown is left out: it waits for others that may have gone, and
  then aborts. The first has the store, so it goes last.

  Args:
    status: of the process.
    message: its last line.
  """
  if is_several():
    _exit(_board, status, message)


def _exit(board, status, message):
  """Ends the process at once; the first, who has the store, last of all."""
  board.is_leaving.set()
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
  with contextlib.suppress(RuntimeError):  # said before, or no store any more
    board.say("ended", json.dumps([status, message]).encode())
  deadline = time.monotonic() + (_LAST if status == 1 else _GRACE_STOPPED)
  with contextlib.suppress(RuntimeError):
    while board.rank == 0 and time.monotonic() < deadline:
      if len(board.ended()) == board.count:
        time.sleep(_INTERVAL)  # for what they still write
        break
      time.sleep(_INTERVAL)
  os._exit(status)


def _other(rank, ended):
  return f"process {rank} has ended: {ended.message or _STOPPED}"
