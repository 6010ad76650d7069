"""What holds for the result of every solver."""

import jax
import numpy as np


def status_of(found):
  """The status of a result, whose parameters are finite whatever it is."""
  for leaf in jax.tree.leaves(found.mixture):
    assert np.all(np.isfinite(leaf))
  assert not np.isnan(found.log_likelihood)
  return found.status
