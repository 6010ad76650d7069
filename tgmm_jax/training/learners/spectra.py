"""Networks that answer with the spectrum of a set of points.

The targets are eigenvalues and eigenvectors of the *sample* covariance
(arXiv 2501.01312), which are a function of the points: an error of 0 can be
had, by `eigh`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tgmm_jax import metrics
from tgmm_jax.models import factory
from tgmm_jax.tasks import images, spectra
from tgmm_jax.training.learners import learner


def eigenvalue_loss(
  answer: jax.Array, target: spectra.SpectralBatch
) -> jax.Array:
  """Mean relative squared error of the k eigenvalues."""
  return jnp.mean(metrics.relative_squared_error(answer, target.eigenvalues))


def eigenvector_loss(
  answer: jax.Array, target: spectra.SpectralBatch
) -> jax.Array:
  """Mean of `1 - |cos|` of the k eigenvectors; the sign is free."""
  cosines = metrics.abs_cosine(answer, target.eigenvectors)
  return 1.0 - jnp.mean(cosines)


def subspace_loss(
  answer: jax.Array, target: spectra.SpectralBatch
) -> jax.Array:
  """`metrics.projector_loss` of the leading space."""
  return metrics.projector_loss(answer, target.eigenvectors)


Loss = Callable[[jax.Array, spectra.SpectralBatch], jax.Array]

# By name the loss of one problem, and what its network answers with.
LOSSES: dict[str, tuple[Loss, str]] = {
  "eigenvalues": (eigenvalue_loss, "eigenvalues"),
  "eigenvectors": (eigenvector_loss, "eigenvectors"),
  "subspace": (subspace_loss, "eigenvectors"),
}


def make(
  model: factory.SetModel,
  loss: str,
  law: spectra.CovarianceConfig,
  batch_size: int,
) -> learner.Learner:
  """The learner of a network on random covariances.

  Args:
    model: the network.
    loss: a name in `LOSSES`.
    law: of the problems.
    batch_size: B.

  Raises:
    ValueError: the network cannot answer such problems.
  """
  check(model.config, loss, law.dim, law.num_targets, law.max_points)

  def sample(key, data):
    del data
    return spectra.sample_batch(key, law, batch_size)

  return learner.Learner(
    model.init, sample, _make_loss(model, loss), batch_size
  )


def make_on_images(
  model: factory.SetModel,
  loss: str,
  split: images.ImageSplit,
  config: images.ImageConfig,
  batch_size: int,
) -> learner.Learner:
  """The same on sets of images, which are drawn on the device.

  Args:
    model: the network.
    loss: a name in `LOSSES`.
    split: the training split.
    config: what it was made by; N and k of the problems.
    batch_size: B.

  Raises:
    ValueError: the network cannot answer such problems.
  """
  check(model.config, loss, config.dim, config.num_targets, config.num_points)

  def sample(key, data):
    return images.sample_batch(
      key,
      data,
      batch_size,
      num_points=config.num_points,
      num_targets=config.num_targets,
    )

  return learner.Learner(
    model.init, sample, _make_loss(model, loss), batch_size, split
  )


def check(config, loss, dim, num_targets, num_points) -> None:
  """Refuses a loss or problems that a network's answer does not fit.

  Raises:
    ValueError: with the field, what it got and what it takes.
  """
  if loss not in LOSSES:
    raise ValueError(f"loss is {loss!r}, takes one of {sorted(LOSSES)}")
  if config.answer != LOSSES[loss][1]:
    raise ValueError(
      f"answer is {config.answer!r}, takes {LOSSES[loss][1]!r} for the loss"
      f" {loss!r}"
    )
  for name, value in (("dim", dim), ("num_targets", num_targets)):
    if getattr(config, name) != value:
      raise ValueError(
        f"{name} of the network is {getattr(config, name)}, takes {value} as"
        " the problems"
      )
  if config.needs_num_points and num_points != config.num_points:
    raise ValueError(
      f"num_points of the network is {config.num_points}, takes {num_points}"
      " as the problems"
    )


def _make_loss(model, name):
  loss_of_one = LOSSES[name][0]

  def loss(params, batch):
    answers = model.apply(params, batch.points, batch.sample_weight)
    return jnp.mean(jax.vmap(loss_of_one)(answers, batch)), {}

  return loss
