"""Expectation-maximisation for mixtures of every covariance type.

`fit` runs EM on one problem, from one start or the best of several, and
`fit_trials` from many of which most are given up early; `fit_batch` fits many
problems and nobody waits for the slowest; `fit_sharded` one very large problem
over a mesh of devices, `fit_stream` one that never fits in memory; `unroll`
takes a fixed number of steps that gradients pass through. `absorb` takes a
block of new points and a state.
What all of them may be told is `Options`; `Fixed` says what of it is known.

`noise` and `student` are for points with outliers: a uniform component beside
the mixture, and Student t components.

`bootstrap` and `information` say how sure a fit is.

`make_plan`, `set_up`, `begin` and `conclude` are the parts that they are made
of, for solvers that take other steps.
"""

from tgmm_jax.solvers.em.batches import fit_batch, keys_of, run_batch
from tgmm_jax.solvers.em.fits import Ended, fit, fit_each, start, unroll
from tgmm_jax.solvers.em.known import Fixed
from tgmm_jax.solvers.em.online import (
  OnlineState,
  absorb,
  begin_online,
  decay_of,
)
from tgmm_jax.solvers.em.options import MISSING, Limits, Options, make_plan
from tgmm_jax.solvers.em.priors import Prior, fraley_raftery
from tgmm_jax.solvers.em.robust import noise, student, volume
from tgmm_jax.solvers.em.runs import begin, conclude
from tgmm_jax.solvers.em.sharded import fit_sharded
from tgmm_jax.solvers.em.starts import Inputs, Start, set_up
from tgmm_jax.solvers.em.steps import (
  Statistics,
  e_step,
  is_degenerate,
  log_density,
  m_step,
  step,
)
from tgmm_jax.solvers.em.stream import fit_stream
from tgmm_jax.solvers.em.trials import Tried, fit_trials, run_trials
from tgmm_jax.solvers.em.uncertainty.delta import information
from tgmm_jax.solvers.em.uncertainty.record import Uncertainty
from tgmm_jax.solvers.em.uncertainty.replicates import bootstrap

__all__ = [
  "MISSING",
  "Ended",
  "Fixed",
  "Inputs",
  "Limits",
  "OnlineState",
  "Options",
  "Prior",
  "Start",
  "Statistics",
  "Tried",
  "absorb",
  "begin",
  "begin_online",
  "Uncertainty",
  "begin",
  "bootstrap",
  "conclude",
  "decay_of",
  "e_step",
  "fit",
  "fit_batch",
  "fit_each",
  "fit_sharded",
  "fit_stream",
  "fit_trials",
  "fraley_raftery",
  "information",
  "is_degenerate",
  "keys_of",
  "log_density",
  "m_step",
  "make_plan",
  "noise",
  "run_batch",
  "run_trials",
  "set_up",
  "start",
  "step",
  "student",
  "unroll",
  "volume",
]
