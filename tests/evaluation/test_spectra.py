"""What stands beside a network that answers with spectra, and the rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tgmm_jax.evaluation import evaluator
from tgmm_jax.evaluation import spectra as spectrum_evaluation
from tgmm_jax.tasks import spectra

LAW = spectra.CovarianceConfig(
  dim=3, num_targets=2, min_points=12, max_points=12
)
NUM_STEPS = (1, 3)


def score(answers, testing, loss, num_instances, seed):
  """The values of each series, by metric."""
  made = spectrum_evaluation.make(
    answers, testing, loss, num_instances, seed, rows=lambda values: []
  )
  (values,) = evaluator.measure(made).values()
  return values


@functools.partial(jax.jit, static_argnums=1)
def sample(key, size):
  return spectra.sample_batch(key, LAW, size)


@functools.cache
def references(loss):
  return spectrum_evaluation.references(
    loss, sample, 2, num_steps=NUM_STEPS, seed=3
  )


@functools.cache
def answers(loss, series):
  """What a reference says of 128 problems."""
  return np.float64(jax.jit(references(loss)[series])(batch()))


@functools.cache
def batch():
  return sample(jax.random.key(0), 128)


@functools.cache
def truth():
  """Covariances, and their eigenvalues and vectors: NumPy's, descending."""
  centred = np.float64(batch().points)
  centred = centred - centred.mean(axis=1, keepdims=True)
  covariance = np.einsum("bni,bnj->bij", centred, centred) / 11
  values, vectors = np.linalg.eigh(covariance)
  return covariance, values[:, ::-1], vectors[:, :, ::-1]


def abs_cosines(one, other):
  lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
  return np.abs(np.sum(one * other, axis=1)) / lengths


def test_names_of_what_stands_beside():
  steps = ["1 step", "3 steps"]
  common = {"eigh", "population", *(f"power method, {text}" for text in steps)}
  assert set(references("eigenvalues")) == common | {"mean spectrum"}
  for loss in ("eigenvectors", "subspace"):
    assert set(references(loss)) == common | {"random direction"}


def test_eigh_is_the_truth():
  _, values, vectors = truth()
  found = answers("eigenvalues", "eigh")
  np.testing.assert_allclose(found, values[:, :2], rtol=1e-4)
  found = answers("eigenvectors", "eigh")
  np.testing.assert_allclose(abs_cosines(found, vectors[..., :2]), 1, atol=1e-4)
  for loss, metrics in spectrum_evaluation.METRICS.items():
    eigh = {"eigh": references(loss)["eigh"]}
    (found,) = score(eigh, sample, loss, 32, 5).values()
    (name,) = metrics
    expected = 1.0 if name == "|cos|" else 0.0
    np.testing.assert_allclose(found[name], expected, atol=5e-6)


def test_population_is_the_spectrum_of_the_law():
  values, vectors = np.linalg.eigh(np.float64(batch().covariance))
  found = answers("eigenvalues", "population")
  np.testing.assert_allclose(found, values[:, :0:-1], rtol=1e-4)
  found = answers("eigenvectors", "population")
  cosines = abs_cosines(found, vectors[:, :, :0:-1])
  # Where two eigenvalues are near, the directions are not determined.
  gaps = np.min(np.diff(values, axis=1), axis=1) / values[:, -1]
  np.testing.assert_allclose(cosines[gaps > 0.01], 1.0, atol=1e-4)
  # The points are other than their law.
  assert np.median(abs_cosines(found, truth()[2][..., :2])[:, 0]) < 0.999


def test_power_method_goes_on_from_the_same_start():
  covariance = truth()[0]
  one, three = (
    answers("eigenvectors", f"power method, {steps}")[..., :1]
    for steps in ("1 step", "3 steps")
  )
  # A block of as many vectors as dimensions would be there at once.
  assert np.median(abs_cosines(one, truth()[2][..., :1])) < 0.99
  cosines = abs_cosines(three, covariance @ covariance @ one)
  np.testing.assert_allclose(cosines, 1.0, atol=1e-5)


def test_values_of_the_power_method_are_those_of_its_vectors():
  covariance, _, _ = truth()
  vectors = answers("eigenvectors", "power method, 3 steps")
  first, second = vectors[..., 0], vectors[..., 1]
  value = np.einsum("bi,bij,bj->b", first, covariance, first)
  # The second is found on what the first leaves.
  rest = covariance - value[:, None, None] * first[:, :, None] * first[:, None]
  others = np.einsum("bi,bij,bj->b", second, rest, second)
  found = answers("eigenvalues", "power method, 3 steps")
  np.testing.assert_allclose(found[:, 0], value, rtol=1e-4)
  np.testing.assert_allclose(found[:, 1], others, rtol=1e-3, atol=1e-3)


def test_error_of_the_power_method_falls_with_its_steps():
  _, values, _ = truth()
  one, three = (
    np.mean((answers("eigenvalues", name) / values[:, :2] - 1) ** 2, axis=0)
    for name in ("power method, 1 step", "power method, 3 steps")
  )
  assert np.all(three < 0.5 * one)


def test_mean_spectrum_is_that_of_many_training_problems():
  drawn, keys = [], set()

  def training(key, size):
    keys.add(tuple(np.asarray(jax.random.key_data(key))))
    problems = sample(key, size)
    drawn.append(problems.eigenvalues)
    return problems

  found = spectrum_evaluation.references(
    "eigenvalues", training, 2, num_steps=(1,), seed=7
  )["mean spectrum"](batch())
  every = np.concatenate(drawn)
  assert len(every) >= 4096
  assert len(keys) == len(drawn)
  assert found.shape == (128, 2)
  expected = np.broadcast_to(np.float64(every).mean(axis=0), (128, 2))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_random_directions_are_uniform_and_not_of_the_points():
  # In R^3 the cosine with anything is uniform on [-1, 1].
  found = answers("eigenvectors", "random direction")
  cosines = np.sort(abs_cosines(found, truth()[2][..., :2]).ravel())
  distance = np.abs(cosines - np.linspace(0, 1, cosines.size)).max()
  assert distance < 1.63 / np.sqrt(cosines.size)  # Kolmogorov, at 1%


# Scores and rows.


def halves(batch):
  return 0.5 * batch.eigenvalues


@pytest.mark.parametrize(("wanted", "scored"), [(20, 20), (200, 256)])
def test_every_series_is_scored_on_the_same_new_problems(wanted, scored):
  seen, sizes = {}, []

  def testing(key, size):
    problems = sample(key, size)
    sizes.append(len(problems.points))
    for row in np.asarray(problems.points):
      seen[row.tobytes()] = True
    return problems

  series = {"half": halves, "again": halves}
  found = score(series, testing, "eigenvalues", wanted, 3)
  # No problem comes twice, and none is drawn for each series.
  assert len(seen) == sum(sizes) == scored
  assert list(found) == ["half", "again"]
  for metrics in found.values():
    errors = metrics["relative squared error"]
    assert errors.shape == (scored, 2)
    np.testing.assert_allclose(errors, 0.25)
  same = score({"half": halves}, sample, "eigenvalues", wanted, 3)
  np.testing.assert_array_equal(
    same["half"]["relative squared error"],
    found["half"]["relative squared error"],
  )


def test_problems_are_a_function_of_the_seed():
  drawn = {}
  for seed in (3, 3, 4):

    def testing(key, size, seed=seed):
      drawn.setdefault(seed, []).append(sample(key, size).points)
      return sample(key, size)

    score({"half": halves}, testing, "eigenvalues", 20, seed)
  np.testing.assert_array_equal(*drawn[3])
  assert not np.any(drawn[4][0] == drawn[3][0])


def test_rows_are_means_with_errors_and_counts():
  generator = np.random.default_rng(0)
  array = generator.normal(size=(50, 3)) ** 2
  values = {"network": {"error": array}, "eigh": {"error": 0.0 * array}}
  rows = spectrum_evaluation.by_target(values, study="top3")
  places = [(row.study, row.metric, row.series, row.x) for row in rows]
  assert places == [
    ("top3", "error", series, x)
    for series in ("network", "eigh")
    for x in (1.0, 2.0, 3.0)
  ]
  for row, column in zip(rows[:3], array.T, strict=True):
    assert row.value == pytest.approx(column.mean())
    error = column.std(ddof=1) / np.sqrt(50)
    assert row.standard_error == pytest.approx(error)
    assert (row.count, row.failures) == (50, 0)
  (row, _) = spectrum_evaluation.at(values, 20, study="over dim")
  assert (row.study, row.x, row.count) == ("over dim", 20.0, 50)
  assert row.value == pytest.approx(array.mean())
  # The targets of one problem are not independent: one mean of each counts.
  error = array.mean(axis=1).std(ddof=1) / np.sqrt(50)
  assert row.standard_error == pytest.approx(error)


@pytest.mark.parametrize("loss", spectrum_evaluation.METRICS)
def test_an_answer_that_is_not_finite_is_a_failure(loss):
  def answer(batch):
    truth = batch.eigenvalues if loss == "eigenvalues" else batch.eigenvectors
    return truth.at[3].set(jnp.nan)

  values = score({"network": answer}, sample, loss, 20, seed=0)
  row, *_ = spectrum_evaluation.by_target(values, study="top")
  assert np.isnan(row.value)
  assert (row.count, row.failures) == (20, 1)
  (row,) = spectrum_evaluation.at(values, 2, study="over dim")
  assert np.isnan(row.value)
  assert (row.count, row.failures) == (20, 1)
