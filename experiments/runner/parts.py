"""Parts of a run: tables in folders of their own, each with its record.

Elements of a job array share nothing but the work folder. What a part's rows
are of stands beside them (`derived`), so that they are measured again where
that is another now, and never joined with rows of other settings.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging

from experiments.runner import derived
from tgmm_jax.evaluation import results
from tgmm_jax.training import run_folder

Rows = list[results.Row] | list[results.CurveRow]

# By type of row, the file of a table.
FILES = {results.Row: run_folder.RESULTS, results.CurveRow: run_folder.CURVES}

# In what measured rows may differ from the config and still be shown, which
# the page then says: settings are a question's, the rest is progress.
_SETTINGS = "settings"
_AGAIN = "--mode=evaluate measures it again"


class Parts(NamedTuple):
  """What the folders of a run have of rows.

  Attributes:
    tables: by folder its tables; none where nothing is measured, or with other
      settings.
    lacking: by folder, why it has none.
    measured: by folder, of what its rows are, for the page.
  """

  tables: Mapping[str, Sequence[pathlib.Path]]
  lacking: Mapping[str, str]
  measured: Mapping[str, Mapping[str, str]]


def file_of(row_type: type) -> str:
  """The name of the table that holds rows of a type."""
  return FILES[row_type]


def read_rows(table: pathlib.Path) -> Rows:
  """The rows of a table, whose name says their type."""
  types = {name: row_type for row_type, name in FILES.items()}
  return results.read_csv(table, types[table.name])


def is_measured(folder: pathlib.Path, made_of: Mapping[str, Any]) -> bool:
  """Whether a folder has the rows of `made_of`; says why where it has others.

  Args:
    folder: of a part.
    made_of: settings, code, and what else the rows follow from.
  """
  why = derived.difference(folder / run_folder.MEASURED, made_of)
  if why and any((folder / name).exists() for name in FILES.values()):
    logging.info("%s is measured again: %s", folder.name, why)
  return not why


def keep_rows(
  folder: pathlib.Path,
  rows: Rows,
  row_type: type,
  made_of: Mapping[str, Any],
) -> None:
  """Writes the rows of a part with the record of what they are of.

  Args:
    folder: of the part.
    rows: may be none.
    row_type: of the rows.
    made_of: as in `is_measured`.
  """
  for other, name in FILES.items():
    if other != row_type:
      (folder / name).unlink(missing_ok=True)
  table = folder / file_of(row_type)
  results.write_csv(table, rows, row_type)
  derived.write(
    folder / run_folder.MEASURED,
    made_of,
    [table],
    versions=run_folder.versions(),
  )


def find_parts(
  workdir: pathlib.Path, made_of: Mapping[str, Mapping[str, Any]]
) -> Parts:
  """The tables that a page may join, and what it has to say of them.

  Rows of other settings are left out. Those of an earlier step or of other code
  are shown, and it is said.

  Args:
    workdir: of the run.
    made_of: by folder, of what its rows would be if they were measured now.

  Raises:
    ValueError: there are rows, but none of these settings.
  """
  tables, lacking, measured = {}, {}, {}
  for name, now in made_of.items():
    folder = workdir / name
    record = folder / run_folder.MEASURED
    tables[name] = []
    if not any((folder / file).exists() for file in FILES.values()):
      lacking[name] = "not measured yet"
      continue
    own = {_SETTINGS: now[_SETTINGS]}
    if why := derived.difference(record, own):
      lacking[name] = f"measured otherwise: {why}; {_AGAIN}"
      logging.warning("%s is left out, %s", name, lacking[name])
      continue
    stored = derived.read(record)
    tables[name] = [folder / file for file in stored["files"]]
    measured[name] = _measured(stored)
    if since := derived.difference(record, now):
      measured[name]["since then"] = f"{since}; {_AGAIN}"
      logging.warning("%s is shown as it was: %s; %s", name, since, _AGAIN)
  if not any(tables.values()):
    others = [f"{name} {why}" for name, why in lacking.items() if ":" in why]
    if others:
      raise ValueError(f"{workdir} has no such rows: {others[0]}")
  return Parts(tables, lacking, measured)


def _measured(stored):
  made_of, versions = stored["made_of"], stored.get("versions", {})
  step = {"step": f"{made_of['step']:,}"} if "step" in made_of else {}
  commit = versions.get("git_commit") or "not recorded"
  return {**step, "code": made_of["code"], "commit": commit}
