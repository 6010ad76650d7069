"""Every problem of `odd_data`, fitted in every way.

All in one file, so that one worker fits the table, once for each way.
"""

import jax
import numpy as np
import scipy.optimize

from tests.solvers import odd_data
from tgmm_jax import types

Status = types.Status
DIM = odd_data.DIM


@odd_data.every_way
def test_converged_implies_finite(way):
  covariance_type, dtype, _ = way
  cases = odd_data.table(dtype, covariance_type)
  results = odd_data.fit_table(*way)
  assert results.keys() == cases.keys()
  statuses = set()
  for name, odd in cases.items():
    result = results[name]
    odd_data.assert_sane(result, odd.num_components)
    assert result.log_likelihood.dtype == dtype
    is_valid = result.status != Status.INVALID_INPUT
    assert is_valid == odd.is_valid, name
    statuses.add(int(result.status))
  assert {0, 2, 3} <= statuses


@odd_data.every_way
def test_nonfinite(way):
  for _, odd, result in odd_data.results_of(way, odd_data.nonfinite):
    expected = Status.CONVERGED if odd.is_valid else Status.INVALID_INPUT
    assert result.status == expected
  padded = [
    odd_data.fit_table(*way)[f"{name} in padding"]
    for name in ("nan", "inf", "-inf")
  ]
  for one, other in zip(*map(jax.tree.leaves, padded[:2]), strict=True):
    np.testing.assert_array_equal(one, other)


@odd_data.every_way
def test_wrong_problems_are_marked_and_the_good_are_fitted(way):
  for _, _, result in odd_data.results_of(way, odd_data.wrong):
    assert result.status == Status.INVALID_INPUT
    odd_data.assert_sane(result)
  assert odd_data.fit_table(*way)["plain"].status == Status.CONVERGED


@odd_data.every_way
def test_k_gt_n(way):
  for name in ("N = 2, K = 3", "N = 1, K = 3"):
    result = odd_data.fit_table(*way)[name]
    assert result.status == Status.DEGENERATE
    odd_data.assert_sane(result, 3)


@odd_data.every_way
def test_small(way):
  covariance_type, dtype, _ = way
  for _, odd, result in odd_data.results_of(way, odd_data.few):
    odd_data.assert_sane(result, odd.num_components)
    assert result.status in (Status.CONVERGED, Status.DEGENERATE)
  table = odd_data.fit_table(*way)
  points, result = odd_data.plain_points(), table["K = 1"]
  assert result.status == Status.CONVERGED
  expected = points.mean(axis=0)
  np.testing.assert_allclose(result.mixture.means[0], expected, rtol=1e-5)
  single = np.cov(points.T, bias=True)
  found = result.mixture.covariances
  if covariance_type != "unit":
    expected = {
      "tied_spherical": np.trace(single) / DIM,
      "spherical": np.trace(single) / DIM,
      "diag": np.diag(single),
      "tied": single,
      "full": single,
    }[covariance_type]
    found = found if "tied" in covariance_type else found[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)
  # As many components as points: the points.
  means = table["N = K = 3"].mixture.means
  order, others = np.lexsort(means.T), np.lexsort(points[:3].T)
  np.testing.assert_allclose(means[order], points[:3][others], atol=1e-5)


@odd_data.every_way
def test_duplicates(way):
  covariance_type, _, _ = way
  table = odd_data.fit_table(*way)
  for name, odd, result in odd_data.results_of(way, odd_data.repeated):
    odd_data.assert_sane(result, odd.num_components)
    is_single = odd.num_components == 1
    if "all" in name and not is_single and covariance_type != "unit":
      assert result.status == Status.DEGENERATE, name
    odd_data.assert_above_floor(odd, result, covariance_type)
  assert table["two distinct"].status == Status.DEGENERATE
  assert table["twice"].status != Status.INVALID_INPUT


@odd_data.every_way
def test_degenerate(way):
  covariance_type, _, _ = way
  for name, odd, result in odd_data.results_of(way, odd_data.flat):
    odd_data.assert_sane(result, odd.num_components)
    assert result.status != Status.INVALID_INPUT, name
    odd_data.assert_above_floor(odd, result, covariance_type)
    # A direction in which no point varies says nothing of a component.
    if odd.num_components == 1:
      assert result.status == Status.CONVERGED, name
    if "column" in name:
      assert result.status in (Status.CONVERGED, Status.MAX_ITER), name


@odd_data.every_way
def test_outliers_and_uneven_problems(way):
  for _, odd, result in odd_data.results_of(way, odd_data.uneven):
    odd_data.assert_sane(result, odd.num_components)
    assert result.status != Status.INVALID_INPUT


def aligned(result, reference, covariance_type):
  """The result with its components in the order of the reference."""
  means, others = result.mixture.means, reference.mixture.means
  gaps = np.sum((means[None] - others[:, None]) ** 2, axis=-1)
  _, order = scipy.optimize.linear_sum_assignment(gaps)
  covariances = result.mixture.covariances
  if covariance_type in ("spherical", "diag", "full"):
    covariances = covariances[order]
  mixture = types.Mixture(
    result.mixture.weights[order], means[order], covariances
  )
  return result._replace(mixture=mixture)


def assert_same_fit(result, plain, covariance_type, scale, offset, rtol):
  """Times `scale` and plus `offset`."""
  result = aligned(
    result._replace(
      mixture=result.mixture._replace(
        means=(result.mixture.means.astype(np.float64) - offset) / scale
      )
    ),
    plain,
    covariance_type,
  )
  size = np.max(np.abs(plain.mixture.means))
  rounding = 4.0 * np.finfo(result.log_likelihood.dtype).eps * offset
  np.testing.assert_allclose(
    result.mixture.weights, plain.mixture.weights, atol=rtol
  )
  np.testing.assert_allclose(
    result.mixture.means, plain.mixture.means, atol=rtol * size + rounding
  )
  if covariance_type != "unit":
    found = np.asarray(result.mixture.covariances, np.float64)
    expected = plain.mixture.covariances
    np.testing.assert_allclose(
      found / scale / scale, expected, atol=rtol * np.max(expected)
    )
  np.testing.assert_allclose(
    result.log_likelihood + DIM * np.log(scale), plain.log_likelihood, atol=rtol
  )


@odd_data.every_way
def test_scale_equivariance(way):
  covariance_type, dtype, _ = way
  table = odd_data.fit_table(*way)
  too_small = table["too small"]
  assert (too_small.status == Status.INVALID_INPUT) == (
    covariance_type != "unit"
  )
  assert table["too large"].status == Status.INVALID_INPUT
  for scale in odd_data.SCALES[dtype]:
    result = table[f"times {scale:g}"]
    odd_data.assert_sane(result, 3)
    if covariance_type != "unit":
      assert result.status == Status.CONVERGED
      assert_same_fit(result, table["plain"], covariance_type, scale, 0.0, 1e-3)


@odd_data.every_way
def test_translation(way):
  covariance_type, dtype, _ = way
  table = odd_data.fit_table(*way)
  for offset in odd_data.OFFSETS[dtype]:
    result = table[f"plus {offset:g}"]
    assert result.status == Status.CONVERGED
    assert_same_fit(result, table["plain"], covariance_type, 1.0, offset, 1e-3)
