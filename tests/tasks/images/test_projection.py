"""The projection on principal components against scikit-learn's."""

import jax
import numpy as np
import pytest
from sklearn import decomposition

from tgmm_jax.tasks.images import projection
from tgmm_jax.tasks.images import sources as image_sources

RNG = np.random.default_rng(0)


def make_images(num_images, num_pixels, num_classes=3):
  """Images of a few strong directions and noise, with labels."""
  scales = 0.8 ** np.arange(num_pixels) * 40.0
  pixels = RNG.normal(size=(num_images, num_pixels)) * scales
  rotation = np.linalg.qr(RNG.normal(size=(num_pixels, num_pixels)))[0]
  labels = RNG.integers(0, num_classes, num_images)
  pixels = pixels @ rotation + 100.0 + 20.0 * labels[:, None]
  return image_sources.Images(pixels, labels)


# More images than pixels, in more than one piece; and fewer.
MANY, FEW = make_images(5000, 12), make_images(30, 50)
OTHERS = {12: make_images(200, 12), 50: make_images(40, 50)}
EITHER = pytest.mark.parametrize("train", [MANY, FEW], ids=["many", "few"])


@EITHER
def test_the_projection_is_that_of_scikit_learn(train):
  test = OTHERS[train.pixels.shape[1]]
  own = projection.project(train, test, 4)
  other = decomposition.PCA(4, svd_solver="full").fit(train.pixels)
  signs = np.sign(np.sum(other.components_.T * own.projection.directions, 0))
  np.testing.assert_allclose(own.projection.mean, other.mean_, rtol=1e-9)
  np.testing.assert_allclose(
    own.projection.directions * signs, other.components_.T, atol=1e-8
  )
  largest = np.argmax(np.abs(own.projection.directions), axis=0)
  assert np.all(own.projection.directions[largest, np.arange(4)] > 0)
  for images, split in [(train, own.train), (test, own.test)]:
    expected = other.transform(images.pixels) * signs
    expected /= np.sqrt(other.explained_variance_)
    # The images of a class stand together, in the order in which they came.
    expected = np.concatenate([expected[images.labels == c] for c in range(3)])
    np.testing.assert_allclose(split.points, expected, atol=1e-5)
    np.testing.assert_allclose(split.covariance, np.cov(expected.T), atol=1e-5)
  np.testing.assert_allclose(own.train.covariance, np.eye(4), atol=1e-5)


@EITHER
@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_a_poisoned_test_split_changes_nothing_in_training(train, poison):
  test = OTHERS[train.pixels.shape[1]]
  clean = projection.project(train, test, 4)
  pixels = test.pixels.copy()
  pixels[3] = poison
  pixels[5, 2] = -poison
  with np.errstate(all="ignore"):
    own = projection.project(train, test._replace(pixels=pixels), 4)
  for part in ("train", "projection", "classes"):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(own, part), getattr(clean, part)
    )
  # Nor in what the other test images are mapped to.
  order = np.argsort(test.labels, kind="stable")
  is_clean = ~np.isin(order, (3, 5))
  np.testing.assert_allclose(
    own.test.points[is_clean], clean.test.points[is_clean], atol=1e-6
  )
  assert not np.allclose(own.test.points, clean.test.points)


def test_classes_have_their_rows_and_moments():
  train = MANY._replace(labels=np.array([7, -2, 40])[MANY.labels])
  test = OTHERS[12]._replace(labels=np.full(200, 7))
  own = projection.project(train, test, 3)
  np.testing.assert_array_equal(own.classes, [-2, 7, 40])
  np.testing.assert_array_equal(own.test.class_sizes, [0, 200, 0])
  np.testing.assert_array_equal(own.test.class_starts, [0, 0, 200])
  points = np.asarray(own.train.points)
  for index, value in enumerate(own.classes):
    size = int(own.train.class_sizes[index])
    assert size == np.sum(train.labels == value)
    start = int(own.train.class_starts[index])
    rows = points[start : start + size]
    mean, covariance = rows.mean(0), np.cov(rows.T, ddof=0)
    np.testing.assert_allclose(own.train.class_means[index], mean, atol=1e-5)
    np.testing.assert_allclose(
      own.train.class_covariances[index], covariance, atol=1e-5
    )
  assert np.all(np.isfinite(own.test.class_means))


def test_images_without_labels_are_one_class():
  own = projection.project(
    MANY._replace(labels=None), OTHERS[12]._replace(labels=None), 3
  )
  assert own.classes.size == 0
  np.testing.assert_array_equal(own.train.class_starts, [0])
  np.testing.assert_array_equal(own.train.class_sizes, [5000])


def test_integers_are_as_good_as_numbers():
  pixels = np.clip(MANY.pixels, 0, 255).astype(np.uint8)
  own = projection.fit_projection(pixels, 3)
  other = projection.fit_projection(pixels.astype(np.float64), 3)
  for one, two in zip(own, other, strict=True):
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
  ("train", "dim", "message"),
  [
    (MANY, 0, "dim is 0, takes 1 ... 12, the pixels of an image"),
    (MANY, 13, "dim is 13, takes 1 ... 12, the pixels of an image"),
    (FEW, 30, "dim is 30, takes less than the 30 training images"),
    (FEW, 51, "dim is 51, takes 1 ... 50"),
    (MANY._replace(pixels=MANY.pixels[:, :1] * np.ones(12)), 2, "in 1 direct"),
    (MANY._replace(pixels=np.ones((5000, 12))), 2, "vary in 0 directions"),
    (MANY._replace(pixels=MANY.pixels * np.nan), 2, "have NaN, inf or too l"),
    (MANY._replace(labels=MANY.labels % 2), 2, "test labels have the class 2"),
  ],
)
def test_what_cannot_be_projected_is_refused(train, dim, message):
  test = OTHERS[train.pixels.shape[1]]
  with pytest.raises(ValueError, match=message) as caught:
    projection.project(train, test, dim)
  assert "\n" not in str(caught.value)
