"""The optimum of the sorted loss: brute force over orders, and its table."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import metrics, types
from tgmm_jax.evaluation import mixtures as mixture_evaluation
from tgmm_jax.evaluation import results, sorted_loss
from tgmm_jax.tasks import mixtures

LAW = mixtures.TaskConfig(dim=2, num_components=(2, 3), max_components=4)
OPTIMUM = jax.jit(
  functools.partial(sorted_loss.optimum, num_draws=2**18),
  static_argnames="law",
)
# Unequal shares are told by the points only in part, and clusters touch.
MEANS = np.array([[1.5, -1.0], [-1.5, 0.5], [0.5, 2.5]])


def make_task(num_components, num_points=24, num_padding=5):
  rng = np.random.default_rng(num_components)
  labels = rng.integers(num_components, size=num_points + num_padding)
  points = MEANS[labels] + rng.normal(size=(labels.size, 2))
  points[num_points:] = 40.0
  means = np.full((4, 2), 90.0, np.float32)
  means[:num_components] = MEANS[:num_components]
  return types.TaskBatch(
    points=jnp.asarray(points, jnp.float32),
    sample_weight=jnp.asarray(np.arange(labels.size) < num_points, float),
    num_components=jnp.asarray(num_components),
    mixture=types.Mixture(jnp.zeros(4), jnp.asarray(means)),
    labels=jnp.asarray(labels),
  )


def brute_force(task, num_steps):
  """All orders of the means, and for each all ascending weights of a grid."""
  count = int(task.num_components)
  points = np.asarray(task.points, float)[np.asarray(task.sample_weight) > 0]
  means = np.asarray(task.mixture.means, float)[:count]
  step = 0.6 / num_steps
  grid = 0.2 + step * (np.arange(num_steps) + 0.5)
  raw = np.stack(np.meshgrid(*[grid] * count, indexing="ij"), -1)
  raw = raw.reshape(-1, count)
  raw = raw[(np.diff(raw, axis=1) > 0).all(axis=1)]
  weights = raw / raw.sum(axis=1, keepdims=True)
  masses, mean_weights, ordered = [], [], []
  for order in itertools.permutations(range(count)):
    own = means[list(order)]
    density = np.exp(-0.5 * ((points[:, None] - own) ** 2).sum(-1))
    likelihood = np.prod(weights @ density.T, axis=1)
    masses.append(likelihood.sum())
    mean_weights.append(likelihood @ weights)
    ordered.append(own)
  total = sum(masses)
  share = np.array(masses) / total
  return sum(mean_weights) / total, np.tensordot(share, ordered, axes=1)


@pytest.mark.parametrize(("count", "num_steps"), [(2, 600), (3, 60)])
def test_optimum_is_the_mean_over_all_orders(count, num_steps):
  task = make_task(count)
  weights, means = brute_force(task, num_steps)
  # No order is certain here, or nothing would be tested.
  assert np.abs(means - MEANS[:count]).max() > 0.3
  found = OPTIMUM(jax.random.key(0), task, LAW)
  np.testing.assert_allclose(found.means[:count], means, atol=0.03)
  np.testing.assert_allclose(found.weights[:count], weights, atol=0.004)
  np.testing.assert_array_equal(found.weights[count:], 0.0)


def test_without_points_every_place_has_the_mean_of_the_means():
  task = make_task(3)
  task = task._replace(sample_weight=jnp.zeros_like(task.sample_weight))
  found = OPTIMUM(jax.random.key(0), task, LAW)
  np.testing.assert_allclose(
    found.means[:3], np.tile(MEANS.mean(0), (3, 1)), atol=0.02
  )
  rng = np.random.default_rng(0)
  raw = np.sort(rng.uniform(0.2, 0.8, (200_000, 3)))
  expected = (raw / raw.sum(1, keepdims=True)).mean(0)
  np.testing.assert_allclose(found.weights[:3], expected, atol=1e-3)


def test_many_points_of_unequal_shares_tell_the_order():
  task = make_task(3)
  labels = np.repeat([2, 0, 1], [200, 350, 600])
  noise = np.random.default_rng(0).normal(size=(labels.size, 2))
  task = task._replace(
    points=jnp.asarray(MEANS[labels] + noise, jnp.float32),
    sample_weight=jnp.ones(labels.size),
  )
  found = OPTIMUM(jax.random.key(0), task, LAW)
  np.testing.assert_allclose(found.means[:3], MEANS[[2, 0, 1]], atol=1e-3)


@functools.partial(jax.jit, static_argnames="law")
def errors_of(batch, law):
  def score(inputs):
    key, task = inputs
    found = sorted_loss.optimum(key, task, law)
    told = found.means, task.mixture.means, task.num_components
    return metrics.l2_error(*told), metrics.sorted_error(*told)

  keys = jax.random.split(jax.random.key(2), len(batch.points))
  return jax.lax.map(score, (keys, batch))


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
  "dim",
  [2, *(pytest.param(dim, marks=pytest.mark.slow) for dim in (8, 32, 128))],
)
def test_the_table_is_what_other_tasks_give(dim):
  kept = {
    (row.num_components, row.metric): row
    for row in sorted_loss.errors()
    if results.setting_of(row) == results.Setting(dim, 128, "means", 0.0)
  }
  metrics_of = ("l2_error", "sorted_error")
  assert set(kept) == set(itertools.product((2, 3, 4, 5), metrics_of))
  law = mixtures.TaskConfig(dim=dim, min_points=128, max_points=128)
  num_tasks = 96
  # Another seed than the table's.
  batch, _ = mixture_evaluation.sample_tasks(law, num_tasks, 1)
  for metric, values in zip(metrics_of, errors_of(batch, law), strict=True):
    values = np.asarray(values, float).reshape(4, num_tasks)
    for count, own in zip((2, 3, 4, 5), values, strict=True):
      row = kept[count, metric]
      error = np.hypot(own.std(ddof=1) / num_tasks**0.5, row.standard_error)
      assert abs(own.mean() - row.mean) < 3.5 * error, row.label


def test_sorted_error_and_l2_error_are_the_loss_and_what_is_left_of_it():
  for row in sorted_loss.errors():
    assert row.solver == sorted_loss.OPTIMUM
    assert row.count == 1280
  by_metric = {}
  for row in sorted_loss.errors():
    by_metric.setdefault(row.metric, []).append(row.mean)
  assert np.all(
    np.array(by_metric["sorted_error"]) > np.array(by_metric["l2_error"])
  )
