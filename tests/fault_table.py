"""How many rows of the table of faults hold, by the tests that they name.

  python -m tests.fault_table [JUNIT.xml]

The table is in `docs/reliability.md`. Without a file the tests that it names
are run, which takes minutes; with the file of an earlier run of the suite
(`pytest --junitxml=JUNIT.xml`) its results are read. A row passes where each of
its tests was run and none failed. Rows without a test say why. Exit status: 0
where every row passes that has a test.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
_ROW = re.compile(r"^\| (F\d\d) \| (.+?) \| (.+?) \|$", re.MULTILINE)
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
# At the head of what a row says instead of its tests.
OPEN, NOT_APPLICABLE = "open:", "not applicable:"


class Row(NamedTuple):
  """A row of the table.

  Attributes:
    name: F01 to F85.
    promise: what happens.
    tests: paths below `tests` and names of functions.
    reason: why there are none.
  """

  name: str
  promise: str
  tests: tuple[tuple[str, str], ...]
  reason: str


def rows() -> list[Row]:
  """The rows of the table, in its order."""
  found = []
  for name, promise, shown in _ROW.findall(PAGE.read_text()):
    tests = tuple(_TEST.findall(shown))
    found.append(Row(name, promise, tests, "" if tests else shown))
  return found


def run() -> str:
  """Runs the tests that the rows name; the results as JUnit's XML."""
  nodes = {
    f"tests/{path}::{name}" for row in rows() for path, name in row.tests
  }
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "junit.xml"
    subprocess.run(
      [sys.executable, "-m", "pytest", "-q", f"--junitxml={path}", *nodes],
      cwd=ROOT,
      stdout=sys.stderr,
    )
    return path.read_text()


def passed_in(junit: str) -> dict[tuple[str, str], bool]:
  """By path below `tests` and function whether all its cases passed.

  Args:
    junit: XML.
  """
  passed = {}
  for case in xml.fromstring(junit).iter("testcase"):
    path = case.get("classname").removeprefix("tests.").replace(".", "/")
    key = (f"{path}.py", case.get("name").partition("[")[0])
    # A case that was skipped shows nothing.
    passed[key] = passed.get(key, True) and not len(
      [own for own in case if own.tag in ("failure", "error", "skipped")]
    )
  return passed


def main(arguments: list[str]) -> int:
  """Prints the rows that do not pass, and how many do."""
  junit = pathlib.Path(arguments[0]).read_text() if arguments else run()
  passed = passed_in(junit)
  table, lines, num_passed, num_failed = rows(), [], 0, 0
  for row in table:
    failed = [test for test in row.tests if not passed.get(test, False)]
    num_passed += bool(row.tests) and not failed
    num_failed += bool(failed)
    if failed:
      lines.append(
        f"{row.name} fails: {', '.join('::'.join(t) for t in failed)}"
      )
    elif not row.tests:
      lines.append(f"{row.name} {row.reason}")
  lines.append(f"{num_passed} of {len(table)}")
  print("\n".join(lines))  # noqa: T201
  return int(num_failed > 0)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
