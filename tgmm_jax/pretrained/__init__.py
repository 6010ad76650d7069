"""Trained networks as files: safe to read, checked, and with a card."""

from tgmm_jax.pretrained.cards import (
  Card,
  OutsideRangeWarning,
  PretrainedError,
  about,
  available,
  check_problem,
  load,
  load_params,
  read_card,
  save,
  warn_if_outside,
)

__all__ = [
  "Card",
  "OutsideRangeWarning",
  "PretrainedError",
  "about",
  "available",
  "check_problem",
  "load",
  "load_params",
  "read_card",
  "save",
  "warn_if_outside",
]
