"""Where runs of EM begin: drawn by a named method, or given and checked."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, linalg, types
from tgmm_jax.solvers import covariance as covariance_lib
from tgmm_jax.solvers import k_means, spectral
from tgmm_jax.solvers import problem as problem_lib
from tgmm_jax.solvers.em import blocks, observations, priors
from tgmm_jax.solvers.em import known as em_known
from tgmm_jax.solvers.em import options as em_options


class Start(NamedTuple):
  """Where a run of EM starts, in the frame.

  Attributes:
    mixture: weights, means `[K, r]` and covariances.
    anchor: means and covariances to which components fall back that lose all
      their points.
    fixed: which parameters stay, or None.
  """

  mixture: types.Mixture
  anchor: types.Mixture
  fixed: em_known.Fixed | None = None


def draw(
  key: jax.Array, problem: problem_lib.PreparedProblem, form: em_options.Form
) -> Start:
  """Equal weights, means by the method `form.init`, one covariance for all.

  The covariance is the pooled one of the points about their nearest means. A
  component without points falls back to the overall mean (with "normal" to
  the origin) and to this covariance.

  Args:
    key: consumed; draws the means.
    problem: made ready by `problem.prepare`.
    form: its covariance type, static K and method are used.
  """
  columns, num_components = problem.columns, problem.num_components
  is_component = jnp.arange(form.max_components) < num_components
  weights = jnp.where(is_component, 1.0 / num_components, 0.0)
  means = _draw_means(key, problem, form, form.init)
  means = jnp.where(is_component[:, None], means, 0.0)
  anchor = jnp.zeros_like(means)
  if form.init == "normal":
    anchor += problem_lib.to_frame(problem, jnp.zeros_like(problem.centre))
  covariances = _pooled(problem, means, covariance_type=form.covariance_type)
  return Start(
    types.Mixture(weights.astype(columns.dtype), means, covariances),
    types.Mixture(weights.astype(columns.dtype), anchor, covariances),
  )


def _draw_means(key, problem, form, init):
  """Means in the frame, by the method `init`."""
  num_components = problem.num_components
  options = {
    "sample_weight": problem.sample_weight,
    "max_components": form.max_components,
  }
  if init == "normal":
    # About the origin of the points, which the frame has moved.
    means = k_means.normal(key, problem.centre[None], num_components, **options)
    return problem_lib.to_frame(problem, means)
  if init == "spectral":
    is_known = gmm.kind_of(form.covariance_type).is_known
    columns = problem.columns
    if problem.directions is not None:
      columns = jnp.matmul(problem.directions, columns)
    points = (columns * problem.scale[:, None]).T + problem.centre
    # About the mean it does not matter where the origin is, and K = d + 1 can
    # be told as well.
    result = spectral.fit(
      key,
      points,
      num_components,
      variance=1.0 if is_known else None,
      about="mean",
      **options,
    )
    means = problem_lib.to_frame(problem, result.mixture.means)
    other = _draw_means(key, problem, form, "k-means++")
    is_told = result.status == types.Status.CONVERGED
    return jnp.where(is_told, means, other)
  # Distances are those of the points as given, up to one factor.
  relative = problem.scale / jnp.max(problem.scale)
  if problem.directions is not None:
    relative = jnp.ones_like(problem.columns[:, 0])
  means = k_means.METHODS[init](
    key, (problem.columns * relative[:, None]).T, num_components, **options
  )
  return means / relative


def _pooled(problem, means, *, covariance_type):
  """Of the points about their nearest means; None for unit covariance."""
  if gmm.kind_of(covariance_type).is_known:
    return None
  relative = (problem.scale / jnp.max(problem.scale))[:, None]
  is_component = jnp.arange(means.shape[0]) < problem.num_components

  def scatter(columns, sample_weight):
    differences = columns[None] - means[:, :, None]
    distances = jnp.sum((differences * relative) ** 2, axis=1)
    distances = jnp.where(is_component[:, None], distances, jnp.inf)
    nearest = jnp.argmin(distances, axis=0)
    is_nearest = jnp.arange(means.shape[0])[:, None] == nearest
    return covariance_lib.scatter(
      jnp.where(is_nearest, sample_weight, 0.0),
      differences,
      covariance_type=covariance_type,
    )

  total, _ = blocks.sum_over(
    lambda columns, weight: (scatter(columns, weight), weight),
    problem.columns,
    sample_weight=problem.sample_weight,
  )
  return covariance_lib.pooled(
    total, *means.shape, problem.ridge, covariance_type=covariance_type
  )


def check(
  problem: problem_lib.PreparedProblem,
  mixture: types.Mixture,
  *,
  covariance_type: str,
) -> tuple[problem_lib.PreparedProblem, Start]:
  """A given start, in the frame; one that cannot be used marks the problem.

  Without covariances it takes the pooled one of `draw`.
  """
  dtype = problem.columns.dtype
  is_component = jnp.arange(mixture.weights.size) < problem.num_components
  weights = jnp.where(is_component, mixture.weights.astype(dtype), 0.0)
  means = jnp.where(is_component[:, None], mixture.means.astype(dtype), 0.0)
  is_usable = linalg.is_weighted(weights) & linalg.is_squarable(means)
  uniform = is_component / problem.num_components
  weights = jnp.where(is_usable, weights / jnp.sum(weights), uniform)
  weights = weights.astype(dtype)
  means = jnp.where(is_usable, means, 0.0)
  means = problem_lib.to_frame(problem, means)
  is_usable &= linalg.is_squarable(means)
  means = jnp.where(is_component[:, None] & is_usable, means, 0.0)
  if gmm.kind_of(covariance_type).is_known or mixture.covariances is None:
    covariances = _pooled(problem, means, covariance_type=covariance_type)
  else:
    covariances, is_given = _check_covariances(
      problem,
      mixture.covariances,
      is_component,
      covariance_type=covariance_type,
    )
    is_usable &= is_given
  problem = problem._replace(is_valid=problem.is_valid & is_usable)
  mixture = types.Mixture(weights, means, covariances)
  return problem, Start(mixture, mixture)


def _check_covariances(
  problem,
  given,
  is_component,
  *,
  covariance_type,
):
  """Covariances in the frame, and whether they can be used."""
  size, dim = is_component.size, problem.centre.size
  kind = gmm.kind_of(covariance_type)
  harmless = jnp.eye(dim) if kind.structure == "matrix" else 1.0
  harmless = jnp.broadcast_to(
    jnp.asarray(harmless, problem.centre.dtype), kind.shape(size, dim)
  )
  given = given.astype(harmless.dtype)
  given = covariance_lib.scaled(
    given, 1.0 / problem.scale, covariance_type=covariance_type
  )
  if kind.is_per_component:
    shape = (size, *(1,) * (given.ndim - 1))
    given = jnp.where(is_component.reshape(shape), given, harmless)
  given, is_usable = covariance_lib.lift(
    given, problem.ridge.fixed, covariance_type=covariance_type
  )
  return jnp.where(is_usable, given, harmless), is_usable


class Inputs(NamedTuple):
  """One problem as it came, and what its start is made of.

  Attributes:
    key: consumed; split over the starts.
    points: `[N, d]`.
    num_components: K, may be traced.
    sample_weight: `[N]`, or None for ones.
    given: the mixture to start from, or None to draw.
    fixed: which parameters of it stay, or None.
    point_covariances: of the noise of each point, `[N, d]` or `[N, d, d]`, or
      None for none.
    prior: of the parameters, or None.
  """

  key: jax.Array
  points: jax.Array
  num_components: jax.Array | int
  sample_weight: jax.Array | None
  given: types.Mixture | None
  fixed: em_known.Fixed | None = None
  point_covariances: jax.Array | None = None
  prior: priors.Prior | None = None


def set_up(
  inputs: Inputs, limits: em_options.Limits, form: em_options.Form
) -> tuple[problem_lib.PreparedProblem, Start]:
  """The problem made ready, and its starts with a leading axis."""
  if not form.takes_holes and inputs.point_covariances is None:
    return _begin_all(inputs, prepare(inputs, limits, form), form)
  problem = observations.prepare(
    inputs.points,
    inputs.num_components,
    inputs.point_covariances,
    limits,
    form,
    sample_weight=inputs.sample_weight,
  )
  problem = with_prior(problem, inputs.prior, form)
  filled, given = problem, inputs.given
  is_known = gmm.kind_of(form.covariance_type).is_known
  is_told = given is not None and (is_known or given.covariances is not None)
  if form.takes_holes and not is_told:
    filled = problem._replace(columns=observations.fill(problem))
  filled, starts = _begin_all(inputs, filled, form)
  return problem._replace(is_valid=filled.is_valid), starts


def _begin_all(inputs, problem, form):
  """The problem, marked where its start cannot be used, and its starts."""
  if inputs.given is not None:
    problem, start = begin(
      inputs.key, inputs.given, problem, form, fixed=inputs.fixed
    )
    return problem, jax.tree.map(lambda leaf: leaf[None], start)

  def draw_one(key):
    return draw(key, problem, form)

  return problem, jax.vmap(draw_one)(
    jax.random.split(inputs.key, form.num_init)
  )


def prepare(
  inputs: Inputs, limits: em_options.Limits, form: em_options.Form
) -> problem_lib.PreparedProblem:
  """The problem made ready, as its form asks for; points as they are."""
  rank = None
  if form.is_projected:
    rank = max(1, min(form.max_components - 1, inputs.points.shape[-1]))
  problem = problem_lib.prepare(
    inputs.points,
    inputs.num_components,
    sample_weight=inputs.sample_weight,
    max_components=form.max_components,
    covariance_type=form.covariance_type,
    rank=rank,
    reg_share=limits.reg_share,
    reg_covar=limits.reg_covar,
  )
  return with_prior(problem, inputs.prior, form)


def with_prior(
  problem: problem_lib.PreparedProblem,
  prior: priors.Prior | None,
  form: em_options.Form,
) -> problem_lib.PreparedProblem:
  """The problem with its prior; one that cannot be used marks it."""
  if prior is None:
    return problem
  prior, is_usable = priors.in_frame(
    problem, prior, covariance_type=form.covariance_type
  )
  return problem._replace(prior=prior, is_valid=problem.is_valid & is_usable)


def begin(
  key: jax.Array,
  given: types.Mixture | None,
  problem: problem_lib.PreparedProblem,
  form: em_options.Form,
  *,
  fixed: em_known.Fixed | None = None,
) -> tuple[problem_lib.PreparedProblem, Start]:
  """A start, and the problem: marked where the given one cannot be used.

  Args:
    key: consumed; draws a start where none is given.
    given: the mixture to start from, or None.
    problem: from `prepare`.
    form: of the fit.
    fixed: what of the given mixture stays, or None.
  """
  if given is None:
    return problem, draw(key, problem, form)
  problem, start = check(problem, given, covariance_type=form.covariance_type)
  if fixed is not None:
    problem, mixture, fixed = em_known.hold_start(
      problem, start.mixture, given, fixed
    )
    start = Start(mixture, mixture, fixed)
  return problem, start


def restored(result: types.SolverResult, inputs: Inputs) -> types.SolverResult:
  """A result of one problem with what stays bit for bit as it was given."""
  return em_known.restored(
    result, inputs.given, inputs.fixed, inputs.num_components
  )


def from_frame(
  problem: problem_lib.PreparedProblem,
  mixture: types.Mixture,
  *,
  covariance_type: str,
) -> types.Mixture:
  """A mixture in the coordinates of the points; padding is 0 or the ridge."""
  covariances = mixture.covariances
  if not gmm.kind_of(covariance_type).is_known:
    covariances = covariance_lib.scaled(
      covariance_lib.positive_definite(
        covariances, covariance_type=covariance_type
      ),
      problem.scale,
      covariance_type=covariance_type,
    )
  return types.Mixture(
    mixture.weights, problem_lib.from_frame(problem, mixture.means), covariances
  )
