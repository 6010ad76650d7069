"""What a mode does in the work folder of an experiment, and in which order."""

import contextlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from experiments.runner import fields, processes
from tgmm_jax.training import hosts, interrupts, run_folder


def run(
  mode: str,
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict,
  identity: Mapping[str, Any],
  *,
  work: Callable[[interrupts.StopRequest], None],
  report: Callable[[], None],
) -> None:
  """Works, then reports, as far as the mode says; the folder is locked.

  An element of a job array (`config.only`) locks what it works at by itself,
  and has no report: that is of the whole.

  Args:
    mode: of `experiments.main`.
    workdir: the folder.
    config: of the experiment.
    identity: of the config, see `fields.identity`.
    work: all that is no report; every process does it.
    report: done by the first process, while the others wait.
  """
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(interrupts.StopRequest())
    if not config.only:
      stack.enter_context(run_folder.lock(workdir))
    run_folder.check_identity(workdir, identity, free_keys=fields.FREE_KEYS)
    processes.check_one_folder(workdir)
    if mode != "report":
      run_folder.note_versions(workdir)
      if not config.only:
        stack.enter_context(run_folder.timed(workdir))
      work(stop)
      hosts.gather(None)  # all of it is there
    is_whole = mode == "report" or (mode != "train" and not config.only)
    if is_whole and hosts.is_first():
      with stop.at_once("the report"):
        report()
    hosts.gather(None)
