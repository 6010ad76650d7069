"""Expectation-maximisation for mixtures of every covariance type.

`fit` runs EM on one problem, from one start or the best of several; `fit_batch`
fits many problems and nobody waits for the slowest; `fit_sharded` one very
large problem over a mesh of devices, `fit_stream` one that never fits in
memory; `unroll` takes a fixed number of steps that gradients pass through.
"""

from tgmm_jax.solvers.em.fits import (
  fit,
  fit_batch,
  fit_projected,
  start,
  unroll,
)
from tgmm_jax.solvers.em.sharded import fit_sharded
from tgmm_jax.solvers.em.steps import e_step, m_step, step
from tgmm_jax.solvers.em.stream import fit_stream

__all__ = [
  "e_step",
  "fit",
  "fit_batch",
  "fit_projected",
  "fit_sharded",
  "fit_stream",
  "m_step",
  "start",
  "step",
  "unroll",
]
