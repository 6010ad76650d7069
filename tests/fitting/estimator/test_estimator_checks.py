"""What scikit-learn asks of an estimator."""

import pytest
from sklearn.utils import estimator_checks

from tgmm_jax.fitting.estimator import gaussian_mixture


# Fits of a single component do not depend on chance. With more,
# check_sample_weight_equivalence_on_dense_data cannot pass: a draw from
# weighted points is not the draw from repeated points in another order.
@pytest.mark.slow
@estimator_checks.parametrize_with_checks([gaussian_mixture.GaussianMixture()])
def test_scikit_learn_takes_the_estimator_for_its_own(estimator, check):
  check(estimator)
