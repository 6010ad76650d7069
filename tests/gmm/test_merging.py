"""Merging of components: against loops in NumPy, and by what it should find."""

import jax
import numpy as np
import pytest
from scipy import special

from tgmm_jax import gmm, types

MERGE = jax.jit(gmm.merge)


def numpy_merge(shares, weight):
  """All pairs, all sums anew in each step; sets of components by number."""

  def entropy(clusters):
    columns = [shares[:, sorted(own)].sum(axis=1) for own in clusters]
    return np.average(special.entr(columns).sum(axis=0), weights=weight)

  clusters = [{k} for k in range(shares.shape[1])]
  found = {len(clusters): (clusters, entropy(clusters))}
  while len(clusters) > 1:
    candidates = []
    for i in range(len(clusters)):
      for j in range(i + 1, len(clusters)):
        rest = [own for n, own in enumerate(clusters) if n not in (i, j)]
        joined = sorted([*rest, clusters[i] | clusters[j]], key=min)
        candidates.append((entropy(joined), joined))
    value, clusters = min(candidates, key=lambda pair: pair[0])
    found[len(clusters)] = clusters, value
  return found


def drawn_shares(num_points=60, num_components=6, seed=0):
  generator = np.random.default_rng(seed)
  logits = 2.0 * generator.normal(size=(num_points, num_components))
  weight = generator.uniform(0.0, 2.0, num_points)
  return special.softmax(logits, axis=1), weight


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.usefixtures("x64")
def test_merging_is_that_of_all_pairs_tried(seed):
  shares, weight = drawn_shares(seed=seed)
  found = MERGE(shares, sample_weight=weight)
  for number, (clusters, entropy) in numpy_merge(shares, weight).items():
    assignment = found.assignments[number - 1]
    for own, members in enumerate(clusters):
      assert {k for k in range(6) if assignment[k] == own} == members
    assert found.entropies[number - 1] == pytest.approx(entropy, abs=1e-12)


@pytest.mark.usefixtures("x64")
def test_padding_of_points_and_of_components_has_no_effect():
  shares, weight = drawn_shares()
  plain = MERGE(shares, sample_weight=weight)
  padded = np.pad(shares, ((0, 9), (0, 2)), constant_values=np.nan)
  padded[:60, 6:] = 0.0
  found = MERGE(padded, sample_weight=np.pad(weight, (0, 9)))
  np.testing.assert_array_equal(found.assignments[:6, :6], plain.assignments)
  np.testing.assert_array_equal(found.assignments[:, 6:], -1)
  np.testing.assert_allclose(found.entropies[:6], plain.entropies, atol=1e-14)
  # No more clusters than components.
  np.testing.assert_array_equal(found.assignments[6:, :6], [np.arange(6)] * 2)
  weights = np.array([1.0] * 6 + [0.0] * 2)
  told = MERGE(padded, sample_weight=np.pad(weight, (0, 9)), weights=weights)
  np.testing.assert_array_equal(told.assignments, found.assignments)


def test_a_long_cluster_of_two_components_is_one():
  generator = np.random.default_rng(0)
  sides = generator.uniform(-4.0, 4.0, (400, 1))
  long = np.hstack([sides, 0.3 * generator.normal(size=(400, 1))])
  other = generator.normal(size=(200, 2)) + [0.0, 12.0]
  # Two halves of the long cluster, and the other between them.
  mixture = types.Mixture(
    np.full(3, 1 / 3),
    np.array([[-2.0, 0.0], [0.0, 12.0], [2.0, 0.0]]),
    np.array([[1.5, 0.1], [1.0, 1.0], [1.5, 0.1]]),
  )
  points = np.concatenate([long, other]).astype(np.float32)
  shares = gmm.responsibilities(points, mixture, covariance_type="diag")
  found = MERGE(shares)
  np.testing.assert_array_equal(found.assignments[1], [0, 1, 0])
  assert found.entropies[1] < 1e-3 < 0.05 < found.entropies[2]
  clusters = gmm.joined(shares, found.assignments[1])
  labels = np.argmax(clusters, axis=1)
  np.testing.assert_array_equal(labels, [0] * 400 + [1] * 200)
  np.testing.assert_allclose(np.sum(clusters, axis=1), 1.0, rtol=1e-5)
