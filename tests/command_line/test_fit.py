"""`python -m tgmm_jax fit`, as a user types it."""

import json
import sys

import numpy as np
import pytest
from matplotlib import image as mpl_image

from tests.command_line import started
from tgmm_jax import command_line, fitting, gmm, types
from tgmm_jax.command_line import fit as fit_command
from tgmm_jax.fitting import fits


@pytest.mark.slow
def test_table_file_and_picture(tmp_path):
  source = started.write_csv(tmp_path / "points.csv")
  output, plot = tmp_path / "fit.json", tmp_path / "fit.png"
  ended = started.run(
    *("fit", source, "--components", "3", "--covariance", "spherical"),
    *("--output", str(output), "--plot", str(plot)),
  )
  assert ended.returncode == 0, ended.stderr
  assert "120 points in 2 dimensions" in ended.stdout
  assert ended.stderr.startswith(f"{source}: 120 rows, 2 columns (x, y), sep")
  found = json.loads(output.read_text())
  assert found["num_components"] == 3
  assert found["method"] == "network unit"
  assert found["status"] == "CONVERGED"
  assert found["columns"] == ["x", "y"]
  np.testing.assert_allclose(sum(found["weights"]), 1.0, rtol=1e-5)
  means = np.array(found["means"])
  distances = np.linalg.norm(means[:, None] - started.CENTRES, axis=-1)
  assert np.max(np.min(distances, axis=0)) < 0.5
  np.testing.assert_allclose(found["covariances"], 1.0, atol=0.5)
  assert sorted(np.bincount(found["labels"])) == pytest.approx([40] * 3, abs=2)
  assert mpl_image.imread(plot).std() > 0.05


@pytest.mark.slow
def test_standard_input():
  ended = started.run(
    *("fit", "-", "--components", "6", "--covariance", "unit"),
    input="x;y\n" + "".join(f"{i},5;{i * i % 7},25\n" for i in range(20)),
  )
  assert ended.returncode == 0, ended.stderr
  assert "20 points in 2 dimensions" in ended.stdout
  assert (
    "standard input: 20 rows, 2 columns (x, y), separated by ';', decimal"
    in (ended.stderr)
  )


def test_what_is_read_is_told_before_the_fit(tmp_path, monkeypatch, capsys):
  path = tmp_path / "a.csv"
  path.write_text(",x,name,y\n0,1.5,u,2\n1,2.5,v,NA\n2,3.5,w,5\n")

  def fit(*_, **__):
    raise ValueError(capsys.readouterr().err)

  monkeypatch.setattr(fits, "fit", fit)
  assert command_line.main(["fit", str(path), "--missing=drop"]) == 1
  told = capsys.readouterr().err
  for words in (
    "3 rows, 2 columns (x, y), separated by ','",
    "column 1 is an index without a name",
    "column 'name' has no numbers ('u')",
    "1 row with missing cells",
  ):
    assert words in told


def test_options_reach_the_fit(fitted, tmp_path):
  path = started.write_csv(
    tmp_path / "a.csv", np.arange(30.0).reshape(10, 3), ""
  )
  path = started.write_csv(
    tmp_path / "a.csv", np.arange(30.0).reshape(10, 3) + 0.5, "a,b,c"
  )
  assert command_line.main(["fit", path, "--columns=c,1"]) == 0
  points, count, covariance_type, options = fitted[-1]
  np.testing.assert_array_equal(points[0], [2.5, 0.5])
  assert (count, covariance_type, options) == ("auto", "full", {})
  command_line.main(
    ["fit", path, "--components=4", "--covariance=diag"]
    + ["--max-components=9", "--restarts=3", "--seed=4294967295"]
  )
  points, count, covariance_type, options = fitted[-1]
  assert (points.shape, count, covariance_type) == ((10, 3), 4, "diag")
  assert options == {
    "max_components": 9,
    "num_restarts": 3,
    "seed": 2**32 - 1,
  }


def test_labels_are_those_of_the_files_rows(fitted, tmp_path, capsys):
  path = tmp_path / "a.csv"
  path.write_text("x,$\\y$\n1.5,2\n,2\n2.5,5\n3.5,1\n")
  for name in ("fit.json", "fit.safetensors"):
    output = tmp_path / name
    arguments = ["fit", str(path), "--missing=drop", f"--output={output}"]
    arguments += [f"--plot={output.with_suffix('.PDF')}", "--force"]
    assert command_line.main(arguments) == 0, capsys.readouterr().err
    found = fitting.load_fit(output)
    assert found.labels.tolist() == [0, -1, 1, 0]
    assert found.columns == ("x", "$\\y$")
    assert (tmp_path / "fit.PDF").read_bytes().startswith(b"%PDF")
  # Names that are none, or not unique, are not kept.
  path.write_text("x,x\n1.5,2\n2.5,5\n")
  output = tmp_path / "fit.json"
  arguments = ["fit", str(path), f"--output={output}", "--force"]
  assert command_line.main(arguments) == 0
  assert fitting.load_fit(output).columns is None


@pytest.mark.parametrize(
  ("option", "name", "message"),
  [
    ("--output", "a.csv", "takes a path that ends in .json or .safetensors"),
    ("--output", "no/a.json", "takes a path in a folder that exists"),
    ("--output", "old.json", "which exists: --force replaces it"),
    ("--plot", "a.gif", "takes a path that ends in .png or .pdf"),
    ("--plot", "no/a.png", "takes a path in a folder that exists"),
    ("--plot", "old.png", "which exists"),
  ],
)
def test_what_would_fail_at_the_end_fails_before_the_file_is_read(
  option, name, message, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  for old in ("old.json", "old.png"):
    (tmp_path / old).write_text("old")
  assert command_line.main(["fit", "missing.csv", option, name]) == 1
  error = capsys.readouterr().err
  assert error.startswith(f"error: {option} is {name!r}, ")
  assert message in error
  assert error.count("\n") == 1
  assert (tmp_path / "old.json").read_text() == "old"


def test_the_input_is_never_the_output(tmp_path, capsys):
  # A file of points may have any name.
  path = started.write_csv(tmp_path / "a.json")
  for option in ("--output", "--plot"):
    (tmp_path / "a.png").write_text("1,2\n")
    own = path if option == "--output" else str(tmp_path / "a.png")
    arguments = ["fit", own, option, own, "--force"]
    assert command_line.main(arguments) == 1
    assert "takes a path of its own" in capsys.readouterr().err
  assert len((tmp_path / "a.json").read_text().split("\n")) == 122


@pytest.mark.parametrize(
  "changes",
  [
    {"status": np.int32(types.Status.INVALID_INPUT)},
    {"log_likelihood": np.float32(-np.inf)},
    {"log_likelihood": np.float32(np.nan)},
  ],
)
def test_an_invalid_fit_is_a_line_and_no_file(
  changes, fitted, tmp_path, monkeypatch, capsys
):
  good = fits.fit
  monkeypatch.setattr(
    fits, "fit", lambda *a, **k: good(*a, **k)._replace(**changes)
  )
  path = started.write_csv(tmp_path / "a.csv")
  output = tmp_path / "fit.json"
  assert command_line.main(["fit", path, f"--output={output}"]) == 1
  captured = capsys.readouterr()
  told, error = captured.err.strip().split("\n")
  assert "120 rows" in told
  assert error.startswith(f"error: {path} cannot be fitted: its values go from")
  assert not captured.out
  assert not output.exists()


def test_warnings_are_notes(fitted, tmp_path, capsys):
  path = tmp_path / "a.csv"
  path.write_text("x,y\n9007199254740993,2\n3,4\n")
  assert command_line.main(["fit", str(path)]) == 0
  assert "note: column 'x' has integers that float64" in capsys.readouterr().err


def test_names_are_no_markup(fitted, tmp_path, capsys):
  path = started.write_csv(tmp_path / "a.csv", header="[red]x[/red],y")
  assert command_line.main(["fit", path]) == 0
  assert "mean of [red]x[/red], y" in capsys.readouterr().out


def test_types_of_covariances_are_those_of_mixtures():
  assert set(fit_command.COVARIANCE_TYPES) == set(gmm.COVARIANCE_TYPES)


def test_options_are_arguments_of_fit():
  import inspect

  assert set(fit_command._OPTIONS) <= set(
    inspect.signature(fits.fit).parameters
  )


def test_no_network_no_flax(tmp_path):
  code = (
    "import sys; from tgmm_jax import command_line\n"
    "status = command_line.main(sys.argv[1:])\n"
    "heavy = {'flax', 'optax', 'orbax', 'sklearn', 'matplotlib'}\n"
    "print(sorted(heavy & set(sys.modules)), status)"
  )
  import subprocess

  path = started.write_csv(tmp_path / "a.csv", started.points()[::10])
  ended = subprocess.run(
    [sys.executable, "-c", code, "fit", path, "--components=6"]
    + ["--covariance=unit"],
    capture_output=True,
    text=True,
  )
  assert ended.stdout.strip().split("\n")[-1] == "[] 0", ended.stderr
