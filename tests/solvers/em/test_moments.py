"""Second moments by one product, against those of each component alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax import gmm, types
from tgmm_jax.solvers.em import moments, steps

K, DIM, N = 3, 4, 1000
BLOCK_SIZE = 128


def make_problem(*, width=0.3, thinnest=1.0, dtype=np.float64):
  """Columns, weights and a mixture of about their law."""
  generator = np.random.default_rng(0)
  means = generator.uniform(-1.0, 1.0, size=(K, DIM))
  axes = np.geomspace(width, width * thinnest, DIM)
  turns = np.linalg.qr(generator.normal(size=(K, DIM, DIM)))[0]
  labels = generator.integers(K, size=N)
  noise = generator.normal(size=(N, DIM)) * axes
  points = means[labels] + np.einsum("nij,nj->ni", turns[labels], noise)
  covariances = np.einsum("kij,j,klj->kil", turns, axes**2, turns)
  weight = generator.uniform(0.5, 1.5, N)
  mixture = types.Mixture(np.full(K, 1 / K), means, covariances)
  mixture = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), mixture)
  weight = jnp.asarray(weight / weight.sum(), dtype)
  return jnp.asarray(points.T, dtype), weight, mixture


def e_step(columns, weight, mixture, *, block_size):
  run = jax.jit(steps.e_step, static_argnames=("covariance_type", "block_size"))
  return run(
    columns,
    mixture,
    sample_weight=weight,
    covariance_type="full",
    block_size=block_size,
  )


def test_moments_are_those_about_the_means(x64):
  columns, weight, mixture = make_problem()
  share = np.random.default_rng(1).uniform(size=(K, N)) * weight
  found = moments.about_means(
    moments.about_origin(jnp.asarray(share), columns), mixture.means
  )
  mass, sums, scatter = map(np.asarray, found)
  for k in range(K):
    gaps = np.asarray(columns).T - np.asarray(mixture.means)[k]
    np.testing.assert_allclose(mass[k], share[k].sum(), rtol=1e-12)
    np.testing.assert_allclose(sums[k], share[k] @ gaps, atol=1e-12)
    np.testing.assert_allclose(
      scatter[k], (gaps * share[k][:, None]).T @ gaps, atol=1e-12
    )


@pytest.mark.parametrize("block_size", [1, BLOCK_SIZE, 999])
def test_blocks_together_are_the_whole(x64, block_size):
  problem = make_problem()
  whole = e_step(*problem, block_size=N)
  found = e_step(*problem, block_size=block_size)
  for leaf, expected in zip(found, whole, strict=True):
    np.testing.assert_allclose(leaf, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("width", [0.3, 0.03, 1e-3, 1e-5])
def test_far_from_the_origin_float32_stays_right(width):
  """Where moments about the origin would not do, each has its own."""
  columns, weight, mixture = make_problem(width=width, dtype=np.float32)
  found = e_step(columns, weight, mixture, block_size=BLOCK_SIZE)
  whole = e_step(columns, weight, mixture, block_size=N)
  scale = np.sqrt(np.einsum("kii->ki", np.asarray(mixture.covariances)))
  scale = scale[:, :, None] * scale[:, None]
  np.testing.assert_allclose(
    found.scatter / scale, whole.scatter / scale, atol=2e-3
  )
  measured = gmm.metric(mixture, covariance_type="full")
  are_enough = moments.thinnest(mixture, measured).are_enough
  assert are_enough == (width > 0.01)


def test_some_thin_components_are_done_by_themselves():
  columns, weight, mixture = make_problem(dtype=np.float32)
  axes = np.array([1e-4, 1e-3, 1e-2, 1e-1], np.float32)
  noise = np.random.default_rng(2).normal(size=(DIM, 300)).astype(np.float32)
  own = mixture.means[1][:, None] + axes[:, None] * noise
  columns = columns.at[:, :300].set(own)
  thin = np.diag(axes**2)
  mixture = mixture._replace(covariances=mixture.covariances.at[1].set(thin))
  own = moments.thinnest(mixture, gmm.metric(mixture, covariance_type="full"))
  np.testing.assert_array_equal(own.index, [1])
  assert own.are_enough
  found = e_step(columns, weight, mixture, block_size=BLOCK_SIZE)
  whole = e_step(columns, weight, mixture, block_size=N)
  # In its own units it is about the weight of its points.
  units = np.outer(axes, axes)
  assert whole.scatter[1, 0, 0] > 0.1 * units[0, 0]
  np.testing.assert_allclose(
    found.scatter[1] / units, whole.scatter[1] / units, atol=1e-4
  )
  # All of them thin: then each is done by itself.
  mixture = mixture._replace(covariances=jnp.stack([thin] * K))
  measured = gmm.metric(mixture, covariance_type="full")
  assert not moments.thinnest(mixture, measured).are_enough


def test_what_is_told_imprecise_is_so():
  """Just beyond the bound the error is what the bound is made for."""
  widths = np.geomspace(0.3, 1e-4, 12)
  errors, are_precise = [], []
  for width in widths:
    columns, weight, mixture = make_problem(width=width, dtype=np.float32)
    share = gmm.responsibilities(
      columns.T, mixture, covariance_type="full"
    ).T * np.asarray(weight)
    _, _, found = moments.about_means(
      moments.about_origin(share, columns), mixture.means
    )
    measured = gmm.metric(mixture, covariance_type="full")
    gaps = np.asarray(columns, float)[None] - np.asarray(mixture.means)[
      :, :, None
    ].astype(float)
    expected = np.einsum(
      "kn,kin,kjn->kij", np.asarray(share, float), gaps, gaps
    )
    factors = np.asarray(measured.whitening, float)
    error = factors @ (np.asarray(found) - expected) @ factors.swapaxes(1, 2)
    own = moments.thinnest(mixture, measured)
    others = np.delete(error, own.index, axis=0)
    errors.append(np.max(np.abs(others)) * K)
    are_precise.append(bool(own.are_enough))
  errors, are_precise = np.array(errors), np.array(are_precise)
  assert 0 < are_precise.sum() < widths.size
  assert np.all(errors[are_precise] < 3e-2)
  assert errors[-1] > 0.1


def test_an_empty_component_does_not_count():
  _, _, mixture = make_problem(dtype=np.float32)
  means = mixture.means.at[1].set(1e6)
  covariances = mixture.covariances.at[1].set(1e-6 * jnp.eye(DIM))
  mixture = types.Mixture(jnp.array([0.5, 0.0, 0.5]), means, covariances)
  measured = gmm.metric(mixture, covariance_type="full")
  own = moments.thinnest(mixture, measured)
  assert own.are_enough
  assert own.index != 1
