"""Tables in files, as points: what people have, read the way they mean it.

A text is read with its separator, decimal mark, header and encoding guessed
from its own first lines. What was guessed and what was left out is part of the
answer, so that whoever reads a file can say it.
"""

from tgmm_jax.fitting.tables.columns import MISSING
from tgmm_jax.fitting.tables.reading import read
from tgmm_jax.fitting.tables.record import Table, described

__all__ = ["MISSING", "Table", "described", "read"]
