"""Experiments with spectra (arXiv 2501.01312): fields, scores as curves."""

from experiments.spectra.config import (
  SpectrumRun,
  get_config,
  make_large,
  make_quick,
  make_runs,
  make_smoke,
  sweep,
  training_run,
)
from experiments.spectra.kind import experiment, prepared

__all__ = [
  "SpectrumRun",
  "experiment",
  "get_config",
  "make_large",
  "make_quick",
  "make_runs",
  "make_smoke",
  "prepared",
  "sweep",
  "training_run",
]
