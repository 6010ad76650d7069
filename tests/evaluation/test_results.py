import csv
import math
import os

import numpy as np
import pytest

from tgmm_jax.evaluation import results

CELL = {"dim": 2, "num_components": 4, "num_points": 128, "shift": 0.0}


def make_row(**changes):
  row = results.Row(
    *("refiner", 2, 4, 128, 0.0, "means", "l2_error"),
    *(0.1 + 0.2, 1e-17 / 3, 1280, 7),
  )
  return row._replace(**changes)


def test_summary_against_hand_computation():
  rows = results.summarise(
    {"l2_error": np.array([1.0, 2.0, 6.0, 7.0]), "accuracy": [0.5] * 4},
    solver="labels",
    failed=np.array([False, True, True, False]),
    **CELL,
  )
  # Squared deviations from 4 add up to 26: sd^2 = 26 / 3, se = sd / 2.
  assert rows[0].mean == 4.0
  assert rows[0].standard_error == pytest.approx(math.sqrt(26 / 3) / 2)
  assert rows[0][:7] == ("labels", 2, 4, 128, 0.0, "means", "l2_error")
  assert rows[0].count == 4
  assert rows[0].failures == 2
  assert rows[1].metric == "accuracy"
  assert (rows[1].mean, rows[1].standard_error) == (0.5, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_value_is_a_failure_and_never_averaged(bad):
  values = {
    "l2_error": np.array([0.1, 0.2, 0.3]),
    "log_likelihood": np.array([-1.0, bad, -1.0]),
  }
  rows = results.summarise(
    values, solver="em/normal", failed=np.array([True, False, False]), **CELL
  )
  assert rows[0].mean == pytest.approx(0.2)
  assert math.isnan(rows[1].mean)
  assert math.isnan(rows[1].standard_error)
  # The one that was known and the one that is not finite, in both rows.
  assert [row.failures for row in rows] == [2, 2]
  assert [row.count for row in rows] == [3, 3]


def test_float32_tasks_are_averaged_in_double_precision():
  values = np.full(1280, 0.1, np.float32)
  (row,) = results.summarise(
    {"l2_error": values}, solver="labels", failed=np.zeros(1280, bool), **CELL
  )
  assert row.mean == pytest.approx(float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.filterwarnings("error")
def test_too_few_tasks_have_no_standard_error(count):
  (row,) = results.summarise(
    {"l2_error": np.ones(count)},
    solver="labels",
    failed=np.zeros(count, bool),
    **CELL,
  )
  assert row.count == count
  assert math.isnan(row.standard_error)
  assert math.isnan(row.mean) == (count == 0)


def test_summarise_names_the_metric_of_another_shape():
  with pytest.raises(ValueError, match=r"'accuracy'.*\(2,\).*\(3,\)"):
    results.summarise(
      {"l2_error": np.ones(3), "accuracy": np.ones(2)},
      solver="labels",
      failed=np.zeros(3, bool),
      **CELL,
    )


def test_csv_round_trip_is_exact(tmp_path):
  path = tmp_path / "deep" / "results.csv"
  rows = [
    make_row(metric="a", mean=1 / 3, standard_error=2e-300, shift=0.1),
    make_row(metric="b", mean=-123456.789, standard_error=math.pi),
    make_row(metric="c", mean=math.nan, standard_error=math.nan),
    make_row(solver='odd, "name"'),
  ]
  results.write_csv(path, rows)
  back = results.read_csv(path)
  assert sorted(map(repr, back)) == sorted(map(repr, rows))
  assert [type(value) for value in back[0]] == [
    type(value) for value in rows[0]
  ]


def test_csv_has_exactly_the_columns_of_the_contract(tmp_path):
  path = tmp_path / "results.csv"
  results.write_csv(path, [make_row(mean=0.25, standard_error=0.5)])
  with open(path, newline="") as file:
    lines = list(csv.reader(file))
  assert ",".join(lines[0]) == (
    "solver,dim,num_components,num_points,shift,shift_kind,metric,mean,"
    "standard_error,count,failures"
  )
  assert ",".join(lines[1]) == (
    "refiner,2,4,128,0.0,means,l2_error,0.25,0.5,1280,7"
  )


def test_order_of_rows_does_not_change_the_bytes(tmp_path):
  rows = [
    make_row(dim=dim, num_components=num_components, solver=solver)
    for dim in (128, 2, 32)
    for num_components in (5, 3)
    for solver in ("spectral", "em/normal")
  ]
  results.write_csv(tmp_path / "one.csv", rows)
  results.write_csv(tmp_path / "two.csv", rows[::-1])
  content = (tmp_path / "one.csv").read_bytes()
  assert content == (tmp_path / "two.csv").read_bytes()
  # By number, not by text: 2 before 128.
  dims = [row.dim for row in results.read_csv(tmp_path / "one.csv")]
  assert dims == sorted(dims)


def test_two_rows_of_one_cell_are_refused(tmp_path):
  with pytest.raises(ValueError, match="refiner, l2_error for d = 2.* twice"):
    results.write_csv(tmp_path / "r.csv", [make_row(), make_row(mean=2.0)])
  assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
  path = tmp_path / "results.csv"
  results.write_csv(path, [make_row()])
  before = path.read_bytes()

  def fail(*_):
    raise OSError("no space left")

  monkeypatch.setattr(os, "replace", fail)
  with pytest.raises(OSError, match="no space"):
    results.write_csv(path, [make_row(mean=5.0)])
  assert path.read_bytes() == before
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("", "has columns ''"),
    ("solver,dim\n", "has columns 'solver,dim', takes 'solver,dim,num_comp"),
    ("HEADER\nrefiner,2,4\n", "line 2, is 'refiner,2,4', takes 11 values"),
    (
      "HEADER\nr,2,4,128,0,means,l2_error,x,1,9,0\n",
      "line 2, .* takes 11 values",
    ),
    (
      "HEADER\nr,2.5,4,128,0,means,l2_error,1,1,9,0\n",
      "line 2, .* takes 11 values",
    ),
  ],
)
def test_bad_csv_is_one_line_that_names_the_place(tmp_path, content, message):
  path = tmp_path / "results.csv"
  path.write_text(content.replace("HEADER", ",".join(results.Row._fields)))
  with pytest.raises(ValueError, match=message) as error:
    results.read_csv(path)
  assert str(path) in str(error.value)
  assert "\n" not in str(error.value)


def test_join_takes_the_first_of_agreeing_rows(tmp_path):
  shared = make_row(solver="labels", mean=1.0, standard_error=0.1)
  timing = shared._replace(metric="milliseconds", mean=3.0)
  one = [shared, timing, make_row(dim=8)]
  two = [
    shared._replace(mean=1.05),
    timing._replace(mean=30.0),
    make_row(dim=32),
  ]
  results.write_csv(tmp_path / "1.csv", one)
  results.write_csv(tmp_path / "2.csv", two)
  joined = results.join([tmp_path / "1.csv", tmp_path / "2.csv"])
  assert sorted(joined) == sorted([*one, make_row(dim=32)])


@pytest.mark.parametrize(
  "change", [{"mean": 1.2}, {"count": 640}, {"mean": math.nan}]
)
def test_join_refuses_two_solvers_under_one_name(tmp_path, change):
  row = make_row(mean=1.0, standard_error=0.1)
  results.write_csv(tmp_path / "1.csv", [row])
  results.write_csv(tmp_path / "2.csv", [row._replace(**change)])
  with pytest.raises(ValueError, match=r"2\.csv has .* as refiner, l2_error"):
    results.join([tmp_path / "1.csv", tmp_path / "2.csv"])


def test_missing_lists_planned_cells_without_a_row():
  setting = results.Setting(2, 128, "means", 0.0)
  cells = [("refiner", setting, k, "l2_error") for k in (2, 3, 4, 5)]
  rows = [make_row(num_components=k) for k in (2, 4)]
  rows.append(make_row(num_components=3, metric="accuracy"))
  assert results.missing(rows, [*cells, *cells]) == [cells[1], cells[3]]
