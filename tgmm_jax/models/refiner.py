"""The refiner: a small network that learns to correct EM, for every d.

Queries, one for each component, attend to the points. From the second layer
on a layer sees what an EM step would do with the means so far, is drawn to
the points near them, and answers with the EM mean plus a learned correction.
Every layer's means take part in the loss; the weights are responsibilities'
mass. The cost grows with N K, not N^2: points do not attend to each other.

With diagonal covariances an EM step also has standard deviations, and a layer
corrects their logarithms too; distances are then in units of the estimate's.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from tgmm_jax.models import layers
from tgmm_jax.models import prediction as prediction_lib

_FREQUENCIES = (1.0, 2.0, 4.0)

# Of the logarithm of a standard deviation in units of the points' spread: from
# a component on one point to one wider than all the points.
_LOWEST_LOG_SCALE, _HIGHEST_LOG_SCALE = -3.5, 1.5


@dataclasses.dataclass(frozen=True)
class RefinerConfig:
  """Sizes of the refiner.

  Attributes:
    num_components: the set of K served.
    rank: r, coordinates of the frame; 4 hold the means of K <= 5. With
      "diag" they are the data's own, and d is at most r.
    width: D.
    num_layers: L.
    num_heads: H of the attention to the points.
    origin_rate: share of training tasks that may know where the origin is;
      the prior is centred there. Without it answers are shift-invariant.
    compute_dtype: "float32" or "bfloat16" for products with weights; softmax,
      EM features and means stay float32.
    covariance_type: "unit" (known identity) or "diag" (standard deviations of
      every component and coordinate are answered too).
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
    if self.covariance_type not in ("unit", "diag"):
      raise ValueError(
        f"covariance_type is {self.covariance_type!r}, takes 'unit' or 'diag'"
      )

  @property
  def has_scales(self) -> bool:
    """Whether standard deviations are answered."""
    return self.covariance_type == "diag"

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


class _Shared(NamedTuple):
  """What all layers read, in scaled coordinates (divided by `scale`)."""

  points: jax.Array  # [..., N, r]
  features: jax.Array  # [..., N, D]
  sample_weight: jax.Array  # [..., N], sums to 1
  log_weight: jax.Array  # [..., N], of the weights as given; MASKED for 0
  is_component: jax.Array  # [..., K]
  scale: jax.Array  # [..., 1, 1]; the unit noise's is 1 / scale
  is_coordinate: jax.Array  # [..., 1, r]; the others hold nothing


class _Estimate(NamedTuple):
  """The mixture so far, and where the points lie in it."""

  means: jax.Array  # [..., K, r]
  log_scales: jax.Array | None  # [..., K, r]; None where they are known
  log_weights: jax.Array  # [..., K]
  distances: jax.Array  # [..., K, N], squared, in standard deviations
  energies: jax.Array  # [..., K, N], -2 log densities but for a constant


class _Layer(nnx.Module):
  """Attention to the points, attention among the queries, an MLP, means."""

  def __init__(self, config, *, is_first, rngs):
    width, dtype = config.width, jnp.dtype(config.compute_dtype)
    if not is_first:
      self.em_features = layers.Linear(
        (4 if config.has_scales else 3) * config.rank + 1,
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
    self.has_scales = config.has_scales
    if config.has_scales:
      self.to_scale = layers.Linear(width, config.rank, dtype=dtype, rngs=rngs)

  def __call__(self, queries, estimate, shared):
    """Takes `[..., K, D]` and the estimate so far, None at the first layer.

    Returns:
      Queries `[..., K, D]`, means and log scales `[..., K, r]`, the last None
      where they are known.
    """
    bias = shared.log_weight[..., None, None, :]
    base, base_scales = 0.0, 0.0
    if estimate is not None:
      base, base_scales, features = self._em_step(estimate, shared)
      queries = queries + self.em_features(features)
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
    means = base + self.to_mean(normed).astype(jnp.float32)
    is_component = shared.is_component[..., None]
    if not self.has_scales:
      return queries, jnp.where(is_component, means, 0.0), None
    is_used = is_component & shared.is_coordinate
    log_scales = base_scales + self.to_scale(normed).astype(jnp.float32)
    log_scales = _clip(log_scales)
    return (
      queries,
      jnp.where(is_used, means, 0.0),
      jnp.where(is_used, log_scales, 0.0),
    )

  def _em_step(self, estimate, shared):
    """EM's means and log scales and, for each query, what the step tells it."""
    inverse_temperature = jnp.exp(self.log_inverse_temperature[...])
    posterior = _responsibilities(
      estimate.log_weights, inverse_temperature * estimate.energies, shared
    )
    mass = jnp.sum(posterior, axis=-1, keepdims=True)
    posterior = posterior / (mass + 1e-6)
    means = posterior @ shared.points
    spread = posterior @ shared.points**2 - means**2
    features = [
      estimate.means,
      means - estimate.means,
      jnp.log(mass + 1e-3),
    ]
    if estimate.log_scales is None:
      log_scales = None
      spread = jnp.maximum(spread * shared.scale**2, 0.0)
      features += [jnp.log1p(spread)]
    else:
      lowest = jnp.exp(2.0 * _LOWEST_LOG_SCALE)
      log_scales = 0.5 * jnp.log(jnp.maximum(spread, lowest))
      features += [estimate.log_scales, log_scales - estimate.log_scales]
    return means, log_scales, jnp.concatenate(features, axis=-1)


def _clip(log_scales):
  return jnp.clip(log_scales, _LOWEST_LOG_SCALE, _HIGHEST_LOG_SCALE)


def _responsibilities(log_weights, energies, shared):
  """Posterior of each component times the points' weights, `[..., K, N]`."""
  logits = log_weights[..., None] - 0.5 * energies
  logits = jnp.where(shared.is_component[..., None], logits, layers.MASKED)
  posterior = jax.nn.softmax(logits, axis=-2)
  return posterior * shared.sample_weight[..., None, :]


def _estimate(means, log_scales, log_weights, shared):
  """Completes means and scales to an estimate: weights by one E-step."""
  difference = means[..., :, None, :] - shared.points[..., None, :, :]
  if log_scales is None:
    distances = shared.scale**2 * jnp.sum(difference**2, axis=-1)
    energies = distances
  else:
    difference = difference * jnp.exp(-log_scales)[..., :, None, :]
    distances = jnp.sum(difference**2, axis=-1)
    energies = distances + 2.0 * jnp.sum(log_scales, axis=-1)[..., None]
  mass = jnp.sum(_responsibilities(log_weights, energies, shared), axis=-1)
  log_weights = jnp.log(mass + 1e-6)
  log_weights = jnp.where(shared.is_component, log_weights, layers.MASKED)
  return _Estimate(
    means, log_scales, jax.nn.log_softmax(log_weights), distances, energies
  )


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
    self, problem: prediction_lib.Problem
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
      queries, means, log_scales = layer(queries, estimate, shared)
      # Each layer answers for its own correction of what it was given.
      given = jax.lax.stop_gradient((means, log_scales))
      estimate = _estimate(*given, log_weights, shared)
      log_weights = estimate.log_weights
      stages.append((log_weights, means * shared.scale, log_scales))
    scales = None
    if self.config.has_scales:
      scales = jnp.stack([stage[2] for stage in stages], axis=-3)
      scales = jnp.exp(scales) * shared.scale[..., None, :, :]
      # What holds nothing has the variance 1 of padding.
      is_used = shared.is_component[..., None] & shared.is_coordinate
      scales = jnp.where(is_used[..., None, :, :], scales, 1.0)
    return prediction_lib.Prediction(
      log_weights=jnp.stack([stage[0] for stage in stages], axis=-2),
      means=jnp.stack([stage[1] for stage in stages], axis=-3),
      scales=scales,
    )

  def _read(self, problem, context):
    """Points scaled to the unit of their widest direction, and features."""
    is_point = problem.sample_weight > 0
    scale = _scale(problem, self.config)[..., None, None]
    points = jnp.where(is_point[..., None], problem.points, 0.0) / scale
    total = jnp.sum(problem.sample_weight, axis=-1, keepdims=True)
    slots = jnp.arange(self.config.max_components)
    return _Shared(
      points=points,
      features=self.points(points, context),
      sample_weight=problem.sample_weight / total,
      # To attend to a point of weight 2 is to attend to it twice.
      log_weight=jnp.where(
        is_point,
        jnp.log(jnp.where(is_point, problem.sample_weight, 1.0)),
        layers.MASKED,
      ),
      is_component=slots < problem.num_components[..., None],
      scale=scale,
      is_coordinate=jnp.arange(self.config.rank) < problem.dim[..., None, None],
    )


def _scale(problem, config):
  """Standard deviation of the points along their widest coordinate, `[...]`."""
  variances = problem.variances
  if config.has_scales:
    widest = jnp.max(variances, axis=-1)
  else:
    widest = variances[..., 0]
  return jnp.sqrt(jnp.maximum(widest, 1e-6))


def _context(problem, config):
  """What the network is told of a whole problem, `[..., 2 r + 4]`."""
  scale = _scale(problem, config)
  knows_origin = problem.knows_origin
  origin = problem.origin / scale[..., None]
  scalars = jnp.stack(
    [
      knows_origin,
      jnp.log(scale),
      jnp.log(problem.dim),
      jnp.log(jnp.sum(problem.sample_weight, axis=-1)),
    ],
    axis=-1,
  )
  return jnp.concatenate(
    [jnp.log1p(problem.variances), knows_origin[..., None] * origin, scalars],
    axis=-1,
  )
