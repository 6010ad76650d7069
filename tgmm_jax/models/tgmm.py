"""The TGMM paper's network (arXiv 2505.11918, Section 3).

A linear map of each point and the embedding of K, a transformer or Mamba2 over
the points, and attentive pooling with a module for each K. Unlike the released
code, which is GPT-2 or Mamba2 as it comes (`is_causal=True`), the default
follows the paper's definition: bidirectional and without positions, so that
the order of the points does not matter. Mamba2 cannot do without an order:
there the points are sorted by their first coordinate.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from tgmm_jax.models import layers, mamba2, readout, transformer
from tgmm_jax.models import prediction as prediction_lib

BACKBONES = ("transformer", "mamba2")


@dataclasses.dataclass(frozen=True)
class TGMMConfig:
  """Sizes of the paper's network.

  The defaults are the paper's; with Mamba2 it has 8 heads.

  Attributes:
    dim: d, of the data; one network serves one d.
    num_components: the set of K served, a readout for each.
    width: D.
    num_layers: L.
    num_heads: H. The transformer's divide D; Mamba2's are multiples of
      `num_groups` and have H x head_dim = D x expansion.
    backbone: one of `BACKBONES`.
    is_causal: the released variant: causal attention and learned positions, or
      Mamba2 that reads forwards only, in the order given.
    max_points: the largest N of a causal transformer; the others take any.
    pooling: one of `readout.POOLINGS`; "released" as in the paper's code.
    has_inverted_pooling: a fault of the released training, and for training
      alone (`MixtureTraining.has_inverted_pooling`): the readout attends to
      the padding and not to the points. Where nothing is padded it takes the
      mean of all states: every logit is `layers.MASKED`, in whose rounding the
      rest is lost. A mask of -inf would give NaN there, and with N uniform on
      64 ... 128 one of 65 tasks is not padded: such a training would not have
      come to an end.
    embedding_width: of the embedding of K.
    has_scales: whether standard deviations are predicted (anisotropic tasks).
    compute_dtype: "float32" or "bfloat16" for the backbone's products with
      weights; parameters, residual stream, softmax or state, norms, read-in
      and readout are float32.
    state_size: of Mamba2, numbers of state for each channel.
    num_groups: of Mamba2; heads of a group share what they write and read.
    head_dim: of Mamba2, channels of a head.
    expansion: of Mamba2, channels within a mixer for each one of D.
  """

  dim: int
  num_components: tuple[int, ...] = (2, 3, 4, 5)
  width: int = 128
  num_layers: int = 12
  num_heads: int = 4
  backbone: str = "transformer"
  is_causal: bool = False
  max_points: int = 128
  pooling: str = "scaled"
  has_inverted_pooling: bool = False
  embedding_width: int = 128
  has_scales: bool = False
  compute_dtype: str = "float32"
  state_size: int = 16
  num_groups: int = 2
  head_dim: int = 64
  expansion: int = 4

  def __post_init__(self):
    """Refuses sizes that cannot be built."""
    if not self.num_components or min(self.num_components) < 1:
      raise ValueError(
        f"num_components is {self.num_components}, takes integers K >= 1"
      )
    if len(set(self.num_components)) < len(self.num_components):
      raise ValueError(
        f"num_components is {self.num_components}, takes each K once"
      )
    for name in (
      "dim",
      "width",
      "num_layers",
      "num_heads",
      "max_points",
      "embedding_width",
      "state_size",
      "num_groups",
      "head_dim",
      "expansion",
    ):
      if getattr(self, name) < 1:
        raise ValueError(
          f"{name} is {getattr(self, name)}, takes an integer >= 1"
        )
    if self.backbone not in BACKBONES:
      raise ValueError(
        f"backbone is {self.backbone!r}, takes one of {BACKBONES}"
      )
    if self.pooling not in readout.POOLINGS:
      raise ValueError(
        f"pooling is {self.pooling!r}, takes one of {readout.POOLINGS}"
      )
    self._check_heads()
    if self.compute_dtype not in ("float32", "bfloat16"):
      raise ValueError(
        f"compute_dtype is {self.compute_dtype!r}, takes 'float32' or"
        " 'bfloat16'"
      )

  def _check_heads(self):
    if self.backbone == "transformer":
      if self.width % self.num_heads:
        raise ValueError(
          f"width is {self.width}, takes a multiple of num_heads ="
          f" {self.num_heads}"
        )
      return
    if self.num_heads * self.head_dim != self.width * self.expansion:
      raise ValueError(
        f"num_heads is {self.num_heads} and head_dim {self.head_dim}, takes a"
        f" product of width x expansion = {self.width * self.expansion}"
      )
    if self.num_heads % self.num_groups:
      raise ValueError(
        f"num_heads is {self.num_heads}, takes a multiple of num_groups ="
        f" {self.num_groups}"
      )

  @property
  def covariance_type(self) -> str:
    """Of the mixtures that it answers with."""
    return "diag" if self.has_scales else "unit"

  @property
  def is_scale_free(self) -> bool:
    """Whether the unit of the points does not matter."""
    return False

  @property
  def needs_origin(self) -> bool:
    """Whether points must come from a law that is centred at the origin."""
    return True

  @property
  def max_dim(self) -> int | None:
    """The largest d that it answers, and the only one."""
    return self.dim

  @property
  def has_positions(self) -> bool:
    """Whether points have learned positions, and so at most `max_points`."""
    return self.is_causal and self.backbone == "transformer"

  @property
  def max_components(self) -> int:
    """Static K of the answer."""
    return max(self.num_components)


class TGMM(nnx.Module):
  """See the module's docstring."""

  def __init__(self, config: TGMMConfig, *, rngs: nnx.Rngs):
    """Initialises the parameters from `rngs.params`."""
    self.config = config
    # One linear map of [point, embedding] in two parts, so that the second is
    # made once for a problem and not for each point.
    init = nnx.initializers.normal(
      (config.dim + config.embedding_width) ** -0.5
    )
    self.tasks = nnx.Embed(
      len(config.num_components), config.embedding_width, rngs=rngs
    )
    self.read_in_task = layers.Linear(
      config.embedding_width,
      config.width,
      use_bias=False,
      kernel_init=init,
      rngs=rngs,
    )
    self.read_in = layers.Linear(
      config.dim, config.width, kernel_init=init, rngs=rngs
    )
    self.backbone = _make_backbone(config, rngs)
    self.readout = readout.AttentiveReadout(
      config.width,
      config.dim,
      config.num_components,
      has_scales=config.has_scales,
      pooling=config.pooling,
      rngs=rngs,
    )

  def __call__(
    self, problem: prediction_lib.NetworkInput
  ) -> prediction_lib.Prediction:
    """Predicts the mixture of one problem, or of a batch in one call.

    A padded point may stand anywhere and be anything, NaN too: it has no
    effect and its gradient is exactly 0. A batch in one call gives the numbers
    of `vmap`, faster (`models.layers`).

    Args:
      problem: points `[N, d]`; a batch has leading axes on every field.

    Returns:
      A `Prediction` with an axis of one stage: log_weights `[1, K]`, means and
      scales `[1, K, d]`, after the batch's axes.

    Raises:
      ValueError: where d is not the network's, or N above `max_points` with
        learned positions.
    """
    config = self.config
    if problem.points.shape[-1] != config.dim:
      raise ValueError(
        f"points has shape {problem.points.shape}, takes a last axis of dim ="
        f" {config.dim}"
      )
    is_point = problem.sample_weight > 0
    points = jnp.where(is_point[..., None], problem.points, 0.0)
    if config.backbone == "mamba2" and not config.is_causal:
      points, is_point = _sort(points, is_point)
    num_components = jnp.asarray(problem.num_components)
    served = jnp.asarray(config.num_components)
    index = jnp.argmax(num_components[..., None] == served, axis=-1)
    # Not by calling the table: with one row it takes no batch.
    task = jnp.take(self.tasks.embedding[...], index, axis=0, mode="clip")
    task = self.read_in_task(task)
    hidden = self.read_in(points) + task[..., None, :]
    hidden = self.backbone(hidden, is_point)
    is_pooled = ~is_point if config.has_inverted_pooling else is_point
    prediction = self.readout(hidden, is_pooled, num_components)
    return jax.tree.map(
      lambda leaf: jnp.expand_dims(leaf, num_components.ndim), prediction
    )


def _make_backbone(config, rngs):
  dtype = jnp.dtype(config.compute_dtype)
  if config.backbone == "mamba2":
    return mamba2.Mamba2(
      config.width,
      config.num_layers,
      mamba2.Sizes(
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        state_size=config.state_size,
        num_groups=config.num_groups,
      ),
      is_causal=config.is_causal,
      dtype=dtype,
      rngs=rngs,
    )
  return transformer.Transformer(
    config.width,
    config.num_layers,
    config.num_heads,
    max_positions=config.max_points if config.is_causal else None,
    dtype=dtype,
    rngs=rngs,
  )


def _sort(points, is_point):
  """The points by their first coordinate, padding last."""
  order = jnp.lexsort((points[..., 0], ~is_point))
  points = jnp.take_along_axis(points, order[..., None], axis=-2, mode="clip")
  return points, jnp.take_along_axis(is_point, order, axis=-1, mode="clip")
