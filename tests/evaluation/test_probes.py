import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.evaluation import probes
from tgmm_jax.tasks import spectra

LAW = spectra.CovarianceConfig(
  dim=4, num_targets=1, min_points=16, max_points=16
)


@pytest.fixture(scope="module")
def batches():
  sample = jax.jit(lambda key: spectra.sample_batch(key, LAW, 64))
  return sample(jax.random.key(0)), sample(jax.random.key(1))


def centred(batch):
  points = np.asarray(batch.points, np.float64)
  return points - points.mean(axis=1, keepdims=True)


def test_probe_is_least_squares():
  rng = np.random.default_rng(0)
  states, targets = rng.normal(size=(200, 5)), rng.normal(size=(200, 2))
  inputs = np.concatenate([states, np.ones((200, 1))], axis=1)
  expected, *_ = np.linalg.lstsq(inputs, targets, rcond=None)
  found = probes.fit(
    jnp.asarray(states, jnp.float32), jnp.asarray(targets, jnp.float32)
  )
  np.testing.assert_allclose(found, expected, atol=1e-4)
  np.testing.assert_allclose(
    probes.apply(found, jnp.asarray(states, jnp.float32)),
    inputs @ expected,
    atol=1e-4,
  )


def test_steps_are_those_of_the_power_method(batches):
  batch = batches[0]
  points = centred(batch)
  leading = np.asarray(batch.eigenvectors, np.float64)[:, :, 0]
  covariance = np.einsum("bni,bnj->bij", points, points)
  iterate, expected = points, []
  for _ in range(4):
    cosines = np.abs(np.einsum("bnd,bd->bn", iterate, leading))
    expected.append(np.mean(cosines / np.linalg.norm(iterate, axis=2), axis=1))
    iterate = iterate @ covariance
  found = probes.cosines_by_step(batch, 3)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  assert np.all(np.diff(np.mean(found, axis=1)) > 0)


def test_states_that_are_iterates_are_seen_as_such(batches):
  """Whatever a random map makes of them, as wide as it may be."""
  mixing = jax.random.normal(jax.random.key(2), (4, 9))

  def states_of(batch):
    points = batch.points - jnp.mean(batch.points, axis=1, keepdims=True)
    once = jnp.einsum("bnd,bmd,bme->bne", points, points, points)
    return points @ mixing, once @ mixing + 3.0

  found = probes.cosines_by_layer(states_of, *batches)
  steps = probes.cosines_by_step(batches[1], 1)
  # The law has no preferred direction: the best map is about the identity.
  np.testing.assert_allclose(
    np.mean(found, axis=1), np.mean(steps, axis=1), atol=0.03
  )


def test_states_that_know_nothing(batches):
  def noise(batch):
    return (jax.random.normal(jax.random.key(3), (*batch.points.shape[:2], 8)),)

  found = np.mean(probes.cosines_by_layer(noise, *batches))
  # The mean |cos| of random directions in four dimensions is 0.42.
  assert found == pytest.approx(0.42, abs=0.05)
