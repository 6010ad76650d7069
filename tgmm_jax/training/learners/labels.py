"""Networks that answer with the class of each point.

Classes have no names: the loss of a problem is the least one over the ways to
name them, so that any consistent answer is right.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from tgmm_jax import metrics, types
from tgmm_jax.models import factory, set_transformer
from tgmm_jax.tasks import images, mixtures, spectra
from tgmm_jax.training.learners import learner

# Two classes, or K components.
Law = spectra.TwoClassConfig | mixtures.TaskConfig


def matched_cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  *,
  sample_weight: jax.Array,
) -> jax.Array:
  """Least cross-entropy of one problem over the namings of its classes.

  The naming is found by `metrics.align` and held fixed for gradients.

  Args:
    logits: `[N, K]`, of the class of each point.
    labels: `[N]` int, 0 ... K - 1; what stands on padding does not matter.
    sample_weight: `[N]`, not all 0; 0 is padding.

  Returns:
    `[]`, the mean per unit of weight, in nats; log K for equal logits.
  """
  num_classes = logits.shape[-1]
  is_point = sample_weight > 0
  # Padding may hold anything, and 0 times inf is NaN.
  logits = jnp.where(is_point[:, None], logits, 0.0)
  log_shares = jax.nn.log_softmax(logits)
  is_member = labels[:, None] == jnp.arange(num_classes)
  weights = sample_weight / jnp.sum(sample_weight)
  weighted = jnp.where(is_member, weights[:, None], 0.0)
  cost = -jnp.einsum("na,nb->ab", log_shares, weighted)
  naming = metrics.align(jax.lax.stop_gradient(cost), num_classes)
  return jnp.sum(cost[jnp.arange(num_classes), naming])


def make(
  model: factory.SetModel, laws: Law | Sequence[Law], batch_size: int
) -> learner.Learner:
  """The learner of a network on mixtures of a fixed number of classes.

  Beside the loss the accuracy under the best naming is logged.

  Args:
    model: the network.
    laws: of the problems; of several each has the same share of a batch.
    batch_size: B.

  Raises:
    ValueError: see `check_laws`.
  """
  if isinstance(laws, Law):
    laws = (laws,)
  check_laws(model.config, laws, batch_size)
  share = batch_size // len(laws)

  def sample(key, data):
    del data
    parts = [
      sample_batch(jax.random.fold_in(key, index), law, share)
      for index, law in enumerate(laws)
    ]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

  return learner.Learner(model.init, sample, _make_loss(model), batch_size)


def make_on_images(
  model: factory.SetModel,
  split: images.ImageSplit,
  config: images.ImageConfig,
  batch_size: int,
) -> learner.Learner:
  """The same on images of random pairs of classes, drawn on the device.

  Args:
    model: the network.
    split: the training split.
    config: what it was made by, with `has_pairs`; N of the problems.
    batch_size: B.

  Raises:
    ValueError: the network cannot answer such problems, or nobody has checked
      that the split has them.
  """
  if not config.has_pairs:
    raise ValueError("has_pairs is False, takes True for labels")
  check(model.config, config.dim, 2, config.num_points)

  def sample(key, data):
    return images.sample_pair_batch(
      key, data, batch_size, num_points=config.num_points
    )

  return learner.Learner(
    model.init, sample, _make_loss(model), batch_size, split
  )


def num_classes_of(law: Law) -> int:
  """K of every problem of a law.

  Raises:
    ValueError: problems have different K, or padded classes.
  """
  if isinstance(law, spectra.TwoClassConfig):
    return 2
  counts = set(law.num_components)
  if counts != {law.padded_components}:
    raise ValueError(
      f"num_components, max_components are {law.num_components},"
      f" {law.max_components}; takes one K and no padding for labels"
    )
  return law.padded_components


def sample_batch(key: jax.Array, law: Law, batch_size: int) -> types.TaskBatch:
  """Draws problems of a law; problem i depends on `key` and i only.

  Args:
    key: consumed; folded with the index of each problem.
    law: of the problems.
    batch_size: B, static.
  """
  if isinstance(law, spectra.TwoClassConfig):
    return spectra.sample_two_class_batch(key, law, batch_size)
  return mixtures.sample_batch(key, law, batch_size)


def check_laws(
  config: set_transformer.SetTransformerConfig,
  laws: Sequence[Law],
  batch_size: int,
) -> None:
  """Refuses laws that a network cannot be trained on together.

  Args:
    config: of the network.
    laws: of the problems.
    batch_size: B.

  Raises:
    ValueError: the network cannot answer such problems, N differs, or the
      laws cannot have equal shares of a batch.
  """
  if not laws or batch_size < 1 or batch_size % len(laws):
    raise ValueError(
      f"batch_size is {batch_size}, takes a multiple of the number of laws,"
      f" {len(laws)}"
    )
  for law in laws:
    check(config, law.dim, num_classes_of(law), law.max_points)
  sizes = sorted({law.max_points for law in laws})
  if len(sizes) > 1:
    raise ValueError(f"max_points of the laws are {sizes}, takes one number")


def check(
  config: set_transformer.SetTransformerConfig,
  dim: int,
  num_classes: int,
  num_points: int,
) -> None:
  """Refuses problems that a network's answer does not fit.

  Args:
    config: of the network.
    dim: d of the problems.
    num_classes: their K.
    num_points: their largest N.

  Raises:
    ValueError: with the field, what it got and what it takes.
  """
  if config.answer != "labels":
    raise ValueError(f"answer is {config.answer!r}, takes 'labels'")
  for name, value in (("dim", dim), ("num_targets", num_classes)):
    if getattr(config, name) != value:
      raise ValueError(
        f"{name} of the network is {getattr(config, name)}, takes {value} as"
        " the problems"
      )
  if config.needs_num_points and num_points > config.num_points:
    raise ValueError(
      f"num_points of the network is {config.num_points}, takes at least the"
      f" problems' {num_points} with learned positions"
    )


def _make_loss(model):
  def score(logits, task):
    loss = matched_cross_entropy(
      logits, task.labels, sample_weight=task.sample_weight
    )
    accuracy = metrics.clustering_accuracy(
      jnp.argmax(logits, axis=-1),
      task.labels,
      logits.shape[-1],
      sample_weight=task.sample_weight,
    )
    return loss, accuracy

  def loss(params, batch):
    logits = model.apply(params, batch.points, batch.sample_weight)
    losses, accuracies = jax.vmap(score)(logits, batch)
    return jnp.mean(losses), {"accuracy": jnp.mean(accuracies)}

  return loss
