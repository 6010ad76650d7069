"""The baselines against an independent implementation's table.

`limits.csv` holds, per cell, the errors that a separate implementation of the
same methods reached on 1,280 tasks drawn by a separate sampler (N = 128).
Both sides are samples: they must agree within three standard errors.
"""

import csv
import functools
import pathlib

import jax
import numpy as np
import pytest

from tgmm_jax import metrics
from tgmm_jax.solvers import combine, em, reference, spectral
from tgmm_jax.tasks import mixtures

NUM_TASKS = 1280
STANDARD_ERRORS = 3.0
PATH = pathlib.Path(__file__).with_name("limits.csv")
EM_METHODS = {
  "em/normal": {"init": "normal"},
  "em/normal x10": {"init": "normal", "num_init": 10},
  "em/random_points": {"init": "random_points"},
  "em/k-means++": {"init": "k-means++"},
  "em/k-means++ x10": {"init": "k-means++", "num_init": 10},
}


def read_limits():
  cells = {}
  with PATH.open() as file:
    for row in csv.DictReader(file):
      cell = (int(row["shift"]), int(row["dim"]), int(row["num_components"]))
      values = {
        name: float(row[name])
        for name in ("l2_error", "l2_error_se", "l2_error_median", "failures")
      }
      cells.setdefault(cell, {})[row["method"]] = values
  return cells


LIMITS = read_limits()


@functools.partial(jax.jit, static_argnames=("cell",))
def draw(cell):
  shift, dim, num_components = cell
  config = mixtures.TaskConfig(
    dim=dim,
    num_components=(num_components,),
    min_points=128,
    max_points=128,
    shift=float(shift),
  )
  key = jax.random.fold_in(jax.random.key(2024), 1000 * shift + dim)
  key = jax.random.fold_in(key, num_components)
  return mixtures.sample_batch(key, config, NUM_TASKS)


def solve(method, batch):
  """All tasks by one method, as the table names it."""
  num_components = batch.mixture.weights.shape[1]
  key = jax.random.key(7)
  fit = functools.partial(
    em.fit_batch,
    key,
    batch.points,
    batch.num_components,
    sample_weight=batch.sample_weight,
    max_components=num_components,
  )
  if method in EM_METHODS:
    return fit(**EM_METHODS[method])
  if method == "em/oracle":
    return fit(init=batch.mixture)
  if method == "labels":
    return jax.jit(jax.vmap(reference.label_limit))(batch)
  variance = None if "estimated" in method else 1.0
  solver = functools.partial(
    spectral.fit, variance=variance, max_components=num_components
  )
  if method == "spectral + em":
    solver = combine.then_em(solver, max_iter=100, tol=1e-7)
  return solve_in_chunks(solver, key, batch)


@functools.partial(jax.jit, static_argnums=0)
def solve_in_chunks(solver, key, batch):
  keys = jax.random.split(key, NUM_TASKS)

  def solve_one(inputs):
    key, points, num_components, sample_weight = inputs
    return solver(key, points, num_components, sample_weight=sample_weight)

  inputs = (keys, batch.points, batch.num_components, batch.sample_weight)
  return jax.lax.map(solve_one, inputs, batch_size=64)


@jax.jit
def errors_of(means, batch):
  return jax.vmap(metrics.l2_error)(
    means, batch.mixture.means, batch.num_components
  )


def compare(cell, method, batch):
  """None, or a line that says how the method's cell differs."""
  expected = LIMITS[cell][method]
  errors = np.asarray(errors_of(solve(method, batch).mixture.means, batch))
  assert np.all(np.isfinite(errors))
  mean, error = errors.mean(), errors.std(ddof=1) / NUM_TASKS**0.5
  combined = np.hypot(error, expected["l2_error_se"])
  score = (mean - expected["l2_error"]) / combined
  return score, mean, error, expected
