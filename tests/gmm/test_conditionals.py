"""Marginals, conditionals, regression: against matrices and integrals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from tests.gmm import mixtures
from tgmm_jax import gmm, types
from tgmm_jax.gmm import densities

GIVEN, REST = (3, 1), (0, 2)
VALUES = np.array([0.7, -1.2])
TYPES = pytest.mark.parametrize("covariance_type", gmm.COVARIANCE_TYPES)


def numpy_condition(mixture, values, given, rest, covariance_type):
  """Weights, means, matrices of the textbook, with inverses."""
  found = []
  for weight, mean, matrix in zip(
    mixture.weights,
    mixture.means,
    mixtures.matrices_of(mixture, covariance_type),
    strict=True,
  ):
    own = matrix[np.ix_(given, given)]
    slopes = matrix[np.ix_(rest, given)] @ np.linalg.inv(own)
    found.append(
      (
        weight * stats.multivariate_normal(mean[given], own).pdf(values),
        mean[rest] + slopes @ (values - mean[given]),
        matrix[np.ix_(rest, rest)] - slopes @ matrix[np.ix_(given, rest)],
      )
    )
  weights, means, covariances = map(np.array, zip(*found, strict=True))
  return weights / weights.sum(), means, covariances


def as_jax(mixture, dtype=None):
  return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), mixture)


@functools.partial(jax.jit, static_argnames=("given", "covariance_type"))
def condition(mixture, values, *, given, covariance_type):
  return gmm.condition(mixture, values, given, covariance_type=covariance_type)


@functools.partial(jax.jit, static_argnames=("given", "covariance_type"))
def regress(values, mixture, *, given, covariance_type):
  return gmm.regress(values, mixture, given, covariance_type=covariance_type)


@TYPES
@pytest.mark.usefixtures("x64")
def test_conditional_is_that_of_the_textbook_and_of_the_same_type(
  covariance_type,
):
  mixture = mixtures.made(covariance_type)
  found = condition(
    as_jax(mixture), VALUES, given=GIVEN, covariance_type=covariance_type
  )
  kind = gmm.COVARIANCE_TYPES[covariance_type]
  if kind.is_known:
    assert found.covariances is None
  else:
    assert found.covariances.shape == kind.shape(mixtures.K, len(REST))
  expected = numpy_condition(
    mixture, VALUES, list(GIVEN), list(REST), covariance_type
  )
  actual = (*found[:2], mixtures.matrices_of(found, covariance_type))
  for one, other in zip(actual, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


@TYPES
@pytest.mark.usefixtures("x64")
def test_marginal_has_the_rows_and_columns_in_the_order_asked_for(
  covariance_type,
):
  mixture, keep = mixtures.made(covariance_type), (2, 0, 3)
  found = gmm.marginal(mixture, keep, covariance_type=covariance_type)
  np.testing.assert_array_equal(found.weights, mixture.weights)
  np.testing.assert_array_equal(found.means, mixture.means[:, keep])
  matrices = mixtures.matrices_of(mixture, covariance_type)
  np.testing.assert_array_equal(
    mixtures.matrices_of(found, covariance_type),
    matrices[:, keep][:, :, keep],
  )


@pytest.mark.parametrize(
  "covariance_type", ["full", pytest.param("diag", marks=pytest.mark.slow)]
)
@pytest.mark.usefixtures("x64")
def test_conditional_density_mean_and_deviation_are_integrals(covariance_type):
  options = {"covariance_type": covariance_type}
  mixture = gmm.marginal(
    as_jax(mixtures.made(covariance_type)), (0, 1), **options
  )
  joint = gmm.condition(mixture, [0.4], 1, **options)
  axis = np.linspace(-30.0, 30.0, 6001)
  plane = np.stack([axis, np.full_like(axis, 0.4)], axis=1)
  height = np.exp(gmm.log_density(plane, mixture, **options))
  total = integrate.simpson(height, x=axis)
  marginal = gmm.marginal(mixture, 1, **options)
  np.testing.assert_allclose(
    np.exp(gmm.log_density(np.array([[0.4]]), marginal, **options)), total
  )
  np.testing.assert_allclose(
    np.exp(gmm.log_density(axis[:, None], joint, **options)),
    height / total,
    rtol=1e-8,
    atol=1e-12,
  )
  mean = integrate.simpson(axis * height, x=axis) / total
  variance = integrate.simpson((axis - mean) ** 2 * height, x=axis) / total
  found = gmm.moments(joint, **options)
  np.testing.assert_allclose(found.mean, [mean], rtol=1e-8)
  np.testing.assert_allclose(
    found.standard_deviation, [np.sqrt(variance)], rtol=1e-8
  )


@TYPES
@pytest.mark.usefixtures("x64")
def test_regression_of_many_points_is_the_moments_of_each(
  covariance_type, monkeypatch
):
  monkeypatch.setattr(densities, "_BLOCK_SIZE", 1)
  options = {"covariance_type": covariance_type}
  mixture = as_jax(mixtures.made(covariance_type))
  values = 2.0 * np.random.default_rng(3).normal(size=(300, 2))
  found = regress(values, mixture, given=GIVEN, **options)
  for row in (0, 130, 299):
    weights, means, matrices = numpy_condition(
      mixtures.made(covariance_type),
      values[row],
      list(GIVEN),
      list(REST),
      covariance_type,
    )
    mean = weights @ means
    second = np.einsum("kii->ki", matrices) + means**2
    np.testing.assert_allclose(found.mean[row], mean, rtol=1e-10)
    np.testing.assert_allclose(
      found.standard_deviation[row],
      np.sqrt(weights @ second - mean**2),
      rtol=1e-9,
    )


@TYPES
def test_padding_stays_padding_and_has_no_effect(covariance_type):
  mixture = mixtures.made(covariance_type)
  options = {"given": GIVEN, "covariance_type": covariance_type}
  plain = condition(as_jax(mixture, "float32"), VALUES, **options)
  found = condition(
    as_jax(mixtures.padded(mixture, covariance_type), "float32"),
    VALUES,
    **options,
  )
  np.testing.assert_array_equal(found.weights[3:], 0.0)
  np.testing.assert_allclose(found.weights[:3], plain.weights, rtol=1e-5)
  np.testing.assert_allclose(found.means[:3], plain.means, rtol=1e-5, atol=1e-6)
  moments = regress(
    VALUES[None],
    as_jax(mixtures.padded(mixture, covariance_type), "float32"),
    **options,
  )
  expected = gmm.moments(plain, covariance_type=covariance_type)
  for one, other in zip(moments, expected, strict=True):
    np.testing.assert_allclose(one[0], other, rtol=1e-4, atol=1e-5)


@TYPES
@pytest.mark.parametrize("distance", [1e3, 1e18, 1e30, 3e38])
def test_far_away_is_a_mixture_too(covariance_type, distance):
  mixture = as_jax(mixtures.made(covariance_type), "float32")
  values = jnp.array([distance, -distance], jnp.float32)
  options = {"given": GIVEN, "covariance_type": covariance_type}
  found = condition(mixture, values, **options)
  for leaf in jax.tree.leaves(found):
    assert np.all(np.isfinite(leaf))
  assert np.sum(found.weights) == pytest.approx(1.0, rel=1e-6)
  for leaf in regress(values[None], mixture, **options):
    assert np.all(np.isfinite(leaf))
  options["given"] = (2,)
  for leaf in regress(values[:1, None], mixture, **options):
    assert np.all(np.isfinite(leaf))


@pytest.mark.usefixtures("x64")
def test_far_away_the_widest_component_answers():
  mixture = as_jax(mixtures.made("spherical"))
  widest = int(np.argmax(mixture.covariances))
  for distance in (1e3, 1e200, 1e308):
    found = condition(
      mixture,
      np.full(2, distance),
      given=GIVEN,
      covariance_type="spherical",
    )
    assert found.weights[widest] == 1.0


@TYPES
def test_gradients_are_finite(covariance_type):
  mixture = as_jax(
    mixtures.padded(mixtures.made(covariance_type), covariance_type)
  )

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1))
  def slopes(mixture, values):
    found = gmm.regress(values, mixture, GIVEN, covariance_type=covariance_type)
    return jnp.sum(found.mean + 0.1 * found.standard_deviation**2)

  values = jnp.array([[0.7, -1.2], [1e4, 3e3]])
  for leaf in jax.tree.leaves(slopes(mixture, values)):
    assert np.all(np.isfinite(leaf))


@pytest.mark.usefixtures("x64")
def test_gradient_is_a_central_difference():
  mixture = as_jax(mixtures.made("full"))

  @jax.jit
  @jax.value_and_grad
  def predicted(values):
    found = gmm.regress(values[None], mixture, GIVEN, covariance_type="full")
    return found.mean[0, 0] + found.standard_deviation[0, 1]

  values = jnp.asarray(VALUES)
  _, slope = predicted(values)
  for index in range(2):
    step = 1e-6 * jnp.eye(2)[index]
    ahead, behind = predicted(values + step)[0], predicted(values - step)[0]
    expected = float(ahead - behind) / 2e-6
    assert float(slope[index]) == pytest.approx(expected, rel=1e-6)


def test_batches_by_vmap():
  mixture = as_jax(mixtures.made("tied"), "float32")
  values = jnp.asarray([VALUES, -VALUES], jnp.float32)
  one_by_one = [
    condition(mixture, row, given=GIVEN, covariance_type="tied")
    for row in values
  ]
  batch = jax.vmap(
    lambda row: condition(mixture, row, given=GIVEN, covariance_type="tied")
  )(values)
  for index, own in enumerate(one_by_one):
    np.testing.assert_allclose(batch.means[index], own.means, rtol=1e-5)


def test_columns_that_follow_from_the_given_keep_a_variance():
  # Twice the same column: nothing is left of the second.
  covariances = np.array([[[1.0, 1.0], [1.0, 1.0]]] * 2)
  mixture = types.Mixture(np.full(2, 0.5), np.zeros((2, 2)), covariances)
  found = condition(
    as_jax(mixture, "float32"),
    jnp.array([0.5]),
    given=0,
    covariance_type="full",
  )
  assert np.all(found.covariances > 0)
  assert np.all(found.covariances < 1e-5)
  np.testing.assert_allclose(found.means, 0.5, rtol=1e-5)


@pytest.mark.parametrize(
  ("given", "values", "message"),
  [
    ((0, 0), VALUES, r"given is \(0, 0\), takes indices from 0 to 3"),
    ((), [], r"given is \(\), takes"),
    ((4,), [0.0], r"given is \(4,\), takes"),
    ("ab", VALUES, "given is 'ab', takes"),
    ((0.5,), [0.0], r"given is \(0.5,\), takes"),
    ((0, 1, 2, 3), np.zeros(4), "takes less than 4 indices"),
    ((0, 1), np.zeros(3), r"values has shape \(3,\), takes \(2,\) as given"),
  ],
)
def test_what_cannot_be_given_is_refused(given, values, message):
  with pytest.raises(ValueError, match=message):
    gmm.condition(mixtures.made("unit"), values, given)
