"""Problems with a spectrum as the answer, and two classes along a direction.

The tasks of He et al. 2025 (arXiv 2501.01312). A problem of PCA is a set of
points; its targets are the leading eigenvalues and eigenvectors of their own
covariance, not of the law they were drawn from. A problem of clustering is a
symmetric mixture of two, whose labels are the target.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import linalg, types

SPECTRA = ("random", "geometric", "gap")

# Of the paper's factor of the covariance: what is added to its diagonal.
_DIAGONAL = 0.1


class SpectralBatch(NamedTuple):
  """Problems of PCA with their targets; one problem without the axis B.

  Attributes:
    points: `[B, N, d]`; 0 where `sample_weight` is 0.
    sample_weight: `[B, N]`, 1 or 0; 0 is padding.
    eigenvalues: `[B, k]`, the largest of the sample covariance (centred,
      divisor N - 1), descending, in squared units of the points.
    eigenvectors: `[B, d, k]`, a unit vector in each column with the sign of
      `linalg.fix_signs`. The sign is a convention: metrics must not count it.
    covariance: `[B, d, d]`, of the law the points were drawn from; its
      spectrum is what the points only estimate.
  """

  points: jax.Array
  sample_weight: jax.Array
  eigenvalues: jax.Array
  eigenvectors: jax.Array
  covariance: jax.Array


@dataclasses.dataclass(frozen=True)
class CovarianceConfig:
  """The law of a problem of PCA. The defaults are the paper's first setting.

  Attributes:
    dim: d.
    num_targets: k. The sample covariance of N points has N - 1 eigenvalues
      above 0, so k is below the smallest N.
    min_points: the smallest N; N is uniform on the integers from here on.
    max_points: the largest N, to which all problems are padded.
    spectrum: "random": the covariance is L L^T, L a standard normal matrix
      plus 0.1 times the identity. "geometric": eigenvalue i is `ratio^i`,
      i = 0 ... d - 1. "gap": the k largest eigenvalues are 1, the others
      `ratio`. The eigenvectors of the last two are uniform over rotations.
    ratio: of an eigenvalue to the one before it, where they differ.
  """

  dim: int = 20
  num_targets: int = 10
  min_points: int = 50
  max_points: int = 50
  spectrum: str = "random"
  ratio: float = 0.5

  def __post_init__(self):
    """Refuses what cannot be sampled, before anything is compiled."""
    _check_sizes(self.dim, self.min_points, self.max_points)
    check_targets(self.num_targets, self.dim, self.min_points)
    if self.spectrum not in SPECTRA:
      raise ValueError(f"spectrum is {self.spectrum!r}, takes one of {SPECTRA}")
    if not 0 < self.ratio < 1:
      raise ValueError(f"ratio is {self.ratio}, takes a number in (0, 1)")
    if self.spectrum == "gap" and self.num_targets == self.dim:
      raise ValueError(
        f"num_targets is {self.num_targets} with dim {self.dim}: no gap after"
        " the last eigenvalue, takes num_targets below dim for 'gap'"
      )


@dataclasses.dataclass(frozen=True)
class TwoClassConfig:
  """The law of a symmetric mixture of two, `x = y mu + z`.

  y is 1 or -1 with equal probability, z standard normal, the direction of mu
  uniform.

  Attributes:
    dim: d.
    min_points: the smallest N; N is uniform on the integers from here on.
    max_points: the largest N, to which all problems are padded.
    min_separation: the smallest |mu|, half the distance of the two means;
      |mu| is uniform from here on.
    max_separation: the largest.
  """

  dim: int
  min_points: int = 50
  max_points: int = 50
  min_separation: float = 3.0
  max_separation: float = 3.0

  def __post_init__(self):
    """Refuses what cannot be sampled, before anything is compiled."""
    _check_sizes(self.dim, self.min_points, self.max_points)
    if not 0 <= self.min_separation <= self.max_separation < math.inf:
      raise ValueError(
        f"min_separation, max_separation are {self.min_separation},"
        f" {self.max_separation}; takes 0 <= min_separation <= max_separation"
      )


def _check_sizes(dim, min_points, max_points):
  if dim < 1:
    raise ValueError(f"dim is {dim}, takes an integer >= 1")
  if not 2 <= min_points <= max_points:
    raise ValueError(
      f"min_points, max_points are {min_points}, {max_points};"
      " takes 2 <= min_points <= max_points"
    )


def check_targets(num_targets: int, dim: int, num_points: int) -> None:
  """Refuses more eigenvalues than N points in d dimensions determine.

  Raises:
    ValueError: `num_targets` is not in 1 ... min(d, N - 1).
  """
  if not 1 <= num_targets <= min(dim, num_points - 1):
    raise ValueError(
      f"num_targets is {num_targets}, takes 1 ... {min(dim, num_points - 1)}"
      f" for dim {dim} and {num_points} points"
    )


def sample_problem(key: jax.Array, config: CovarianceConfig) -> SpectralBatch:
  """Draws one problem of PCA, `X = Z A^T` with A A^T the law's covariance.

  Args:
    key: consumed; split into A, N and Z.
    config: the law.

  Returns:
    A `SpectralBatch` without the axis B.
  """
  factor_key, size_key, point_key = jax.random.split(key, 3)
  factor = _sample_factor(factor_key, config)
  shape = (config.max_points, config.dim)
  # A flat draw compiles faster than a shaped one.
  noise = jax.random.normal(point_key, (math.prod(shape),)).reshape(shape)
  is_point = _is_point(size_key, config)
  points = linalg.matmul(noise, factor.T)
  return with_targets(
    jnp.where(is_point[:, None], points, 0.0),
    config.num_targets,
    sample_weight=is_point.astype(points.dtype),
    covariance=linalg.matmul(factor, factor.T),
  )


def sample_batch(
  key: jax.Array, config: CovarianceConfig, batch_size: int
) -> SpectralBatch:
  """Draws problems of PCA; problem i depends on `key` and i only.

  A program that draws a batch calls LAPACK's eigensolver once. It should not
  call it a second time (for the spectrum of the law, say) on data that do not
  depend on the first: two batched calls at once can wait for each other for
  ever in the thread pool of jaxlib 0.10 on a machine of two cores.

  Args:
    key: consumed; folded with the index of each problem.
    config: the law.
    batch_size: B, static.
  """

  def sample_one(index):
    return sample_problem(jax.random.fold_in(key, index), config)

  return jax.vmap(sample_one)(jnp.arange(batch_size))


def _sample_factor(key, config):
  """A `[d, d]`, by the kind of the spectrum."""
  dim = config.dim
  normal = jax.random.normal(key, (dim * dim,)).reshape(dim, dim)
  if config.spectrum == "random":
    return normal + _DIAGONAL * jnp.eye(dim)
  # Of a normal matrix the orthonormal factor is uniform over rotations and
  # reflections once the other's diagonal is positive.
  rotation = linalg.orthonormal(normal)
  index = jnp.arange(dim)
  if config.spectrum == "geometric":
    eigenvalues = config.ratio**index
  else:
    eigenvalues = jnp.where(index < config.num_targets, 1.0, config.ratio)
  return rotation * jnp.sqrt(eigenvalues)


def _is_point(key, config):
  """Which of the padded points are there, `[N]`."""
  low, high = config.min_points, config.max_points
  return jnp.arange(high) < jax.random.randint(key, (), low, high + 1)


def with_targets(
  points: jax.Array,
  num_targets: int,
  *,
  sample_weight: jax.Array,
  covariance: jax.Array,
) -> SpectralBatch:
  """One problem of PCA from its points: adds the sample's own spectrum.

  Args:
    points: `[N, d]`, 0 where `sample_weight` is 0.
    sample_weight: `[N]`, 1 or 0, at least two of them 1.
    num_targets: k, static.
    covariance: `[d, d]`, of the law.
  """
  eigenvalues, eigenvectors = sample_spectrum(
    points, num_targets, sample_weight=sample_weight
  )
  return SpectralBatch(
    points, sample_weight, eigenvalues, eigenvectors, covariance
  )


def sample_spectrum(
  points: jax.Array,
  num_targets: int,
  *,
  sample_weight: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Leading eigenpairs of the sample covariance (centred, divisor N - 1).

  Of a whole decomposition, so exact up to rounding; for fewer points than
  dimensions that of the N x N matrix of inner products.

  Args:
    points: `[N, d]`, 0 where `sample_weight` is 0.
    sample_weight: `[N]`, 1 or 0, at least two of them 1.
    num_targets: k, static; see `check_targets`.

  Returns:
    Eigenvalues `[k]`, descending and not negative, and eigenvectors `[d, k]`,
    each with its entry of largest size positive. For fewer points than
    dimensions the vector of an eigenvalue of 0 is 0.
  """
  num_points = jnp.sum(sample_weight)
  mean = jnp.sum(points, axis=0) / num_points
  centred = jnp.where((sample_weight > 0)[:, None], points - mean, 0.0)
  centred = centred / jnp.sqrt(num_points - 1.0)
  if points.shape[0] >= points.shape[1]:
    return spectrum_of(linalg.matmul(centred.T, centred), num_targets)
  eigenvalues, mixing = spectrum_of(
    linalg.matmul(centred, centred.T), num_targets
  )
  vectors = linalg.matmul(centred.T, mixing)
  norms = jnp.linalg.norm(vectors, axis=0)
  vectors = vectors / jnp.where(norms > 0, norms, 1.0)
  return eigenvalues, linalg.fix_signs(vectors)


def spectrum_of(
  matrix: jax.Array, num_targets: int
) -> tuple[jax.Array, jax.Array]:
  """Leading eigenvalues `[k]` and eigenvectors `[d, k]` of a covariance.

  Args:
    matrix: `[d, d]`, symmetric and positive semidefinite.
    num_targets: k, static, at most d.
  """
  eigenvalues, vectors = jnp.linalg.eigh(matrix)
  leading = jnp.maximum(eigenvalues[::-1][:num_targets], 0.0)
  return leading, linalg.fix_signs(vectors[:, ::-1][:, :num_targets])


def sample_two_classes(
  key: jax.Array, config: TwoClassConfig
) -> types.TaskBatch:
  """Draws one symmetric mixture of two with its labels.

  Args:
    key: consumed; split into mu, N, labels and noise.
    config: the law.

  Returns:
    A `TaskBatch` without the axis B; label 0 is the class with mean mu, 1 the
    one with mean -mu.
  """
  mean_key, size_key, label_key, noise_key = jax.random.split(key, 4)
  shape = (config.max_points, config.dim)
  direction_key, separation_key = jax.random.split(mean_key)
  direction = jax.random.normal(direction_key, (config.dim,))
  separation = jax.random.uniform(
    separation_key,
    (),
    minval=config.min_separation,
    maxval=config.max_separation,
  )
  mean = separation * direction / jnp.linalg.norm(direction)
  labels = jax.random.bernoulli(label_key, 0.5, (config.max_points,))
  noise = jax.random.normal(noise_key, (math.prod(shape),)).reshape(shape)
  points = noise + jnp.where(labels[:, None], -mean, mean)
  is_point = _is_point(size_key, config)
  return types.TaskBatch(
    points=jnp.where(is_point[:, None], points, 0.0),
    sample_weight=is_point.astype(points.dtype),
    num_components=jnp.asarray(2, jnp.int32),
    mixture=types.Mixture(
      weights=jnp.full(2, 0.5), means=jnp.stack([mean, -mean])
    ),
    labels=jnp.where(is_point, labels.astype(jnp.int32), -1),
  )


def sample_two_class_batch(
  key: jax.Array, config: TwoClassConfig, batch_size: int
) -> types.TaskBatch:
  """Draws mixtures of two; task i depends on `key` and i only.

  Args:
    key: consumed; folded with the index of each task.
    config: the law.
    batch_size: B, static.
  """

  def sample_one(index):
    return sample_two_classes(jax.random.fold_in(key, index), config)

  return jax.vmap(sample_one)(jnp.arange(batch_size))


def bayes_accuracy(separation: jax.Array | float) -> jax.Array:
  """Share of right labels where mu is known, `Phi(|mu|)`: no rule has more."""
  return jax.scipy.stats.norm.cdf(separation)
