import numpy as np
import pytest

from experiments.benchmarks import solvers
from tgmm_jax import gmm, types

# Slower code would be rounded to 0% of what the machine can do.
pytestmark = pytest.mark.usefixtures("optimized")


def cells(table):
  """Rows of a table, as they are printed."""
  columns = [list(column.cells) for column in table.columns]
  return list(zip(*columns, strict=True))


def test_a_case_is_fitted_from_its_start():
  case = solvers.make_case("unit", num_problems=3, num_points=16, dim=2)
  result = solvers.fit_ours(case, 1e-3, 0)
  np.testing.assert_allclose(result.mixture.means, case.start.means, atol=1e-6)
  assert np.all(result.status == types.Status.MAX_ITER)
  # Every mean is at one of the points.
  gaps = case.start.means[:, :, None] - case.points[:, None]
  assert np.max(np.min(np.sum(gaps**2, axis=-1), axis=-1)) < 1e-9


def test_xla_counts_about_the_products_by_hand():
  sizes = {"num_points": 128, "num_components": 4, "dim": 8}
  case = solvers.make_case("full", num_problems=64, **sizes)
  flops, num_bytes = solvers.step_cost(case)
  products = 4 * 128 * (2 * 8 * 8 + 2 * 8 * 8 + 2 * 8)
  assert products < flops < 2 * products
  assert num_bytes > 4 * 128 * 8 * 4


@pytest.mark.slow
def test_ours_and_both_peers_stop_at_the_same_mixtures():
  pytest.importorskip("gmmx")
  case = solvers.make_case("diag", num_problems=64)
  line = solvers.check_agreement(case, 1e-4)
  assert "the same to 1e-8 in 100.0% of problems" in line
  functions = solvers.peer_functions(case, 1e-4)
  ours = solvers.fit_ours(case, 1e-4)
  theirs = [
    gmm.log_likelihood(
      points,
      types.Mixture(
        result.gmm.weights_numpy,
        result.gmm.means_numpy,
        result.gmm.covariances.values_numpy,
      ),
      covariance_type="diag",
    )
    for points, result in zip(
      case.points, functions["gmmx loop"](), strict=True
    )
  ]
  is_same = np.isclose(theirs, ours.log_likelihood, atol=1e-3)
  assert np.mean(is_same) > 0.9
  (weights, means, _, _) = functions["gmmx vmap"]()[0]
  assert weights.shape[0] == means.shape[0] == 64
  order = np.argsort(np.asarray(means)[is_same, 0, :, 0, 0], axis=-1)
  expected = np.sort(np.asarray(ours.mixture.means)[is_same, :, 0], axis=-1)
  found = np.take_along_axis(
    np.asarray(means)[is_same, 0, :, 0, 0], order, axis=-1
  )
  np.testing.assert_allclose(found, expected, atol=0.05)


@pytest.mark.slow
def test_what_limits_a_step():
  (row,) = cells(solvers.limits(64, 1, ("diag",)))
  assert row[0] == "diag"
  assert all(float(cell.rstrip("%")) > 0 for cell in row[1:7])
