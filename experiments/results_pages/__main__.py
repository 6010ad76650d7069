"""Makes the pages of results, and what else shows them.

That is parts of `docs/papers.md` and `experiments/README.md`, and the table in
`evaluation.sorted_loss`.

  python -m experiments.results_pages [NAME ...]

NAME is a question or a folder of results, as in `rq1_pretrained`.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import app, logging

from experiments.results_pages import page, readmes
from experiments.runner import kept as kept_runs
from tgmm_jax.evaluation import sorted_loss
from tgmm_jax.training import files, run_folder

# The question whose table the library has a part of.
_LIMITS = "sorted_loss"


def make(names: Sequence[str] = ()) -> dict[pathlib.Path, str]:
  """The texts of the pages and of what else shows results, by their paths.

  Args:
    names: of questions or folders, whose pages are made; all without one. The
      rest is of all.

  Raises:
    ValueError: an unknown name, or a page that shows what its tables lack.
  """
  found = kept_runs.find()
  wanted = kept_runs.select(found, names)
  runs = {
    kept.name: page.read(kept_runs.RESULTS / kept.name)
    for kept in found
    if is_kept(kept)
  }
  made = {}
  for kept in wanted:
    if kept.name not in runs:
      continue
    try:
      made[path_of(kept.name)] = page.text(kept, runs[kept.name])
    except ValueError as error:
      raise ValueError(f"{kept.config}: {error}") from error
  parts = {
    page.PAGES.parent / "papers.md": (
      readmes.ERRORS,
      readmes.errors_table(runs),
    ),
    kept_runs.EXPERIMENTS / "README.md": (
      readmes.QUESTIONS,
      readmes.list_questions(found, list(runs)),
    ),
  }
  for path, (name, content) in parts.items():
    made[path] = readmes.replace(path.read_text(), name, content)
  if _LIMITS in runs:
    made[sorted_loss.TABLE] = _limits()
  return made


def _limits():
  """What figures need of a kept table, for the library reads no others."""
  path = kept_runs.RESULTS / _LIMITS / run_folder.RESULTS
  header, *lines = path.read_text().splitlines(keepends=True)
  own = [line for line in lines if line.startswith(f"{sorted_loss.OPTIMUM},")]
  return "".join([header, *own])


def is_kept(kept: kept_runs.Kept) -> bool:
  """Whether there are results of it."""
  return (kept_runs.RESULTS / kept.name).is_dir()


def path_of(name: str) -> pathlib.Path:
  """Of the page of a kept variant."""
  return page.PAGES / f"{name}.md"


def main(argv):
  """Writes what is made, and removes the pages of what is kept no longer."""
  try:
    made = make(argv[1:])
  except ValueError as error:
    sys.exit(f"error: {error}")
  for path, text in made.items():
    files.write(path, text.encode())
    logging.info("wrote %s", path)
  shown = {path_of(own.name) for own in kept_runs.find() if is_kept(own)}
  for path in set(page.PAGES.glob("*.md")) - shown:
    path.unlink()
    logging.info("removed %s", path)


if __name__ == "__main__":
  app.run(main)
