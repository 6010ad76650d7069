"""A transformer that reads a set and answers with numbers, or with labels.

The networks of He et al. 2025 (arXiv 2501.01312): a linear map of each point,
a transformer, and a readout. They answer with eigenvalues, with eigenvectors
or with logits of the class of each point.

The paper's readout is one linear layer on all hidden states, side by side; it
depends on the order of the points and serves one N. The other one pools them
by softmax attention with learned queries: the order does not matter, and any N
is served.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from tgmm_jax.models import layers, transformer

ANSWERS = ("eigenvalues", "eigenvectors", "labels")
READOUTS = ("flat", "pooled")


@dataclasses.dataclass(frozen=True)
class SetTransformerConfig:
  """Sizes of a network. The defaults are the paper's small one.

  Its large one has 12 layers, 4 heads and width 256.

  Attributes:
    dim: d, of the points.
    answer: one of `ANSWERS`.
    num_targets: k, eigenvalues, eigenvectors or classes.
    width: D.
    num_layers: L.
    num_heads: H, divides D.
    attention: "softmax", "relu" or "relu/N" (`layers.ATTENTION`).
    has_norm: whether there are layer norms.
    is_causal: causal attention and learned positions, GPT-2 as it comes.
    readout: "flat" (the paper's) or "pooled"; labels take neither.
    num_points: N of a flat readout, and the largest of learned positions.
    num_queries: of a pooled readout.
    init_scale: standard deviation of the backbone's initial weights. GPT-2's
      0.02 is for widths of a thousand: here attention would start as a mean.
    compute_dtype: "float32" or "bfloat16" for the backbone's products.
  """

  dim: int
  answer: str = "eigenvalues"
  num_targets: int = 1
  width: int = 64
  num_layers: int = 3
  num_heads: int = 2
  attention: str = "softmax"
  has_norm: bool = True
  is_causal: bool = False
  readout: str = "pooled"
  num_points: int = 50
  num_queries: int = 4
  init_scale: float = 0.1
  compute_dtype: str = "float32"

  def __post_init__(self):
    """Refuses sizes that cannot be built."""
    for name in (
      "dim",
      "num_targets",
      "width",
      "num_layers",
      "num_heads",
      "num_points",
      "num_queries",
    ):
      if getattr(self, name) < 1:
        raise ValueError(
          f"{name} is {getattr(self, name)}, takes an integer >= 1"
        )
    if not 0 < self.init_scale < math.inf:
      raise ValueError(
        f"init_scale is {self.init_scale}, takes a finite number > 0"
      )
    for name, values in (
      ("answer", ANSWERS),
      ("attention", tuple(layers.ATTENTION)),
      ("readout", READOUTS),
      ("compute_dtype", ("float32", "bfloat16")),
    ):
      if getattr(self, name) not in values:
        raise ValueError(
          f"{name} is {getattr(self, name)!r}, takes one of {values}"
        )
    if self.width % self.num_heads:
      raise ValueError(
        f"width is {self.width}, takes a multiple of num_heads ="
        f" {self.num_heads}"
      )
    if self.answer != "labels" and self.num_targets > self.dim:
      raise ValueError(
        f"num_targets is {self.num_targets}, takes at most dim = {self.dim}"
      )

  @property
  def needs_num_points(self) -> bool:
    """Whether a flat readout or learned positions fix N, or bound it."""
    has_flat_readout = self.answer != "labels" and self.readout == "flat"
    return self.is_causal or has_flat_readout

  @property
  def answer_shape(self) -> tuple[int, ...]:
    """Of one problem; for labels that of one point."""
    if self.answer == "eigenvectors":
      return (self.dim, self.num_targets)
    return (self.num_targets,)


class SetTransformer(nnx.Module):
  """See the module's docstring."""

  def __init__(self, config: SetTransformerConfig, *, rngs: nnx.Rngs):
    """Initialises the parameters from `rngs.params`."""
    self.config = config
    width = config.width
    self.read_in = layers.Linear(config.dim, width, rngs=rngs)
    self.backbone = transformer.Transformer(
      width,
      config.num_layers,
      config.num_heads,
      max_positions=config.num_points if config.is_causal else None,
      attention=config.attention,
      has_norm=config.has_norm,
      init_scale=config.init_scale,
      dtype=jnp.dtype(config.compute_dtype),
      rngs=rngs,
    )
    num_inputs = width
    if config.answer != "labels" and config.readout == "flat":
      num_inputs = config.num_points * width
    elif config.answer != "labels":
      num_inputs = config.num_queries * width
      self.queries = nnx.Param(
        nnx.initializers.normal(1.0)(rngs.params(), (config.num_queries, width))
      )
    self.read_out = layers.Linear(
      num_inputs, math.prod(config.answer_shape), rngs=rngs
    )

  def __call__(self, points: jax.Array, sample_weight: jax.Array) -> jax.Array:
    """Answers problems, in float32.

    Args:
      points: `[..., N, d]`.
      sample_weight: `[..., N]`; 0 is padding, what is not 0 counts as a point.

    Returns:
      Eigenvalues `[..., k]`, eigenvectors `[..., d, k]` (neither of length 1
      nor orthogonal), or logits `[..., N, k]`.

    Raises:
      ValueError: N is not what a flat readout was built for.
    """
    return self._answer(
      self.states(points, sample_weight)[-1], sample_weight > 0
    )

  def states(
    self, points: jax.Array, sample_weight: jax.Array
  ) -> tuple[jax.Array, ...]:
    """Hidden states `[..., N, D]` before each block and after the last."""
    is_point = sample_weight > 0
    points = jnp.where(is_point[..., None], points, 0.0)
    return self.backbone.states(self.read_in(points), is_point)

  def _answer(self, hidden, is_point):
    config = self.config
    if config.answer == "labels":
      return self.read_out(hidden)
    if config.readout == "flat":
      num_points = hidden.shape[-2]
      if num_points != config.num_points:
        raise ValueError(
          f"points has {num_points} rows, takes num_points ="
          f" {config.num_points} with a flat readout"
        )
      pooled = jnp.where(is_point[..., None], hidden, 0.0)
    else:
      bias = jnp.where(is_point, 0.0, layers.MASKED)[..., None, :]
      # One head: the points' axis comes first again.
      pooled = layers.attend(self.queries[...], hidden, hidden, bias)
    flat = pooled.reshape(*pooled.shape[:-2], -1)
    answer = self.read_out(flat)
    return answer.reshape(*flat.shape[:-1], *config.answer_shape)
