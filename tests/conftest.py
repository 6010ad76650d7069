"""What holds for every test of the suite."""

import ctypes
import gc
import os
import pathlib
import tempfile

import jax
import jaxlib
import pytest

# Of what takes longer to compile: less would be many files for little.
_LEAST_SECONDS = 0.2

# Most of the suite's time is compilation, and these halve it: less
# optimisation by LLVM, one piece for it instead of 32 (for cores that are busy
# anyway) and, where XLA still has both, the older of its two ways to emit fused
# loops. A newer XLA aborts on a flag that it does not know.
_XLA_FLAGS = [
  "--xla_backend_optimization_level=1",
  "--xla_cpu_parallel_codegen_split_count=1",
]
if jaxlib.version.__version_info__ < (0, 11):
  _XLA_FLAGS.append("--xla_cpu_use_fusion_emitters=false")


def pytest_configure(config):
  """Sets up warnings, and how all processes of the run compile."""
  # A warning that our own code causes is an error.
  for package in ("tgmm_jax", "experiments"):
    config.addinivalue_line("filterwarnings", rf"error:::{package}(\.|$)")
  # pytest-xdist would hand out files with few tests last, and those are long.
  config.option.loadscopereorder = False
  os.environ.setdefault("XLA_FLAGS", " ".join(_XLA_FLAGS))
  # No optimisation at all halves it again; see `optimized`.
  if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "True"
    jax.config.update("jax_disable_most_optimizations", True)
  _take_own_cores()
  config.pluginmanager.register(_ProgramsAreDroppedInTime())
  # Workers, started later, and what tests start inherit the environment. A
  # cache that is given is kept.
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  folder = tempfile.TemporaryDirectory(prefix="tgmm-jax-programs-")
  config.add_cleanup(folder.cleanup)
  for option, value in (
    ("jax_compilation_cache_dir", folder.name),
    ("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS),
  ):
    os.environ[option.upper()] = str(value)
    jax.config.update(option, value)


def _take_own_cores():
  """Each worker, and what it starts, has its share of the cores.

  Two programs of XLA with threads for all cores each slow each other down more
  than twice.
  """
  worker = os.environ.get("PYTEST_XDIST_WORKER")
  if worker is None or not hasattr(os, "sched_setaffinity"):
    return
  count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
  own = sorted(os.sched_getaffinity(0))[int(worker.removeprefix("gw")) :: count]
  if own:
    os.sched_setaffinity(0, own)


def pytest_collection_modifyitems(items):
  """Files with slow tests come first, so that all workers end together."""
  first = {
    item.path
    for item in items
    if item.path.suffix == ".md" or item.get_closest_marker("slow")
  }
  items.sort(key=lambda item: item.path not in first)


# Of the 65,530 memory maps that Linux gives a process; each compiled program
# takes some, and where none is left the compiler crashes.
_MOST_MAPS = 30_000
# Of memory that a worker may hold before it gives up its compiled programs: a
# laptop with 8 GB must be able to run two workers and what they start.
_MOST_BYTES = 1.5e9
_MAPS = pathlib.Path("/proc/self/maps")
_SIZES = pathlib.Path("/proc/self/statm")


class _ProgramsAreDroppedInTime:
  """A plugin, since fixtures of this folder do not hold for the pages."""

  def pytest_runtest_teardown(self, item, nextitem):
    if not _SIZES.exists():
      return
    # To count the maps takes longer than to ask for the sizes.
    is_last = nextitem is None or nextitem.path != item.path
    if _held_bytes() > _MOST_BYTES or (is_last and _num_maps() > _MOST_MAPS):
      _drop_programs()


def _num_maps():
  return len(_MAPS.read_text().splitlines())


def _held_bytes():
  """Memory of this process that is no file's, in bytes."""
  _, resident, shared, *_ = map(int, _SIZES.read_text().split())
  return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _drop_programs():
  jax.clear_caches()
  gc.collect()
  # What is freed goes back to the system, where the C library can be asked to.
  trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
  if trim is not None:
    trim(0)


@pytest.fixture
def optimized():
  """For what computes for longer than it compiles."""
  option = "jax_disable_most_optimizations"
  before = jax.config.read(option)
  jax.config.update(option, False)
  yield
  jax.config.update(option, before)


@pytest.fixture
def x64():
  """Arrays are 64 bits wide where a test says nothing else."""
  with jax.enable_x64(True):
    yield
