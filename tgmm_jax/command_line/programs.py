"""Compiled programs, kept on the disk for the next call."""

import hashlib
import os
import pathlib
import platform
import tempfile

from tgmm_jax.command_line import streams

VARIABLE = "TGMM_JAX_CACHE"
# In what JAX warns of where it cannot read or write a program.
_ABOUT = "persistent compilation cache"


def keep() -> None:
  """Has JAX keep compiled programs in the user's cache folder.

  The variable TGMM_JAX_CACHE names another folder, or none if it is empty. A
  cache that JAX's own variable names is left as it is. Where the folder cannot
  be written to a line says so, and nothing is kept.
  """
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  folder = folder_of(os.environ)
  if folder is None:
    return
  try:
    folder.mkdir(parents=True, exist_ok=True)
    # To ask for permissions is not enough: a disk may be full or read-only.
    with tempfile.TemporaryFile(dir=folder) as file:
      file.write(b"0")
  except OSError as error:
    streams.say(f"note: compiled programs are not kept: {error}")
    return
  import jax

  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def of_warning(message: str) -> str | None:
  """What to say of a warning of JAX about kept programs; None of another.

  A call that was killed may leave half a program, which JAX would never write
  again: where one cannot be read all are removed.

  Args:
    message: of the warning.
  """
  if _ABOUT not in message:
    return None
  folder = folder_of(os.environ)
  if "reading" not in message.lower() or folder is None:
    return f"compiled programs are not kept: {message}"
  for path in folder.glob("*-cache"):
    path.unlink(missing_ok=True)
  return f"kept programs in {folder} were damaged, and are compiled again"


def folder_of(environment: os._Environ | dict[str, str]) -> pathlib.Path | None:
  """The folder for this kind of machine; None where nothing is to be kept.

  Args:
    environment: variables of the process.
  """
  own = environment.get(VARIABLE)
  if own == "":
    return None
  if own is None:
    caches = environment.get("XDG_CACHE_HOME", "")
    # The standard has relative paths ignored.
    if not os.path.isabs(caches):
      caches = os.path.join(os.path.expanduser("~"), ".cache")
    own = os.path.join(caches, "tgmm_jax")
  return pathlib.Path(own) / f"programs-{_processor()}"


def _processor():
  """A name for the processor's instructions.

  A home may be shared by machines, and a program for one stops another.
  """
  text = platform.machine()
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = [platform.processor()]
  marks = ("flags", "Features", "model name")
  text += "".join(sorted({own for own in lines if own.startswith(marks)}))
  return hashlib.sha256(text.encode()).hexdigest()[:12]
