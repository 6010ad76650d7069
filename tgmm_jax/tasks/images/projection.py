"""Projection of images on principal components of the training split.

Nothing of the test split enters it: mean, directions and scales are those of
the training images, and the test images are only mapped by them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax.tasks.images import sources as image_sources

# Images are turned into floating-point numbers so many at a time.
_CHUNK = 4096
# Of the largest variance: below it a direction is rounding.
_MIN_VARIANCE = 1e-10


class Projection(NamedTuple):
  """From images to D standardised coordinates, on the host.

  Attributes:
    mean: `[p]`, of the training images.
    directions: `[p, D]`, their leading principal components, the entry of
      largest size in each positive.
    scale: `[D]`, standard deviation along each (divisor M - 1).
  """

  mean: np.ndarray
  directions: np.ndarray
  scale: np.ndarray


class ImageSplit(NamedTuple):
  """A projected split; the images of a class stand side by side.

  Attributes:
    points: `[M, D]`.
    covariance: `[D, D]`, of the whole split (centred, divisor M - 1).
    class_starts: `[C]` int32, the first row of each class; C = 1 without
      labels.
    class_sizes: `[C]` int32.
    class_means: `[C, D]`.
    class_covariances: `[C, D, D]` (divisor: the size of the class).
  """

  points: jax.Array
  covariance: jax.Array
  class_starts: jax.Array
  class_sizes: jax.Array
  class_means: jax.Array
  class_covariances: jax.Array


class ProjectedImages(NamedTuple):
  """Both splits, and how they were projected.

  Attributes:
    train: the training split.
    test: the test split.
    projection: fitted on the training images.
    classes: `[C]`, the labels' values in the order of the classes; empty
      without labels.
  """

  train: ImageSplit
  test: ImageSplit
  projection: Projection
  classes: np.ndarray


def project(
  train: image_sources.Images, test: image_sources.Images, dim: int
) -> ProjectedImages:
  """Projects both splits by what the training split alone says.

  Args:
    train: M images of p pixels.
    test: others of as many pixels.
    dim: D.

  Raises:
    ValueError: D is above p, M - 1 or the rank of the training images, these
      are not finite, or a test label is none of theirs.
  """
  projection = fit_projection(train.pixels, dim)
  classes = np.array([], np.int32)
  if train.labels is not None:
    classes = np.unique(train.labels)
    foreign = np.setdiff1d(test.labels, classes)
    if foreign.size:
      raise ValueError(
        f"test labels have the class {foreign[0]}, takes classes of the"
        " training split"
      )
  return ProjectedImages(
    train=_project_split(projection, train, classes),
    test=_project_split(projection, test, classes),
    projection=projection,
    classes=classes,
  )


def fit_projection(pixels: np.ndarray, dim: int) -> Projection:
  """The `dim` leading principal components of images `[M, p]`, in float64.

  Raises:
    ValueError: see `project`.
  """
  num_images, num_pixels = pixels.shape
  if not 1 <= dim <= num_pixels:
    raise ValueError(
      f"dim is {dim}, takes 1 ... {num_pixels}, the pixels of an image"
    )
  if dim >= num_images:
    raise ValueError(
      f"dim is {dim}, takes less than the {num_images} training images"
    )
  mean = np.mean(pixels, axis=0, dtype=np.float64)
  if num_pixels <= num_images:
    scatter = sum(rows.T @ rows for rows in _centred_chunks(pixels, mean))
  else:
    # As many eigenvalues above 0, in a smaller matrix.
    rows = pixels - mean
    scatter = rows @ rows.T
  if not np.all(np.isfinite(scatter)):
    raise ValueError("training images have NaN, inf or too large numbers")
  variances, directions = np.linalg.eigh(scatter / (num_images - 1))
  variances, directions = variances[::-1], directions[:, ::-1][:, :dim]
  if variances[dim - 1] <= _MIN_VARIANCE * variances[0]:
    rank = np.sum(variances > _MIN_VARIANCE * variances[0])
    raise ValueError(
      f"dim is {dim}, the training images vary in {rank} directions only"
    )
  if num_pixels > num_images:
    directions = rows.T @ directions
    directions /= np.linalg.norm(directions, axis=0)
  largest = np.argmax(np.abs(directions), axis=0)
  directions *= np.sign(directions[largest, np.arange(dim)])
  return Projection(mean, directions, np.sqrt(variances[:dim]))


def _centred_chunks(pixels, mean):
  for start in range(0, len(pixels), _CHUNK):
    yield pixels[start : start + _CHUNK] - mean


def _project_split(projection, images, classes):
  mean, directions, scale = projection
  points = np.concatenate(
    [rows @ directions / scale for rows in _centred_chunks(images.pixels, mean)]
  )
  if classes.size:
    index = np.searchsorted(classes, images.labels)
  else:
    index = np.zeros(len(points), np.int64)
  # Stable: the same images in the same order in any version of NumPy.
  order = np.argsort(index, kind="stable")
  points, index = points[order], index[order]
  num_classes = max(classes.size, 1)
  sizes = np.bincount(index, minlength=num_classes)
  starts = np.cumsum(sizes) - sizes
  moments = [
    _moments(points[start : start + size], 0)
    for start, size in zip(starts, sizes, strict=True)
  ]
  return ImageSplit(
    points=jnp.asarray(points, jnp.float32),
    covariance=jnp.asarray(_moments(points, 1)[1], jnp.float32),
    class_starts=jnp.asarray(starts, jnp.int32),
    class_sizes=jnp.asarray(sizes, jnp.int32),
    class_means=jnp.asarray([mean for mean, _ in moments], jnp.float32),
    class_covariances=jnp.asarray([one for _, one in moments], jnp.float32),
  )


def _moments(points, ddof):
  """Mean and covariance; 0 of no points."""
  mean = points.sum(axis=0) / max(len(points), 1)
  centred = points - mean
  return mean, centred.T @ centred / max(len(points) - ddof, 1)
