"""Which results are kept: of which variants of which questions, and where.

A question is a file beside `main.py`. Its `PAGES` has a page for each variant
whose results are kept; a variant that is not among its keys is not.
"""

import functools
import pathlib
import shutil
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

from experiments.runner import command_line
from tgmm_jax.training import run_folder

ROOT = pathlib.Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
# Below it a folder for each kept variant.
RESULTS = EXPERIMENTS / "results" / "quick"
# What is no question beside the questions.
_COMMANDS = ("main.py", "launch.py")
# What has the name of its question alone.
_USUAL = "quick"
# Of a run, beside the figures that its page shows.
_FILES = (
  run_folder.RESULTS,
  run_folder.CURVES,
  run_folder.CONFIG,
  run_folder.VERSIONS,
  run_folder.DURATION,
)


class Kept(NamedTuple):
  """A variant of a question whose results are kept.

  Attributes:
    question: name of its file, without the suffix.
    variant: of its config.
    module: the file, executed.
  """

  question: str
  variant: str
  module: ModuleType

  @property
  def name(self) -> str:
    """Of its folder and of its page."""
    is_usual = self.variant == _USUAL
    return self.question if is_usual else f"{self.question}_{self.variant}"

  @property
  def config(self) -> str:
    """What `--config` takes."""
    return f"experiments/{self.question}.py:{self.variant}"

  @property
  def page(self):
    """What its page shows."""
    return self.module.PAGES[self.variant]


def questions(folder: pathlib.Path = EXPERIMENTS) -> list[pathlib.Path]:
  """The files of all questions: a question is known by where it stands.

  Args:
    folder: that holds them.
  """
  return sorted(
    path for path in folder.glob("*.py") if path.name not in _COMMANDS
  )


@functools.cache
def find(folder: pathlib.Path = EXPERIMENTS) -> tuple[Kept, ...]:
  """What is kept of all questions.

  Args:
    folder: that holds their files.
  """
  modules = {
    path.stem: command_line.load_module(path) for path in questions(folder)
  }
  return tuple(
    Kept(name, variant, module)
    for name, module in modules.items()
    for variant in module.PAGES
  )


def select(found: Sequence[Kept], names: Sequence[str]) -> list[Kept]:
  """Those of some names, all where there is no name.

  Args:
    found: to choose from.
    names: of questions, or of single folders as in `rq1_pretrained`.

  Raises:
    ValueError: a name that is neither.
  """
  known = {name for kept in found for name in (kept.question, kept.name)}
  for name in names:
    if name not in known:
      raise ValueError(f"name is {name!r}, takes one of {sorted(known)}")
  return [
    kept
    for kept in found
    if not names or kept.name in names or kept.question in names
  ]


def copy(kept: Kept, workdir: pathlib.Path, folder: pathlib.Path) -> None:
  """Keeps a run: its tables, what it was made with, and the shown figures.

  What was kept before is replaced.

  Args:
    kept: whose run it is.
    workdir: of the run.
    folder: below which it is kept.

  Raises:
    FileNotFoundError: the run has no table, or not a figure that its page
      shows.
  """
  figures = [
    workdir / run_folder.FIGURES / f"{name}.png" for name in kept.page.figures
  ]
  lacking = [path for path in figures if not path.exists()]
  copied = [workdir / name for name in _FILES if (workdir / name).exists()]
  if not {path.name for path in copied} & {
    run_folder.RESULTS,
    run_folder.CURVES,
  }:
    lacking.append(workdir / run_folder.RESULTS)
  if lacking:
    raise FileNotFoundError(f"{lacking[0]} is missing")
  target = folder / kept.name
  shutil.rmtree(target, ignore_errors=True)
  for path in (*copied, *figures):
    own = target / path.relative_to(workdir)
    own.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, own)
