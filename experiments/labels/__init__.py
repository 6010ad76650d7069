"""Experiments with labels (arXiv 2501.01312): fields, scores as curves."""

from experiments.labels.config import (
  MIXTURES,
  TWO_CLASSES,
  LabelRun,
  get_config,
  make_runs,
  make_smoke,
  sweep,
  training_run,
)
from experiments.labels.kind import experiment

__all__ = [
  "MIXTURES",
  "TWO_CLASSES",
  "LabelRun",
  "experiment",
  "get_config",
  "make_runs",
  "make_smoke",
  "sweep",
  "training_run",
]
