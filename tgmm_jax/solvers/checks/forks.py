"""A process that was forked from one that computes would wait for ever.

The threads of JAX are not there in a forked process, its locks are. Python's
`multiprocessing` forks by default on Linux before 3.14.
"""

import os

# The process in which a door was used first.
_OWNER = []


def refuse() -> None:
  """Refuses a process whose parent has used a door before it forked.

  Raises:
    RuntimeError: in place of an answer that would never come.
  """
  own = os.getpid()
  if not _OWNER:
    _OWNER.append(own)
  if _OWNER[0] != own:
    raise RuntimeError(
      "this process was forked from one that has used JAX, takes one of"
      " multiprocessing.get_context('spawn') or 'forkserver'"
    )
