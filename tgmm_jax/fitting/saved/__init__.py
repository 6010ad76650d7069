"""Fits as files: safe to read, exact, and checked.

A fit is here a mapping of arrays and one of what are no arrays; `fitted` makes
records of them.
"""

from tgmm_jax.fitting.saved.checks import SavedFitError
from tgmm_jax.fitting.saved.files import SUFFIXES, is_card, read, write

__all__ = ["SUFFIXES", "SavedFitError", "is_card", "read", "write"]
