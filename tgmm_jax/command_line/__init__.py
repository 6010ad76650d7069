"""`python -m tgmm_jax`: what a user types, reads and gets as files.

A command is a module with `add_to`, which says what it takes, and `run`. What
takes time to import is imported where it is used: `--help`, a wrong argument
and a file that is not there answer at once.
"""

from tgmm_jax.command_line.entry import main

__all__ = ["main"]
