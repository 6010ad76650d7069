"""`python -m tgmm_jax fit`, as a user types it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import image as mpl_image

from tgmm_jax import __main__ as command

CENTRES = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])


@pytest.fixture
def points():
  rng = np.random.default_rng(0)
  return CENTRES[np.repeat(np.arange(3), 40)] + rng.normal(size=(120, 2))


def write_csv(path, points, header="x,y"):
  np.savetxt(path, points, delimiter=",", header=header, comments="")
  return str(path)


def run(*arguments, cwd=None):
  return subprocess.run(
    [sys.executable, "-m", "tgmm_jax", *arguments],
    capture_output=True,
    text=True,
    timeout=300,
    cwd=cwd,
  )


@pytest.mark.slow
def test_table_file_and_picture(points, tmp_path):
  source = write_csv(tmp_path / "points.csv", points)
  output, plot = tmp_path / "fit.json", tmp_path / "fit.png"
  ended = run(
    *("fit", source, "--components", "3", "--covariance", "spherical"),
    *("--output", str(output), "--plot", str(plot)),
  )
  assert ended.returncode == 0, ended.stderr
  assert "120 points in 2 dimensions" in ended.stdout
  found = json.loads(output.read_text())
  assert found["num_components"] == 3
  assert found["method"] == "network unit"
  assert found["status"] == "CONVERGED"
  np.testing.assert_allclose(sum(found["weights"]), 1.0, rtol=1e-5)
  means = np.array(found["means"])
  distances = np.linalg.norm(means[:, None] - CENTRES, axis=-1)
  assert np.max(np.min(distances, axis=0)) < 0.5
  np.testing.assert_allclose(found["covariances"], 1.0, atol=0.5)
  assert sorted(np.bincount(found["labels"])) == pytest.approx([40] * 3, abs=2)
  assert mpl_image.imread(plot).std() > 0.05


def test_list_of_networks(capsys):
  assert command.main(["networks"]) == 0
  assert "unit" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.csv", "x,y\n1,2\n3\n", "'3', the point 2, takes 2 numbers separated"),
    ("a.csv", "1,2\n3,b\n", "'3,b', the point 2, takes 2 numbers"),
    ("a.csv", "x,y\n", "has no lines of numbers"),
    ("a.txt", "1,2\n", "has the suffix '.txt', takes .csv or .npy"),
    ("a.npy", "1,2\n", "is no .npy file of numbers"),
    ("a.csv", None, "No such file"),
  ],
)
def test_files_that_cannot_be_read(name, content, message, tmp_path, capsys):
  path = tmp_path / name
  if content is not None:
    path.write_text(content)
  assert command.main(["fit", str(path)]) == 1
  error = capsys.readouterr().err
  assert error.startswith("error: ")
  assert message in error
  assert error.count("\n") == 1


@pytest.mark.parametrize("count", ["0", "three", "-1", "1000"])
def test_numbers_of_components_that_cannot_be(count, points, tmp_path, capsys):
  path = write_csv(tmp_path / "points.csv", points)
  assert command.main(["fit", path, f"--components={count}"]) == 1
  error = capsys.readouterr().err
  assert "components is" in error
  assert error.count("\n") == 1


def test_header_blank_lines_and_columns(tmp_path):
  path = tmp_path / "a.csv"
  path.write_text("\ufeffa,b\n1,2\n\n3,4e1\n", encoding="utf-8")
  np.testing.assert_array_equal(
    command.read_points(str(path)), [[1.0, 2.0], [3.0, 40.0]]
  )
  # A mark of the byte order is no part of the first number.
  path.write_text("\ufeff1,2\n3,4\n", encoding="utf-8")
  assert len(command.read_points(str(path))) == 2
  path.write_text("1\n2\n")
  assert command.read_points(str(path)).shape == (2, 1)
  np.save(tmp_path / "a.npy", np.arange(6).reshape(3, 2))
  assert command.read_points(str(tmp_path / "a.npy")).shape == (3, 2)
