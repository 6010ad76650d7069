"""Pages of results: made of the kept tables, declared beside the configs.

  python -m experiments.results_pages [NAME ...]

makes `docs/results/NAME.md` of what is kept, and the parts of `docs/papers.md`
and `experiments/README.md` that say what came out. With names it makes the
pages of these alone.
"""

from experiments.results_pages.page import Page
from experiments.results_pages.tables import (
  Table,
  across,
  cells,
  series,
  solvers,
  text_of,
)

__all__ = ["Page", "Table", "across", "cells", "series", "solvers", "text_of"]
