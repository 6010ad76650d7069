"""Experiments with mixtures: fields, plan, scores in cells of one table."""

from experiments.mixtures.config import (
  MixtureRun,
  Plan,
  get_config,
  make_plan,
  refiner_run,
  sweep,
  tgmm_run,
)
from experiments.mixtures.kind import experiment
from experiments.mixtures.shipped import PRETRAINED, solver_of
from experiments.mixtures.variants import make_released, make_small, make_smoke

__all__ = [
  "PRETRAINED",
  "MixtureRun",
  "Plan",
  "experiment",
  "get_config",
  "make_plan",
  "make_released",
  "make_small",
  "make_smoke",
  "refiner_run",
  "solver_of",
  "sweep",
  "tgmm_run",
]
