import re

import numpy as np
import pytest

from tests.fitting import made_fits
from tgmm_jax import gmm, types


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_one_fit_is_a_line_and_a_table(covariance_type):
  fit = made_fits.one(covariance_type, columns=("height", "girth"))
  title, heading, *rows = repr(fit).splitlines()
  assert title == (
    f"Fit of 12 points, d = 2: K = 3, {covariance_type}, by network full,"
    " converged, log-likelihood -3.2500"
  )
  assert heading.split() == ["weight", "height", "girth"]
  deviations = np.sqrt(
    np.diagonal(
      made_fits.matrices(covariance_type, fit.mixture), axis1=1, axis2=2
    )
  )
  for index, row in enumerate(rows):
    numbers = [float(own) for own in re.findall(r"-?\d[\d.]*", row)]
    pairs = zip(fit.mixture.means[index], deviations[index], strict=True)
    expected = [index, fit.mixture.weights[index]]
    expected += [value for pair in pairs for value in pair]
    np.testing.assert_allclose(numbers, expected, atol=0.06)
  assert len(rows) == 3
  assert str(fit) == repr(fit)


def test_lines_are_aligned_and_long_tables_cut():
  rng = np.random.default_rng(0)
  mixture = types.Mixture(np.full(20, 0.05), rng.normal(size=(20, 9)), None)
  fit = made_fits.one(
    "unit", mixture=mixture, num_components=np.int32(20), labels=np.zeros(5)
  )
  _, *lines = repr(fit).splitlines()
  assert len(lines) == 10
  assert lines[0].split() == ["weight", *(f"x{i}" for i in range(6)), "..."]
  assert len({len(line) for line in lines[:-1]}) == 1
  assert lines[-1].strip() == "..."
  assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize(
  ("mean", "variance", "text"),
  [
    (12345.678, 4.0, "12345.7 ± 2.0"),
    (0.5, 1e-8, "0.50000 ± 0.00010"),
    (1.5e12, 1e18, "1.5e+12 ± 1e+09"),
    (3e-9, 1e-20, "3e-09 ± 1e-10"),
    (1.0, 0.0, "1 ± 0"),
  ],
)
def test_digits_are_those_that_say_something(mean, variance, text):
  mixture = types.Mixture(
    np.ones(1), np.full((1, 1), mean), np.full((1, 1), variance)
  )
  fit = made_fits.one("diag", mixture=mixture, num_components=np.int32(1))
  assert repr(fit).endswith(text)


def test_the_probability_of_a_found_number_is_said():
  fit = made_fits.one(candidates=(2, 3), probabilities=np.array([0.125, 0.875]))
  assert "K = 3 (probability 0.875)" in repr(fit)


def test_a_batch_is_counted():
  text = repr(made_fits.batch(count=3))
  assert text.splitlines() == [
    "Fit of 3 problems of up to 12 points, d = 2, full",
    "K: 3 (3)",
    "status: converged (2), invalid_input (1)",
    "by: network full (3)",
    "log-likelihood: -5.2500 to -3.2500, mean -4.2500",
  ]
