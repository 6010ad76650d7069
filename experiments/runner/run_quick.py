"""Runs the kept variants of the questions, one after the other, minutes each.

  python -m experiments.runner.run_quick [NAME ...] [--dirty]

With names, of questions or of folders as in `rq1_pretrained`, it runs these
alone. Runs are in `runs/quick-COMMIT/NAME`: after an interruption the same
command goes on there, and another commit begins anew. What they leave is kept
in `experiments/results/quick/NAME` after the last of them, so that every one is
of a clean checkout; then the pages of results are made. One that fails does not
stop the others. Exit status: 0 done, 1 something failed and was named.
"""

import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from experiments.runner import command_line
from experiments.runner import kept as kept_runs
from tgmm_jax.training import interrupts

_DIRTY = flags.DEFINE_bool(
  "dirty", False, "Run in a checkout with changes that are not committed."
)

# `(config, workdir) -> exit status` of a run.
Run = Callable[[str, pathlib.Path], int]


def run_all(
  wanted: Sequence[kept_runs.Kept], parent: pathlib.Path, run: Run
) -> dict[str, str]:
  """Runs all, whatever becomes of the others; by name what failed, and how.

  After a run that was stopped by a signal none is begun.

  Args:
    wanted: what to run.
    parent: where each has its folder.
    run: does it.
  """
  failed, status = {}, 0
  for kept in wanted:
    if status == interrupts.EXIT_STOPPED:
      failed[kept.name] = "not begun"
      continue
    logging.info("running %s", kept.config)
    status = run(kept.config, parent / kept.name)
    if status:
      failed[kept.name] = f"exit status {status}"
  return failed


def keep_all(
  wanted: Sequence[kept_runs.Kept],
  parent: pathlib.Path,
  folder: pathlib.Path,
) -> dict[str, str]:
  """Keeps the results of runs; by name what failed, and how.

  Args:
    wanted: whose runs are done.
    parent: where each has its folder.
    folder: where each is kept.
  """
  failed = {}
  for kept in wanted:
    try:
      kept_runs.copy(kept, parent / kept.name, folder)
    except OSError as error:
      failed[kept.name] = str(error)
  return failed


def check_clean(root: pathlib.Path) -> None:
  """Raises where a checkout has changes, or is none.

  Args:
    root: of the checkout.

  Raises:
    ValueError: there are changes; the message says which.
  """
  changes = _git(root, "status", "--porcelain")
  if changes is None:
    raise ValueError(f"{root} is no git checkout, takes one or --dirty")
  if changes:
    raise ValueError(
      f"{root} has changes that are not committed, takes none or --dirty:\n"
      + changes
    )


def folder_of(root: pathlib.Path, *, is_dirty: bool) -> pathlib.Path:
  """Where the runs of a commit are; those of no commit are nobody else's.

  Args:
    root: of the checkout.
    is_dirty: whether it may have changes.
  """
  if is_dirty:
    name = time.strftime("dirty-%Y%m%d-%H%M%S")
  else:
    name = _git(root, "rev-parse", "--short=12", "HEAD")
  return root / "runs" / f"quick-{name}"


def _git(root, *arguments):
  """What a command of git says, None where it fails."""
  command = ["git", "-C", str(root), *arguments]
  done = subprocess.run(command, capture_output=True, text=True)
  return None if done.returncode else done.stdout.strip()


def _run(config, workdir):
  return _python(
    "experiments.main", f"--config={config}", f"--workdir={workdir}"
  )


def _python(module, *arguments):
  command = [sys.executable, "-m", module, *arguments]
  return subprocess.run(command, cwd=kept_runs.ROOT).returncode


def main(argv):
  """Runs, keeps and shows; names what failed."""
  command_line.log_own_lines()
  try:
    wanted = kept_runs.select(kept_runs.find(), argv[1:])
    if not _DIRTY.value:
      check_clean(kept_runs.ROOT)
  except ValueError as error:
    sys.exit(f"error: {error}")
  parent = folder_of(kept_runs.ROOT, is_dirty=_DIRTY.value)
  failed = run_all(wanted, parent, _run)
  done = [kept for kept in wanted if kept.name not in failed]
  failed |= keep_all(done, parent, kept_runs.RESULTS)
  if _python("experiments.results_pages"):
    failed["pages"] = "experiments.results_pages has failed"
  if failed:
    lines = [f"  {name}: {reason}" for name, reason in failed.items()]
    sys.exit("\n".join(["error: failed:", *lines]))


if __name__ == "__main__":
  app.run(main)
