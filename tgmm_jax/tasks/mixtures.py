"""The TGMM paper's distribution of mixture problems (arXiv 2505.11918).

A task draws K, the means (uniform in a box, drawn again while two of them
point in nearly the same direction), the weights (uniform, sorted, divided by
their sum), N, labels and noise. Everything is padded to static sizes, so one
compiled program draws every batch.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, types
from tgmm_jax.tasks import shifts

COVARIANCE_TYPES = ("unit", "tied_spherical", "diag", "full")

# Acceptance below this is refused at set-up: the sampler would run for ever.
_MIN_ACCEPTANCE = 1e-4

# Of "full": the logarithms of a task's scale are uniform between these,
_LOWEST_LOG_SCALE, _HIGHEST_LOG_SCALE = math.log(0.2), math.log(2.0)
# those of its components normal about it,
_LOG_SCALE_DEVIATION = 0.4
# and every shape keeps this share of a ball.
_LEAST_ROUNDNESS = 0.02


@dataclasses.dataclass(frozen=True)
class TaskConfig:
  """The law of a task. The defaults are the paper's.

  Attributes:
    dim: d.
    num_components: the set of K, each equally likely.
    min_points: the smallest N; N is uniform on the integers from here on.
    max_points: the largest N, to which all tasks are padded.
    covariance_type: one of `COVARIANCE_TYPES`. "unit": isotropic and known.
      "diag": anisotropic, per component and coordinate a standard deviation
      2 softplus(u / 5), u uniform on [-5, 5]. Two laws are not the paper's:
      "tied_spherical" has one such standard deviation for a whole task; "full"
      is broad, from round to thin (Wishart shapes with d + 2 degrees of
      freedom, mixed with a ball by a share that is uniform over tasks), with
      overlap from none to heavy (scales from 0.2 to 2, those of components
      log-normal about their task's).
    has_scale_rule: of "diag", whether the vectors u of the components obey
      the rule of `max_cosine` as well. The released code draws them by the
      sampler of the means; scales are then less alike between components.
    shift: size of a shift away from this law; sigma_p, if of the means.
    shift_kind: one of `shifts.KINDS`.
    mean_range: entries of the means are uniform on [-mean_range, mean_range].
    max_cosine: means are drawn again until every pairwise cosine is below; 1
      or more is no rule, which d = 1 needs for K > 2.
    min_weight: lower end of the weights before they are divided by their sum.
    max_weight: upper end.
    max_components: static K of the padded arrays; 0 takes the largest K.
  """

  dim: int
  num_components: tuple[int, ...] = (2, 3, 4, 5)
  min_points: int = 64
  max_points: int = 128
  covariance_type: str = "unit"
  has_scale_rule: bool = False
  shift: float = 0.0
  shift_kind: str = "means"
  mean_range: float = 5.0
  max_cosine: float = 0.8
  min_weight: float = 0.2
  max_weight: float = 0.8
  max_components: int = 0

  def __post_init__(self):
    """Refuses what cannot be sampled, before anything is compiled."""
    if self.dim < 1:
      raise ValueError(f"dim is {self.dim}, takes an integer >= 1")
    if not self.num_components:
      raise ValueError("num_components is empty, takes at least one K >= 1")
    if min(self.num_components) < 1:
      raise ValueError(
        f"num_components is {self.num_components}, takes integers K >= 1"
      )
    if not 1 <= self.min_points <= self.max_points:
      raise ValueError(
        f"min_points, max_points are {self.min_points}, {self.max_points};"
        " takes 1 <= min_points <= max_points"
      )
    if self.covariance_type not in COVARIANCE_TYPES:
      raise ValueError(
        f"covariance_type is {self.covariance_type!r}, takes one of"
        f" {COVARIANCE_TYPES}"
      )
    if self.has_scale_rule and self.covariance_type != "diag":
      raise ValueError(
        "has_scale_rule is True, takes False for covariance_type"
        f" {self.covariance_type!r}"
      )
    shifts.check(self.shift_kind, self.shift)
    if not 0 < self.mean_range < math.inf:
      raise ValueError(f"mean_range is {self.mean_range}, takes a number > 0")
    if not 0 < self.min_weight <= self.max_weight < math.inf:
      raise ValueError(
        f"min_weight, max_weight are {self.min_weight}, {self.max_weight};"
        " takes 0 < min_weight <= max_weight"
      )
    if self.max_components and self.max_components < max(self.num_components):
      raise ValueError(
        f"max_components is {self.max_components}, takes 0 or at least the"
        f" largest of num_components, {max(self.num_components)}"
      )
    if math.isnan(self.max_cosine):
      raise ValueError(f"max_cosine is {self.max_cosine}, takes a number > -1")
    acceptance = self.acceptance(max(self.num_components))
    if acceptance < _MIN_ACCEPTANCE:
      raise ValueError(
        f"num_components is {self.num_components} with dim {self.dim}: a"
        f" share of {acceptance:.1g} of the means passes max_cosine ="
        f" {self.max_cosine}, takes settings where {_MIN_ACCEPTANCE:g} do"
      )

  @property
  def padded_components(self) -> int:
    """Static K of the arrays."""
    return self.max_components or max(self.num_components)

  def acceptance(self, num_components: int) -> float:
    """About the share of draws of K means that pass the cosine rule.

    For d = 2 and directions uniform on the circle it is exact, 0.057 for
    K = 5; above, pairs are taken as independent, which errs a little high:
    0.35 for 0.31 at d = 3, K = 5.
    """
    num_pairs = num_components * (num_components - 1) // 2
    if not num_pairs or self.max_cosine >= 1:
      return 1.0
    if self.dim == 1:  # every cosine is 1 or -1
      return 0.5 if num_components == 2 and self.max_cosine > -1 else 0.0
    angle = math.acos(max(self.max_cosine, -1.0))
    if self.dim == 2:
      gap = num_components * angle / (2.0 * math.pi)
      return max(1.0 - gap, 0.0) ** (num_components - 1)
    return (1.0 - _cap_share(self.dim, angle)) ** num_pairs

  @property
  def num_proposals(self) -> int:
    """Draws of the means tried at once: nine tasks in ten need one round."""
    acceptance = self.acceptance(max(self.num_components))
    if acceptance >= 0.9:
      return 2
    rounds = math.log(0.1) / math.log1p(-acceptance)
    return min(math.ceil(rounds), 64)


def _cap_share(dim: int, angle: float, num_steps: int = 2000) -> float:
  """Share of the sphere in R^dim within `angle` of a direction."""
  step = math.pi / num_steps
  grid = [(i + 0.5) * step for i in range(num_steps)]
  density = [math.sin(theta) ** (dim - 2) for theta in grid]
  within = sum(
    p for theta, p in zip(grid, density, strict=True) if theta < angle
  )
  return within / sum(density)


def sample_task(
  key: jax.Array, config: TaskConfig, num_components: jax.Array | int
) -> types.TaskBatch:
  """Draws one task with a given number of components.

  Args:
    key: consumed; split by purpose into means, weights and N, scales, points,
      and what a shift draws.
    config: the law.
    num_components: K, may be traced; must be in `config.num_components`.

  Returns:
    A `TaskBatch` without the axis B.
  """
  mean_key, size_key, scale_key, point_key = jax.random.split(key, 4)
  shape = (config.padded_components, config.dim)
  is_component = jnp.arange(shape[0]) < num_components
  means = _sample_means(mean_key, config, num_components)
  # One draw for the weights and N: every call of the generator is compiled
  # anew, and a train step that mixes dimensions holds many.
  uniform = jax.random.uniform(size_key, (shape[0] + 1,))
  num_choices = config.max_points - config.min_points + 1
  num_points = config.min_points + _integer(uniform[-1], num_choices)
  weights = raw_weights(uniform[:-1], config)
  weights = jnp.sort(jnp.where(is_component, weights, jnp.inf))
  weights = jnp.where(is_component, weights, 0.0)
  weights = weights / jnp.sum(weights)
  covariances = _sample_covariances(scale_key, config, num_components)
  mixture = types.Mixture(weights, means, covariances)
  points, labels = gmm.sample(
    point_key,
    mixture,
    config.max_points,
    covariance_type=config.covariance_type,
  )
  is_point = jnp.arange(config.max_points) < num_points
  task = types.TaskBatch(
    points=jnp.where(is_point[:, None], points, 0.0),
    sample_weight=is_point.astype(points.dtype),
    num_components=jnp.asarray(num_components, jnp.int32),
    mixture=mixture,
    labels=jnp.where(is_point, labels, -1),
  )
  if config.shift and shifts.changes_points(config.shift_kind):
    task = shifts.shift_points(
      jax.random.fold_in(point_key, 1),
      task,
      config.shift_kind,
      config.shift,
      mean_range=config.mean_range,
    )
  return task


def raw_weights(uniform: jax.Array, config: TaskConfig) -> jax.Array:
  """The weights of a law before they are sorted and divided by their sum.

  Args:
    uniform: in [0, 1), of any shape.
    config: the law.
  """
  span = config.max_weight - config.min_weight
  weights = config.min_weight + span * uniform
  if config.shift_kind == "weights" and config.shift:
    weights = weights ** (1.0 + config.shift)
  return weights


def sample_batch(
  key: jax.Array,
  config: TaskConfig,
  batch_size: int,
  *,
  has_each_k: bool = False,
) -> types.TaskBatch:
  """Draws a full batch of tasks, K of each drawn from the config's set.

  Task i depends on `key` and i only: not on the batch size, nor on the number
  of devices over which the batch is sharded.

  Args:
    key: consumed; folded with the index of each task.
    config: the law.
    batch_size: B, static.
    has_each_k: whether the K of the config take turns instead of being drawn:
      a multiple of their number has as many tasks of each.

  Returns:
    A `TaskBatch`, padded to `config.max_points` and
    `config.padded_components`.
  """
  choices = jnp.asarray(config.num_components, jnp.int32)

  def sample_one(index):
    choice_key, task_key = jax.random.split(jax.random.fold_in(key, index))
    if has_each_k:
      choice = index % choices.size
    else:
      choice = _integer(jax.random.uniform(choice_key), choices.size)
    return sample_task(task_key, config, choices[choice])

  return jax.vmap(sample_one)(jnp.arange(batch_size))


def _integer(uniform, num_choices):
  """An integer from 0 to num_choices - 1 from a number in [0, 1)."""
  integer = (uniform * num_choices).astype(jnp.int32)
  return jnp.minimum(integer, num_choices - 1)


def _sample_covariances(key, config, num_components):
  """Covariances of the type; padding keeps variance 1: finite densities."""
  shape = (config.padded_components, config.dim)
  is_component = jnp.arange(shape[0]) < num_components
  match config.covariance_type:
    case "tied_spherical":
      exponent = jax.random.uniform(key, (), minval=-1.0, maxval=1.0)
      return (2.0 * jax.nn.softplus(exponent)) ** 2
    case "diag":
      if config.has_scale_rule:
        # Of u / 5: the cosine of two vectors has no unit.
        exponent = _sample_apart(
          key, config, num_components, bound=1.0, shift=0.0
        )
      else:
        exponent = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
      scales = 2.0 * jax.nn.softplus(exponent)
      return jnp.where(is_component[:, None], scales**2, 1.0)
    case "full":
      broad = _sample_shapes(key, *shape)
      return jnp.where(is_component[:, None, None], broad, jnp.eye(config.dim))
  return None


def _sample_shapes(key, num_components, dim):
  """Full covariances of all shapes and sizes, `[K, d, d]`."""
  task_key, noise_key = jax.random.split(key)
  log_scale, roundness = jax.random.uniform(
    task_key,
    (2,),
    minval=jnp.array([_LOWEST_LOG_SCALE, _LEAST_ROUNDNESS]),
    maxval=jnp.array([_HIGHEST_LOG_SCALE, 1.0]),
  )
  size = dim * (dim + 2)
  normal = jax.random.normal(noise_key, (num_components * (size + 1),))
  normal = normal.reshape(num_components, size + 1)
  scales = jnp.exp(log_scale + _LOG_SCALE_DEVIATION * normal[:, -1])
  factors = normal[:, :-1].reshape(num_components, dim, dim + 2)
  wishart = jnp.einsum("kin,kjn->kij", factors, factors)
  # A mean variance of 1, as the ball's.
  trace = jnp.trace(wishart, axis1=1, axis2=2)[:, None, None]
  shapes = (1.0 - roundness) * wishart * dim / trace
  shapes = shapes + roundness * jnp.eye(dim)
  return shapes * scales[:, None, None] ** 2


def _sample_means(key, config, num_components):
  """Means in the box, shifted where the law says so, and apart."""
  shift = config.shift if config.shift_kind == "means" else 0.0
  return _sample_apart(
    key, config, num_components, bound=config.mean_range, shift=shift
  )


def _sample_apart(key, config, num_components, *, bound, shift):
  """Draws K vectors until their largest pairwise cosine is below the rule's.

  Their entries are uniform on [-bound, bound], plus `shift` times a normal.
  Many proposals at once and the first that passes: one at a time would make
  a vmapped loop wait for the unluckiest task (acceptance 0.057 at d = 2,
  K = 5).
  """
  num_padded = config.padded_components
  is_component = jnp.arange(num_padded) < num_components
  is_pair = (
    is_component[:, None]
    & is_component[None, :]
    & ~jnp.eye(num_padded, dtype=bool)
  )
  shape = (config.num_proposals, num_padded, config.dim)

  def propose(round_index):
    uniform_key, shift_key = jax.random.split(
      jax.random.fold_in(key, round_index)
    )
    # Flat draws compile three times faster than shaped ones.
    uniform = jax.random.uniform(
      uniform_key, (math.prod(shape),), minval=-bound, maxval=bound
    )
    proposals = uniform.reshape(shape)
    if shift:
      normal = jax.random.normal(shift_key, (math.prod(shape),))
      proposals += shift * normal.reshape(shape)
    # The cosine of two vectors exceeds c if <a, b> > c |a| |b|; no division, so
    # that one at the origin is no trouble.
    gram = jnp.einsum("pid,pjd->pij", proposals, proposals)
    norms = jnp.sqrt(jnp.diagonal(gram, axis1=1, axis2=2))
    bounds = config.max_cosine * norms[:, :, None] * norms[:, None, :]
    # From 1 on there is no rule, also for those that are exactly parallel.
    is_apart = (gram < bounds) | (config.max_cosine >= 1)
    is_valid = jnp.all(is_apart | ~is_pair, axis=(1, 2))
    first = jnp.argmax(is_valid)
    return proposals[first], is_valid[first]

  def keep_going(carry):
    return ~carry[2]

  def next_round(carry):
    vectors, is_valid = propose(carry[0])
    return carry[0] + 1, vectors, is_valid

  start = (0, jnp.zeros(shape[1:]), jnp.asarray(False))
  _, vectors, _ = jax.lax.while_loop(keep_going, next_round, start)
  return jnp.where(is_component[:, None], vectors, 0.0)
