"""Programs that run for milliseconds and must be there in a second or two.

Half of the waiting is XLA's, the other half is spent in Python on the way to
it. Where JAX keeps compiled programs in a folder (`jax_compilation_cache_dir`)
both are spent once: what Python makes of a function is kept beside them.
"""

import collections
import contextlib
import ctypes
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


_PACKAGE = pathlib.Path(__file__).parents[2]


class Quick:
  """A function as a program that is compiled for longer than it runs.

  Called as what `jax.jit` returns; see `quick`.
  """

  def __init__(
    self,
    function: Callable[..., Any],
    records: tuple[type, ...],
    most_programs: int,
    *,
    is_optimized: bool = False,
  ):
    """See `quick`."""
    functools.update_wrapper(self, function)
    self._function, self._records = function, records
    # The one that was used last is at the end.
    self._programs = collections.OrderedDict()
    self._locks = collections.defaultdict(threading.Lock)
    self._most_programs, self._is_optimized = most_programs, is_optimized

  def __call__(self, *args: Any, **options: Any) -> Any:
    """Runs it; compiles it first where it must be."""
    key = _key_of(args, options)
    # Of several threads one compiles, the others wait.
    with self._locks[key]:
      is_new = key not in self._programs
      program = self._program(key, args, options)
      if is_new:
        found = program(*args)
    if not is_new:
      return program(*args)
    _give_back()
    return found

  @functools.cached_property
  def optimized(self) -> "Quick":
    """The same for much work, which takes longer than to compile."""
    return Quick(
      self._function, self._records, self._most_programs, is_optimized=True
    )

  def compile_aside(self, *args: Any, **options: Any) -> Callable[[], None]:
    """Compiles it in another thread: XLA leaves Python and a core free.

    Args:
      *args: as it will be called; arrays or their `jax.ShapeDtypeStruct`.
      **options: static ones.

    Returns:
      Waits until it is done. What went wrong shows in the call itself.
    """
    key = _key_of(args, options)
    if key in self._programs:
      return lambda: None
    has_64_bits = jax.config.jax_enable_x64

    def work():
      with (
        contextlib.suppress(Exception),
        jax.enable_x64(has_64_bits),
        self._locks[key],
      ):
        self._program(key, args, options).lower(*args).compile()
      _give_back()

    thread = threading.Thread(target=work)
    thread.start()
    return thread.join

  def size(self) -> int:
    """How many programs there are now."""
    return len(self._programs)

  def _program(self, key, args, options):
    """What takes the arguments alone, one for each of their shapes."""
    if key in self._programs:
      self._programs.move_to_end(key)
      return self._programs[key]
    while len(self._programs) >= self._most_programs:
      oldest, program = self._programs.popitem(last=False)
      program.clear_cache()
      self._locks.pop(oldest, None)

    # A function of its own for each, so that they can be given up one by one.
    @functools.wraps(self._function)
    def function(*args):
      return self._function(*args, **options)

    folder = jax.config.jax_compilation_cache_dir
    if folder is not None and self._records:
      _register(self._records)
      name = _name_of(self._function, key)
      path = pathlib.Path(folder) / f"tgmm_jax-{name}.stablehlo"
      function = _exported(function, args, path).call
    is_quick = not self._is_optimized and jax.default_backend() == "cpu"
    program = jax.jit(function, compiler_options=_OPTIONS if is_quick else None)
    self._programs[key] = program
    return program


def quick(
  function: Callable[..., Any],
  *,
  records: tuple[type, ...] = (),
  most_programs: int = 4,
) -> Quick:
  """`jax.jit` for a program that is compiled for longer than it runs.

  Args:
    function: pure; its keyword arguments are static, hashable, and told by
      their `repr`.
    records: all NamedTuples among arguments and results, where what Python
      makes of the function is to be kept; without keys of JAX.
    most_programs: how many are kept; of more, those that were used last. Each
      holds up to 20 MB and 400 of the memory maps that a process may have.
  """
  return Quick(function, records, most_programs)


def _give_back():
  """Returns what the compiler has freed to the system, with glibc.

  Of some dozens of programs it is twice as much as these themselves.
  """
  with contextlib.suppress(AttributeError, OSError, TypeError):
    ctypes.CDLL(None).malloc_trim(0)


def _register(records):
  """Lets JAX write records of these classes."""
  for record in records:
    with contextlib.suppress(ValueError):  # where it is known already
      jax.export.register_namedtuple_serialization(
        record, serialized_name=f"{record.__module__}.{record.__qualname__}"
      )


def _exported(function, args, path):
  """What Python makes of a function, from a file if it is there."""
  traced = _read(path)
  if traced is None:
    traced = jax.export.export(jax.jit(function))(*args)
    _write(path, traced)
  return traced


def _key_of(args, options):
  """Tells what is compiled apart: shapes, types and what is static."""
  leaves, structure = jax.tree.flatten(args)
  shapes = tuple(jax.typeof(leaf) for leaf in leaves)
  static = tuple(sorted(options.items()))
  return shapes, structure, static, jax.config.jax_enable_x64


def _name_of(function, key):
  """Of a file: another one for whatever else could change it."""
  versions = jax.default_backend(), jax.__version__, _state_of_code()
  text = repr((function.__qualname__, key, versions))
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
