import numpy as np

from tgmm_jax.models import parameters

PARAMS = {
  "backbone": {"blocks": {"0": {"kernel": np.zeros((4, 6))}}},
  "readout": {"kernel": np.zeros((3, 4, 7)), "bias": np.zeros((3, 7))},
  "tasks": {"embedding": np.zeros((3, 5))},
}


def test_counts_by_task():
  counts = parameters.count(PARAMS)
  assert counts.shared == 24
  assert counts.per_task == 84 + 21 + 15
  assert counts.total == 24 + 120
