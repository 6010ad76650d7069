"""Times what a person waits for: the first fit, the next, and many tables.

  OMP_NUM_THREADS=1 python -m experiments.benchmarks.first_fit [--tables=0]

Each part runs in a fresh process with an empty cache of compiled programs,
ours and then scikit-learn's: the command line on 150 x 4 points, and again with
the programs of the first run; one fit after another in one process; and 200
tables of many sizes in one. scikit-learn has ten starts, and for "auto" the
best K by BIC among the same numbers; beside our command line is a script that
reads the file and fits. Targets are for an idle machine with two cores.
`--tables=0` leaves the tables out, which take minutes.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np
import rich.console
import rich.table
from absl import app, flags

from experiments.benchmarks import first_fit_parts, timing

_TABLES = flags.DEFINE_integer(
  "tables", 200, "tables in one process; 0 leaves them out", lower_bound=0
)
_PARTS = "experiments.benchmarks.first_fit_parts"
_OURS, _PEER = "tgmm_jax", "scikit-learn"
# Name of a part's time, what it is called, and seconds at most.
_CALLS = (
  ("import", "import", None),
  ("first", "first fit, 150 points", 4.0),
  ("another N", "151 points", 0.1),
  ("new size", "600 points", 2.0),
  ("auto", "150 points, auto", None),
)
_ESTIMATOR = (("estimator", "first fit of GaussianMixture", 1.5),)


class Row(NamedTuple):
  """One line of the table.

  Attributes:
    what: is measured.
    ours: as a text.
    peer: scikit-learn's, as a text.
    target: as a text.
  """

  what: str
  ours: str
  peer: str = "-"
  target: str = "-"


def environment(cache: pathlib.Path) -> dict[str, str]:
  """Variables of a process that keeps its programs in a folder.

  Args:
    cache: the folder.
  """
  own = dict(os.environ)
  own.pop("JAX_COMPILATION_CACHE_DIR", None)
  folder = str(cache)
  return own | {"TGMM_JAX_CACHE": folder, "XDG_CACHE_HOME": folder}


def start(
  cache: pathlib.Path, module: str, *args: str
) -> tuple[float, subprocess.CompletedProcess]:
  """Runs a module in a process; its seconds, and how it ended.

  Args:
    cache: where it keeps compiled programs.
    module: its name.
    *args: of the command.
  """
  begin = time.perf_counter()
  ended = subprocess.run(
    [sys.executable, "-m", module, *args],
    capture_output=True,
    check=False,
    env=environment(cache),
    text=True,
  )
  return time.perf_counter() - begin, ended


def measure(program: str, part: str, *args: str) -> dict[str, float | None]:
  """What a part measures in a process with an empty cache, and its return code.

  Args:
    program: ours or scikit-learn.
    part: one of `first_fit_parts.PARTS`.
    *args: of the part.
  """
  with tempfile.TemporaryDirectory() as cache:
    _, ended = start(pathlib.Path(cache), _PARTS, program, part, *args)
  measured = {"returncode": ended.returncode}
  if ended.returncode == 0:
    measured |= json.loads(ended.stdout.splitlines()[-1])
  else:
    sys.stderr.write(ended.stderr[-2000:])
  return measured


def command_line(folder: pathlib.Path) -> list[Row]:
  """`python -m tgmm_jax fit` with given K and auto, twice each.

  Args:
    folder: for the table and the caches.
  """
  path = str(folder / "points.csv")
  points = first_fit_parts.clusters(150)
  np.savetxt(path, points, delimiter=",", header="a,b,c,d", comments="")
  rows = []
  for components, targets in (("3", (6.0, 2.5)), ("auto", (9.0, 3.0))):
    cache = folder / components
    peer, ended = start(cache, _PARTS, _PEER, "file", path, components)
    peer = _seconds(peer, ended)
    command = ("fit", path, "--components", components)
    for when, target in zip(("empty", "kept"), targets, strict=True):
      ours = _seconds(*start(cache, _OURS, *command))
      what = f"command line, --components {components}, {when} cache"
      rows.append(Row(what, ours, peer, f"{target:g} s"))
  return rows


def _seconds(seconds, ended):
  if ended.returncode:
    sys.stderr.write(ended.stderr[-2000:])
    return f"exit {ended.returncode}"
  return f"{seconds:.2f} s"


def in_one_process() -> list[Row]:
  """One fit after another, and the estimator's first."""
  rows = []
  for part, names in (("calls", _CALLS), ("estimator", _ESTIMATOR)):
    ours, peer = measure(_OURS, part), measure(_PEER, part)
    rows += [
      Row(
        what,
        *(_format(own, name, "{:.3f} s") for own in (ours, peer)),
        "-" if target is None else f"{target:g} s",
      )
      for name, what, target in names
    ]
  return rows


def many(count: int) -> list[Row]:
  """Tables of many sizes in one process.

  Args:
    count: how many.
  """
  both = [measure(program, "many", str(count)) for program in (_OURS, _PEER)]
  for own in both:
    own["ended"] = "no" if own["returncode"] == 0 else f"{own['returncode']}"
    if own.get("bytes") is not None:
      own["bytes"] /= 1e9
  lines = (
    ("seconds", f"{count} tables", "{:.0f} s", "300 s"),
    ("bytes", "their peak memory", "{:.2f} GB", "2 GB"),
    ("maps", "memory maps at the end", "{:,}", "-"),
    ("failed", "tables that failed", "{}", "0"),
    ("ended", "crash", "{}", "no"),
  )
  return [
    Row(what, *(_format(own, name, form) for own in both), target)
    for name, what, form, target in lines
  ]


def _format(measured, name, form):
  value = measured.get(name)
  return "-" if value is None else form.format(value)


def main(argv):
  """Measures everything and prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f"arguments are {argv[1:]}, takes flags only")
  console = rich.console.Console(width=100)
  console.print(timing.describe((_PEER,)), highlight=False)
  with tempfile.TemporaryDirectory() as folder:
    rows = command_line(pathlib.Path(folder))
  rows += in_one_process()
  if _TABLES.value:
    rows += many(_TABLES.value)
  table = rich.table.Table("what", title="What a person waits for")
  for heading in ("ours", _PEER, "target"):
    table.add_column(heading, justify="right")
  for row in rows:
    table.add_row(*row)
  console.print(table)


if __name__ == "__main__":
  app.run(main)
