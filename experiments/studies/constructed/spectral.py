"""How near the networks of the spectral methods are to their algorithms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from experiments.studies.constructed import rows as constructed_rows
from tgmm_jax.constructed import (
  clustering,
  eigenvectors,
  power_method,
  primitives,
  tensor_power,
)
from tgmm_jax.evaluation import results


@constructed_rows.in_float64
def tensor(settings, seed, on_step):
  """Relative error by step, and where the numbers leave the range."""
  rng = np.random.default_rng(seed)
  tokens = rng.normal(
    size=(settings.num_problems, settings.num_points, settings.dim)
  )
  starts = rng.normal(size=(settings.num_problems, settings.dim))
  starts /= np.linalg.norm(starts, axis=1, keepdims=True)
  exact = _exact_iterates(tokens, starts, settings.num_steps)
  rows = []
  variants = [
    ("float64", False),
    ("float32", False),
    ("float64", True),
    ("float32", True),
  ]
  for done, (dtype, is_normalised) in enumerate(variants):
    network = tensor_power.build(
      settings.dim,
      settings.num_points,
      is_normalised=is_normalised,
      dtype=dtype,
    )
    found = jax.jit(
      jax.vmap(
        lambda tokens, start, network=network: tensor_power.iterate(
          network, tokens, start, settings.num_steps
        )
      )
    )(tokens.astype(dtype), starts.astype(dtype))
    series = dtype + (", normalised" if is_normalised else "")
    rows += _tensor_rows(series, found, exact, settings, is_normalised)
    on_step(done + 1, len(variants))
  return rows


def _exact_iterates(tokens, starts, num_steps):
  """Directions `[B, L + 1, d]` and the logs of the lengths, in float64.

  Directions alone are iterated, so that nothing leaves the range.
  """
  vector = starts
  directions, logs = [vector], [np.zeros(len(starts))]
  for _ in range(num_steps):
    projections = np.einsum("bnd,bd->bn", tokens, vector)
    vector = np.einsum("bn,bnd->bd", projections**2, tokens)
    norms = np.linalg.norm(vector, axis=1)
    vector = vector / norms[:, None]
    directions.append(vector)
    logs.append(2.0 * logs[-1] + np.log10(norms))
  return np.stack(directions, 1), np.stack(logs, 1)


def _tensor_rows(series, found, exact, settings, is_normalised):
  directions, logs = exact
  vectors = np.asarray(found.vectors, np.float64)
  # By the largest entry first: the squares of the last are out of range.
  largest = np.max(np.abs(vectors), axis=-1, keepdims=True)
  vectors = vectors / np.where(largest > 0, largest, 1.0)
  norms = np.linalg.norm(vectors, axis=-1)
  last = np.asarray(found.num_steps)
  rows = []
  for step in range(1, settings.num_steps + 1):
    is_held = last >= step
    lost = int(np.sum(~is_held))
    point = functools.partial(
      constructed_rows.point,
      "tensor",
      count=len(last),
      failures=lost,
      series=series,
      x=step,
    )
    if is_held.any():
      unit = vectors[is_held, step] / norms[is_held, step, None]
      errors = np.linalg.norm(unit - directions[is_held, step], axis=1)
      rows.append(
        point(metric="error of the direction, largest", value=errors.max())
      )
      length = np.log10(norms[is_held, step])
      length += np.log10(largest[is_held, step, 0])
      rows.append(point(metric="log10 of the length", value=np.median(length)))
    rows.append(point(metric="share within range", value=1 - lost / len(last)))
  if not is_normalised and series == "float64":
    rows += [
      constructed_rows.point(
        "tensor",
        "log10 of the length",
        "exact (predicted)",
        step,
        np.median(logs[:, step]),
        count=len(last),
      )
      for step in range(1, settings.num_steps + 1)
    ]
  return rows


@constructed_rows.in_float64
def power(settings, seed, on_step):
  """Error of the leading eigenvector against tau, and at the predicted tau."""
  rng = np.random.default_rng(seed)
  network = power_method.build(
    settings.dim, settings.num_vectors, dtype="float64"
  )
  rows = []
  for done, ratio in enumerate(settings.ratios):
    points, vectors = spectral_problems(rng, settings, ratio)
    key = jax.random.fold_in(jax.random.key(seed), done)
    starts = jax.random.normal(key, (settings.num_problems, settings.dim))
    starts /= jnp.linalg.norm(starts, axis=1, keepdims=True)
    errors = _leading_errors(
      network, points, starts, vectors[:, :, 0], settings.num_steps
    )
    series = f"ratio {ratio:g}"
    rows += _power_rows(series, ratio, errors, starts, vectors)
    rows += _predicted_rows(network, settings, ratio, points, vectors, key)
    on_step(done + 1, len(settings.ratios))
  return rows


def spectral_problems(rng, settings, ratio):
  """Centred points whose covariance has a geometric spectrum, exactly."""
  shape = (settings.num_problems, settings.num_points, settings.dim)
  points = rng.normal(size=shape)
  points -= points.mean(axis=1, keepdims=True)
  left, _, _ = np.linalg.svd(points, full_matrices=False)
  vectors, _ = np.linalg.qr(rng.normal(size=(shape[0], shape[2], shape[2])))
  values = ratio ** np.arange(settings.dim)
  points = (left * np.sqrt(values * settings.num_points)) @ np.swapaxes(
    vectors, 1, 2
  )
  return jnp.asarray(points), jnp.asarray(vectors)


@functools.partial(jax.jit, static_argnames="num_steps")
def _leading_errors(network, points, starts, leading, num_steps):
  """`1 - |cos|` of the vector in work after 0 ... tau steps, `[B, tau + 1]`."""

  def one(problem):
    points, start, leading = problem
    scaled = eigenvectors.prepare(points, sample_weight=None).points
    states = primitives.apply(
      network,
      power_method.encode(network, scaled, start[None]),
      power_method.label_schedule(num_steps),
      return_states=True,
    )
    # One layer symmetrises, then two make an iteration.
    iterates = power_method.read_vector(
      network, states[1 : 2 * num_steps + 2 : 2], points.shape[1]
    )
    return _one_minus_cosine(iterates, leading)

  return jax.lax.map(
    one, (points, starts, leading), batch_size=constructed_rows.BATCH_SIZE
  )


def _one_minus_cosine(vectors, truth):
  """`1 - |cos|` without cancellation: from the length of the difference."""
  unit = vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
  side = jnp.sign(jnp.sum(unit * truth, axis=-1, keepdims=True))
  return 0.5 * jnp.sum((side * unit - truth) ** 2, axis=-1)


def _power_rows(series, ratio, errors, starts, vectors):
  """Medians by tau, and what the gap predicts for the same starts."""
  errors = np.asarray(errors)
  coordinates = np.einsum("bd,bdk->bk", np.asarray(starts), vectors)
  point = functools.partial(
    constructed_rows.point, "power", "1 - |cos|, median", count=len(errors)
  )
  rows = []
  for step in range(errors.shape[1]):
    rows.append(point(series, step, np.median(errors[:, step])))
    # The tangent to the leading vector after so many products, exactly.
    scaled = coordinates * ratio ** (
      step * np.arange(coordinates.shape[1], dtype=float)
    )
    tangent = np.linalg.norm(scaled[:, 1:], axis=1) / np.abs(scaled[:, 0])
    predicted = 1.0 - 1.0 / np.sqrt(1.0 + tangent**2)
    predicted = np.where(tangent < 1e-4, tangent**2 / 2.0, predicted)
    rows.append(point(f"{series} (predicted)", step, np.median(predicted)))
  return rows


def _predicted_rows(network, settings, ratio, points, vectors, key):
  """`1 - |cos|` of k vectors at the tau that the gap predicts."""
  num_steps = eigenvectors.num_steps_for(ratio, settings.dim)

  @jax.jit
  def errors_of(points, vectors, keys):
    def one(problem):
      points, vectors, key = problem
      pairs = eigenvectors.fit(
        key,
        points,
        settings.num_vectors,
        num_steps=num_steps,
        network=network,
      )
      return _one_minus_cosine(
        pairs.vectors.T, vectors.T[: settings.num_vectors]
      )

    return jax.lax.map(
      one, (points, vectors, keys), batch_size=constructed_rows.BATCH_SIZE
    )

  keys = jax.random.split(key, settings.num_problems)
  errors = np.asarray(errors_of(points, vectors, keys))
  rows = [
    constructed_rows.point(
      "power", "predicted tau", f"ratio {ratio:g}", 0, num_steps, count=1
    )
  ]
  return rows + [
    constructed_rows.point(
      "power",
      "1 - |cos| at the predicted tau, largest",
      f"ratio {ratio:g}",
      index + 1,
      errors[:, index].max(),
      count=len(errors),
      failures=int(np.sum(errors[:, index] > 1e-6)),
    )
    for index in range(settings.num_vectors)
  ]


@constructed_rows.in_float64
def two_classes(settings, seed, on_step):
  """Misclassification against separation, beside the Bayes rate."""
  rows = []
  cells = [
    (size, separation)
    for size in zip(settings.dims, settings.num_points, strict=True)
    for separation in settings.separations
  ]
  for done, ((dim, num_points), separation) in enumerate(cells):
    network = power_method.build(dim, dtype="float64")
    key = jax.random.fold_in(jax.random.key(seed), done)
    keys = jax.random.split(key, settings.num_problems)
    own, exact, same = _errors_of_labels(
      network, keys, dim, num_points, separation, settings.num_steps
    )
    label = f"d = {dim}, N = {num_points}"
    point = functools.partial(
      results.mean_point, "two_classes", "error", x=separation
    )
    rows += [
      point(series=f"network, {label}", values=own),
      point(series=f"eigh, {label}", values=exact),
      point(series=f"true means, {label}", values=same),
    ]
    if done < len(settings.separations):
      rate = stats.norm.cdf(-separation)
      rows.append(
        constructed_rows.point(
          "two_classes",
          "error",
          "Phi(-|mu|) (Bayes)",
          separation,
          rate,
          count=1,
        )
      )
    on_step(done + 1, len(cells))
  return rows


@functools.partial(jax.jit, static_argnames=("dim", "num_points", "num_steps"))
def _errors_of_labels(network, keys, dim, num_points, separation, num_steps):
  """Shares of wrong labels by network, by `eigh`, by the true means."""

  def one(key):
    keys = jax.random.split(key, 4)
    mean = jax.random.normal(keys[0], (dim,))
    mean *= separation / jnp.linalg.norm(mean)
    labels = jax.random.bernoulli(keys[1], shape=(num_points,))
    noise = jax.random.normal(keys[2], (num_points, dim))
    points = jnp.where(labels, 1.0, -1.0)[:, None] * mean + noise
    found = clustering.cluster(
      keys[3], points, num_steps=num_steps, network=network
    )
    centred = points - jnp.mean(points, axis=0)
    leading = jnp.linalg.eigh(centred.T @ centred)[1][:, -1]

    def share_wrong(guess):
      share = jnp.mean(guess != labels)
      return jnp.minimum(share, 1.0 - share)

    return (
      share_wrong(found.labels == 1),
      share_wrong(centred @ leading > 0),
      jnp.mean((points @ mean > 0) != labels),
    )

  return jax.lax.map(one, keys, batch_size=constructed_rows.BATCH_SIZE)
