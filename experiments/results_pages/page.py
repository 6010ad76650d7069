"""What a page shows, and the text that is made of it and of a kept run."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.results_pages import tables
from experiments.runner import kept as kept_runs
from experiments.runner import progress
from tgmm_jax.evaluation import results
from tgmm_jax.training import files, run_folder

# Where pages stand, and the way back from there.
PAGES = kept_runs.ROOT / "docs" / "results"
_UP = "../.."
_NOT_RECORDED = "not recorded"
_PACKAGES = ("tgmm_jax", "python", "jax", "jaxlib", "flax", "optax")
_PACKAGES += ("orbax-checkpoint", "numpy")


class Page(NamedTuple):
  """What the page of a variant shows.

  Attributes:
    conclusion: two sentences, true of the rows. A number in them is looked up:
      `{name}` is that of `numbers`.
    table: `rows -> Table`.
    figures: by the name of a figure's file its caption.
    numbers: by name the fields of the row that it is of.
  """

  conclusion: str
  table: tables.TableOf = tables.default
  figures: Mapping[str, str] = {}
  numbers: Mapping[str, tables.Fields] = {}


class Run(NamedTuple):
  """A kept run.

  Attributes:
    config: resolved.
    versions: commit, software, devices; some may lack.
    duration: seconds and starts, or nothing.
    rows: solvers in cells, then points of curves.
  """

  config: Mapping[str, Any]
  versions: Mapping[str, Any]
  duration: Mapping[str, Any]
  rows: Sequence[tables.Row]


def read(folder: pathlib.Path) -> Run:
  """Reads a kept run."""
  rows = []
  for name, row_type in (
    (run_folder.RESULTS, results.Row),
    (run_folder.CURVES, results.CurveRow),
  ):
    if (folder / name).exists():
      rows += results.read_csv(folder / name, row_type)
  found = (run_folder.CONFIG, run_folder.VERSIONS, run_folder.DURATION)
  return Run(*(files.read_json(folder / name) for name in found), rows)


def text(kept: kept_runs.Kept, run: Run) -> str:
  """The page in Markdown.

  Args:
    kept: what it is a page of.
    run: its results.

  Raises:
    ValueError: a number, a line or a column that no row has.
  """
  folder = f"{_UP}/experiments/results/quick/{kept.name}"
  page = kept.page
  table = page.table(run.rows)
  figures = "\n\n".join(
    f"![{caption}]({folder}/{run_folder.FIGURES}/{name}.png)\n\n{caption}."
    for name, caption in page.figures.items()
  )
  parts = [
    f"# {run.config['title']} (`{kept.question}.py:{kept.variant}`)",
    run.config["question"],
    f"**What came out.** {_conclusion(page, run.rows)}",
    table.caption,
    markdown(table.lines),
    figures,
    "## How it was made",
    f"```bash\npython -m experiments.main --config={kept.config}\n```",
    "\n".join(f"- {line}" for line in _facts(run, folder)),
    "Made of these tables by `python -m experiments.results_pages`; the names"
    " of solvers and metrics are explained in"
    f" [experiments/README.md]({_UP}/experiments/README.md"
    "#what-the-numbers-are).",
  ]
  return "\n\n".join(part for part in parts if part) + "\n"


def _conclusion(page, rows):
  numbers = {}
  for name, fields in page.numbers.items():
    row = tables.find(rows, fields)
    if row is None:
      raise ValueError(f"{name} is {dict(fields)}, takes the fields of a row")
    numbers[name] = tables.text_of(row)
  return page.conclusion.format(**numbers)


def markdown(lines: Mapping[str, Mapping[str, str]]) -> str:
  """A table in Markdown; the first column has the heads of the lines.

  Args:
    lines: by head, all with the same columns.
  """
  columns = list(next(iter(lines.values())))
  table = [["", *columns], ["--"] * (1 + len(columns))]
  table += [[head, *line.values()] for head, line in lines.items()]
  return "\n".join(
    "| " + " | ".join(entry.replace("|", r"\|") for entry in line) + " |"
    for line in table
  )


def _facts(run, folder):
  """What the run was made with, and what there is of it."""
  versions = run.versions
  packages = ", ".join(
    f"{name} {versions[name]}" for name in _PACKAGES if name in versions
  )
  links = ", ".join(
    f"[{name}]({folder}/{name})"
    for name, has_it in (
      (run_folder.RESULTS, _has(run, results.Row)),
      (run_folder.CURVES, _has(run, results.CurveRow)),
      (run_folder.CONFIG, True),
      (run_folder.VERSIONS, True),
    )
    if has_it
  )
  return [
    f"Hardware: {_hardware(versions)}",
    f"Time: {_time(run.duration)}",
    f"Commit {_commit(versions)}; {packages}",
    f"Everything: {links}",
  ]


def _has(run, row_type):
  return any(isinstance(row, row_type) for row in run.rows)


def _hardware(versions):
  cores = versions.get("num_cores")
  platform, kind = versions["platform"], versions["device_kind"]
  count = versions["num_devices"]
  devices = f"{count} {platform} device" + ("s" if count > 1 else "")
  if kind != platform:
    devices += f" ({kind})"
  named = f"{cores} CPU cores" if cores else f"CPU cores {_NOT_RECORDED}"
  return f"{named}, {devices}"


def _time(duration):
  if "seconds" not in duration:
    return _NOT_RECORDED
  spent = progress.format_time_left(round(duration["seconds"]), 1.0)
  starts = duration.get("num_starts", 1)
  return f"{spent}, in {starts} starts" if starts > 1 else spent


def _commit(versions):
  commit = versions.get("git_commit") or _NOT_RECORDED
  commit, dirty, _ = commit.partition("-dirty")
  return f"{commit[:12]} with further changes" if dirty else commit[:12]
