"""The estimator with scikit-learn and without it."""

import subprocess
import sys

import pytest
from sklearn.utils import estimator_checks

from tgmm_jax.fitting import gaussian_mixture

WITHOUT = """
import sys
sys.modules["sklearn"] = None  # as if it were not installed

import warnings

import numpy as np
from tgmm_jax import sklearn_base
from tgmm_jax.fitting.gaussian_mixture import GaussianMixture

def refused(call, kind=ValueError):
  try:
    call()
  except kind as error:
    return str(error)

points = np.concatenate([np.eye(3), np.eye(3) + 9.0, np.eye(3) - 1e-2])
model = GaussianMixture(2, random_state=0, reg_covar=1e-2)
assert repr(model) == (
  "GaussianMixture(n_components=2, reg_covar=0.01, random_state=0)"
)
assert "predict" not in vars(model)
assert "not fitted" in refused(lambda: model.predict(points), AttributeError)
assert model.get_params()["reg_covar"] == 1e-2
assert len(model.get_params()) == 14
assert model.set_params(covariance_type="diag") is model
assert "set_params got 'a', takes [" in refused(lambda: model.set_params(a=1))
assert model.fit(points) is model
assert sorted(np.bincount(model.predict(points))) == [3, 6]
assert model.means_.dtype == np.float64
assert model.fit(points.astype(np.float32)).means_.dtype == np.float32
for X, message in [
  (points[0], "X has shape (3,), takes finite real"),
  (points * np.nan, "X contains nan (first at [0, 0])"),
  (points + 1j, "dtype complex128"),
  (points[:1], "takes at least 2 samples"),
]:
  assert message in refused(lambda: model.fit(X)), message
model.fit(points)
assert "X has 2 features, takes 3" in refused(
  lambda: model.predict(points[:, :2])
)
with warnings.catch_warnings(record=True) as caught:
  warnings.simplefilter("always")
  GaussianMixture(2, max_iter=1).fit(points)
assert [one.category for one in caught] == [sklearn_base.ConvergenceWarning]
assert "sklearn.base" not in sys.modules
"""


# Fits of a single component do not depend on chance. With more,
# check_sample_weight_equivalence_on_dense_data cannot pass: a draw from
# weighted points is not the draw from repeated points in another order.
@pytest.mark.slow
@estimator_checks.parametrize_with_checks([gaussian_mixture.GaussianMixture()])
def test_scikit_learn_takes_the_estimator_for_its_own(estimator, check):
  check(estimator)


@pytest.mark.slow
def test_estimator_works_without_scikit_learn():
  result = subprocess.run(
    [sys.executable, "-c", WITHOUT], capture_output=True, text=True
  )
  assert result.returncode == 0, result.stderr
