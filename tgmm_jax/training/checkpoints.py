"""Checkpoints that are whole, verified by digest, or not used at all.

The only importer of Orbax, which by itself gives back a flipped bit as a wrong
number, casts to another dtype without a word, and forgets a failed or pending
background save. Here every step has a commit file, written last, and metadata
with a digest of each leaf; a step that does not verify is set aside and the
one before it is used.
"""

import contextlib
import logging
import os
import pathlib
import re
import textwrap
import time
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from tgmm_jax.training import (
  checkpoint_metadata,
  files,
  run_folder,
  tree_digest,
)

_COMMIT_FILE = ocp.path.atomicity_types.COMMIT_SUCCESS_FILE

_logger = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
  """A checkpoint cannot be written or read; the message is one line."""


class MismatchError(CheckpointError):
  """A whole checkpoint, but of another model."""


class _DamagedError(Exception):
  """The step is not what was saved."""


class RestoredState(NamedTuple):
  """What a restore returns.

  Attributes:
    state: the tree of the template, with its dtypes and shardings.
    step: the step it was saved at.
    config: the config it was saved with.
  """

  state: Any
  step: int
  config: dict[str, Any]


class Checkpointer:
  """Saves a run's states into one folder and gives back the newest good one.

  A context manager: leaving it, in whatever way, commits the pending save and
  raises its error. One process (or one group under `jax.distributed`) at a
  time may have it open on a folder: see `run_folder.lock`.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    config: dict[str, Any],
    max_to_keep: int = 3,
    kept_every: int = 1,
  ):
    """Opens the folder and removes what killed saves left there.

    Args:
      directory: made if it does not exist; local or mounted.
      config: identity of the run, what JSON can hold; stored in each step.
      max_to_keep: committed steps that stay; one more while saving.
      kept_every: another step, by time or by a signal, goes for a newer one.

    Raises:
      RunFolderError: the folder cannot be made.
      ValueError: max_to_keep is below 1.
    """
    if max_to_keep < 1:
      raise ValueError(f"max_to_keep is {max_to_keep}, takes an integer >= 1")
    self._directory = run_folder.make(directory)
    self._config = config
    self._max_to_keep = max_to_keep
    self._kept_every = kept_every
    self._pending_step: int | None = None
    self._last: tuple[int, dict[str, str]] | None = None  # step and digests
    if jax.process_index() == 0:
      for path in self._directory.iterdir():
        if _is_step(path) and not _is_committed(path):
          _logger.warning("%s: removing an unfinished save", path)
          files.remove_folder(path)
    multihost_utils.sync_global_devices("tgmm_jax: checkpoints opened")
    self._orbax = ocp.AsyncCheckpointer(
      _handler(),
      temporary_path_class=ocp.path.atomicity.CommitFileTemporaryPath,
    )

  def __enter__(self) -> "Checkpointer":
    """Returns itself."""
    return self

  def __exit__(self, *exc_info):
    """Commits the pending save; its error is raised over any other."""
    self.close()

  def save(self, step: int, state: Any):
    """Starts a save; returns when `state` may be donated or overwritten.

    Saving the newest step once more, with the same state, does nothing.

    Args:
      step: above the newest step in the folder.
      state: tree of arrays of floats, integers or booleans.

    Raises:
      CheckpointError: a value is NaN or inf (nothing is written, and no older
        step goes), the step is not new, or this or the previous save failed.
      ValueError: two leaves would get the same name, or a key or a dtype
        cannot be stored.
    """
    self.wait()
    leaves = tree_digest.named_leaves(state)
    try:
      digests = tree_digest.digests(leaves)
    except tree_digest.NotFiniteError as error:
      raise CheckpointError(f"step {step} is not saved: {error}") from error
    if self._last == (step, digests):
      return
    newest = self.latest_step()
    if newest is not None and step <= newest:
      raise CheckpointError(
        f"step {step} cannot be saved: {self._directory} holds step {newest}"
      )
    meta = checkpoint_metadata.make(step, self._config, leaves, digests)
    path = self._directory / str(step)
    self._pending_step = step
    try:
      if jax.process_index() == 0 and path.exists():  # a failed save's
        files.remove_folder(path)
      self._orbax.save(
        path,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeSave(leaves), meta=ocp.args.JsonSave(meta)
        ),
      )
    except Exception as error:
      raise self._failed(error) from error
    self._last = (step, digests)

  def wait(self):
    """Waits for the pending save, then removes the steps that are too many.

    Raises:
      CheckpointError: the save failed; the older steps are still there.
    """
    try:
      self._orbax.wait_until_finished()
    except Exception as error:
      raise self._failed(error) from error
    if self._pending_step is None:
      return
    self._pending_step = None
    if jax.process_index() == 0:
      *older, newest_step = _committed_steps(self._directory)
      regular = [step for step in older if step % self._kept_every == 0]
      stay = regular[max(len(regular) + 1 - self._max_to_keep, 0) :]
      for step in sorted({*older} - {*stay}):
        # Without its commit file a half-removed step is no step.
        (self._directory / str(step) / _COMMIT_FILE).unlink()
        files.remove_folder(self._directory / str(step))

  def close(self):
    """Commits the pending save and frees the threads.

    Raises:
      CheckpointError: the pending save failed.
    """
    try:
      self.wait()
    finally:
      self._orbax.close()

  def latest_step(self) -> int | None:
    """The newest committed step in the folder, None if there is none."""
    return max(_committed_steps(self._directory), default=None)

  def restore_latest(
    self, abstract_state: Any, *, restore_dir: str | os.PathLike = ""
  ) -> RestoredState | None:
    """The state to go on from, or None to start from scratch.

    Args:
      abstract_state: tree of `jax.ShapeDtypeStruct`; a leaf without sharding
        goes to the first device. The checkpoint may come from other devices.
      restore_dir: checkpoints of another run to start from, or "".

    Returns:
      None only where the own folder holds no step and `restore_dir` is "".

    Raises:
      MismatchError: the checkpoint is of another model; the message names
        leaves with both shapes and the config keys that differ.
      CheckpointError: no step verifies (then none is touched), `restore_dir`
        holds none, or a newer version wrote it.
    """
    self.wait()
    # 1. The run's own folder: a run that starts again goes on where it was.
    found = _newest_good(self._directory, abstract_state, self._config)
    if found is not None:
      restored, digests, damaged = found
      for step, reason in damaged.items():
        self._set_aside(step, reason)
      self._last = (restored.step, digests)
      return restored
    # 2. `restore_dir`: a new run that begins with another's result.
    if os.fspath(restore_dir):
      return restore(restore_dir, abstract_state, config=self._config)
    # 3. Scratch: the caller makes the first state.
    return None

  def _set_aside(self, step: int, reason: str):
    name = f"corrupt-{step}-{time.strftime('%Y%m%dT%H%M%S')}"
    _logger.error("step %d is damaged, now %s: %s", step, name, reason)
    if jax.process_index() == 0:
      (self._directory / str(step)).rename(self._directory / name)
    multihost_utils.sync_global_devices(f"tgmm_jax: step {step} set aside")

  def _failed(self, error: Exception) -> CheckpointError:
    step, self._pending_step, self._last = self._pending_step, None, None
    return CheckpointError(
      f"step {step} was not saved in {self._directory}: {_one_line(error)}"
    )


def restore(
  directory: str | os.PathLike,
  abstract_state: Any,
  *,
  subtree: str = "",
  config: dict[str, Any] | None = None,
) -> RestoredState:
  """Reads the newest good step of a folder and changes nothing there.

  Args:
    directory: checkpoints of a run, which may be going on.
    abstract_state: as in `Checkpointer.restore_latest`.
    subtree: where the tree stands in what was saved, e.g. "params"; "" is all.
    config: to name the keys that differ where the checkpoint does not fit.

  Raises:
    MismatchError: the checkpoint is of another model.
    CheckpointError: no step verifies, or there is none.
  """
  path = pathlib.Path(directory)
  found = _newest_good(path, abstract_state, config, subtree)
  if found is None:
    raise CheckpointError(f"{path} holds no checkpoint")
  restored, _, damaged = found
  for step, reason in damaged.items():
    _logger.error("step %d in %s is damaged: %s", step, path, reason)
  return restored


def newest(directory: str | os.PathLike, tree: str) -> tuple[int, str] | None:
  """Newest step, and `tree_digest.of_tree` of a tree in it; reads no array.

  Args:
    directory: checkpoints of a run, which may be going on.
    tree: where it stands in what was saved, e.g. "params".
  """
  path = pathlib.Path(directory).absolute()
  for step in reversed(_committed_steps(path)):
    with contextlib.suppress(_DamagedError):
      meta = _read_metadata(path / str(step))
      return step, checkpoint_metadata.digest_of(meta, tree)
  return None


def _newest_good(
  directory: pathlib.Path,
  abstract_state: Any,
  config: dict[str, Any] | None,
  subtree: str = "",
) -> tuple[RestoredState, dict[str, str], dict[int, str]] | None:
  """The newest step that verifies, its digests, and the damaged newer ones."""
  directory = directory.absolute()
  template = tree_digest.named_leaves(abstract_state, prefix=subtree)
  damaged = {}
  with ocp.Checkpointer(_handler()) as orbax:
    for step in reversed(_committed_steps(directory)):
      path = directory / str(step)
      try:
        meta = _read_metadata(path)
        misfit = checkpoint_metadata.misfit(
          meta, template, config, subtree=subtree
        )
        if misfit:
          raise MismatchError(f"{path} is of another model: {misfit}")
        values, digests = _read_leaves(orbax, path, meta["leaves"], template)
      except _DamagedError as error:
        damaged[step] = str(error)
        continue
      _logger.info("restored step %d from %s", step, directory)
      tree = jax.tree.structure(abstract_state)
      state = jax.tree.unflatten(tree, [values[name] for name in template])
      return RestoredState(state, step, meta["config"]), digests, damaged
  if damaged:
    reasons = "; ".join(f"step {s}: {reason}" for s, reason in damaged.items())
    raise CheckpointError(
      f"no checkpoint in {directory} is whole ({reasons}); to start from"
      " scratch, move them away"
    )
  return None


def _read_metadata(path: pathlib.Path) -> dict[str, Any]:
  try:
    # Not by Orbax, which has all processes wait for each other.
    meta = files.parse_object((path / "meta" / "metadata").read_bytes())
    checkpoint_metadata.check(meta, int(path.name))
  except checkpoint_metadata.NewerFormatError as error:
    raise CheckpointError(f"{path} was {error}") from error
  except Exception as error:  # every kind of damage has its own type
    raise _DamagedError(f"metadata: {_one_line(error)}") from error
  return meta


def _read_leaves(
  orbax: ocp.Checkpointer,
  path: pathlib.Path,
  stored: dict[str, Any],
  template: dict[str, jax.ShapeDtypeStruct],
) -> tuple[dict[str, jax.Array], dict[str, str]]:
  first_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  # Orbax would put a leaf without sharding where it was when it was saved.
  template = {
    name: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=leaf.sharding or first_device
    )
    for name, leaf in template.items()
  }
  arguments = ocp.args.PyTreeRestore(
    template,
    restore_args=ocp.checkpoint_utils.construct_restore_args(template),
    partial_restore=True,
  )
  try:
    values = orbax.restore(path, args=ocp.args.Composite(state=arguments)).state
    digests = tree_digest.digests(values)
  except Exception as error:  # every kind of damage has its own type
    raise _DamagedError(f"arrays: {_one_line(error)}") from error
  for name, digest in digests.items():
    if stored[name]["digest"] != digest:
      raise _DamagedError(f"the digest of {name} differs")
  return values, digests


def _handler() -> ocp.CompositeCheckpointHandler:
  return ocp.CompositeCheckpointHandler(
    "state",
    "meta",
    composite_options=ocp.CompositeOptions(
      temporary_path_class=ocp.path.atomicity.CommitFileTemporaryPath
    ),
  )


def _is_step(path: pathlib.Path) -> bool:
  is_number = re.fullmatch(r"0|[1-9][0-9]*", path.name) is not None
  return is_number and path.is_dir() and not path.is_symlink()


def _is_committed(path: pathlib.Path) -> bool:
  return (path / _COMMIT_FILE).is_file()


def _committed_steps(directory: pathlib.Path) -> list[int]:
  if not directory.is_dir():
    return []
  return sorted(
    int(path.name)
    for path in directory.iterdir()
    if _is_step(path) and _is_committed(path)
  )


def _one_line(error: Exception) -> str:
  # TensorStore's messages go on for pages; the chained error has them whole.
  text = textwrap.shorten(str(error), 300, placeholder=" ...")
  return f"{type(error).__name__}: {text}"
