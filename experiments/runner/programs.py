"""Where the compiled programs of a run are kept, for its next start."""

import os
import pathlib

import jax
import ml_collections

from experiments.runner import fields
from tgmm_jax.training import run_folder

_NONE = "none"
_VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def keep(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Has JAX keep what takes a second to compile; before it compiles anything.

  Args:
    config: its `start.programs` names a folder, "" that of the run or what
      JAX's variable names, or "none".
    workdir: of the run; nothing is made before a program is kept.
  """
  named = config.get("start", fields.start_config()).programs
  if named == _NONE:
    jax.config.update("jax_enable_compilation_cache", False)
  elif run_folder.is_url(named):  # JAX knows some
    jax.config.update("jax_compilation_cache_dir", named)
  elif named or not os.environ.get(_VARIABLE):
    folder = pathlib.Path(named) if named else workdir / run_folder.PROGRAMS
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
