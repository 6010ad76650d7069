import math

import pytest

from experiments import results_pages
from experiments.results_pages import page, readmes, tables
from tgmm_jax.evaluation import results


def cell(solver, count, mean, error=0.01, failures=0, **fields):
  values = {
    "dim": 2,
    "num_points": 128,
    "shift": 0.0,
    "shift_kind": "means",
    "metric": "l2_error",
  }
  return results.Row(
    solver=solver,
    num_components=count,
    mean=mean,
    standard_error=error,
    count=64,
    failures=failures,
    **(values | fields),
  )


def point(series, x, value, study="over dim", metric="error", **fields):
  values = {"standard_error": 0.01, "count": 8, "failures": 0}
  return results.CurveRow(study, metric, series, x, value, **(values | fields))


ROWS = [
  cell("refiner", 2, 0.25),
  cell("refiner", 3, 0.5, failures=7),
  cell("refiner", 3, 0.75, metric="accuracy", failures=7),
  cell("em/normal", 2, 0.125),
]


def test_entries_are_the_rows_with_the_fields_of_line_and_column():
  made = results_pages.cells(
    "Error, {count} tasks.",
    results_pages.solvers("refiner", "em/normal"),
    results_pages.across("num_components", (2, 3), "K = {}")
    | {"right": {"num_components": 3, "metric": "accuracy"}},
    metric="l2_error",
  )(ROWS)
  # Failures stand with the error alone, and the caption says what they are.
  assert made.lines == {
    "`refiner`": {
      "K = 2": "0.250 ± 0.010",
      "K = 3": "0.500 ± 0.010 (7)",
      "right": "0.750 ± 0.010",
    },
    "`em/normal`": {"K = 2": "0.125 ± 0.010", "K = 3": "–", "right": "–"},
  }
  assert made.caption == (
    "Error, 64 tasks. In brackets: how many of them failed."
  )


def test_fields_of_a_line_come_before_those_of_its_column():
  made = results_pages.cells(
    "", {"share": {"metric": "accuracy"}}, {"K": {"num_components": 3}}, dim=2
  )(ROWS)
  assert made.lines == {"share": {"K": "0.750 ± 0.010"}}
  assert made.caption == ""


@pytest.mark.parametrize(
  ("lines", "columns"), [(("refiner", "tgmm"), (2,)), (("refiner",), (2, 9))]
)
def test_lines_and_columns_without_rows_are_refused(lines, columns):
  table_of = results_pages.cells(
    "",
    results_pages.solvers(*lines),
    results_pages.across("num_components", columns, "K = {}"),
    metric="l2_error",
  )
  with pytest.raises(ValueError, match="tgmm|K = 9"):
    table_of(ROWS)


def test_what_is_not_one_row_is_refused():
  with pytest.raises(ValueError, match="are 3 rows, takes one"):
    tables.find(ROWS, {"solver": "refiner"})
  assert tables.find(ROWS, {"solver": "tgmm"}) is None


@pytest.mark.parametrize(
  ("row", "text"),
  [
    (point("a", 1.0, 2396288.0, standard_error=math.nan), "2,396,288"),
    (point("a", 1.0, 3.05e-5, standard_error=math.nan), "3.05e-05"),
    (point("a", 1.0, math.nan, standard_error=math.nan), "not finite"),
    (point("a", 1.0, 0.5, failures=2), "0.500 ± 0.010 (2)"),
    (cell("a", 2, 2000.0, error=12.0), "2000 ± 12"),
  ],
)
def test_numbers_have_as_many_digits_as_they_are_worth(row, text):
  assert results_pages.text_of(row) == text


def test_solvers_by_k_at_the_first_setting_are_the_default():
  rows = [
    *ROWS,
    cell("em/random_points", 2, 0.3),
    cell("em/oracle", 2, 0.1),
    cell("tgmm-w16", 2, 0.9),
    cell("refiner", 2, 9.0, dim=8),
    cell("refiner", 2, 9.0, num_points=256),
    cell("refiner", 2, 9.0, shift=-1.0),
    cell("refiner", 2, 9.0, shift=2.0),
    cell("tasks", 2, 0.0, metric="outside_range"),
    point("a", 1.0, 0.5),
  ]
  made = tables.default(rows)
  assert list(made.lines) == [
    *("`refiner`", "`em/normal`", "`tgmm-w16`", "`em/oracle`")
  ]
  assert made.lines["`refiner`"]["K = 2"] == "0.250 ± 0.010"
  assert "d = 2, N = 128, 64 tasks" in made.caption


def test_series_over_a_size_are_the_default_of_curves():
  rows = [
    point("network", 1.0, 0.1, study="run"),
    point("network", 5.0, 0.25),
    point("network", 20.0, 0.5),
    point("eigh", 5.0, 0.0),
    point("network", 5.0, 0.75, metric="other"),
  ]
  made = tables.default(rows)
  assert made.lines == {
    "network": {"5": "0.250 ± 0.010", "20": "0.500 ± 0.010"}
  }
  assert made.caption.startswith("over dim: error")


def test_markdown_has_a_line_for_each_line_and_no_stray_bars():
  assert page.markdown({"|cos|": {"a": "1", "b": "2"}}).splitlines() == [
    "|  | a | b |",
    "| -- | -- | -- |",
    r"| \|cos\| | 1 | 2 |",
  ]


def test_a_part_is_replaced_between_its_markers_alone():
  begin = "<!-- errors: made by `python -m experiments.results_pages` -->\n"
  text = f"before\n{begin}old\n<!-- end of errors -->\nafter\n"
  assert readmes.replace(text, "errors", "new\n") == (
    f"before\n{begin}\nnew\n\n<!-- end of errors -->\nafter\n"
  )
  for wrong in ("nothing", text + text, text.replace("end of", "")):
    with pytest.raises(ValueError, match="has no part 'errors'"):
      readmes.replace(wrong, "errors", "new")
