"""A run's folder: who works in it, what it holds, and what it was made with.

One process works in a folder at a time (`lock`); a folder holds one config's
run (`check_identity`); and it says which versions made it (`note_versions`).
"""

import contextlib
import fcntl
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from tgmm_jax.training import files, hosts

_logger = logging.getLogger(__name__)

# What a folder holds, by whom it is written. At the start of a run:
CONFIG = "config.json"
VERSIONS = "versions.json"
DURATION = "duration.json"
PROGRAMS = "programs"  # compiled ones
# by a training, in its own folder:
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
PARAMETERS = "parameters.json"
# by an evaluation, with a record of what its table was made of:
RESULTS = "results.csv"
CURVES = "curves.csv"
MEASURED = "measured.json"
# and by a report, with a record as well.
REPORT = "report.html"
FIGURES = "figures"
SHOWN = "report.json"

_LOCK = ".lock"
# A URL, also one that has gone through pathlib; no drive of Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_FOREIGN_LOCK = "{} is {}, takes a file of its own: remove it"
_NOT_SET = "(not set)"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunFolderError(RuntimeError):
  """The folder cannot be used; the message is one line that says why."""


def is_url(path: str | os.PathLike) -> bool:
  """Whether it names a bucket, as gs://, of which pathlib makes a `gs:`."""
  return _URL.match(os.fspath(path)) is not None


def check_local(path: str | os.PathLike, name: str = "workdir") -> None:
  """Refuses what is no folder of a file system.

  A bucket has no locks, renames and appends (docs/reliability.md).

  Raises:
    RunFolderError: it is empty, or a URL.
  """
  if not os.fspath(path):
    raise RunFolderError(f"{name} is empty, takes a folder")
  if is_url(path):
    raise RunFolderError(
      f"{name} is {os.fspath(path)!r}, takes a folder of a file system: a"
      " bucket has to be mounted"
    )


def make(path: str | os.PathLike) -> pathlib.Path:
  """Makes the folder if it does not exist and returns its absolute path.

  Raises:
    RunFolderError: it cannot be made, or it is a file or a URL.
  """
  check_local(path)
  path = pathlib.Path(path).absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise RunFolderError(_not_writable(path, error)) from error
  return path


def check_space(path: str | os.PathLike, num_bytes: int) -> None:
  """Raises RunFolderError where less than twice a checkpoint is free.

  Args:
    path: the run's folder; must exist.
    num_bytes: of a checkpoint; the old one goes after the new one is whole.
  """
  free = shutil.disk_usage(path).free
  if free < 2 * num_bytes:
    raise RunFolderError(
      f"{path} has {free:,} bytes free, takes at least {2 * num_bytes:,}, twice"
      " a checkpoint"
    )


@contextlib.contextmanager
def lock(workdir: str | os.PathLike) -> Iterator[None]:
  """Holds the folder for this process until the context is left.

  The kernel's lock on the file decides, and dies with its process, so that a
  killed run blocks nobody and two starters cannot both win. The contents only
  say whom to look for. Of several processes of one run (`jax.distributed`)
  the first holds the lock for all. The file stays, empty: to remove it would
  let a third starter lock a new file beside the removed one.

  Args:
    workdir: made if it does not exist; on a network disk it must be mounted
      with working file locks.

  Raises:
    RunFolderError: another process holds the folder, or it is not a folder
      that can be written.
  """
  if not hosts.is_first():
    yield
    return
  workdir = make(workdir)
  with _open_own(workdir / _LOCK) as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise RunFolderError(
        f"workdir {workdir} is in use by {_read_owner(file)}"
      ) from error
    if owner := _read_owner(file):
      _logger.warning("%s: its last run (%s) was killed", workdir, owner)
    _write_owner(file, f"pid {os.getpid()} on host {socket.gethostname()}")
    try:
      yield
    finally:
      _write_owner(file, "")


def _open_own(path: pathlib.Path):
  """Opens a lock; it will be emptied, so it must be nobody else's file."""
  flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
  try:
    descriptor = os.open(path, flags, 0o666)
  except OSError as error:
    if path.is_symlink():
      raise RunFolderError(_FOREIGN_LOCK.format(path, "a link")) from error
    raise RunFolderError(_not_writable(path.parent, error)) from error
  status = os.fstat(descriptor)
  if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
    os.close(descriptor)
    what = "a second name of a file" if status.st_nlink > 1 else "no plain file"
    raise RunFolderError(_FOREIGN_LOCK.format(path, what))
  return open(descriptor, "a+", errors="replace")


def _read_owner(file) -> str:
  file.seek(0)
  return file.read().strip()


def _write_owner(file, owner: str):
  file.truncate(0)
  file.write(owner)
  file.flush()


def check_identity(
  path: str | os.PathLike,
  config: dict[str, Any],
  *,
  free_keys: Sequence[str] = (),
):
  """Makes sure that the folder holds the run of this config, or none.

  The first start writes `config.json`; a later one may differ from it in
  `free_keys` only, and leaves it as it is.

  Args:
    path: the run's folder; made if it does not exist.
    config: what JSON can hold; nested keys are joined by dots.
    free_keys: keys that may change between two starts of a run; a key also
      stands for all keys below it.

  Raises:
    RunFolderError: another config's run is there. Nothing is written.
  """
  path = make(path)
  file = path / CONFIG
  if not file.exists():
    _write_json(file, config)
    return
  stored = _read_json(file)
  difference = {
    key: values
    for key, values in config_difference(stored, config).items()
    if not any(f"{key}.".startswith(f"{free}.") for free in free_keys)
  }
  if difference:
    raise RunFolderError(
      f"{path} holds another config's run: {format_difference(difference)};"
      " give another workdir or the stored config"
    )


def update_config(
  path: str | os.PathLike, config: dict[str, Any], keys: Sequence[str]
):
  """Keeps what the tables of a folder are of, where that is free to change.

  Each checkpoint has the config that it was trained with.

  Args:
    path: the run's folder, in which `check_identity` has been.
    config: as for `check_identity`.
    keys: those at the top of the config that are taken from it.
  """
  file = pathlib.Path(path) / CONFIG
  stored = files.read_json(file)
  updated = stored | {key: config[key] for key in keys if key in config}
  if config_difference(stored, updated):
    _write_json(file, updated)


def config_difference(
  stored: dict[str, Any], given: dict[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """The dotted keys in which two configs differ, with both values."""
  stored, given = _flatten(stored), _flatten(given)
  pairs = {
    key: (stored.get(key, _NOT_SET), given.get(key, _NOT_SET))
    for key in sorted(stored.keys() | given.keys())
  }
  return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def format_difference(difference: dict[str, tuple[Any, Any]]) -> str:
  """One line of `config_difference`: each key with both values."""
  return ", ".join(
    f"{key} is {stored!r} there and {given!r} here"
    for key, (stored, given) in difference.items()
  )


def _flatten(config: dict[str, Any]) -> dict[str, Any]:
  """Dotted keys to values as JSON gives them back, e.g. tuples as lists."""
  flat = {}

  def visit(prefix, value):
    if isinstance(value, dict) and (value or not prefix):
      for key, below in value.items():
        visit([*prefix, key], below)
    else:
      flat[".".join(prefix)] = value

  visit([], json.loads(json.dumps(config)))
  return flat


def _read_json(path):
  """As `files.read_json`, with errors of one line that stop a run."""
  try:
    return files.read_json(path)
  except ValueError as error:
    raise RunFolderError(str(error)) from error
  except OSError as error:
    raise RunFolderError(f"{path} cannot be read: {error.strerror}") from error


def _write_json(path, value):
  """As `files.write_json`, with an error of one line."""
  try:
    files.write_json(path, value)
  except OSError as error:
    raise RunFolderError(_not_writable(path, error)) from error


@contextlib.contextmanager
def timed(workdir: str | os.PathLike) -> Iterator[None]:
  """Adds the seconds within to what the folder's earlier starts took.

  `duration.json` has the seconds and the number of starts. One that changed no
  file, as of a finished run, does not count.

  Args:
    workdir: of the run; must exist.

  Raises:
    RunFolderError: `duration.json` is damaged or cannot be written.
  """
  path = pathlib.Path(workdir) / DURATION
  before = _read_json(path)  # now: a fault must not come after the work
  seconds, starts = before.get("seconds", 0.0), before.get("num_starts", 0)
  if type(seconds) not in (int, float) or type(starts) is not int:
    raise RunFolderError(f"{path} is damaged: it holds no numbers")
  begin, state = time.monotonic(), _state(path.parent)
  try:
    yield
  finally:
    if jax.process_index() == 0 and _state(path.parent) != state:
      seconds += time.monotonic() - begin
      value = {"seconds": round(seconds, 1), "num_starts": starts + 1}
      _write_json(path, value)


def _state(folder):
  """Every file below a folder and when it was written; none that only helps."""
  return {
    path: path.stat().st_mtime_ns
    for path in folder.rglob("*")
    if path.name != _LOCK and PROGRAMS not in path.relative_to(folder).parts
  }


def note_versions(path: str | os.PathLike):
  """Writes `versions.json`: software, git commit if any, and devices.

  Where it is there, the run goes on; what has another version by now is told
  in one line, since then the same bits cannot be expected.

  Args:
    path: the run's folder; must exist.

  Raises:
    RunFolderError: the file is damaged or cannot be written.
  """
  file = pathlib.Path(path) / VERSIONS
  if not file.exists():
    _write_json(file, versions())
    return
  stored = _read_json(file)
  now = {name: importlib.metadata.version(name) for name in _PACKAGES}
  changed = {
    name: (stored.get(name), own)
    for name, own in now.items()
    if stored.get(name) != own
  }
  if changed:
    _logger.warning(
      "%s: the run goes on with other versions: %s",
      path,
      format_difference(changed),
    )


def versions() -> dict[str, Any]:
  """What works here: software, git commit if any, and devices."""
  devices = jax.devices()
  return {
    "tgmm_jax": importlib.metadata.version("tgmm_jax"),
    "git_commit": _git_commit(),
    "python": platform.python_version(),
    **{name: importlib.metadata.version(name) for name in _PACKAGES},
    "system": platform.platform(),
    "platform": devices[0].platform,
    "device_kind": devices[0].device_kind,
    "num_devices": len(devices),
    "num_cores": len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else os.cpu_count(),
    "num_processes": jax.process_count(),
  }


def _git_commit() -> str | None:
  """The commit of the checkout that holds this file, if there is one."""
  source = pathlib.Path(__file__)

  def git(*arguments):
    return subprocess.run(
      # A killed run leaves no lock in the checkout, as by `describe --dirty`.
      ["git", "--no-optional-locks", "-C", str(source.parent), *arguments],
      check=True,
      capture_output=True,
      text=True,
    ).stdout.strip()

  try:
    # An installed copy may lie inside a checkout of something else.
    git("ls-files", "--error-unmatch", source.name)
    is_changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD") + ("-dirty" if is_changed else "")
  except (OSError, subprocess.CalledProcessError):
    return None


def _not_writable(path: pathlib.Path, error: OSError) -> str:
  return f"{path} cannot be written: {error.strerror}"
