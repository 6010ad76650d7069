"""The law of the tasks against a sampler written one candidate at a time."""

import functools

import jax
import numpy as np
import pytest
from scipy import stats

from tgmm_jax.tasks import mixtures

# Seeds are fixed: a p-value passes or fails the same way every time.
LEAST_P = 1e-3
MIXED = mixtures.TaskConfig(
  dim=2,
  min_points=3,
  max_points=40,
  covariance_type="diag",
  max_components=6,
)
SHIFTED = mixtures.TaskConfig(
  dim=8, num_components=(4, 1), min_points=16, max_points=16, shift=5.0
)
NUM_MIXED, NUM_SHIFTED = 6000, 3000
DRAW = jax.jit(mixtures.sample_batch, static_argnums=(1, 2))


@functools.cache
def mixed():
  """Tasks of the plane, all sizes, anisotropic, as NumPy arrays."""
  return jax.tree.map(np.asarray, DRAW(jax.random.key(0), MIXED, NUM_MIXED))


@functools.cache
def shifted():
  """Isotropic tasks with shifted means in eight dimensions."""
  return jax.tree.map(np.asarray, DRAW(jax.random.key(1), SHIFTED, NUM_SHIFTED))


def reference_means(rng, num_components, dim, shift, num_tried=None):
  """Means by the paper's rule: one candidate after the other."""
  while True:
    if num_tried is not None:
      num_tried.append(1)
    means = rng.uniform(-5.0, 5.0, (num_components, dim))
    means = means + shift * rng.standard_normal((num_components, dim))
    cosines = pair_cosines(means)
    if not cosines.size or cosines.max() < 0.8:
      return means


def reference(num_components, dim, shift, num_tasks=2000):
  """Sorted weights `[B, K]` and means `[B, K, d]`."""
  rng = np.random.default_rng(num_components)
  weights = np.sort(rng.uniform(0.2, 0.8, (num_tasks, num_components)), axis=1)
  means = [
    reference_means(rng, num_components, dim, shift) for _ in range(num_tasks)
  ]
  return weights / weights.sum(axis=1, keepdims=True), np.stack(means)


def pair_cosines(means):
  """Cosines of all pairs of the means `[..., K, d]`."""
  directions = means / np.linalg.norm(means, axis=-1, keepdims=True)
  gram = directions @ np.swapaxes(directions, -1, -2)
  rows, columns = np.triu_indices(means.shape[-2], 1)
  return gram[..., rows, columns]


def assert_same_law(sample, other):
  assert stats.ks_2samp(np.ravel(sample), np.ravel(other)).pvalue > LEAST_P


@pytest.mark.parametrize(
  ("draw", "num_components", "shift"),
  [(mixed, 2, 0.0), (mixed, 3, 0.0), (mixed, 4, 0.0), (mixed, 5, 0.0)]
  + [(shifted, 1, 5.0), (shifted, 4, 5.0)],
)
def test_weights_and_means_follow_the_law(draw, num_components, shift):
  batch = draw()
  is_such = batch.num_components == num_components
  weights = batch.mixture.weights[is_such, :num_components]
  means = batch.mixture.means[is_such, :num_components]
  dim = means.shape[-1]
  expected_weights, expected_means = reference(num_components, dim, shift)
  assert len(weights) > 1000
  np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)
  assert np.all(np.diff(weights, axis=1) >= 0)
  # The components are exchangeable: each is looked at, all coordinates are.
  for component in range(num_components):
    assert_same_law(
      means[:, component, component % dim],
      expected_means[:, component, component % dim],
    )
    if num_components > 1:
      assert_same_law(weights[:, component], expected_weights[:, component])
  norms = np.linalg.norm(means, axis=-1)
  expected_norms = np.linalg.norm(expected_means, axis=-1)
  assert_same_law(norms.max(1), expected_norms.max(1))
  assert_same_law(norms.min(1), expected_norms.min(1))
  if num_components > 1:
    cosines, expected = pair_cosines(means), pair_cosines(expected_means)
    assert cosines.max() < 0.8 + 1e-5
    assert_same_law(cosines.max(1), expected.max(1))
    # One pair of each task: those of one task depend on each other.
    assert_same_law(cosines[:, 0], expected[:, 0])
    assert_same_law(cosines[:, -1], expected[:, -1])
    # The weights say nothing of the means.
    assert stats.spearmanr(weights[:, 0], norms[:, 0]).pvalue > LEAST_P


@pytest.mark.parametrize(
  ("dim", "num_components", "tolerance"),
  [(1, 2, 0.06), (2, 2, 0.06), (2, 4, 0.03), (2, 5, 0.01), (8, 5, 0.05)],
)
def test_acceptance_is_what_the_reference_sees(dim, num_components, tolerance):
  rng = np.random.default_rng(dim)
  num_tried = []
  for _ in range(300):
    reference_means(rng, num_components, dim, 0.0, num_tried)
  config = mixtures.TaskConfig(dim=dim, num_components=(num_components,))
  assert config.acceptance(num_components) == pytest.approx(
    300 / len(num_tried), abs=tolerance
  )


@pytest.mark.parametrize("draw", [mixed, shifted])
def test_labels_and_noise_follow_the_law(draw):
  batch = draw()
  tasks, points = np.nonzero(batch.sample_weight)
  labels = batch.labels[tasks, points]
  # Labels: uniform under their own task's distribution function.
  upper = np.cumsum(batch.mixture.weights, axis=1)[tasks, labels]
  share = batch.mixture.weights[tasks, labels]
  uniform = upper - share * np.random.default_rng(0).uniform(size=labels.size)
  assert stats.kstest(uniform, "uniform").pvalue > LEAST_P
  # Noise: standard normal, and nothing in it tells of another coordinate,
  # of the next point or of the label.
  noise = batch.points[tasks, points] - batch.mixture.means[tasks, labels]
  if batch.mixture.covariances is not None:
    noise /= np.sqrt(batch.mixture.covariances[tasks, labels])
  assert stats.kstest(noise[:, 0], "norm").pvalue > LEAST_P
  assert stats.kstest(noise[:, -1], "norm").pvalue > LEAST_P
  error = 5.0 / np.sqrt(len(noise))
  np.testing.assert_allclose(noise.mean(0), 0.0, atol=error)
  np.testing.assert_allclose(
    np.cov(noise.T), np.eye(noise.shape[1]), atol=1.5 * error
  )
  is_next = (tasks[1:] == tasks[:-1])[:, None]
  lagged = (noise[1:] * noise[:-1] * is_next).mean(0)
  np.testing.assert_allclose(lagged, 0.0, atol=error)
  assert abs(np.corrcoef(noise[:, 0], labels)[0, 1]) < error
  # One point of each task: the tasks differ.
  assert stats.kstest(noise[points == 0, 0], "norm").pvalue > LEAST_P


def test_scales_follow_the_law():
  variances = mixed().mixture.covariances
  rng = np.random.default_rng(1)
  scales = 2.0 * np.log1p(np.exp(rng.uniform(-5.0, 5.0, 20_000) / 5.0))
  for component, coordinate in [(0, 0), (0, 1), (1, 0)]:
    assert_same_law(np.sqrt(variances[:, component, coordinate]), scales)
  first = variances[:, :2].reshape(NUM_MIXED, 4)
  correlations = np.corrcoef(first.T) - np.eye(4)
  np.testing.assert_allclose(correlations, 0.0, atol=5.0 / NUM_MIXED**0.5)
  assert shifted().mixture.covariances is None


def drawn(covariance_type, dim, num_tasks):
  law = mixtures.TaskConfig(
    dim=dim,
    num_components=(2,),
    min_points=16,
    max_points=16,
    covariance_type=covariance_type,
    max_components=3,
  )
  batch = DRAW(jax.random.key(2), law, num_tasks)
  return jax.tree.map(np.asarray, batch)


def test_one_unknown_variance_is_that_of_all_points():
  batch = drawn("tied_spherical", 3, 2000)
  assert batch.mixture.covariances.shape == (2000,)
  deviations = np.sqrt(batch.mixture.covariances)
  rng = np.random.default_rng(1)
  scales = 2.0 * np.log1p(np.exp(rng.uniform(-1.0, 1.0, 20_000)))
  assert_same_law(deviations, scales)
  means = np.take_along_axis(
    batch.mixture.means, batch.labels[:, :, None], axis=1
  )
  noise = (batch.points - means) / deviations[:, None, None]
  assert stats.kstest(noise[:, 0, 0], "norm").pvalue > LEAST_P
  assert stats.kstest(noise[:, 9, 2], "norm").pvalue > LEAST_P


def test_full_covariances_have_all_sizes_and_shapes():
  batch = drawn("full", 3, 4000)
  own = batch.mixture.covariances[:, :2]
  np.testing.assert_array_equal(own, np.swapaxes(own, -1, -2))
  np.testing.assert_array_equal(
    batch.mixture.covariances[:, 2], np.broadcast_to(np.eye(3), (4000, 3, 3))
  )
  # Sizes: of a task, and of its components about it.
  log_scales = 0.5 * np.log(np.trace(own, axis1=2, axis2=3) / 3)
  ratio = (log_scales[:, 0] - log_scales[:, 1]) / (0.4 * np.sqrt(2.0))
  assert stats.kstest(ratio, "norm").pvalue > LEAST_P
  rng = np.random.default_rng(3)
  expected = rng.uniform(np.log(0.2), np.log(2.0), 20_000)
  expected += 0.4 * rng.normal(size=20_000)
  assert_same_law(log_scales[:, 0], expected)
  # Shapes: a Wishart matrix of trace 3 and a ball.
  eigenvalues = np.linalg.eigvalsh(own[:, 0]) / np.exp(2 * log_scales[:, :1])
  factors = rng.normal(size=(20_000, 3, 5))
  wishart = np.linalg.eigvalsh(factors @ np.swapaxes(factors, 1, 2))
  wishart *= 3.0 / wishart.sum(axis=1, keepdims=True)
  roundness = rng.uniform(0.02, 1.0, (20_000, 1))
  expected = (1.0 - roundness) * wishart + roundness
  for index in range(3):
    assert_same_law(eigenvalues[:, index], expected[:, index])


def test_points_of_full_covariances_are_normal():
  batch = drawn("full", 3, 2000)
  tasks = np.arange(2000)
  labels = batch.labels[:, 0]
  offsets = batch.points[:, 0] - batch.mixture.means[tasks, labels]
  squares = np.einsum(
    "bi,bi->b",
    offsets,
    np.linalg.solve(
      batch.mixture.covariances[tasks, labels], offsets[:, :, None]
    )[:, :, 0],
  )
  assert stats.kstest(squares, stats.chi2(3).cdf).pvalue > LEAST_P


def test_sizes_are_uniform():
  batch = mixed()
  num_points = batch.sample_weight.sum(1).astype(int)
  assert num_points.min() == 3
  assert num_points.max() == 40
  assert stats.chisquare(np.bincount(num_points)[3:]).pvalue > LEAST_P
  counts = np.bincount(batch.num_components)
  assert counts.size == 6
  assert counts[:2].sum() == 0
  assert stats.chisquare(counts[2:]).pvalue > LEAST_P
  halves = np.zeros((6, 2))
  np.add.at(halves, (batch.num_components, (num_points > 20).astype(int)), 1)
  assert stats.chi2_contingency(halves[2:]).pvalue > LEAST_P


def test_sizes_may_be_a_set_and_one_number():
  batch = shifted()
  counts = np.bincount(batch.num_components)
  assert np.nonzero(counts)[0].tolist() == [1, 4]
  assert stats.chisquare(counts[[1, 4]]).pvalue > LEAST_P
  np.testing.assert_array_equal(batch.sample_weight, 1.0)
  np.testing.assert_array_equal(batch.mixture.weights.shape, (NUM_SHIFTED, 4))


def test_padding_is_empty():
  batch = mixed()
  assert batch.points.shape == (NUM_MIXED, 40, 2)
  assert batch.mixture.means.shape == (NUM_MIXED, 6, 2)
  is_point = batch.sample_weight > 0
  # The real points come first.
  assert np.all(np.diff(batch.sample_weight, axis=1) <= 0)
  assert np.all(np.isin(batch.sample_weight, (0.0, 1.0)))
  np.testing.assert_array_equal(batch.points[~is_point], 0.0)
  np.testing.assert_array_equal(batch.labels[~is_point], -1)
  assert np.all(batch.labels[is_point] >= 0)
  assert np.all(batch.labels < batch.num_components[:, None])
  is_component = np.arange(6) < batch.num_components[:, None]
  np.testing.assert_array_equal(batch.mixture.weights[~is_component], 0.0)
  np.testing.assert_array_equal(batch.mixture.means[~is_component], 0.0)
  np.testing.assert_array_equal(batch.mixture.covariances[~is_component], 1.0)
  assert np.all(batch.mixture.weights[is_component] > 0.0)
  assert np.all(np.isfinite(batch.points))


def test_shift_comes_before_the_rejection():
  means = shifted().mixture.means[shifted().num_components == 4]
  # Uniform on [-5, 5] plus a normal of standard deviation 5.
  assert means.std() == pytest.approx(np.sqrt(25.0 / 3.0 + 25.0), rel=0.02)
  assert pair_cosines(means).max() < 0.8 + 1e-5


def test_a_task_depends_on_its_key_and_place_only():
  small = DRAW(jax.random.key(0), MIXED, 4)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a[:4], b), mixed(), small
  )
  other = DRAW(jax.random.key(1), MIXED, 4)
  assert np.all(other.points[:, 0] != small.points[:, 0])
  assert np.unique(mixed().points[:, 0, 0]).size > 0.99 * NUM_MIXED


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"dim": 0}, "dim is 0, takes"),
    ({"num_components": ()}, "num_components is empty, takes"),
    ({"num_components": (0, 2)}, r"num_components is \(0, 2\), takes"),
    ({"min_points": 0}, "min_points, max_points are 0, 128"),
    ({"min_points": 9, "max_points": 8}, "min_points, max_points are 9, 8"),
    ({"covariance_type": "tied"}, "covariance_type is 'tied', takes"),
    ({"shift": -1.0}, "shift is -1.0, takes"),
    ({"shift": float("nan")}, "shift is nan, takes"),
    ({"shift": float("inf")}, "shift is inf, takes"),
    ({"mean_range": 0.0}, "mean_range is 0.0, takes"),
    ({"mean_range": float("nan")}, "mean_range is nan, takes"),
    ({"min_weight": 0.0}, "min_weight, max_weight are 0.0, 0.8"),
    ({"max_weight": 0.1}, "min_weight, max_weight are 0.2, 0.1"),
    ({"max_weight": float("inf")}, "min_weight, max_weight are 0.2, inf"),
    ({"max_components": 4}, "max_components is 4, takes 0 or at least"),
    ({"num_components": (12,)}, "num_components is .12,. with dim 2: a share"),
    ({"dim": 1, "num_components": (3,)}, "num_components is .3,. with dim 1"),
    ({"max_cosine": -1.0}, "passes max_cosine = -1.0"),
    ({"max_cosine": float("nan")}, "max_cosine is nan, takes"),
  ],
)
def test_what_cannot_be_sampled_is_refused(change, message):
  with pytest.raises(ValueError, match=message) as caught:
    mixtures.TaskConfig(**{"dim": 2, **change})
  assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
  "extreme",
  [
    {"covariance_type": "diag"},
    {"covariance_type": "full", "max_cosine": 1.0},
    {"min_weight": 1e-6, "max_weight": 1.0},
    {"mean_range": 1e4, "shift": 1e3},
    {"mean_range": 1e-4, "max_cosine": 1.0},
  ],
)
def test_many_tasks_are_all_sound(extreme):
  # 1e5 tasks over all cases, N from a single point on.
  for dim in (2, 32):
    law = mixtures.TaskConfig(
      dim=dim,
      num_components=(1, 2, 3, 4, 5),
      min_points=1,
      max_points=8,
      **extreme,
    )
    batch = mixtures.sample_batch(jax.random.key(dim), law, 12_500)
    mixture = batch.mixture
    for leaf in jax.tree.leaves(batch):
      assert np.all(np.isfinite(leaf))
    np.testing.assert_allclose(np.sum(mixture.weights, 1), 1.0, rtol=1e-5)
    assert np.all(np.asarray(mixture.weights) >= 0)
    is_component = np.arange(5) < np.asarray(batch.num_components)[:, None]
    assert np.all((np.asarray(mixture.weights) > 0) == is_component)
    if mixture.covariances is not None:
      covariances = np.asarray(mixture.covariances)
      if covariances.ndim == 4:
        covariances = np.linalg.eigvalsh(covariances)
      assert np.all(covariances > 0)
    num_points = np.sum(batch.sample_weight, axis=1)
    assert np.all((num_points >= 1) & (num_points <= 8))
    labels = np.asarray(batch.labels)
    is_point = np.asarray(batch.sample_weight) > 0
    assert np.all((labels >= 0) == is_point)
    assert np.all(labels < np.asarray(batch.num_components)[:, None])


def test_without_a_rule_the_means_on_a_line_are_the_first_that_come():
  law = mixtures.TaskConfig(dim=1, num_components=(5,), max_cosine=1.0)
  assert law.acceptance(5) == 1.0
  sample = jax.jit(lambda key: mixtures.sample_batch(key, law, 512))
  means = np.asarray(sample(jax.random.key(0)).mixture.means)
  # Uniform on [-5, 5], with as many on one side as come.
  assert np.mean(means) == pytest.approx(0.0, abs=0.25)
  assert np.std(means) == pytest.approx(10 / 12**0.5, rel=0.05)
