"""Who is scored: classical solvers, networks, and the references.

Each is a function from a batch of tasks to results; only the references look at
the truth.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from tgmm_jax import gmm, types
from tgmm_jax.constructed import clustering as constructed_clustering
from tgmm_jax.constructed import em as constructed_em
from tgmm_jax.constructed import spectral as constructed_spectral
from tgmm_jax.evaluation import references
from tgmm_jax.models import factory
from tgmm_jax.solvers import combine, em, spectral

# `(key, TaskBatch) -> {name: SolverResult}`, all with the leading axis B. One
# function for a solver and its refinements: the first answer is found once.
SolverGroup = Callable[
  [jax.Array, types.TaskBatch], dict[str, types.SolverResult]
]

# Tasks at a time: what fits the caches of a CPU.
BATCH_SIZE = 64
_NUM_EM_STEPS = 5
_NUM_VIEWS = 8

# For anisotropic tasks, below every variance of the law: a component on one
# point cannot win by its likelihood.
_FLOOR = {"diag": {"min_variance": 0.25}}
# Added to every variance by the published EM, in squared units of the points.
_RELEASED_RIDGE = 1e-6


def baselines(
  *,
  covariance_type: str = "unit",
) -> dict[str, SolverGroup]:
  """The classical solvers and the reference rows, by the name of a group.

  Args:
    covariance_type: of the tasks. But for "unit" they estimate variances; the
      spectral method, which has one variance for all, is not there.
  """
  one = {"init": "k-means++"}
  ten = one | {"num_init": 10}
  if not gmm.kind_of(covariance_type).is_known:
    own = {"covariance_type": covariance_type}
    groups = {
      "em/normal": _em_group("em/normal", init="normal", **own),
      "em/ward": _em_group("em/ward", init="ward", **own),
      "em/k-means++": _em_group("em/k-means++", **one, **own),
      "em/k-means++-x10": _em_group("em/k-means++-x10", **ten, **own),
    }
    if gmm.kind_of(covariance_type).structure == "axes":
      name = "em/normal-identity"
      groups[name] = _identity_group(name, covariance_type=covariance_type)
    if covariance_type in _FLOOR:
      name, floor = "em/k-means++-x10-floor", _FLOOR[covariance_type]
      groups[name] = _em_group(name, **ten, **own, **floor)
    return groups | {
      "em/oracle": _oracle_group(covariance_type=covariance_type),
      "labels": _label_group(covariance_type=covariance_type),
    }
  return {
    "em/normal": _em_group("em/normal", init="normal"),
    "em/random_points": _em_group("em/random_points", init="random_points"),
    "em/ward": _em_group("em/ward", init="ward"),
    "em/k-means++": _em_group("em/k-means++", **one),
    "em/k-means++-x10": _em_group("em/k-means++-x10", **ten),
    "em/k-means++-x10-projected": _em_group(
      "em/k-means++-x10-projected", is_projected=True, **ten
    ),
    "spectral": _spectral_group(),
    "spectral/estimated": _estimated_group(),
    "em/oracle": _oracle_group(covariance_type="unit"),
    "labels": _label_group(covariance_type="unit"),
  }


def baseline_names(*, covariance_type: str = "unit") -> tuple[str, ...]:
  """The names of the solvers that `baselines` makes."""
  names = list(baselines(covariance_type=covariance_type))
  if "spectral" in names:
    # The group answers twice.
    names.insert(names.index("spectral") + 1, "spectral+em")
  return tuple(names)


# Two classes are K = 2 alone; for other K it says INVALID_INPUT.
TWO_CLASSES = "constructed/two-classes"
# EM steps of the constructed network, and how far its points may reach.
_NUM_CONSTRUCTED_STEPS = 30
_CONSTRUCTED_RANGE = 12.0


CONSTRUCTED_NAMES = ("constructed/em", "constructed/spectral", TWO_CLASSES)


def constructed(max_dim: int, max_components: int) -> dict[str, SolverGroup]:
  """The constructed transformers, by the name of a group.

  Args:
    max_dim: largest d of the tasks.
    max_components: largest K.
  """
  network = constructed_em.build(
    max_dim,
    max_components,
    design="three_layer",
    max_range=_CONSTRUCTED_RANGE,
  )
  solvers = {
    "constructed/em": functools.partial(
      constructed_em.fit, network=network, num_steps=_NUM_CONSTRUCTED_STEPS
    ),
    "constructed/spectral": constructed_spectral.fit,
    TWO_CLASSES: constructed_clustering.fit,
  }
  return {name: _padded_group(name, solve) for name, solve in solvers.items()}


def network_names(name: str, config: factory.ModelConfig) -> tuple[str, ...]:
  """The names of the solvers that `network` makes of a trained network."""
  names = (name, f"{name}+em{_NUM_EM_STEPS}")
  if isinstance(config, factory.CONFIGS["refiner"]):
    names += (f"{name}-x{_NUM_VIEWS}+em{_NUM_EM_STEPS}",)
  return names


def network(
  name: str, model: factory.Model, params: factory.Params
) -> SolverGroup:
  """A trained network, alone and refined by EM; with a frame also 8 views."""
  names = network_names(name, model.config)
  solve = factory.solver(model, params)
  covariance_type = model.config.covariance_type
  options = {
    "max_iter": _NUM_EM_STEPS,
    "tol": 0.0,
    "covariance_type": covariance_type,
    **_FLOOR.get(covariance_type, {}),
  }
  refined = combine.then_em(solve, **options)
  one_view = jax.jit(_over_tasks(solve))
  many_views = jax.jit(_over_tasks(combine.best_of(refined, _NUM_VIEWS)))

  def group(key, batch):
    first = one_view(key, batch)
    second = _fit_batch(key, batch, init=first.mixture, **options)
    num_iters = first.num_iters + second.num_iters
    answers = [first, second._replace(num_iters=num_iters)]
    if len(names) > len(answers):
      answers.append(many_views(key, batch))
    return dict(zip(names, answers, strict=True))

  return group


def _over_tasks(solve):
  """A solver of one problem as a function of a batch of tasks."""

  def solve_batch(key, batch):
    keys = jax.random.split(key, batch.num_components.shape[0])

    def solve_one(inputs):
      key, task = inputs
      return solve(
        key,
        task.points,
        task.num_components,
        sample_weight=task.sample_weight,
      )

    return jax.lax.map(solve_one, (keys, batch), batch_size=BATCH_SIZE)

  return solve_batch


def _fit_batch(key, batch, **options):
  return em.fit_batch(
    key,
    batch.points,
    batch.num_components,
    sample_weight=batch.sample_weight,
    max_components=batch.mixture.weights.shape[-1],
    **options,
  )


def _em_group(name, **options):
  return lambda key, batch: {name: _fit_batch(key, batch, **options)}


def _identity_group(
  name,
  *,
  covariance_type,
):
  """EM as published for anisotropic tasks: from N(0, I) and the identity.

  Variances grow by 1e-6 in each step, in units of the points.
  """

  def group(key, batch):
    start_key, key = jax.random.split(key)
    truth, count = batch.mixture, batch.num_components[:, None]
    is_component = jnp.arange(truth.weights.shape[1]) < count
    start = types.Mixture(
      is_component / count,
      jax.random.normal(start_key, truth.means.shape),
      jnp.ones_like(truth.covariances),
    )
    options = {"covariance_type": covariance_type, "init": start}
    options |= {"reg_share": 0.0, "reg_covar": _RELEASED_RIDGE}
    return {name: _fit_batch(key, batch, **options)}

  return group


def _oracle_group(
  *,
  covariance_type,
):
  return lambda key, batch: {
    "em/oracle": _fit_batch(
      key,
      _with_true_count(batch),
      init=batch.mixture,
      covariance_type=covariance_type,
    )
  }


def _padded_group(name, solve):
  @jax.jit
  def group(key, batch):
    size = batch.mixture.weights.shape[-1]
    solve_padded = functools.partial(solve, max_components=size)
    return {name: _over_tasks(solve_padded)(key, batch)}

  return group


def _label_group(
  *,
  covariance_type,
):
  limit = functools.partial(
    references.label_limit, covariance_type=covariance_type
  )
  solve_batch = jax.jit(jax.vmap(limit))
  return lambda key, batch: {"labels": solve_batch(_with_true_count(batch))}


def _with_true_count(batch):
  """Tasks with their own K, where the solvers are told another."""
  count = jnp.sum(batch.mixture.weights > 0, axis=-1, dtype=jnp.int32)
  return batch._replace(num_components=count)


def _spectral_group():
  @jax.jit
  def solve(key, batch):
    size = batch.mixture.weights.shape[-1]
    fit = functools.partial(spectral.fit, max_components=size)
    return _over_tasks(fit)(key, batch)

  def group(key, batch):
    first = solve(key, batch)
    second = _fit_batch(key, batch, init=first.mixture)
    status = jnp.maximum(first.status, second.status)
    return {"spectral": first, "spectral+em": second._replace(status=status)}

  return group


def _estimated_group():
  """The spectral method as published: with the least eigenvalue as variance."""

  def fit(key, points, num_components, *, sample_weight, max_components):
    variance = spectral.noise_variance(points, sample_weight=sample_weight)
    result = spectral.fit(
      key,
      points,
      num_components,
      sample_weight=sample_weight,
      max_components=max_components,
      variance=variance,
    )
    # The answer is scored as one of unit covariance.
    mixture = result.mixture._replace(covariances=None)
    return result._replace(mixture=mixture)

  return _padded_group("spectral/estimated", fit)
