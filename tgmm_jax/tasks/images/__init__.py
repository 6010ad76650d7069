"""Problems of PCA and of clustering made of real images (arXiv 2501.01312)."""

from tgmm_jax.tasks.images.problems import (
  SOURCES,
  ImageConfig,
  load,
  prepare,
  sample_batch,
  sample_instance,
  sample_pair,
  sample_pair_batch,
)
from tgmm_jax.tasks.images.projection import ImageSplit, ProjectedImages
from tgmm_jax.tasks.images.sources import FASHION_MNIST, from_folder

__all__ = [
  "FASHION_MNIST",
  "SOURCES",
  "ImageConfig",
  "ImageSplit",
  "ProjectedImages",
  "from_folder",
  "load",
  "prepare",
  "sample_batch",
  "sample_instance",
  "sample_pair",
  "sample_pair_batch",
]
