import functools

import jax
import numpy as np
import pytest
from scipy import stats

from tgmm_jax import types
from tgmm_jax.models import prediction as prediction_lib
from tgmm_jax.training import losses

SIZE, DIM, NUM_POINTS = 5, 2, 12


@functools.cache
def compiled(name, covariance_type):
  loss = functools.partial(losses.LOSSES[name], covariance_type=covariance_type)
  return jax.jit(jax.value_and_grad(loss))


def evaluate(name, covariance_type="diag"):
  """Value and gradient of a loss in the prediction, "unit" without scales."""

  def value_and_gradient(prediction, target, problem):
    has_scales = prediction.scales is not None
    own = compiled(name, covariance_type if has_scales else "unit")
    return own(prediction, target, problem)

  return value_and_gradient


def case(count=3, has_scales=True, seed=0):
  """A prediction, a target and a problem with padded components."""
  rng = np.random.default_rng(seed)
  is_component = np.arange(SIZE) < count

  def parameters():
    weights = np.where(is_component, rng.uniform(0.2, 0.8, SIZE), 0.0)
    means = np.where(
      is_component[:, None], rng.uniform(-5, 5, (SIZE, DIM)), 0.0
    )
    scales = rng.uniform(0.5, 2.0, (SIZE, DIM))
    return np.sort(weights / weights.sum()), means, scales

  weights, means, scales = parameters()
  target = types.Mixture(
    np.roll(weights, count - SIZE), means, scales**2 if has_scales else None
  )
  weights, means, scales = parameters()
  log_weights = np.full(SIZE, -1e9)
  log_weights[:count] = np.log(weights[-count:])
  prediction = prediction_lib.Prediction(
    log_weights, means, scales if has_scales else None
  )
  problem = prediction_lib.NetworkInput(
    points=3.0 * rng.normal(size=(NUM_POINTS, DIM)),
    sample_weight=(np.arange(NUM_POINTS) < 9).astype(float),
    num_components=np.array(count, np.int32),
    dim=np.array(4.0),
  )
  as_float32 = functools.partial(
    jax.tree.map,
    lambda leaf: leaf if leaf.dtype == np.int32 else leaf.astype(np.float32),
  )
  return as_float32(prediction), as_float32(target), as_float32(problem)


def permuted(record, order):
  return jax.tree.map(lambda leaf: leaf[order], record)


def regression(prediction, target, count, order, dim):
  """The loss written out; true component order[i] belongs to estimate i."""
  order = np.asarray(order)
  squared = (prediction.means[:count] - target.means[order]) ** 2
  total = squared.sum() / (count * dim)
  total -= (target.weights[order] * prediction.log_weights[:count]).sum()
  if prediction.scales is not None:
    squared = prediction.scales[:count] - np.sqrt(target.covariances[order])
    total += (squared**2).sum() / (count * dim)
  return total


@pytest.mark.parametrize("has_scales", [False, True])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_sorted_is_the_closed_form(count, has_scales):
  prediction, target, problem = case(count, has_scales)
  value, _ = evaluate("sorted")(prediction, target, problem)
  expected = regression(prediction, target, count, range(count), dim=4)
  assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("has_scales", [False, True])
def test_matched_is_the_closed_form_in_the_best_order(has_scales):
  prediction, target, problem = case(3, has_scales)
  # Estimate i lies near true component (1, 2, 0)[i].
  order = [1, 2, 0]
  prediction.means[:3] = target.means[order] + 0.3 * prediction.means[:3] / 5
  value, _ = evaluate("matched")(prediction, target, problem)
  expected = regression(prediction, target, 3, order, dim=4)
  assert value == pytest.approx(expected, rel=1e-5)
  assert value < evaluate("sorted")(prediction, target, problem)[0] - 0.1


@pytest.mark.parametrize("side", ["prediction", "target"])
def test_matched_knows_no_order_and_sorted_does(side):
  prediction, target, problem = case(3)
  order = np.array([2, 0, 1, 3, 4])
  if side == "prediction":
    other = permuted(prediction, order), target, problem
  else:
    other = prediction, permuted(target, order), problem
  value, gradient = evaluate("matched")(prediction, target, problem)
  its_value, its_gradient = evaluate("matched")(*other)
  assert its_value == pytest.approx(float(value), rel=1e-6)
  if side == "prediction":
    gradient = permuted(gradient, order)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    its_gradient,
    gradient,
  )
  value, _ = evaluate("sorted")(prediction, target, problem)
  its_value, _ = evaluate("sorted")(*other)
  assert abs(its_value - value) > 0.05


@pytest.mark.parametrize("has_scales", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_likelihood_is_that_of_scipy(count, has_scales):
  prediction, target, problem = case(count, has_scales)
  value, _ = evaluate("likelihood")(prediction, target, problem)
  scales = np.ones((SIZE, DIM)) if not has_scales else prediction.scales
  density = sum(
    np.exp(prediction.log_weights[k])
    * stats.multivariate_normal(
      prediction.means[k], np.diag(scales[k].astype(float) ** 2)
    ).pdf(problem.points[:9])
    for k in range(count)
  )
  assert value == pytest.approx(-np.log(density).mean(), rel=1e-4)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_padding_contributes_nothing(name):
  prediction, target, problem = case(3)
  value, gradient = evaluate(name)(prediction, target, problem)
  for leaf in jax.tree.leaves(gradient):
    np.testing.assert_array_equal(leaf[3:], 0.0)
    assert np.all(leaf[:3] != 0.0)
  prediction.means[3:], prediction.scales[3:] = 40.0, 3.0
  target.means[3:], target.covariances[3:] = -40.0, 9.0
  problem.points[9:] = np.nan
  other, its_gradient = evaluate(name)(prediction, target, problem)
  assert other == value
  jax.tree.map(np.testing.assert_array_equal, its_gradient, gradient)


def ties():
  """Cases in which an order or a distance is not determined."""
  yield "one component", *case(1)
  prediction, target, problem = case(4)
  prediction.means[:4], prediction.log_weights[:4] = 1.0, np.log(0.25)
  yield "the same estimate four times", prediction, target, problem
  prediction, target, problem = case(4)
  target.means[:4], target.weights[:4] = 1.0, 0.25
  yield "the same truth four times", prediction, target, problem
  prediction, target, problem = case(4)
  prediction.means[:4] = target.means[:4]
  yield "the truth itself", prediction, target, problem
  prediction, target, problem = case(4)
  prediction.means[:4] = 1e4
  yield "far away", prediction, target, problem


@pytest.mark.parametrize("name", losses.LOSSES)
def test_gradients_are_finite(name):
  for what, *arguments in ties():
    value, gradient = evaluate(name)(*arguments)
    assert np.isfinite(value), what
    for leaf in jax.tree.leaves(gradient):
      assert np.all(np.isfinite(leaf)), what


def test_gradient_is_that_of_finite_differences():
  prediction, target, problem = case(3)
  direction = case(3, seed=9)[0]
  direction.log_weights[3:] = 0.0
  for name in losses.LOSSES:
    _, gradient = evaluate(name)(prediction, target, problem)
    slope = sum(
      np.sum(g * d)
      for g, d in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True
      )
    )
    step = 1e-2
    ends = [
      evaluate(name)(
        jax.tree.map(lambda a, b, s=s: a + s * b, prediction, direction),
        target,
        problem,
      )[0]
      for s in (-step, step)
    ]
    difference = float(ends[1] - ends[0]) / (2.0 * step)
    assert difference == pytest.approx(float(slope), rel=2e-2)


def guesses_of_the_order(num_tasks, rng, num_samples=4000):
  """True means by ascending weight, and the best guess of someone who knows
  the means and the labels of 128 points, but not the weights: the posterior
  mean over the orders.
  """
  prior = rng.uniform(0.2, 0.8, (num_samples, 4))
  prior /= prior.sum(1, keepdims=True)
  orders = np.argsort(prior, axis=1)
  truth, guess = np.zeros((2, num_tasks, 4, 2), np.float32)
  for task in range(num_tasks):
    largest_cosine = 1.0
    while largest_cosine >= 0.8:
      means = rng.uniform(-5.0, 5.0, (4, 2))
      directions = means / np.linalg.norm(means, axis=1, keepdims=True)
      largest_cosine = np.max(directions @ directions.T - 2.0 * np.eye(4))
    weights = rng.uniform(0.2, 0.8, 4)
    weights /= weights.sum()
    log_posterior = np.log(prior) @ rng.multinomial(128, weights)
    posterior = np.exp(log_posterior - log_posterior.max())
    guess[task] = np.einsum(
      "s,skd->kd", posterior / posterior.sum(), means[orders]
    )
    truth[task] = means[np.argsort(weights)]
  return truth, guess


def test_sorted_has_a_floor_and_matched_has_none():
  num_tasks = 600
  truth, guess = guesses_of_the_order(num_tasks, np.random.default_rng(0))
  target = types.Mixture(np.zeros((num_tasks, 4)), truth)
  problem = prediction_lib.NetworkInput(
    np.zeros((num_tasks, 1, 2)),
    np.ones((num_tasks, 1)),
    np.full(num_tasks, 4),
    np.full(num_tasks, 2.0),
  )

  def mean_of(loss, means):
    prediction = prediction_lib.Prediction(np.zeros((num_tasks, 4)), means)
    return float(np.mean(loss(prediction, target, problem)))

  sorted_order = jax.jit(jax.vmap(losses.sorted_order))
  matched = jax.jit(jax.vmap(losses.matched))
  assert mean_of(sorted_order, guess) == pytest.approx(4.3, abs=0.4)
  # What is left of the error once the components are matched: 2.29 +- 0.07.
  assert mean_of(matched, guess) == pytest.approx(2.29, abs=0.25)
  assert mean_of(matched, truth[:, ::-1]) == 0.0


def full_case(covariance_type, unit=1.0, seed=0):
  """Whatever the unit of the points; K = 3, r = d = 2."""
  rng = np.random.default_rng(seed)
  prediction, target, problem = case(3)
  problem = problem._replace(dim=np.float32(2.0))
  factors = rng.normal(size=(SIZE, DIM, 4)).astype(np.float32)
  if covariance_type == "full":
    covariances = factors @ np.swapaxes(factors, 1, 2)
    covariances[3:] = np.eye(DIM)
    covariances[:3] *= unit**2
    correlations = np.broadcast_to(np.eye(DIM), (SIZE, DIM, DIM))
  else:
    covariances, correlations = np.float32(1.7 * unit**2), None
    prediction = prediction._replace(
      scales=np.full((SIZE, DIM), 0.8, np.float32)
    )
  prediction = prediction._replace(
    means=unit * prediction.means,
    scales=unit * prediction.scales,
    correlations=correlations,
  )
  prediction.scales[3:] = 1.0
  target = target._replace(means=unit * target.means, covariances=covariances)
  return prediction, target, problem


@pytest.mark.parametrize("covariance_type", ["tied_spherical", "full"])
def test_without_a_unit_errors_count_in_standard_deviations(covariance_type):
  prediction, target, problem = full_case(covariance_type)
  prediction.means[:3] = target.means[:3] + 0.3 * prediction.means[:3] / 5
  value, gradient = evaluate("matched", covariance_type)(
    prediction, target, problem
  )
  if covariance_type == "full":
    variances = np.diagonal(target.covariances, axis1=1, axis2=2)[:3]
    softening = 0.05
    log_ratio = np.log(prediction.scales[:3] / np.sqrt(variances))
    scale_loss = np.mean(log_ratio**2)
  else:
    variances, softening = target.covariances, 0.0
    scale_loss = np.log(0.8 / np.sqrt(1.7)) ** 2
  squared = (prediction.means[:3] - target.means[:3]) ** 2
  expected = np.mean(squared / (variances + softening)) + scale_loss
  expected -= (target.weights[:3] * prediction.log_weights[:3]).sum()
  assert value == pytest.approx(expected, rel=1e-5)
  for leaf in jax.tree.leaves(gradient):
    assert np.all(np.isfinite(leaf))
  assert np.any(gradient.scales[:3] != 0.0)


def test_one_unknown_variance_makes_the_unit_meaningless():
  value, _ = evaluate("matched", "tied_spherical")(*full_case("tied_spherical"))
  other, _ = evaluate("matched", "tied_spherical")(
    *full_case("tied_spherical", unit=100.0)
  )
  assert other == pytest.approx(float(value), rel=1e-4)
