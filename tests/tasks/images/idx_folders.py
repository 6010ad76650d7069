"""A small set of images as IDX files."""

import gzip
import struct

import numpy as np

NAMES = {
  "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
  "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def write_idx(path, array):
  """Compressed if the name ends so."""
  header = bytes([0, 0, 8, array.ndim])
  header += struct.pack(f">{array.ndim}I", *array.shape)
  data = header + array.astype(np.uint8).tobytes()
  path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_folder(folder, *, ending="", sizes=(20, 10), shape=(4, 3)):
  """A set of images with its labels, and the four arrays."""
  rng = np.random.default_rng(0)
  arrays = []
  for (images_name, labels_name), size in zip(
    NAMES.values(), sizes, strict=True
  ):
    arrays.append(rng.integers(0, 256, (size, *shape)))
    write_idx(folder / f"{images_name}{ending}", arrays[-1])
    arrays.append(rng.integers(0, 2, size))
    write_idx(folder / f"{labels_name}{ending}", arrays[-1])
  return arrays
