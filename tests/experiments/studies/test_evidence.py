"""The evidence against closed forms, brute force and symmetries."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from experiments.studies.num_components import evidence
from tgmm_jax import gmm, types

pytestmark = pytest.mark.usefixtures("x64")


def test_one_component_of_unit_variance_is_exact():
  points = np.random.default_rng(0).normal(2.0, 3.0, (7, 2))
  mixture = types.Mixture(np.ones(1), points.mean(axis=0, keepdims=True))
  found = evidence.evidence(points, mixture, 1)
  width = np.linalg.eigvalsh(np.cov(points.T, bias=True))[-1]
  own = np.eye(7) + width * np.ones((7, 7))
  exact = sum(
    scipy.stats.multivariate_normal(np.full(7, column.mean()), own).logpdf(
      column
    )
    for column in points.T
  )
  assert float(found) == pytest.approx(-2.0 * exact, rel=1e-12)


def test_two_components_are_as_the_integral():
  rng = np.random.default_rng(1)
  points = np.concatenate([rng.normal(-6, 1, 9), rng.normal(6, 1, 14)])
  weights = np.array([9, 14]) / 23
  means = np.array([points[:9].mean(), points[9:].mean()])
  mixture = types.Mixture(weights, means[:, None])
  found = evidence.evidence(points[:, None], mixture, 2)
  # Every order of the means, every weight.
  spread, grid = points.std(), np.linspace(-12, 12, 161)
  prior = scipy.stats.norm(points.mean(), spread).logpdf(grid)
  own = scipy.stats.norm(grid[:, None]).pdf(points)
  share = np.linspace(0.0, 1.0, 102)[1:-1]
  values = [
    np.log(w * own[:, None] + (1 - w) * own).sum(axis=-1)
    + prior[:, None]
    + prior
    for w in share
  ]
  highest = np.max(values)
  integral = scipy.integrate.simpson(
    scipy.integrate.simpson(
      scipy.integrate.trapezoid(np.exp(values - highest), share, axis=0), grid
    ),
    grid,
  )
  # Laplace's approximation of the weights is what is missing; two orders
  # instead of one would be 1.4.
  exact = -2.0 * (highest + np.log(integral))
  assert float(found) == pytest.approx(exact, abs=0.15)


def problem(covariance_type):
  """Points, a mixture and weights, of no fit."""
  rng = np.random.default_rng(2)
  points = rng.normal(size=(20, 2)) @ np.array([[3.0, 1.0], [0.0, 1.0]])
  factors = rng.normal(size=(3, 2, 4))
  full = factors @ factors.swapaxes(1, 2)
  covariances = {
    "unit": None,
    "tied_spherical": np.array(2.0),
    "spherical": np.array([1.0, 2.0, 3.0]),
    "diag": np.diagonal(full, axis1=1, axis2=2).copy(),
    "tied": full[0],
    "full": full,
  }[covariance_type]
  mixture = types.Mixture(rng.dirichlet(np.ones(3)), points[:3], covariances)
  return points, mixture


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_order_padding_and_duplicates_change_nothing(covariance_type):
  points, mixture = problem(covariance_type)
  options = {"covariance_type": covariance_type}
  weight = np.random.default_rng(3).integers(0, 3, 20)
  expected = evidence.evidence(
    np.repeat(points, weight, axis=0), mixture, 3, **options
  )

  def pad(leaf):
    if np.ndim(leaf) == 0 or np.shape(leaf)[0] != 3:
      return leaf
    leaf = leaf[[2, 0, 1]]
    filler = np.eye(2)[None] if leaf.ndim == 3 else np.ones_like(leaf[:1])
    return np.concatenate([leaf, filler])

  weights, means, covariances = mixture
  covariances = None if covariances is None else pad(covariances)
  padded = types.Mixture(
    np.append(weights[[2, 0, 1]], 0.0), pad(means), covariances
  )
  found = evidence.evidence(
    np.where(weight[:, None] > 0, points, np.nan),
    padded,
    3,
    sample_weight=weight.astype(float),
    **options,
  )
  assert float(found) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("covariance_type", ["diag", "tied", "full"])
def test_units_of_the_coordinates_change_all_numbers_alike(covariance_type):
  points, mixture = problem(covariance_type)
  scales = np.array([0.01, 30.0])
  squares = scales**2 if covariance_type == "diag" else np.outer(scales, scales)
  other = mixture._replace(
    means=mixture.means * scales, covariances=mixture.covariances * squares
  )
  options = {"covariance_type": covariance_type}
  expected = evidence.evidence(points, mixture, 3, **options)
  found = evidence.evidence(points * scales, other, 3, **options)
  # The points' density in the other units.
  expected += 2.0 * len(points) * np.log(scales).sum()
  assert float(found) == pytest.approx(float(expected), rel=1e-9)


def test_types_agree_where_their_covariances_are_the_same():
  points, mixture = problem("diag")
  full = mixture._replace(
    covariances=mixture.covariances[:, :, None] * np.eye(2)
  )
  sizes = 20 * mixture.weights
  pairs = {
    ("diag", "full"): (mixture, full, np.log1p(sizes).sum()),
    ("unit", "tied_spherical"): (
      *(mixture._replace(covariances=value) for value in (None, np.array(1.0))),
      np.log(21.0),
    ),
    ("tied_spherical", "spherical"): (
      mixture._replace(covariances=np.array(2.0)),
      mixture._replace(covariances=np.full(3, 2.0)),
      np.log1p(sizes).sum() - np.log(21.0),
    ),
    ("tied", "full"): (
      mixture._replace(covariances=full.covariances[0]),
      full._replace(covariances=np.tile(full.covariances[:1], (3, 1, 1))),
      3.0 * (np.log1p(sizes).sum() - np.log(21.0)),
    ),
  }
  for names, (first, second, difference) in pairs.items():
    found = [
      float(evidence.evidence(points, own, 3, covariance_type=name))
      for name, own in zip(names, (first, second), strict=True)
    ]
    assert found[1] - found[0] == pytest.approx(difference, abs=1e-9), names
