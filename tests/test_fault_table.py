"""The table of faults in docs/reliability.md names tests that there are."""

import ast
import re

from tests import fault_table

ROWS = fault_table.rows()


def test_every_row_is_there_once_and_has_tests_or_a_reason():
  assert [row.name for row in ROWS] == [f"F{n:02d}" for n in range(1, 86)]
  for row in ROWS:
    is_told = row.reason.startswith(
      (fault_table.OPEN, fault_table.NOT_APPLICABLE)
    )
    assert bool(row.tests) != is_told, row.name


def test_every_test_that_is_named_is_there():
  for row in ROWS:
    for path, name in row.tests:
      file = fault_table.ROOT / "tests" / path
      assert file.is_file(), f"{row.name}: {path}"
      tree = ast.parse(file.read_text())
      names = {own.name for own in tree.body if hasattr(own, "name")}
      assert name in names, f"{row.name}: {path}::{name}"


CASES = {
  "test_one[a]": "",
  "test_one[b]": "<failure/>",
  "test_two": "",
  "test_three": "<skipped/>",
}


def test_a_test_passes_where_all_its_cases_do():
  cases = "".join(
    f'<testcase classname="tests.solvers.test_x" name="{name}">{what}'
    "</testcase>"
    for name, what in CASES.items()
  )
  passed = fault_table.passed_in(f"<testsuite>{cases}</testsuite>")
  path = "solvers/test_x.py"
  assert passed == {
    (path, "test_one"): False,
    (path, "test_two"): True,
    (path, "test_three"): False,
  }


def test_the_command_prints_passed_of_all(tmp_path, capsys):
  (first, *_) = (row for row in ROWS if row.tests)
  cases = "".join(
    f'<testcase classname="tests.{path[:-3].replace("/", ".")}" name="{name}"/>'
    for path, name in first.tests
  )
  file = tmp_path / "junit.xml"
  file.write_text(f"<testsuite>{cases}</testsuite>")
  assert fault_table.main([str(file)]) == 1
  *said, last = capsys.readouterr().out.splitlines()
  num_passed = int(re.fullmatch(r"(\d+) of 85", last)[1])
  covered = [
    row for row in ROWS if row.tests and {*row.tests} <= {*first.tests}
  ]
  assert num_passed == len(covered) >= 1
  assert not any(line.startswith(first.name) for line in said)
