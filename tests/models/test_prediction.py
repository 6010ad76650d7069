import jax
import numpy as np
import pytest

from tgmm_jax.models import prediction as prediction_lib

TO_MIXTURE = jax.jit(
  prediction_lib.to_mixture, static_argnames="covariance_type"
)


def prediction_of(size=4, dim=2, has_scales=True, seed=0):
  rng = np.random.default_rng(seed)
  weights = rng.dirichlet(np.ones(size))
  return prediction_lib.Prediction(
    np.log(weights).astype(np.float32),
    rng.normal(size=(size, dim)).astype(np.float32),
    rng.uniform(0.5, 2.0, (size, dim)).astype(np.float32)
    if has_scales
    else None,
  )


@pytest.mark.parametrize("count", [1, 3, 4])
def test_mixture_is_what_the_prediction_says(count):
  prediction = prediction_of()
  mixture = TO_MIXTURE(prediction, count, covariance_type="diag")
  weights = np.exp(prediction.log_weights[:count])
  np.testing.assert_allclose(
    mixture.weights[:count], weights / weights.sum(), rtol=1e-6
  )
  np.testing.assert_array_equal(mixture.means[:count], prediction.means[:count])
  np.testing.assert_allclose(
    mixture.covariances[:count], prediction.scales[:count] ** 2, rtol=1e-6
  )
  np.testing.assert_array_equal(mixture.weights[count:], 0.0)
  np.testing.assert_array_equal(mixture.means[count:], 0.0)
  np.testing.assert_array_equal(mixture.covariances[count:], 1.0)


def test_padding_may_hold_anything():
  prediction = prediction_of()
  count = np.array(2)
  junk = jax.tree.map(np.copy, prediction)
  for leaf in jax.tree.leaves(junk):
    leaf[2:] = np.nan
  jax.tree.map(
    np.testing.assert_array_equal,
    TO_MIXTURE(junk, count, covariance_type="diag"),
    TO_MIXTURE(prediction, count, covariance_type="diag"),
  )


def test_without_scales_the_covariance_is_the_known_one():
  assert TO_MIXTURE(prediction_of(has_scales=False), 3).covariances is None


def test_full_covariances_are_scales_and_correlations():
  prediction = prediction_of()
  factors = np.random.default_rng(1).normal(size=(4, 2, 3)).astype(np.float32)
  covariances = factors @ np.swapaxes(factors, 1, 2)
  scales = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
  correlations = covariances / (scales[:, :, None] * scales[:, None, :])
  prediction = prediction._replace(scales=scales, correlations=correlations)
  mixture = TO_MIXTURE(prediction, 3, covariance_type="full")
  np.testing.assert_allclose(
    mixture.covariances[:3], covariances[:3], rtol=1e-5
  )
  np.testing.assert_array_equal(mixture.covariances[3], np.eye(2))


def test_one_scale_is_one_variance():
  prediction = prediction_of()._replace(scales=np.full((4, 2), 1.5, np.float32))
  mixture = TO_MIXTURE(prediction, 3, covariance_type="tied_spherical")
  assert mixture.covariances.shape == ()
  assert float(mixture.covariances) == pytest.approx(2.25)
