"""What callers hand over, checked on the host.

The pure functions never raise on data; the front doors (`fit`, `em.fit_batch`,
`em.fit_stream`, `GaussianMixture`, the command line) do, with one line that
names the argument, what it got and what it takes. What is traced has no values
to look at and is taken as it is.
"""

from tgmm_jax.solvers.checks.arguments import (
  integer,
  name,
  number,
  options,
  warn,
)
from tgmm_jax.solvers.checks.blocks import Block, pieces, reader
from tgmm_jax.solvers.checks.conversion import array, is_real, numbers_of, shape
from tgmm_jax.solvers.checks.precision import in_that_of as in_precision_of
from tgmm_jax.solvers.checks.precision import is_traced
from tgmm_jax.solvers.checks.problems import (
  Batch,
  batch,
  good_rows,
  one_or_many,
  problem,
  values,
  weights,
  without_holes,
)

__all__ = [
  "Batch",
  "Block",
  "array",
  "batch",
  "good_rows",
  "in_precision_of",
  "integer",
  "is_real",
  "is_traced",
  "name",
  "number",
  "numbers_of",
  "one_or_many",
  "options",
  "pieces",
  "problem",
  "reader",
  "shape",
  "values",
  "warn",
  "weights",
  "without_holes",
]
