"""Networks that answer with mixtures, trained on tasks with known mixtures."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import metrics, types
from tgmm_jax.models import factory
from tgmm_jax.models import prediction as prediction_lib
from tgmm_jax.tasks import mixtures
from tgmm_jax.training import losses
from tgmm_jax.training.learners import learner


@dataclasses.dataclass(frozen=True)
class MixtureTraining:
  """Tasks and loss of one training.

  Attributes:
    tasks: the law of the tasks for each dimension in a batch.
    batch_sizes: tasks of each of them in a batch.
    has_each_k: whether `batch_sizes` count the tasks of each K, as in the
      released code, where 64 are 256 in all: as many of every K in each batch.
      Else they count all, each with a K of its own draw. The loss is the mean
      over all tasks.
    loss: a name in `losses.LOSSES`.
    stage_weight: weight in the loss of every stage but the last (weight 1).
    has_inverted_pooling: of a `tgmm`, whether its readout attends to padding in
      the place of points, a fault of the released training
      (`TGMMConfig.has_inverted_pooling`). The trained network is the one
      without: whoever applies the parameters pools the points.
  """

  tasks: tuple[mixtures.TaskConfig, ...]
  batch_sizes: tuple[int, ...] = (64,)
  has_each_k: bool = False
  loss: str = "matched"
  stage_weight: float = 0.3
  has_inverted_pooling: bool = False

  def __post_init__(self):
    """Refuses what cannot be trained, before anything is compiled."""
    if len(self.tasks) != len(self.batch_sizes) or not self.tasks:
      raise ValueError(
        f"batch_sizes is {self.batch_sizes}, takes one number for each of the"
        f" {len(self.tasks)} dimensions"
      )
    if min(self.batch_sizes) < 1:
      raise ValueError(f"batch_sizes is {self.batch_sizes}, takes numbers >= 1")
    if len(set(self.dims)) < len(self.dims):
      raise ValueError(f"dims is {self.dims}, takes each d once")
    if self.loss not in losses.LOSSES:
      raise ValueError(
        f"loss is {self.loss!r}, takes one of {sorted(losses.LOSSES)}"
      )
    if not 0 <= self.stage_weight < math.inf:
      raise ValueError(
        f"stage_weight is {self.stage_weight}, takes a finite number >= 0"
      )

  @property
  def dims(self) -> tuple[int, ...]:
    """Every d, in the order of `tasks`."""
    return tuple(tasks.dim for tasks in self.tasks)

  @property
  def sizes(self) -> tuple[int, ...]:
    """Tasks of each d in a batch, of all K."""
    if not self.has_each_k:
      return self.batch_sizes
    return tuple(
      size * len(tasks.num_components)
      for tasks, size in zip(self.tasks, self.batch_sizes, strict=True)
    )

  @property
  def batch_size(self) -> int:
    """Tasks in a batch, of all d and K."""
    return sum(self.sizes)


def make(model: factory.Model, config: MixtureTraining) -> learner.Learner:
  """The learner of a network on these tasks.

  Beside the loss the `metrics.l2_error` of each dimension is logged. Tasks are
  drawn once and never again, so errors in training are errors on unseen tasks.

  Raises:
    ValueError: the network cannot answer the tasks, see `check_model`.
  """
  check_model(model.config, config)
  trained = model
  if config.has_inverted_pooling:
    trained = factory.build(
      dataclasses.replace(model.config, has_inverted_pooling=True)
    )
  loss_of_batch = make_loss(trained, config.loss, config.stage_weight)

  def sample(key, data):
    del data
    return sample_examples(
      key, model, config.tasks, config.sizes, has_each_k=config.has_each_k
    )

  def loss(params, examples):
    value, errors = loss_of_batch(params, examples)
    ends = np.cumsum(config.sizes)[:-1]
    by_dim = zip(config.dims, jnp.split(errors, ends), strict=True)
    return value, {f"l2_error/d{dim}": jnp.mean(part) for dim, part in by_dim}

  return learner.Learner(model.init, sample, loss, batch_size=config.batch_size)


def check_model(config: factory.ModelConfig, training: MixtureTraining) -> None:
  """Refuses a training that is not for a network.

  Args:
    config: of the network.
    training: its tasks, and how it is trained.

  Raises:
    ValueError: the tasks have other covariances than the network answers
      with, more coordinates than it has for them or more points than
      positions, or its readout does not pool.
  """
  answered = config.covariance_type
  has_positions = getattr(config, "has_positions", False)
  if training.has_inverted_pooling and not hasattr(config, "pooling"):
    raise ValueError(
      "has_inverted_pooling is True, takes False with a network that has no"
      " pooling"
    )
  for law in training.tasks:
    if law.covariance_type != answered:
      raise ValueError(
        f"covariance_type of the tasks is {law.covariance_type!r}, takes"
        f" {answered!r} as the network"
      )
    if config.max_dim is not None and law.dim > config.max_dim:
      raise ValueError(
        f"dim is {law.dim}, takes at most {config.max_dim} with this network"
        f" of covariance_type {answered!r}"
      )
    if has_positions and law.max_points > config.max_points:
      raise ValueError(
        f"max_points of the tasks is {law.max_points}, takes at most"
        f" {config.max_points}, the learned positions of this network"
      )


class Examples(NamedTuple):
  """Problems as the network reads them, and what it should answer."""

  problems: prediction_lib.NetworkInput
  targets: types.Mixture


def sample_examples(
  key: jax.Array,
  model: factory.Model,
  tasks: tuple[mixtures.TaskConfig, ...],
  batch_sizes: tuple[int, ...],
  *,
  has_each_k: bool = False,
) -> Examples:
  """Draws a batch that mixes dimensions.

  Args:
    key: consumed; split by dimension into tasks, views and who may know where
      the origin is.
    model: its `encode` gives all dimensions one shape.
    tasks: the law for each dimension.
    batch_sizes: tasks of each.
    has_each_k: whether K takes turns (`mixtures.sample_batch`).

  Returns:
    `Examples` with a leading axis of `sum(batch_sizes)` tasks.
  """
  parts = []
  for index, (config, size) in enumerate(zip(tasks, batch_sizes, strict=True)):
    task_key, view_key, origin_key = jax.random.split(
      jax.random.fold_in(key, index), 3
    )
    batch = mixtures.sample_batch(task_key, config, size, has_each_k=has_each_k)
    problems, frames = jax.vmap(model.encode)(
      jax.random.split(view_key, size),
      batch.points,
      batch.num_components,
      sample_weight=batch.sample_weight,
    )
    if problems.knows_origin is not None:
      knows = jax.random.bernoulli(
        origin_key, model.config.origin_rate, (size,)
      )
      problems = problems._replace(knows_origin=knows.astype(jnp.float32))
    encode_mixture = functools.partial(
      factory.encode_mixture, covariance_type=config.covariance_type
    )
    targets = jax.vmap(encode_mixture)(batch.mixture, frames)
    parts.append(Examples(problems, targets))
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def make_loss(
  model: factory.Model, loss: str, stage_weight: float
) -> Callable[[factory.Params, Examples], tuple[jax.Array, jax.Array]]:
  """Mean over tasks of the loss of all stages, weighted.

  Beside it the `metrics.l2_error` of each task, `[B]`, after the last stage,
  in the network's coordinates.
  """
  loss_of_stage = functools.partial(
    losses.LOSSES[loss], covariance_type=model.config.covariance_type
  )

  def loss_of_one(prediction, target, problem):
    values = jax.vmap(loss_of_stage, in_axes=(0, None, None))(
      prediction, target, problem
    )
    error = metrics.l2_error(
      jax.lax.stop_gradient(prediction.means[-1]),
      target.means,
      problem.num_components,
    )
    # The frame has r coordinates; the error counts per coordinate of the data.
    error *= problem.points.shape[-1] / problem.dim
    return values[-1] + stage_weight * jnp.sum(values[:-1]), error

  def loss_of_batch(params, examples):
    problems, targets = examples
    predictions = model.apply(params, problems)
    values, errors = jax.vmap(loss_of_one)(predictions, targets, problems)
    return jnp.mean(values), errors

  return loss_of_batch
