"""How near the network that performs EM is to EM."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from experiments.studies.constructed import rows as constructed_rows
from tgmm_jax import gmm, types
from tgmm_jax.constructed import em, em_network, primitives
from tgmm_jax.solvers import em as reference
from tgmm_jax.tasks import mixtures

# Mass below which a component of EM is said to die.
_LEAST_MASS = 0.5
DESIGN_NAMES = {
  "two_layer": "2 layers a step",
  "three_layer": "3 layers a step",
}


def _em_problems(settings, seed, num_points, max_dim, max_components):
  """Problems of all d and K, padded, and K of their points as starts."""
  parts = []
  for dim in settings.dims:
    law = mixtures.TaskConfig(
      dim=dim,
      num_components=settings.num_components,
      min_points=num_points // 2,
      max_points=num_points,
      mean_range=settings.mean_range,
      max_cosine=1.0,
      max_components=max_components,
    )
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), dim))
    batch = mixtures.sample_batch(keys[0], law, settings.num_problems)
    batch = _centred(batch)
    starts = jax.vmap(_random_start)(
      jax.random.split(keys[1], settings.num_problems), batch
    )
    padding = ((0, 0), (0, 0), (0, max_dim - dim))
    parts.append(
      (
        jnp.pad(batch.points, padding),
        batch.sample_weight,
        starts._replace(means=jnp.pad(starts.means, padding)),
      )
    )
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _centred(batch):
  """Points about the centre of their box, as the solver gives them."""
  is_point = batch.sample_weight[..., None] > 0
  low = jnp.min(batch.points, axis=1, where=is_point, initial=jnp.inf)
  high = jnp.max(batch.points, axis=1, where=is_point, initial=-jnp.inf)
  points = batch.points - 0.5 * (low + high)[:, None]
  return batch._replace(points=jnp.where(is_point, points, 0.0))


def _random_start(key, task):
  """K of the points, with equal weights."""
  size = task.mixture.weights.size
  share = task.sample_weight / jnp.sum(task.sample_weight)
  rows = jax.random.choice(
    key, task.points.shape[0], (size,), replace=False, p=share
  )
  is_component = jnp.arange(size) < task.num_components
  return types.Mixture(
    is_component.astype(task.points.dtype) / task.num_components,
    jnp.where(is_component[:, None], task.points[rows], 0.0),
  )


@functools.partial(jax.jit, static_argnames="num_steps")
def _trace(network, problems, num_steps):
  """By step, largest differences from EM, and whether a component died.

  Returns:
    Of responsibilities (after layer A), means and weights (after layer B),
    `[B, L]` each, and `[B]` bool.
  """
  num_layers = len(network.transformer.layers)

  def one(problem):
    points, sample_weight, start = problem
    size, dim = start.means.shape
    is_component, is_point = start.weights > 0, sample_weight > 0

    def advance(carry, _):
      state, exact = carry
      posterior = gmm.responsibilities(points, exact, covariance_type="unit")
      posterior = jnp.where(is_point[:, None] & is_component, posterior, 0.0)
      states = primitives.apply(
        network.transformer, state, network.schedule(1), return_states=True
      )
      first = size + (num_layers == 3)
      slots = network.transformer.slots
      # Attention of layer A writes them; layer B clears them at its end.
      found = slots.read(states[1], "ga")[:, first:].T
      found = jnp.where(is_point[:, None], found, 0.0)
      exact = reference.step(points, exact, sample_weight=sample_weight)
      own = em.decode(network, states[-1], size, dim)
      masses = jnp.where(is_component, exact.weights, jnp.inf)
      return (states[-1], exact), (
        jnp.max(jnp.abs(found - posterior)),
        jnp.max(jnp.abs(own.means - exact.means)),
        jnp.max(jnp.abs(own.weights - exact.weights)),
        jnp.min(masses) * jnp.sum(sample_weight) < _LEAST_MASS,
      )

    state = em.encode(network, points, start, sample_weight=sample_weight)
    *errors, is_dying = jax.lax.scan(advance, (state, start), length=num_steps)[
      1
    ]
    return (*errors, jnp.any(is_dying))

  return jax.lax.map(one, problems, batch_size=constructed_rows.BATCH_SIZE)


@constructed_rows.in_float64
def em_distance(settings, seed, on_step):
  """Network and EM, layer by layer, for several numbers of segments."""
  max_dim, max_components = max(settings.dims), max(settings.num_components)
  jobs = [
    (design, segments, dtype)
    for design in em_network.DESIGNS
    for segments in settings.segments
    for dtype in ("float64", "float32")
    if dtype == "float64" or segments == max(settings.segments)
  ]
  rows = []
  for done, (design, segments, dtype) in enumerate(jobs):
    network = em.build(
      max_dim, max_components, segments=segments, design=design, dtype=dtype
    )
    parts = [
      _trace(
        network,
        _em_problems(settings, seed, num_points, max_dim, max_components),
        settings.num_steps,
      )
      for num_points in settings.num_points
    ]
    *errors, is_dying = (
      np.concatenate(leaves) for leaves in zip(*parts, strict=True)
    )
    series = f"{DESIGN_NAMES[design]}, {segments} segments"
    series += ", float32" if dtype == "float32" else ""
    # Responsibilities after the first layer of a step, the rest at its end.
    period = len(network.transformer.layers)
    for quantity, values, layer in zip(
      ("responsibilities", "means", "weights"),
      errors,
      (1, period, period),
      strict=True,
    ):
      for statistic, share in (("median", 0.5), ("95th percentile", 0.95)):
        rows += [
          constructed_rows.point(
            "em_distance",
            f"{quantity}, {statistic}",
            series,
            period * step + layer,
            np.quantile(values[:, step], share),
            count=len(values),
            failures=int(is_dying.sum()),
          )
          for step in range(settings.num_steps)
        ]
    on_step(done + 1, len(jobs))
  return rows


@functools.partial(jax.jit, static_argnames=("num_steps", "num_exact"))
def _distance_to_limit(network, problems, num_steps, num_exact):
  """Distance of means and weights to EM's fixed point, `[B, L + 1]`.

  Of EM itself if there is no network.
  """

  def one(problem):
    points, sample_weight, start = problem
    step = functools.partial(
      reference.step, points, sample_weight=sample_weight
    )
    limit, _ = jax.lax.scan(
      lambda mixture, _: (step(mixture), None), start, length=num_exact
    )

    def distance(mixture):
      means = jnp.max(jnp.abs(mixture.means - limit.means))
      weights = jnp.max(jnp.abs(mixture.weights - limit.weights))
      return jnp.maximum(means, weights)

    return trace(
      *(network, points, start, num_steps, distance),
      sample_weight=sample_weight,
    )

  return jax.lax.map(one, problems, batch_size=constructed_rows.BATCH_SIZE)


def trace(
  network: em_network.EmNetwork | None,
  points: jax.Array,
  start: types.Mixture,
  num_steps: int,
  measure: Callable[[types.Mixture], Any],
  *,
  sample_weight: jax.Array,
) -> Any:
  """What is measured of the start and after each step, with a leading axis.

  Args:
    network: that takes the steps, or None for EM itself.
    points: `[N, d]`.
    start: where they begin.
    num_steps: L, static.
    measure: of a mixture, a tree of numbers.
    sample_weight: `[N]`.
  """

  def advance_exact(mixture, _):
    mixture = reference.step(points, mixture, sample_weight=sample_weight)
    return mixture, measure(mixture)

  def advance(state, _):
    state = em.step(network, state)
    return state, measure(em.decode(network, state, *start.means.shape))

  if network is None:
    _, measured = jax.lax.scan(advance_exact, start, length=num_steps)
  else:
    state = em.encode(network, points, start, sample_weight=sample_weight)
    _, measured = jax.lax.scan(advance, state, length=num_steps)
  return jax.tree.map(
    lambda first, rest: jnp.concatenate([first[None], rest]),
    measure(start),
    measured,
  )


@constructed_rows.in_float64
def em_limit(settings, seed, on_step):
  """Distance to EM's limit after L steps: `a beta^L + eps / (1 - beta)`."""
  sizes = (max(settings.dims), max(settings.num_components))
  problems = _em_problems(settings, seed, settings.num_points[0], *sizes)
  rows = []
  networks = {"EM itself": None} | {
    f"{segments} segments": em.build(*sizes, segments=segments, dtype="float64")
    for segments in settings.segments
  }
  for done, (series, network) in enumerate(networks.items()):
    distances = np.median(
      _distance_to_limit(
        network, problems, settings.num_steps, settings.num_exact
      ),
      axis=0,
    )
    count = problems[0].shape[0]
    point = functools.partial(constructed_rows.point, "em_limit", count=count)
    rows += [
      point("distance, median", series, step, distance)
      for step, distance in enumerate(distances)
    ]
    if network is not None:
      fit = fit_bound(distances)
      rows += [
        point("distance, median", f"{series} (fit)", step, bound(fit, step))
        for step in range(len(distances))
      ]
      rows += [
        point(f"fit, {name}", series, 0, value)
        for name, value in zip(("a", "beta", "eps"), fit, strict=True)
      ]
    on_step(done + 1, len(networks))
  return rows


def bound(fit: tuple[float, float, float], step: float) -> float:
  """`a beta^L + eps / (1 - beta)`, the form of the bound of theorem C.1."""
  scale, rate, error = fit
  return scale * rate**step + error / (1.0 - rate)


def fit_bound(distances: np.ndarray) -> tuple[float, float, float]:
  """The a, beta and eps of least squared error of the log of the distance.

  Args:
    distances: `[L + 1]`, after 0 ... L steps, positive.
  """
  steps = np.arange(len(distances))

  def residuals(logs):
    fit = (np.exp(logs[0]), 1.0 / (1.0 + np.exp(-logs[1])), np.exp(logs[2]))
    return np.log(bound(fit, steps)) - np.log(distances)

  start = [np.log(distances[0]), 0.0, np.log(distances[-1] / 2.0)]
  scale, rate, error = optimize.least_squares(residuals, start).x
  return (
    float(np.exp(scale)),
    float(1.0 / (1.0 + np.exp(-rate))),
    float(np.exp(error)),
  )


@constructed_rows.in_float64
def residual_stream(settings, seed, on_step):
  """What every slot of every token holds within one step of EM.

  A problem small enough to be looked at: clusters in the plane, two layers a
  step. Metrics are the rows of the stream and series the tokens, both numbered
  so that they sort; x counts attentions and MLPs.
  """
  network = em.build(
    2, settings.num_components, segments=settings.segments, dtype="float64"
  )
  rng = np.random.default_rng(seed)
  means = rng.uniform(-2.0, 2.0, size=(settings.num_components, 2))
  labels = np.arange(settings.num_points) % settings.num_components
  points = means[labels] + rng.normal(size=(settings.num_points, 2))
  start = types.Mixture(
    jnp.full(len(means), 1.0 / len(means)),
    jnp.asarray(means + rng.normal(size=means.shape)),
  )
  transformer = network.transformer
  states = [em.encode(network, jnp.asarray(points), start)]
  for layer in transformer.layers:
    states.append(primitives.attend(layer, states[-1], "softmax"))
    states.append(primitives.feed_forward(layer, states[-1]))
  on_step(1, 1)
  tokens = [f"component {k + 1}" for k in range(len(means))]
  tokens += [f"point {i + 1}" for i in range(len(points))]
  names = [name for name, size in transformer.slots.sizes for _ in range(size)]
  return [
    constructed_rows.point(
      "residual_stream",
      f"{row:02d} {names[row]}",
      f"{column:02d} {tokens[column]}",
      part,
      value,
      count=1,
    )
    for (part, row, column), value in np.ndenumerate(np.asarray(states))
  ]
