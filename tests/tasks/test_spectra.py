"""Problems of PCA and of two classes against NumPy, and against their laws."""

import functools

import jax
import numpy as np
import pytest
from scipy import stats

from tgmm_jax.tasks import spectra

# Seeds are fixed: a p-value passes or fails the same way every time.
LEAST_P = 1e-3
DRAW = jax.jit(spectra.sample_batch, static_argnums=(1, 2))
NUM_PROBLEMS = 1500
RANDOM = spectra.CovarianceConfig(
  dim=4, num_targets=2, min_points=5, max_points=12
)
FEW_POINTS = spectra.CovarianceConfig(
  dim=12, num_targets=3, min_points=5, max_points=8
)
GEOMETRIC = spectra.CovarianceConfig(
  dim=5,
  num_targets=5,
  min_points=30,
  max_points=30,
  spectrum="geometric",
  ratio=0.6,
)
GAP = spectra.CovarianceConfig(
  dim=6,
  num_targets=2,
  min_points=20,
  max_points=25,
  spectrum="gap",
  ratio=0.1,
)
LAWS = pytest.mark.parametrize(
  "law",
  [RANDOM, FEW_POINTS, GEOMETRIC, GAP],
  ids=lambda law: f"{law.spectrum}-{law.dim}",
)
TWO_CLASSES = spectra.TwoClassConfig(
  dim=3, min_points=10, max_points=20, min_separation=1.0, max_separation=2.0
)


@functools.cache
def draw(law):
  return jax.device_get(DRAW(jax.random.key(0), law, NUM_PROBLEMS))


@functools.cache
def two_classes():
  sample = jax.jit(spectra.sample_two_class_batch, static_argnums=(1, 2))
  return jax.device_get(sample(jax.random.key(0), TWO_CLASSES, NUM_PROBLEMS))


@LAWS
def test_targets_are_the_spectrum_of_the_sample_covariance(law):
  batch = draw(law)
  for index in range(60):
    points = batch.points[index][batch.sample_weight[index] > 0]
    expected, _ = np.linalg.eigh(np.cov(points.astype(np.float64).T))
    expected = expected[::-1][: law.num_targets]
    own, vectors = batch.eigenvalues[index], batch.eigenvectors[index]
    np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-6 * own[0])
    # By what an eigenvector is: the sign is free, close ones may mix.
    mapped = np.cov(points.T) @ vectors
    np.testing.assert_allclose(mapped, own * vectors, atol=1e-5 * own[0])
    gram = vectors.T @ vectors
    np.testing.assert_allclose(gram, np.eye(len(own)), atol=1e-3)
    largest = np.argmax(np.abs(vectors), axis=0)
    assert np.all(vectors[largest, np.arange(len(own))] > 0)


@LAWS
def test_points_have_the_covariance_of_the_law(law):
  batch = draw(law)
  # What is all but singular in float32 cannot be divided by.
  is_good = np.linalg.cond(batch.covariance) < 1e4
  assert is_good.mean() > 0.5
  batch = jax.tree.map(lambda leaf: leaf[is_good], batch)
  factors = np.linalg.cholesky(batch.covariance.astype(np.float64))
  white = np.linalg.solve(factors, batch.points.swapaxes(1, 2)).swapaxes(1, 2)
  white = white[batch.sample_weight > 0]
  error = 5.0 / np.sqrt(len(white))
  np.testing.assert_allclose(white.mean(0), 0.0, atol=error)
  np.testing.assert_allclose(np.cov(white.T), np.eye(law.dim), atol=2 * error)
  assert stats.kstest(white[:, 0], "norm").pvalue > LEAST_P
  assert stats.kstest(white[:, -1], "norm").pvalue > LEAST_P


def test_random_covariances_follow_the_law():
  rng = np.random.default_rng(0)
  factors = rng.standard_normal((4000, 4, 4)) + 0.1 * np.eye(4)
  expected = np.linalg.eigvalsh(factors @ factors.swapaxes(1, 2))
  own = np.linalg.eigvalsh(draw(RANDOM).covariance.astype(np.float64))
  for index in range(4):
    assert stats.ks_2samp(own[:, index], expected[:, index]).pvalue > LEAST_P


def test_the_paper_adds_a_tenth_of_the_identity():
  # Too little to be seen in the covariances themselves.
  keys = jax.random.split(jax.random.key(0), 10_000)
  factors = jax.vmap(lambda key: spectra._sample_factor(key, RANDOM))(keys)
  np.testing.assert_allclose(
    np.mean(factors, axis=0), 0.1 * np.eye(4), atol=0.045
  )


@pytest.mark.parametrize(
  ("law", "expected"),
  [(GEOMETRIC, 0.6 ** np.arange(5)), (GAP, [1, 1, 0.1, 0.1, 0.1, 0.1])],
  ids=["geometric", "gap"],
)
def test_chosen_spectra_have_uniform_eigenvectors(law, expected):
  matrices = draw(law).covariance.astype(np.float64)
  values, vectors = np.linalg.eigh(matrices)
  np.testing.assert_allclose(
    values[:, ::-1], np.tile(expected, (len(values), 1)), atol=1e-5
  )
  # Share of each coordinate in the leading subspace, a beta variable.
  num_leading = int(np.sum(np.isclose(expected, 1.0)))
  share = np.sum(vectors[:, :, -num_leading:] ** 2, axis=2)
  law_of_share = stats.beta(num_leading / 2, (law.dim - num_leading) / 2)
  for coordinate in range(law.dim):
    assert stats.kstest(share[:, coordinate], law_of_share.cdf).pvalue > LEAST_P
  signs = np.sign(vectors[:, 0, -1] * vectors[:, 1, -1])
  assert abs(signs.mean()) < 4.0 / np.sqrt(len(signs))


def test_sizes_are_uniform_and_padding_is_empty():
  for batch, low, high in [(draw(RANDOM), 5, 12), (two_classes(), 10, 20)]:
    num_points = batch.sample_weight.sum(1).astype(int)
    counts = np.bincount(num_points)[low:]
    assert len(counts) == high + 1 - low
    assert stats.chisquare(counts).pvalue > LEAST_P
    assert np.all(np.diff(batch.sample_weight, axis=1) <= 0)
    np.testing.assert_array_equal(batch.points[batch.sample_weight == 0], 0.0)


def test_padding_does_not_move_the_targets():
  batch = draw(FEW_POINTS)
  index = int(np.argmin(batch.sample_weight.sum(1)))
  points = batch.points[index][batch.sample_weight[index] > 0]
  values, vectors = spectra.sample_spectrum(
    points, 3, sample_weight=np.ones(len(points), np.float32)
  )
  np.testing.assert_allclose(values, batch.eigenvalues[index], rtol=1e-4)
  np.testing.assert_allclose(vectors, batch.eigenvectors[index], atol=1e-3)


@pytest.mark.parametrize("dim", [2, 30])
def test_equal_points_have_a_finite_spectrum(dim):
  points = np.full((10, dim), 3.0, np.float32)
  values, vectors = spectra.sample_spectrum(
    points, 2, sample_weight=np.ones(10)
  )
  np.testing.assert_array_equal(values, 0.0)
  assert np.all(np.isfinite(vectors))


def test_spectrum_of_a_law_is_that_of_numpy():
  matrices = draw(GEOMETRIC).covariance[:5]
  for matrix in matrices:
    values, vectors = spectra.spectrum_of(matrix, 3)
    np.testing.assert_allclose(values, [1.0, 0.6, 0.36], atol=1e-5)
    np.testing.assert_allclose(matrix @ vectors, values * vectors, atol=1e-5)


@pytest.mark.parametrize(
  "law", [RANDOM, GAP], ids=lambda law: f"{law.spectrum}-{law.dim}"
)
def test_a_batch_is_one_call_of_the_eigensolver(law):
  # Two at once may wait for each other for ever, see `sample_batch`.
  program = DRAW.lower(jax.random.key(0), law, NUM_PROBLEMS).compile().as_text()
  assert program.count('custom_call_target="lapack_ssyevd') == 1


def test_a_problem_depends_on_its_key_and_place_only():
  small = DRAW(jax.random.key(0), RANDOM, 4)
  for own, other in zip(small, draw(RANDOM), strict=True):
    np.testing.assert_allclose(own, other[:4], rtol=1e-4, atol=1e-4)
  other = DRAW(jax.random.key(1), RANDOM, 4)
  assert np.all(other.points[:, 0] != small.points[:, 0])
  assert np.unique(draw(RANDOM).points[:, 0, 0]).size > 0.99 * NUM_PROBLEMS


def test_two_classes_follow_the_law():
  batch = two_classes()
  means = batch.mixture.means[:, 0]
  np.testing.assert_array_equal(batch.mixture.means[:, 1], -means)
  np.testing.assert_array_equal(batch.mixture.weights, 0.5)
  np.testing.assert_array_equal(batch.num_components, 2)
  separation = np.linalg.norm(means, axis=1)
  assert stats.kstest(separation, stats.uniform(1.0, 1.0).cdf).pvalue > LEAST_P
  # Uniform on the sphere of three dimensions: so is each coordinate.
  for cosine in (means / separation[:, None]).T:
    assert stats.kstest(cosine, stats.uniform(-1.0, 2.0).cdf).pvalue > LEAST_P
  tasks, points = np.nonzero(batch.sample_weight)
  labels = batch.labels[tasks, points]
  assert set(labels) == {0, 1}
  assert abs(labels.mean() - 0.5) < 2.0 / np.sqrt(len(labels))
  noise = batch.points[tasks, points] - batch.mixture.means[tasks, labels]
  for coordinate in noise.T:
    assert stats.kstest(coordinate, "norm").pvalue > LEAST_P
  np.testing.assert_array_equal(batch.labels[batch.sample_weight == 0], -1)


def test_the_bayes_rule_is_as_good_as_said():
  batch = two_classes()
  means = batch.mixture.means[:, 0]
  predicted = np.einsum("bnd,bd->bn", batch.points, means) < 0
  is_point = batch.sample_weight > 0
  is_right = (predicted == (batch.labels == 1))[is_point]
  expected = spectra.bayes_accuracy(np.linalg.norm(means, axis=1))
  np.testing.assert_allclose(
    expected, stats.norm.cdf(np.linalg.norm(means, axis=1)), atol=1e-6
  )
  expected = np.broadcast_to(expected[:, None], is_point.shape)[is_point]
  assert is_right.mean() == pytest.approx(
    expected.mean(), abs=2.0 / np.sqrt(len(is_right))
  )


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"dim": 0}, "dim is 0, takes"),
    ({"num_targets": 0}, "num_targets is 0, takes 1 ... 20 for dim 20"),
    ({"num_targets": 21}, "num_targets is 21, takes 1 ... 20 for dim 20"),
    ({"min_points": 10}, "num_targets is 10, takes 1 ... 9 .* 10 points"),
    ({"min_points": 1}, "min_points, max_points are 1, 50"),
    ({"max_points": 49}, "min_points, max_points are 50, 49"),
    ({"spectrum": "flat"}, "spectrum is 'flat', takes one of"),
    ({"ratio": 1.0}, "ratio is 1.0, takes"),
    ({"ratio": float("nan")}, "ratio is nan, takes"),
    ({"spectrum": "gap", "num_targets": 20}, "num_targets is 20 with dim 20"),
  ],
)
def test_what_cannot_be_sampled_is_refused(change, message):
  with pytest.raises(ValueError, match=message) as caught:
    spectra.CovarianceConfig(**change)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"dim": 0}, "dim is 0, takes"),
    ({"min_points": 51}, "min_points, max_points are 51, 50"),
    ({"min_separation": -1.0}, "min_separation, max_separation are -1.0, 3.0"),
    ({"max_separation": 2.0}, "min_separation, max_separation are 3.0, 2.0"),
    ({"max_separation": float("inf")}, "max_separation are 3.0, inf"),
    ({"min_separation": float("nan")}, "max_separation are nan, 3.0"),
  ],
)
def test_two_classes_that_cannot_be_sampled_are_refused(change, message):
  with pytest.raises(ValueError, match=message) as caught:
    spectra.TwoClassConfig(**{"dim": 2, **change})
  assert "\n" not in str(caught.value)
