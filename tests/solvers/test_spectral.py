"""The spectral method: exact recovery, statuses, padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import gmm, metrics, types
from tgmm_jax.solvers import spectral
from tgmm_jax.tasks import mixtures

FIT = jax.jit(spectral.fit, static_argnames=("max_components", "variance"))


def make_task(dim, num_components, num_points=4000):
  config = mixtures.TaskConfig(
    dim=dim,
    num_components=(num_components,),
    min_points=num_points,
    max_points=num_points,
  )
  task = mixtures.sample_batch(jax.random.key(4), config, 1)
  return jax.tree.map(lambda leaf: leaf[0], task)


@pytest.mark.parametrize(
  ("dim", "num_components", "variance"), [(6, 4, None), (20, 3, 1.0)]
)
def test_many_points_give_the_parameters(dim, num_components, variance):
  task = make_task(dim, num_components)
  result = FIT(
    jax.random.key(0),
    task.points,
    num_components,
    sample_weight=task.sample_weight,
    max_components=5,
    variance=variance,
  )
  truth = jnp.pad(task.mixture.means, ((0, 5 - num_components), (0, 0)))
  error = metrics.l2_error(result.mixture.means, truth, num_components)
  assert error < 0.02
  np.testing.assert_allclose(
    np.sort(result.mixture.weights)[-num_components:],
    task.mixture.weights,
    atol=0.03,
  )
  np.testing.assert_array_equal(result.mixture.means[num_components:], 0.0)
  np.testing.assert_allclose(
    result.log_likelihood,
    gmm.log_likelihood(task.points, result.mixture),
    rtol=1e-5,
  )
  assert result.status == types.Status.CONVERGED


@pytest.mark.parametrize("filling", [0.0, np.nan, 1e30])
def test_padding_has_no_effect(filling):
  task = make_task(6, 3, num_points=100)
  padded = jnp.concatenate([task.points, jnp.full((20, 6), filling)])
  weight = jnp.concatenate([2.0 * jnp.ones(100), jnp.zeros(20)])
  plain = FIT(jax.random.key(0), task.points, 3, max_components=3)
  result = FIT(
    jax.random.key(0), padded, 3, sample_weight=weight, max_components=5
  )
  np.testing.assert_allclose(
    result.mixture.means[:3], plain.mixture.means, atol=2e-3
  )


def test_statuses_and_finite_parameters():
  points = np.asarray(make_task(3, 3, num_points=60).points)
  with_nan = points.copy()
  with_nan[1, 1] = np.nan
  # Two dimensions of hardly any spread: less than the noise alone has.
  flat = points * np.array([1.0, 1e-3, 1e-3], np.float32)
  cases = [
    (points, 3, types.Status.CONVERGED),
    (points, 4, types.Status.DEGENERATE),
    (flat, 3, types.Status.DEGENERATE),
    (np.zeros_like(points), 2, types.Status.DEGENERATE),
    (with_nan, 3, types.Status.INVALID_INPUT),
    (points, 0, types.Status.INVALID_INPUT),
    (points, 6, types.Status.INVALID_INPUT),
  ]
  batch, num_components, status = (
    np.stack(column) for column in zip(*cases, strict=True)
  )
  fit = functools.partial(spectral.fit, max_components=5)
  result = jax.jit(jax.vmap(fit))(
    jax.random.split(jax.random.key(0), len(cases)), batch, num_components
  )
  np.testing.assert_array_equal(result.status, status)
  for leaf in jax.tree.leaves(result.mixture):
    assert np.all(np.isfinite(leaf))
  assert not np.any(np.isnan(result.log_likelihood))
  np.testing.assert_allclose(
    np.sum(result.mixture.weights, axis=1), 1.0, rtol=1e-5
  )
  # With K > d every component is the overall mean.
  np.testing.assert_allclose(
    result.mixture.means[1, :4],
    np.tile(points.mean(axis=0), (4, 1)),
    atol=1e-5,
  )
  np.testing.assert_allclose(result.mixture.weights[1, :4], 0.25, rtol=1e-6)
