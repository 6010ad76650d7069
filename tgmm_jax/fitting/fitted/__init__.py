"""What a fit is, and what can be done with it.

`record` is the fit itself; its methods look at new points through `door` and in
`posterior`, draw in `sampling`, say how sure it is in `uncertainty`, and are
written by `shown` and `as_sklearn`. `derived` has what the mixture says without
new points, or of a part of them.
"""

from tgmm_jax.fitting.fitted import derived
from tgmm_jax.fitting.fitted.door import columns_of
from tgmm_jax.fitting.fitted.loading import load, load_fit
from tgmm_jax.fitting.fitted.posterior import (
  Posterior,
  of_batch,
  of_fit,
  of_log_joint,
)
from tgmm_jax.fitting.fitted.record import Fit
from tgmm_jax.fitting.fitted.uncertainty import of_fit as uncertainty_of

__all__ = [
  "Fit",
  "Posterior",
  "columns_of",
  "derived",
  "load",
  "load_fit",
  "of_batch",
  "of_fit",
  "of_log_joint",
  "uncertainty_of",
]
