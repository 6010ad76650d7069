"""Where runs of EM begin: drawn by a named method, or given and checked."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, types
from tgmm_jax.solvers import checks, spectral
from tgmm_jax.solvers import covariance as covariance_lib
from tgmm_jax.solvers import k_means as init_lib
from tgmm_jax.solvers import problem as problem_lib

# What `init` takes besides a mixture.
METHODS = (*init_lib.METHODS, "spectral")


class Start(NamedTuple):
  """Where a run of EM starts, in the frame.

  Attributes:
    mixture: weights, means `[K, r]` and covariances.
    anchor: means and covariances to which components fall back that lose all
      their points.
  """

  mixture: types.Mixture
  anchor: types.Mixture


def options(
  points: jax.Array,
  num_components: jax.Array | int,
  *,
  covariance_type: str = "unit",
  max_components: int | None = None,
  init: str | types.Mixture = "k-means++",
  num_init: int = 1,
  is_projected: bool = False,
  axes: tuple[str, ...] = ("N", "d"),
) -> tuple[types.Mixture | None, dict[str, Any]]:
  """Refuses what no data can make right; arguments as in `em.fit`.

  Args:
    points: with the given axes.
    num_components: K, of each problem or of all.
    covariance_type: as in `em.fit`.
    max_components: as in `em.fit`.
    init: as in `em.fit`; a mixture has the batch axes of the points.
    num_init: as in `em.fit`.
    is_projected: as in `em.fit`.
    axes: letters of the axes of `points`.

  Returns:
    The given start or None, and the static arguments of `set_up`.
  """
  checks.shape("points", points, axes)
  max_components = problem_lib.static_components(num_components, max_components)
  checks.name("covariance_type", covariance_type, gmm.COVARIANCE_TYPES)
  checks.integer("num_init", num_init, lowest=1)
  if is_projected and covariance_type != "unit":
    raise ValueError(
      f"is_projected is True with covariance_type {covariance_type!r}, takes"
      " 'unit'"
    )
  given = None
  if isinstance(init, types.Mixture):
    given, init = init, None
    _check_shapes(given, points, max_components, covariance_type)
    if num_init != 1:
      raise ValueError(f"num_init is {num_init}, takes 1 with a given init")
  else:
    checks.name("init", init, METHODS, "or a Mixture")
  return given, {
    "covariance_type": covariance_type,
    "init": init,
    "max_components": max_components,
    "num_init": num_init,
    "is_projected": is_projected,
  }


def _check_shapes(given, points, max_components, covariance_type):
  batch, dim = points.shape[:-2], points.shape[-1]
  expected = types.Mixture(
    (*batch, max_components),
    (*batch, max_components, dim),
    (*batch, *gmm.covariance_shape(covariance_type, max_components, dim)),
  )
  for name, leaf, shape in zip(expected._fields, given, expected, strict=True):
    if name == "covariances" and (leaf is None or covariance_type == "unit"):
      continue
    if jnp.shape(leaf) != shape:
      raise ValueError(
        f"init has {name} of shape {jnp.shape(leaf)}, takes {shape}"
      )


def draw(
  key: jax.Array,
  problem: problem_lib.Problem,
  init: str,
  max_components: int,
  covariance_type: str,
) -> Start:
  """Equal weights, means by the method `init`, one covariance for all.

  The covariance is the pooled one of the points about their nearest means. A
  component without points falls back to the overall mean (with "normal" to
  the origin) and to this covariance.

  Args:
    key: consumed; draws the means.
    problem: made ready by `problem.prepare`.
    init: one of `METHODS`.
    max_components: static K.
    covariance_type: one of `gmm.COVARIANCE_TYPES`.
  """
  columns, num_components = problem.columns, problem.num_components
  is_component = jnp.arange(max_components) < num_components
  weights = jnp.where(is_component, 1.0 / num_components, 0.0)
  means = _draw_means(key, problem, init, max_components, covariance_type)
  means = jnp.where(is_component[:, None], means, 0.0)
  anchor = jnp.zeros_like(means)
  if init == "normal":
    anchor += problem_lib.to_frame(problem, jnp.zeros_like(problem.centre))
  covariances = _pooled(problem, means, covariance_type)
  return Start(
    types.Mixture(weights.astype(columns.dtype), means, covariances),
    types.Mixture(weights.astype(columns.dtype), anchor, covariances),
  )


def _draw_means(key, problem, init, max_components, covariance_type):
  """Means in the frame."""
  num_components = problem.num_components
  options = {
    "sample_weight": problem.sample_weight,
    "max_components": max_components,
  }
  if init == "normal":
    # About the origin of the points, which the frame has moved.
    means = init_lib.normal(
      key, problem.centre[None], num_components, **options
    )
    return problem_lib.to_frame(problem, means)
  if init == "spectral":
    variance = 1.0 if covariance_type == "unit" else None
    columns = problem.columns
    if problem.directions is not None:
      columns = jnp.matmul(problem.directions, columns)
    points = (columns * problem.scale[:, None]).T + problem.centre
    # About the mean it does not matter where the origin is, and K = d + 1 can
    # be told as well.
    result = spectral.fit(
      key, points, num_components, variance=variance, about="mean", **options
    )
    means = problem_lib.to_frame(problem, result.mixture.means)
    other = _draw_means(
      key, problem, "k-means++", max_components, covariance_type
    )
    is_told = result.status == types.Status.CONVERGED
    return jnp.where(is_told, means, other)
  # Distances are those of the points as given, up to one factor.
  relative = problem.scale / jnp.max(problem.scale)
  if problem.directions is not None:
    relative = jnp.ones_like(problem.columns[:, 0])
  means = init_lib.METHODS[init](
    key, (problem.columns * relative[:, None]).T, num_components, **options
  )
  return means / relative


def _pooled(problem, means, covariance_type):
  """Of the points about their nearest means; None for unit covariance."""
  if covariance_type == "unit":
    return None
  columns = problem.columns
  differences = columns[None] - means[:, :, None]
  relative = (problem.scale / jnp.max(problem.scale))[:, None]
  distances = jnp.sum((differences * relative) ** 2, axis=1)
  is_component = jnp.arange(means.shape[0]) < problem.num_components
  distances = jnp.where(is_component[:, None], distances, jnp.inf)
  nearest = jnp.argmin(distances, axis=0)
  is_nearest = jnp.arange(means.shape[0])[:, None] == nearest
  return covariance_lib.pooled(
    jnp.where(is_nearest, problem.sample_weight, 0.0),
    differences,
    problem.ridge,
    covariance_type,
  )


def check(
  problem: problem_lib.Problem, mixture: types.Mixture, covariance_type: str
) -> tuple[problem_lib.Problem, Start]:
  """A given start, in the frame; one that cannot be used marks the problem.

  Without covariances it takes the pooled one of `draw`.
  """
  dtype = problem.columns.dtype
  is_component = jnp.arange(mixture.weights.size) < problem.num_components
  weights = jnp.where(is_component, mixture.weights.astype(dtype), 0.0)
  means = jnp.where(is_component[:, None], mixture.means.astype(dtype), 0.0)
  largest = jnp.finfo(dtype).max
  total = jnp.sum(weights)
  is_usable = (
    jnp.all(weights >= 0)
    & (total > 0)
    & (total < largest)
    & jnp.all(jnp.sum(means**2, axis=-1) < 1e-3 * largest)
  )
  uniform = is_component / problem.num_components
  weights = jnp.where(is_usable, weights / total, uniform).astype(dtype)
  means = jnp.where(is_usable, means, 0.0)
  means = problem_lib.to_frame(problem, means)
  is_usable &= jnp.all(jnp.sum(means**2, axis=-1) < 1e-3 * largest)
  means = jnp.where(is_component[:, None] & is_usable, means, 0.0)
  if covariance_type == "unit" or mixture.covariances is None:
    covariances = _pooled(problem, means, covariance_type)
  else:
    covariances, is_given = _check_covariances(
      problem, mixture.covariances, is_component, covariance_type
    )
    is_usable &= is_given
  problem = problem._replace(is_valid=problem.is_valid & is_usable)
  mixture = types.Mixture(weights, means, covariances)
  return problem, Start(mixture, mixture)


def _check_covariances(problem, given, is_component, covariance_type):
  """Covariances in the frame, and whether they can be used."""
  size, dim = is_component.size, problem.centre.size
  harmless = 1.0
  if covariance_type in ("full", "tied"):
    harmless = jnp.eye(dim)
  harmless = jnp.broadcast_to(
    jnp.asarray(harmless, problem.centre.dtype),
    gmm.covariance_shape(covariance_type, size, dim),
  )
  given = given.astype(harmless.dtype)
  given = covariance_lib.scaled(given, 1.0 / problem.scale, covariance_type)
  if "tied" not in covariance_type:
    shape = (size, *(1,) * (given.ndim - 1))
    given = jnp.where(is_component.reshape(shape), given, harmless)
  given, is_usable = covariance_lib.lift(given, problem.ridge, covariance_type)
  return jnp.where(is_usable, given, harmless), is_usable


def set_up(
  key: jax.Array,
  points: jax.Array,
  num_components: jax.Array,
  sample_weight: jax.Array | None,
  given: types.Mixture | None,
  limits: Any,
  *,
  covariance_type: str,
  init: str | None,
  max_components: int,
  num_init: int,
  is_projected: bool,
) -> tuple[problem_lib.Problem, Start]:
  """The problem made ready, and its starts with a leading axis.

  Arguments as in `em.fit`; `limits` has `reg_share` and `reg_covar`.
  """
  rank = None
  if is_projected:
    rank = max(1, min(max_components - 1, points.shape[-1]))
  problem = problem_lib.prepare(
    points,
    num_components,
    sample_weight,
    max_components,
    covariance_type=covariance_type,
    rank=rank,
    reg_share=limits.reg_share,
    reg_covar=limits.reg_covar,
  )
  if given is not None:
    problem, start = check(problem, given, covariance_type)
    return problem, jax.tree.map(lambda leaf: leaf[None], start)

  def draw_one(key):
    return draw(key, problem, init, max_components, covariance_type)

  return problem, jax.vmap(draw_one)(jax.random.split(key, num_init))


def from_frame(
  problem: problem_lib.Problem, mixture: types.Mixture, covariance_type: str
) -> types.Mixture:
  """A mixture in the coordinates of the points; padding is 0 or the ridge."""
  covariances = mixture.covariances
  if covariance_type != "unit":
    covariances = covariance_lib.scaled(
      covariance_lib.positive_definite(covariances, covariance_type),
      problem.scale,
      covariance_type,
    )
  return types.Mixture(
    mixture.weights, problem_lib.from_frame(problem, mixture.means), covariances
  )
