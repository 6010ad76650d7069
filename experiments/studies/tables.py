"""Tables whose classes are known, from data that nobody here made."""

import numpy as np
from sklearn import datasets

from tgmm_jax.tasks import images

DATASETS = ("iris", "wine", "breast_cancer", "digits", "fashion")
# Columns of tables with more are projected.
_MAX_DIM = {"wine": 5, "breast_cancer": 5, "digits": 8, "fashion": 8}
# The shipped network answers K <= 5: the first so many classes.
NUM_CLASSES = 5
_HELD_OUT = 0.3
_NUM_IMAGES = 1000


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
  """Points `[N, d]` and labels `[N]` of a table, at most five classes.

  Raises:
    ValueError: a name that is not in `DATASETS`.
    FileNotFoundError: Fashion-MNIST is not installed.
  """
  if name not in DATASETS:
    raise ValueError(f"datasets has {name!r}, takes names of {DATASETS}")
  if name == "fashion":
    split, _ = images.from_folder(images.FASHION_MNIST)
    points, labels = split.pixels, split.labels
  else:
    table = getattr(datasets, f"load_{name}")()
    points, labels = table.data, table.target
  is_kept = labels < NUM_CLASSES
  points, labels = points[is_kept], labels[is_kept]
  if name == "fashion":
    points, labels = points[:_NUM_IMAGES], labels[:_NUM_IMAGES]
  return np.asarray(points, np.float64), np.asarray(labels)


def split(name: str, points: np.ndarray, index: int):
  """Fitted and held-out points, standardised and projected by the former."""
  rng = np.random.default_rng(index)
  order = rng.permutation(len(points))
  num_held = round(_HELD_OUT * len(points))
  rows = order[num_held:], order[:num_held]
  fitted, held = (points[own] for own in rows)
  mean, scale = fitted.mean(axis=0), fitted.std(axis=0)
  scale = np.where(scale > 0, scale, 1.0)
  # Pixels have one unit: they stay as they are to each other.
  if name in ("digits", "fashion"):
    scale = np.full_like(scale, scale.mean())
  fitted, held = (fitted - mean) / scale, (held - mean) / scale
  dim = _MAX_DIM.get(name, points.shape[1])
  if dim < points.shape[1]:
    _, _, directions = np.linalg.svd(fitted, full_matrices=False)
    fitted, held = fitted @ directions[:dim].T, held @ directions[:dim].T
  return fitted, held, rows
