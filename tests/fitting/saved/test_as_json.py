import json

import numpy as np
import pytest

from tests.fitting import made_fits
from tgmm_jax import fitting, types


def content_of(fit, folder):
  path = fit.save(folder / "fit.json")

  def refuse(name):
    raise AssertionError(f"JSON has no {name}")

  return json.loads(path.read_text(), parse_constant=refuse)


def test_the_text_says_what_the_fit_is(tmp_path):
  fit = made_fits.one(columns=("a", "b"))
  found = content_of(fit, tmp_path)
  assert found["num_components"] == 3
  assert found["covariance_type"] == "full"
  assert found["columns"] == ["a", "b"]
  assert found["means"] == fit.mixture.means.tolist()
  assert found["status"] == "CONVERGED"
  assert found["method"] == "network full"
  assert found["labels"] == fit.labels.tolist()
  # One key a line, so that people can look at it.
  lines = (tmp_path / "fit.json").read_text().splitlines()
  assert len(lines) == len(found) + 2


def test_there_is_no_infinity_in_json(tmp_path):
  fit = made_fits.one(
    log_likelihood=np.float32(-np.inf),
    status=np.int32(types.Status.INVALID_INPUT),
  )
  assert content_of(fit, tmp_path)["log_likelihood"] is None
  assert fitting.load_fit(tmp_path / "fit.json").log_likelihood == -np.inf


def test_a_text_with_what_is_needed_alone_is_a_fit(tmp_path):
  path = tmp_path / "fit.json"
  text = {
    "num_components": 2,
    "covariance_type": "spherical",
    "weights": [0.25, 0.75],
    "means": [[0, 1], [2, 3]],
    "covariances": [1, 2],
    "labels": [0, 1, 1, 1],
    "log_likelihood": -2.5,
    "status": "CONVERGED",
    "method": "EM",
    "something": "else",
  }
  path.write_text(json.dumps(text))
  found = fitting.load_fit(path)
  assert found.mixture.means.dtype == np.float64
  assert str(found.method) == "EM"
  assert found.predict(np.array([[0.0, 1.0], [2.0, 3.0]])).tolist() == [0, 1]


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("means", [[0, 1], [2]], "means is no array of float64"),
    ("means", "zero", "means is no array of float64"),
    ("means", [[0, None], [1, 2]], "means is no array of float64"),
    ("labels", [0, 1.5], "labels is no array of int32"),
    ("labels", [0, 2**40], "labels is no array of int32"),
    ("status", "HAPPY", "status has 'HAPPY', takes one of"),
    ("status", {"a": 1}, "status has {'a': 1}, takes one of"),
    ("method", [["EM"]], "cannot be read as a fit"),
    ("methods", "EM", "method_index has"),
    ("dtypes", {"means": "object"}, "means is no array of object"),
    ("dtypes", {"means": 3}, "means is no array of 3"),
    ("columns", "ab", "columns is no list of str"),
    ("is_outside_range", 2, "is_outside_range is no array of bool"),
  ],
)
def test_values_of_another_kind_are_refused(tmp_path, name, value, message):
  found = content_of(made_fits.one(), tmp_path)
  del found["sha256"]
  path = tmp_path / "fit.json"
  path.write_text(json.dumps(found | {name: value}))
  with pytest.raises(fitting.SavedFitError, match=message) as error:
    fitting.load_fit(path)
  assert "\n" not in str(error.value)
