"""The picture of a fit: what is where, by the numbers of its artists."""

import numpy as np
import pytest
from matplotlib import image as mpl_image
from matplotlib import patches
from scipy import stats

from tgmm_jax import gmm, types
from tgmm_jax.figures import fit as fit_figure

COVARIANCES = {
  "unit": None,
  "tied_spherical": np.array(2.0),
  "spherical": np.array([1.0, 3.0]),
  "diag": np.array([[1.0, 1.0, 1.0], [4.0, 1.0, 1.0]]),
  "tied": np.eye(3),
  "full": np.stack([np.eye(3), 2.0 * np.eye(3)]),
}


def drawn(points, mixture, covariance_type="full", labels=None, **options):
  if labels is None:
    labels = np.argmin(
      np.linalg.norm(points[:, None] - mixture.means, axis=-1), axis=1
    )
  return fit_figure.draw(
    points, mixture, labels, covariance_type=covariance_type, **options
  )


def ellipses_of(axis):
  return [own for own in axis.patches if isinstance(own, patches.Ellipse)]


def legend_of(axis):
  return [own.get_text() for own in axis.get_legend().get_texts()]


def groups(dim, num_points=40, scale=1.0):
  """Two groups and their mixture."""
  labels = np.arange(num_points) % 2
  means = np.zeros((2, dim))
  means[1, 0] = 8.0
  points = means[labels] + np.random.default_rng(0).normal(
    size=(num_points, dim)
  )
  mixture = types.Mixture(
    np.array([0.4, 0.6]), scale * means, np.stack(2 * [scale**2 * np.eye(dim)])
  )
  return scale * points, mixture, labels


def test_of_one_dimension_it_is_a_histogram_with_densities():
  points, mixture, _ = groups(1)
  figure = drawn(points, mixture, columns=["minutes"])
  (axis,) = figure.axes
  assert axis.get_xlabel() == "minutes"
  bars = [own for own in axis.patches if isinstance(own, patches.Rectangle)]
  area = sum(own.get_width() * own.get_height() for own in bars)
  assert area == pytest.approx(1.0)
  *curves, total = axis.get_lines()
  for index, curve in enumerate(curves):
    places, values = curve.get_data()
    expected = stats.norm(mixture.means[index, 0]).pdf(places)
    np.testing.assert_allclose(values, mixture.weights[index] * expected)
  np.testing.assert_allclose(
    total.get_ydata(), sum(curve.get_ydata() for curve in curves)
  )
  assert legend_of(axis) == ["0: weight 0.40", "1: weight 0.60", "all"]


def test_a_narrow_peak_is_not_missed():
  points = np.concatenate([np.linspace(-1e3, 1e3, 50), np.zeros(50)])[:, None]
  mixture = types.Mixture(
    np.array([0.5, 0.5]),
    np.zeros((2, 1)),
    np.array([[[1e-4]], [[3e5]]]),
  )
  peak = drawn(points, mixture, labels=np.zeros(100)).axes[0].get_lines()[0]
  expected = 0.5 * stats.norm(0.0, 1e-2).pdf(0.0)
  assert peak.get_ydata().max() == pytest.approx(expected, rel=1e-3)


def test_of_two_dimensions_it_has_the_columns_as_axes():
  points, mixture, labels = groups(2)
  figure = drawn(points, mixture, columns=["height", "girth"])
  (axis,) = figure.axes
  assert (axis.get_xlabel(), axis.get_ylabel()) == ("height", "girth")
  assert legend_of(axis) == ["0: weight 0.40", "1: weight 0.60"]
  for index, cloud in enumerate(axis.collections):
    np.testing.assert_allclose(cloud.get_offsets(), points[labels == index])
  assert drawn(points, mixture).axes[0].get_ylabel() == "x1"
  assert axis.get_aspect() == 1.0
  # Centimetres and grams have scales of their own.
  stretched = points * [1.0, 1e4]
  assert drawn(stretched, mixture).axes[0].get_aspect() == "auto"


def test_ellipse_has_the_axes_of_the_covariance():
  mixture = types.Mixture(
    np.ones(1), np.zeros((1, 2)), np.diag([4.0, 1.0])[None]
  )
  points = np.random.default_rng(0).normal(size=(10, 2))
  inner, outer = ellipses_of(drawn(points, mixture).axes[0])
  assert (inner.width, inner.height) == pytest.approx((4.0, 2.0))
  assert outer.width == pytest.approx(8.0)
  assert inner.angle % 180 == pytest.approx(0.0)


@pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)
def test_of_more_dimensions_it_is_pairs_of_the_leading_directions(
  covariance_type,
):
  points, mixture, labels = groups(3)
  mixture = mixture._replace(covariances=COVARIANCES[covariance_type])
  figure = drawn(points, mixture, covariance_type, columns=["a", "b", "c"])
  first, beside, *others = figure.axes
  titles = [(own.get_xlabel(), own.get_ylabel()) for own in (first, *others)]
  assert titles == [
    ("direction 1", "direction 2"),
    ("direction 1", "direction 3"),
    ("direction 2", "direction 3"),
  ]
  assert all(len(ellipses_of(own)) == 4 for own in (first, *others))
  assert legend_of(beside) == ["0: weight 0.40", "1: weight 0.60"]
  # Where components are balls the columns have one unit, and the direction is
  # the one along which the groups stand apart.
  text = beside.texts[0].get_text()
  if gmm.kind_of(covariance_type).structure == "ball":
    assert text.startswith("direction 1, 9")
    assert "1.00 a" in text.splitlines()[1]
    clouds = first.collections
    apart = clouds[1].get_offsets().mean(0) - clouds[0].get_offsets().mean(0)
    assert abs(apart[0]) == pytest.approx(8.0, abs=0.5)
  count = sum(len(cloud.get_offsets()) for cloud in first.collections)
  assert count == len(labels)


def test_directions_do_not_depend_on_the_units_of_columns():
  points, mixture, _ = groups(4)
  units = np.array([1.0, 1e-3, 1e5, 7.0])
  scaled = mixture._replace(
    means=mixture.means * units,
    covariances=mixture.covariances * np.outer(units, units),
  )
  labels = np.arange(len(points)) % 2
  one = drawn(points, mixture, labels=labels).axes[0]
  other = drawn(points * units, scaled, labels=labels).axes[0]
  for cloud, copy in zip(one.collections, other.collections, strict=True):
    np.testing.assert_allclose(
      cloud.get_offsets(), copy.get_offsets(), atol=1e-6
    )
  for ellipse, copy in zip(ellipses_of(one), ellipses_of(other), strict=True):
    assert ellipse.width == pytest.approx(copy.width, rel=1e-4)


def test_ellipses_are_those_of_the_points_that_are_drawn():
  factor = np.random.default_rng(1).normal(size=(4, 4))
  points = np.random.default_rng(2).normal(size=(60, 4)) @ factor
  covariance = np.cov(points.T)
  mixture = types.Mixture(np.ones(1), points.mean(0)[None], covariance[None])
  first, _, *others = drawn(points, mixture).axes
  for axis in (first, *others):
    found = np.linalg.eigvalsh(np.cov(axis.collections[0].get_offsets().T))
    inner = ellipses_of(axis)[0]
    sizes = sorted([inner.width, inner.height])
    np.testing.assert_allclose(sizes, 2.0 * np.sqrt(found), rtol=1e-4)


def test_points_without_a_label_have_no_say(tmp_path):
  points, mixture, labels = groups(3)
  padded = np.concatenate([points, np.full((5, 3), np.nan)])
  own = np.concatenate([labels, np.full(5, -1)])
  one = drawn(points, mixture, labels=labels).axes[0].collections[0]
  other = drawn(padded, mixture, labels=own).axes[0].collections[0]
  np.testing.assert_array_equal(one.get_offsets(), other.get_offsets())


def test_fewer_points_than_directions_and_constant_columns():
  mixture = types.Mixture(np.ones(1), np.zeros((1, 5)), np.eye(5)[None])
  points = np.array([[1.0, 2.0, 0.0, 0.0, 3.0], [0.0, 1.0, 0.0, 0.0, 1.0]])
  figure = drawn(points, mixture)
  assert len(figure.axes) == 4


def test_of_many_points_some_are_drawn_and_it_says_so():
  points, mixture, labels = groups(2, num_points=50_001)
  figure = drawn(points, mixture, labels=labels)
  count = sum(len(own.get_offsets()) for own in figure.axes[0].collections)
  assert figure.get_suptitle() == f"{count:,} of 50,001 points"
  assert 10_000 < count <= 20_000


def test_a_long_legend_is_cut():
  mixture = types.Mixture(
    np.full(40, 1 / 40), np.arange(80.0).reshape(40, 2), None
  )
  figure = drawn(mixture.means, mixture, "unit")
  texts = legend_of(figure.axes[0])
  assert len(texts) == 16
  assert texts[-1] == "... 40 in all"


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_files_are_written(tmp_path, dim):
  points, mixture, labels = groups(dim)
  path = fit_figure.save(
    points, mixture, labels, tmp_path / "a.png", covariance_type="full"
  )
  assert mpl_image.imread(path).std() > 0.05
  assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
  with pytest.raises(ValueError, match="takes a path that ends in .png"):
    fit_figure.save(
      points, mixture, labels, tmp_path / "a.svg", covariance_type="full"
    )
