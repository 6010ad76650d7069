import numpy as np
import pytest

from tgmm_jax import fitting, types
from tgmm_jax.fitting import fits


@pytest.fixture
def fitted(monkeypatch):
  """Nothing is fitted: a list of what would have been, and changes to it."""
  calls = []

  def fit(points, num_components, *, covariance_type="full", **options):
    calls.append((points, num_components, covariance_type, options))
    dim = points.shape[1]
    mixture = types.Mixture(
      np.array([0.25, 0.75]),
      np.stack([np.zeros(dim), np.ones(dim)]),
      np.stack([np.eye(dim), 2.0 * np.eye(dim)]),
    )
    return fitting.Fit(
      mixture=mixture,
      num_components=np.int32(2),
      log_likelihood=np.float32(-3.25),
      labels=np.arange(len(points), dtype=np.int32) % 2,
      status=np.int32(types.Status.CONVERGED),
      method_index=np.int32(0),
      is_outside_range=np.bool_(False),
      covariance_type=covariance_type,
      methods=("EM",),
    )

  monkeypatch.setattr(fits, "fit", fit)
  return calls
