"""`python -m tgmm_jax predict`: labels and probabilities of a saved fit."""

import csv
import io

import numpy as np
import pytest

from tests.command_line import started
from tests.fitting import made_fits
from tgmm_jax import command_line


@pytest.fixture
def saved(tmp_path):
  found = made_fits.one()._replace(columns=("x", "y"))
  return found, str(found.save(tmp_path / "fit.json"))


def rows_of(text):
  rows = list(csv.DictReader(io.StringIO(text)))
  shares = [[float(row[f"probability_{k}"]) for k in range(3)] for row in rows]
  return (
    [int(row["row"]) for row in rows],
    [int(row["label"]) for row in rows],
    np.array(shares),
  )


def test_columns_are_found_by_name_and_rows_have_numbers(
  saved, tmp_path, capsys
):
  found, path = saved
  points = np.random.default_rng(0).normal(size=(5, 2))
  lines = [f"{y!r};u;{x!r}".replace(".", ",") for x, y in points.tolist()]
  lines.insert(2, "NA;u;1,5")
  table = tmp_path / "new.csv"
  table.write_text("\n".join(["y;name;x", *lines]))
  arguments = ["predict", path, str(table), "--missing=drop"]
  assert command_line.main(arguments) == 0
  captured = capsys.readouterr()
  rows, labels, shares = rows_of(captured.out)
  assert rows == [1, 2, 4, 5, 6]
  assert labels == found.predict(points).tolist()
  np.testing.assert_allclose(shares, found.predict_proba(points), rtol=1e-6)
  assert "2 columns (x, y)" in captured.err
  output = tmp_path / "labels.csv"
  assert command_line.main([*arguments, f"--output={output}"]) == 0
  assert output.read_text() == captured.out
  assert not capsys.readouterr().out
  assert command_line.main([*arguments, f"--output={output}"]) == 1
  assert "--force replaces it" in capsys.readouterr().err
  assert command_line.main([*arguments, f"--output={output}", "--force"]) == 0


@pytest.mark.parametrize(
  ("header", "dim", "message"),
  [
    ("x,z", 2, "has no column 'y', takes 'x', 'y'; it has 'x', 'z'"),
    ("", 3, "has 3 columns of numbers, takes 2: x, y"),
  ],
)
def test_other_columns_are_refused(
  header, dim, message, saved, tmp_path, capsys
):
  _, path = saved
  values = np.random.default_rng(0).normal(size=(4, dim))
  table = started.write_csv(tmp_path / "a.csv", values, header)
  assert command_line.main(["predict", path, table]) == 1
  captured = capsys.readouterr()
  assert message in captured.err
  assert captured.err.count("\n") == 1
  assert not captured.out


def test_what_is_no_fit_of_one_problem(saved, tmp_path, capsys):
  table = started.write_csv(tmp_path / "a.csv")
  made_fits.batch().save(tmp_path / "many.json")
  (tmp_path / "bad.json").write_text("{}")
  for name, message in (
    ("many.json", "is of many problems, takes that of one"),
    ("bad.json", "cannot be read as a fit"),
    ("no.json", "No such file"),
    ("a.csv", "takes one that ends in .safetensors or .json"),
  ):
    assert command_line.main(["predict", str(tmp_path / name), table]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
  # Neither the fit nor the table is replaced.
  _, path = saved
  for own in (path, table):
    arguments = ["predict", path, table, f"--output={own}", "--force"]
    assert command_line.main(arguments) == 1
    assert "takes a path of its own" in capsys.readouterr().err
