"""One problem over 8 devices: the fit of one device, one reduction a step."""

import numpy as np
import pytest

from tests.devices import eight_devices
from tgmm_jax import gmm, types

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fits():
  return eight_devices.run("fit_large")


def assert_same(found, expected, atol=1e-5):
  assert found["status"] == expected["status"]
  assert found["num_iters"] == expected["num_iters"]
  np.testing.assert_allclose(
    found["log_likelihood"], expected["log_likelihood"], rtol=1e-6
  )
  for name, leaf in expected["mixture"].items():
    if leaf is None:
      assert found["mixture"][name] is None
    else:
      np.testing.assert_allclose(
        found["mixture"][name], leaf, atol=atol, rtol=1e-5
      )


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_steps_are_those_of_one_device(fits, covariance_type):
  found = fits["every type"][covariance_type]
  assert found["em"]["num_iters"] == 12
  assert found["em"]["status"] == types.Status.MAX_ITER
  assert_same(found["8"], found["em"])
  assert found["is_replicated"]


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_a_step_reduces_once(fits, covariance_type):
  # One loop reduces, once each time round and never in a loop inside.
  assert fits["every type"][covariance_type]["loops"] == [[1, 0]]


@pytest.mark.parametrize("mesh", ["1", "8", "8, explicit", "4 of 4 x 2"])
def test_a_drawn_start_is_that_of_one_device(fits, mesh):
  found = fits["drawn"]
  assert found["em"]["status"] == types.Status.CONVERGED
  assert_same(found[mesh], found["em"])


def test_a_start_from_some_of_the_points_does_not_depend_on_devices(fits):
  found = fits["sampled"]
  assert found["1"]["status"] == types.Status.CONVERGED
  assert_same(found["8"], found["1"])


def test_bad_values_are_named_with_their_row(fits):
  assert fits["refused"] == {
    "nan": "points contains nan (first at [150, 1]), takes finite float32"
    " numbers",
    "negative": "sample_weight is -1.0 at 44, takes finite numbers >= 0",
    "no weight": "sample_weight is zero for all of 203 points, takes some above"
    " 0",
  }
