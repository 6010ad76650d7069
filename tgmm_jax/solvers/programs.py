"""Programs that run for milliseconds and must be there in a second or two.

Half of the waiting is XLA's, the other half is spent in Python on the way to
it. Where JAX keeps compiled programs in a folder (`jax_compilation_cache_dir`)
both are spent once: what Python makes of a function is kept beside them.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jaxlib

# Little optimisation by LLVM, and one piece for it: each has its memory maps,
# of which a process has so many.
_OPTIONS = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
  "xla_cpu_parallel_codegen_split_count": 1,
}
# The older of XLA's two ways to emit fused loops, where it has both.
if jaxlib.version.__version_info__ < (0, 11):
  _OPTIONS["xla_cpu_use_fusion_emitters"] = False

# Of one function; then all are given up, for each holds some 20 MB and 150 of
# the memory maps that a process may have.
_MOST_PROGRAMS = 16

_PACKAGE = pathlib.Path(__file__).parents[1]


class Quick:
  """A function as a program that is compiled for longer than it runs.

  Called as what `jax.jit` returns; see `quick`.
  """

  def __init__(
    self,
    function: Callable[..., Any],
    static_argnames: str | tuple[str, ...],
    records: tuple[type, ...],
  ):
    """See `quick`."""
    functools.update_wrapper(self, function)
    self._function, self._static_argnames = function, static_argnames
    self._records, self._kept = records, {}

  def __call__(self, *args: Any, **options: Any) -> Any:
    """Runs it; compiles it first where it must be."""
    program, rest = self._program(args, options)
    return program(*args, **rest)

  def compile_aside(self, *args: Any, **options: Any) -> Callable[[], None]:
    """Compiles it in another thread: XLA leaves Python and a core free.

    Args:
      *args: as it will be called; arrays or their `jax.ShapeDtypeStruct`.
      **options: static ones.

    Returns:
      Waits until it is done. What went wrong shows in the call itself.
    """
    has_64_bits = jax.config.jax_enable_x64

    def work():
      with contextlib.suppress(Exception), jax.enable_x64(has_64_bits):
        program, rest = self._program(args, options)
        program.lower(*args, **rest).compile()

    thread = threading.Thread(target=work)
    thread.start()
    return thread.join

  def size(self) -> int:
    """How many programs there are now."""
    program = _compiled(self._function, self._static_argnames)
    return program._cache_size() + len(self._kept)

  def _program(self, args, options):
    """What runs, and the options that are not compiled into it."""
    folder = jax.config.jax_compilation_cache_dir
    if folder is None or not self._records:
      program = _compiled(self._function, self._static_argnames)
      if program._cache_size() >= _MOST_PROGRAMS:
        program.clear_cache()
      return program, options
    name = _name_of(self._function.__qualname__, args, options)
    if name not in self._kept:
      _register(self._records)
      path = pathlib.Path(folder) / f"tgmm_jax-{name}.stablehlo"
      traced = _read(path)
      if traced is None:
        program = _compiled(self._function, self._static_argnames)
        traced = jax.export.export(program)(*args, **options)
        _write(path, traced)
      if len(self._kept) >= _MOST_PROGRAMS:
        self._kept.clear()
      self._kept[name] = jax.jit(
        traced.call, compiler_options=_compiler_options()
      )
    return self._kept[name], {}


def quick(
  function: Callable[..., Any],
  *,
  static_argnames: str | tuple[str, ...] = (),
  records: tuple[type, ...] = (),
) -> Quick:
  """`jax.jit` for a program that is compiled for longer than it runs.

  Args:
    function: pure.
    static_argnames: as of `jax.jit`; what is static is told by its `repr`.
    records: all NamedTuples among arguments and results, where what Python
      makes of the function is to be kept; without keys of JAX.
  """
  return Quick(function, static_argnames, records)


def _register(records):
  """Lets JAX write records of these classes."""
  for record in records:
    with contextlib.suppress(ValueError):  # where it is known already
      jax.export.register_namedtuple_serialization(
        record, serialized_name=f"{record.__module__}.{record.__qualname__}"
      )


@functools.cache
def _compiled(function, static_argnames):
  return jax.jit(
    function,
    static_argnames=static_argnames,
    compiler_options=_compiler_options(),
  )


def _compiler_options():
  return _OPTIONS if jax.default_backend() == "cpu" else None


def _name_of(function, args, options):
  """Of a program: another one for whatever else could change it."""
  leaves, structure = jax.tree.flatten(args)
  shapes = [jax.typeof(leaf) for leaf in leaves]
  text = repr(
    (
      *(function, shapes, structure, sorted(options.items())),
      *(jax.config.jax_enable_x64, jax.default_backend(), jax.__version__),
      _state_of_code(),
    )
  )
  return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def _state_of_code():
  """Changes whenever a file of this library does."""
  states = []
  for path in sorted(_PACKAGE.rglob("*.py")):
    state = path.stat()
    states.append((str(path), state.st_size, state.st_mtime_ns))
  return hashlib.sha256(repr(states).encode()).hexdigest()


def _read(path):
  """What was kept, or None."""
  try:
    return jax.export.deserialize(bytearray(path.read_bytes()))
  except Exception:  # noqa: BLE001
    # There is none, or it is damaged: it is written again.
    return None


def _write(path, traced):
  """Keeps it whole or not at all; a folder that cannot be written to may be."""
  content = traced.serialize()
  with contextlib.suppress(OSError):
    file, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(file, "wb") as stream:
      stream.write(content)
    os.replace(name, path)


def over_problems(function: Callable[..., Any], *args: Any) -> Any:
  """`jax.vmap`, without its detours where there is one problem.

  Args:
    function: of one problem.
    *args: pytrees with the leading axis B.
  """
  if jax.tree.leaves(args)[0].shape[0] > 1:
    return jax.vmap(function)(*args)
  one = function(*jax.tree.map(lambda leaf: leaf[0], args))
  return jax.tree.map(lambda leaf: leaf[None], one)
