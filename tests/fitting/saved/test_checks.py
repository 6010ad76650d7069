import numpy as np
import pytest

from tests.fitting import made_fits
from tgmm_jax.fitting import saved
from tgmm_jax.fitting.saved import checks


def fields(covariance_type="full"):
  """Arrays and the rest of a fit, as a file has them."""
  fit = made_fits.one(covariance_type)
  weights, means, covariances = fit.mixture
  arrays = {"weights": weights, "means": means, "covariances": covariances}
  for name in ("num_components", "log_likelihood", "labels", "status"):
    arrays[name] = np.asarray(getattr(fit, name))
  for name in ("method_index", "is_outside_range", "num_iters"):
    arrays[name] = np.asarray(getattr(fit, name))
  if covariances is None:
    del arrays["covariances"]
  static = {
    "covariance_type": covariance_type,
    "methods": fit.methods,
    "candidates": None,
    "columns": None,
  }
  return arrays, static


def test_a_fit_passes():
  for covariance_type in ("unit", "tied_spherical", "diag", "full"):
    checks.check(*fields(covariance_type))


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("weights", None, "it has no 'weights'"),
    ("covariances", None, "it has no 'covariances', covariance_type is 'full'"),
    ("other", np.zeros(2), "it has 'other'"),
    ("means", np.zeros(3), r"means has shape \(3,\), takes \[K, d\]"),
    ("means", np.zeros((3, 0)), r"means has shape \(3, 0\)"),
    ("means", np.zeros((3, 2), np.float16), "means has dtype float16, takes"),
    ("means", np.full((3, 2), np.nan), "means has NaN or inf"),
    ("weights", np.ones(2) / 2, r"weights has shape \(2,\), takes \(3,\)"),
    ("weights", np.array([-1.0, 1.0, 1.0]), "weights are no numbers >= 0"),
    ("weights", np.array([0.3, 0.3, 0.3]), "weights are no numbers >= 0"),
    ("covariances", np.zeros((3, 2)), r"covariances has shape \(3, 2\)"),
    ("covariances", np.zeros((3, 2, 2)), "a variance that is not above 0"),
    ("labels", np.array([0, 3], np.int32), "labels is 3, takes -1 to 2"),
    ("labels", np.array([0.0, 1.0]), "labels has dtype float64"),
    ("status", np.array(17, np.int32), "status is 17, takes 0 to"),
    ("method_index", np.array(2, np.int32), "method_index is 2, takes 0 to 1"),
    ("num_components", np.array(4, np.int32), "num_components is 4, takes 1"),
    ("probabilities", np.ones(2), "candidates and probabilities do not go"),
  ],
)
def test_arrays_that_are_no_fit_are_refused(name, value, message):
  arrays, static = fields()
  arrays[name] = value
  if value is None:
    del arrays[name]
  with pytest.raises(saved.SavedFitError, match=message):
    checks.check(arrays, static)


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("covariance_type", "round", "covariance_type is 'round', takes one of"),
    ("covariance_type", ["full"], r"covariance_type is \['full'\]"),
    ("methods", (), "methods is empty"),
    ("methods", None, "methods is no list of str"),
    ("columns", ("a",), "columns has 1 names, d = 2"),
    ("columns", ("a", 1), "columns is no list of str"),
    ("candidates", (True,), "candidates is no list of int"),
  ],
)
def test_names_that_are_no_fit_are_refused(name, value, message):
  arrays, static = fields()
  with pytest.raises(saved.SavedFitError, match=message):
    checks.check(arrays, static | {name: value})


def test_a_component_of_weight_zero_needs_no_variance():
  arrays, static = fields("diag")
  arrays["weights"] = np.array([0.0, 0.5, 0.5])
  arrays["covariances"] = arrays["covariances"].copy()
  arrays["covariances"][0] = 0.0
  checks.check(arrays, static)
