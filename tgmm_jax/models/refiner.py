"""The refiner: a small network that learns to correct EM, for every d.

Queries, one for each component, attend to the points. From the second layer
on a layer sees what an EM step would do with the means so far, is drawn to
the points near them, and answers with the EM mean plus a learned correction.
Every layer's means take part in the loss; the weights are responsibilities'
mass. The cost grows with N K, not N^2: points do not attend to each other.

Where covariances are not known an EM step also has standard deviations, and a
layer corrects their logarithms too; distances are then in units of the
estimate's. Correlations, of full covariances, are EM's own, shrunk.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from tgmm_jax import gmm
from tgmm_jax.models import layers, refiner_steps
from tgmm_jax.models import prediction as prediction_lib

_FREQUENCIES = (1.0, 2.0, 4.0)

COVARIANCE_TYPES = ("unit", "tied_spherical", "diag", "full")

# Below this share of the widest variance all shares look alike to the network.
_LEAST_SHARE = 1e-3


@dataclasses.dataclass(frozen=True)
class RefinerConfig:
  """Sizes of the refiner.

  Attributes:
    num_components: the set of K served.
    rank: r, coordinates of the frame; 4 hold the means of K <= 5. With
      "diag" they are the data's own, and with "full" whitened: d is at most r.
    width: D.
    num_layers: L.
    num_heads: H of the attention to the points.
    origin_rate: share of training tasks that may know where the origin is;
      the prior is centred there. Without it answers are shift-invariant.
    compute_dtype: "float32" or "bfloat16" for products with weights; softmax,
      EM features and means stay float32.
    covariance_type: one of `COVARIANCE_TYPES`. "unit": the known identity.
      "tied_spherical": one standard deviation is answered too, whatever the
      unit of the points. "diag": those of every component and coordinate.
      "full": these and correlations, whatever the linear map of the points.
  """

  num_components: tuple[int, ...] = (2, 3, 4, 5)
  rank: int = 4
  width: int = 64
  num_layers: int = 5
  num_heads: int = 4
  origin_rate: float = 0.7
  compute_dtype: str = "float32"
  covariance_type: str = "unit"

  def __post_init__(self):
    """Refuses sizes that cannot be built."""
    if not self.num_components or min(self.num_components) < 1:
      raise ValueError(
        f"num_components is {self.num_components}, takes integers K >= 1"
      )
    for name in ("rank", "width", "num_layers", "num_heads"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}, takes >= 1")
    if not 0 <= self.origin_rate <= 1:
      raise ValueError(f"origin_rate is {self.origin_rate}, takes 0 to 1")
    if self.compute_dtype not in ("float32", "bfloat16"):
      raise ValueError(
        f"compute_dtype is {self.compute_dtype!r}, takes 'float32' or"
        " 'bfloat16'"
      )
    if self.covariance_type not in COVARIANCE_TYPES:
      raise ValueError(
        f"covariance_type is {self.covariance_type!r}, takes one of"
        f" {COVARIANCE_TYPES}"
      )
    if self.is_scale_free and self.origin_rate:
      raise ValueError(
        f"origin_rate is {self.origin_rate}, takes 0 with covariance_type"
        f" {self.covariance_type!r}: its points have no unit, and no origin"
      )

  @property
  def needs_origin(self) -> bool:
    """Whether points must come from a law that is centred at the origin."""
    return False

  @property
  def is_scale_free(self) -> bool:
    """Whether the unit of the points does not matter."""
    return gmm.kind_of(self.covariance_type).frame in ("similarity", "linear")

  @property
  def max_dim(self) -> int | None:
    """The largest d that it answers, None for any."""
    has_axes = gmm.kind_of(self.covariance_type).frame in ("axes", "linear")
    return self.rank if has_axes else None

  @property
  def max_components(self) -> int:
    """Static K of the queries."""
    return max(self.num_components)


class _Points(nnx.Module):
  """Pointwise features: Fourier features, then one hidden layer."""

  def __init__(self, config, num_context, *, rngs):
    width, dtype = config.width, jnp.dtype(config.compute_dtype)
    num_features = config.rank * (1 + 2 * len(_FREQUENCIES))
    self.read_in = layers.Linear(
      num_features, 2 * width, dtype=dtype, rngs=rngs
    )
    self.context = layers.Linear(
      num_context, 2 * width, use_bias=False, dtype=dtype, rngs=rngs
    )
    self.read_out = layers.Linear(2 * width, width, dtype=dtype, rngs=rngs)

  def __call__(self, points, context):
    """Takes `[..., N, r]` and `[..., C]`, gives `[..., N, D]`."""
    waves = [points * frequency for frequency in _FREQUENCIES]
    features = jnp.concatenate(
      [points] + [jnp.sin(w) for w in waves] + [jnp.cos(w) for w in waves], -1
    )
    hidden = self.read_in(features) + self.context(context)[..., None, :]
    return self.read_out(jax.nn.gelu(hidden))


class _Attention(nnx.Module):
  """Queries attend to the points, all heads on the same point features.

  Keys and values are never formed: a head's key map is folded into the few
  queries, its value map follows the average. That is 3 times cheaper than
  projecting N points.
  """

  def __init__(self, config, *, rngs):
    width, num_heads = config.width, config.num_heads
    dtype = jnp.dtype(config.compute_dtype)
    self.num_heads = num_heads
    self.query = layers.Linear(width, num_heads * width, dtype=dtype, rngs=rngs)
    self.output = layers.Linear(
      num_heads * width, width, dtype=dtype, rngs=rngs
    )

  def __call__(self, queries, points, bias):
    """Takes `[..., K, D]`, `[..., N, D]` and a bias for `[..., K, H, N]`."""
    *batch, num_queries, width = queries.shape
    # A head of a query is a row: with all heads on the same points, attention
    # is two products for each problem.
    rows = self.query(queries).reshape(*batch, -1, width)
    shape = (*batch, num_queries, self.num_heads, points.shape[-2])
    bias = jnp.broadcast_to(bias, shape).reshape(*batch, -1, shape[-1])
    average = layers.attend(rows, points, points, bias)
    return self.output(average.reshape(*batch, num_queries, -1))


class _Layer(nnx.Module):
  """Attention to the points, attention among the queries, an MLP, means."""

  def __init__(self, config, *, is_first, rngs):
    width, dtype = config.width, jnp.dtype(config.compute_dtype)
    structure = gmm.kind_of(config.covariance_type).structure
    if not is_first:
      self.em_features = layers.Linear(
        refiner_steps.num_features(structure, config.rank),
        width,
        dtype=dtype,
        rngs=rngs,
      )
      # exp of these: the E-step's inverse temperature, and how closely each
      # head keeps to the points near its mean.
      self.log_inverse_temperature = nnx.Param(jnp.array(-1.0))
      self.log_locality = nnx.Param(jnp.linspace(-4.0, 0.0, config.num_heads))
    self.point_norm = nnx.LayerNorm(width, rngs=rngs)
    self.to_points = _Attention(config, rngs=rngs)
    self.query_norm = nnx.LayerNorm(width, rngs=rngs)
    self.among_queries = _Attention(config, rngs=rngs)
    self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
    self.mlp_in = layers.Linear(width, 4 * width, dtype=dtype, rngs=rngs)
    self.mlp_out = layers.Linear(4 * width, width, dtype=dtype, rngs=rngs)
    self.mean_norm = nnx.LayerNorm(width, rngs=rngs)
    self.to_mean = layers.Linear(width, config.rank, dtype=dtype, rngs=rngs)
    self.structure = structure
    num_scales = {"identity": 0, "ball": 1}.get(self.structure, config.rank)
    if num_scales:
      self.to_scale = layers.Linear(width, num_scales, dtype=dtype, rngs=rngs)

  def __call__(self, queries, estimate, shared):
    """Takes `[..., K, D]` and the estimate so far, None at the first layer.

    Returns:
      Queries `[..., K, D]`, means and log scales `[..., K, r]`, correlations
      `[..., K, r, r]`; the last two None where the type has none.
    """
    bias = shared.log_weight[..., None, None, :]
    if estimate is None:
      step = self._first_step(queries, shared)
    else:
      step = refiner_steps.step(
        estimate,
        shared,
        jnp.exp(self.log_inverse_temperature[...]),
        self.structure,
      )
      queries = queries + self.em_features(step.features)
      locality = 0.5 * jnp.exp(self.log_locality[...])[:, None]
      bias = bias - locality * estimate.distances[..., :, None, :]
    queries = queries + self.to_points(
      self.point_norm(queries), shared.features, bias
    )
    normed = self.query_norm(queries)
    among = jnp.where(shared.is_component, 0.0, layers.MASKED)
    queries = queries + self.among_queries(
      normed, normed, among[..., None, None, :]
    )
    hidden = jax.nn.gelu(self.mlp_in(self.mlp_norm(queries)))
    queries = queries + self.mlp_out(hidden)
    normed = self.mean_norm(queries)
    means = step.means + self.to_mean(normed).astype(jnp.float32)
    is_component = shared.is_component[..., None]
    if self.structure == "identity":
      return queries, jnp.where(is_component, means, 0.0), None, None
    is_used = is_component & shared.is_coordinate
    log_scales = refiner_steps.clip(
      step.log_scales + self._correct_scales(normed, is_component)
    )
    return (
      queries,
      jnp.where(is_used, means, 0.0),
      jnp.where(is_used, log_scales, 0.0),
      step.correlations,
    )

  def _correct_scales(self, normed, is_component):
    """What is added to the logarithms; one number where all are the same."""
    correction = self.to_scale(normed).astype(jnp.float32)
    if self.structure != "ball":
      return correction
    correction = jnp.where(is_component, correction, 0.0)
    count = jnp.sum(is_component, axis=-2, keepdims=True)
    return jnp.sum(correction, axis=-2, keepdims=True) / count

  def _first_step(self, queries, shared):
    """What the first layer corrects: nothing but independent coordinates."""
    correlations = None
    if self.structure == "matrix":
      rank = shared.points.shape[-1]
      shape = (*queries.shape[:-1], rank, rank)
      correlations = jnp.broadcast_to(jnp.eye(rank), shape)
    return refiner_steps.Step(0.0, 0.0, correlations, None)


class Refiner(nnx.Module):
  """See the module's docstring."""

  def __init__(self, config: RefinerConfig, *, rngs: nnx.Rngs):
    """Initialises the parameters from `rngs.params`."""
    self.config = config
    num_context = 2 * config.rank + 4
    self.points = _Points(config, num_context, rngs=rngs)
    self.slots = nnx.Embed(config.max_components, config.width, rngs=rngs)
    self.tasks = nnx.Embed(config.max_components, config.width, rngs=rngs)
    self.context = layers.Linear(num_context, config.width, rngs=rngs)
    self.layers = nnx.List(
      [
        _Layer(config, is_first=index == 0, rngs=rngs)
        for index in range(config.num_layers)
      ]
    )

  def __call__(
    self, problem: prediction_lib.NetworkInput
  ) -> prediction_lib.Prediction:
    """Predicts mixtures after each layer, `[..., L, K, ...]`.

    Args:
      problem: with any leading axes; a batch is faster in one call than under
        `vmap` (see `layers`).
    """
    context = _context(problem, self.config)
    shared = self._read(problem, context)
    queries = self.slots.embedding[...] + self.context(context)[..., None, :]
    # Not by calling the table: with one row it takes no batch.
    task = jnp.take(
      self.tasks.embedding[...],
      problem.num_components - 1,
      axis=0,
      mode="clip",
    )
    queries = queries + task[..., None, :]
    log_weights = jnp.zeros(shared.is_component.shape)
    estimate, stages = None, []
    for layer in self.layers:
      queries, *answer = layer(queries, estimate, shared)
      # Each layer answers for its own correction of what it was given.
      given = jax.lax.stop_gradient(answer)
      estimate = refiner_steps.complete(*given, log_weights, shared)
      log_weights = estimate.log_weights
      stages.append(self._predict(log_weights, *answer, shared))
    return jax.tree.map(
      # The stages come after the axes of the batch.
      lambda *leaves: jnp.stack(leaves, axis=problem.sample_weight.ndim - 1),
      *stages,
    )

  def _predict(self, log_weights, means, log_scales, correlations, shared):
    """The prediction of one stage, in the coordinates of the problem."""
    scales = None
    if log_scales is not None:
      # What holds nothing has the variance 1 of padding.
      is_used = shared.is_component[..., None] & shared.is_coordinate
      scales = jnp.where(is_used, jnp.exp(log_scales) * shared.scale, 1.0)
    return prediction_lib.Prediction(
      log_weights, means * shared.scale, scales, correlations
    )

  def _read(self, problem, context):
    """Points scaled to the unit of their widest direction, and features."""
    is_point = problem.sample_weight > 0
    scale = _scale(problem, self.config)[..., None, None]
    points = jnp.where(is_point[..., None], problem.points, 0.0) / scale
    total = jnp.sum(problem.sample_weight, axis=-1, keepdims=True)
    slots = jnp.arange(self.config.max_components)
    return refiner_steps.Shared(
      points=points,
      features=self.points(points, context),
      sample_weight=problem.sample_weight / total,
      total_weight=total[..., None],
      # To attend to a point of weight 2 is to attend to it twice.
      log_weight=jnp.where(
        is_point,
        jnp.log(jnp.where(is_point, problem.sample_weight, 1.0)),
        layers.MASKED,
      ),
      is_component=slots < problem.num_components[..., None],
      scale=scale,
      is_coordinate=jnp.arange(self.config.rank) < problem.dim[..., None, None],
      dim=problem.dim[..., None, None],
      rest=problem.rest[..., None, None] / scale**2,
    )


def _scale(problem, config):
  """Standard deviation of the points along their widest coordinate, `[...]`."""
  variances = problem.variances
  if gmm.kind_of(config.covariance_type).structure == "axes":
    widest = jnp.max(variances, axis=-1)
  else:
    widest = variances[..., 0]
  if config.is_scale_free:
    # In any unit: whatever is above 0 is a spread.
    return jnp.sqrt(jnp.where(widest > 0, widest, 1.0))
  return jnp.sqrt(jnp.maximum(widest, 1e-6))


def _context(problem, config):
  """What the network is told of a whole problem, `[..., 2 r + 4]`."""
  scale = _scale(problem, config)
  knows_origin = problem.knows_origin
  origin = problem.origin / scale[..., None]
  if config.is_scale_free:
    variances = _log_share(problem.variances, scale[..., None])
    size = _log_share(problem.rest, scale)
  else:
    variances = jnp.log1p(problem.variances)
    size = jnp.log(scale)
  scalars = jnp.stack(
    [
      knows_origin,
      size,
      jnp.log(problem.dim),
      jnp.log(jnp.sum(problem.sample_weight, axis=-1)),
    ],
    axis=-1,
  )
  return jnp.concatenate(
    [variances, knows_origin[..., None] * origin, scalars], axis=-1
  )


def _log_share(variance, scale):
  """Logarithm of a variance in units of the widest."""
  return jnp.log(variance / scale**2 + _LEAST_SHARE)
