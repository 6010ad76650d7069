"""What the benchmarks share: medians of turns, a ceiling, a description."""

import importlib.metadata
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from absl import flags

REPEATS = flags.DEFINE_integer(
  "repeats", 5, "timed runs of each program", lower_bound=1
)
_MATMUL_SIZE = 2048
_MATMUL_REPEATS = 30
# Where the name on PyPI is not that of the module.
_MODULES = {"scikit-learn": "sklearn"}


def matmul_rate(dtype: str) -> float:
  """FLOP/s of one device at a large product: the best of many, a ceiling."""
  matrix = jnp.ones((_MATMUL_SIZE, _MATMUL_SIZE), dtype)
  call = jax.jit(jnp.matmul)
  seconds = []
  for _ in range(_MATMUL_REPEATS):
    start = time.perf_counter()
    jax.block_until_ready(call(matrix, matrix))
    seconds.append(time.perf_counter() - start)
  return 2.0 * _MATMUL_SIZE**3 / min(seconds)


def median_seconds(
  functions: dict[str, Callable[[], None]], repeats: int
) -> dict[str, float]:
  """Median time of each; they take turns, so that a busy machine hits all."""
  seconds = {name: [] for name in functions}
  for function in functions.values():
    function()
  for _ in range(repeats):
    for name, function in functions.items():
      start = time.perf_counter()
      function()
      seconds[name].append(time.perf_counter() - start)
  return {name: statistics.median(values) for name, values in seconds.items()}


def describe(packages: Iterable[str]) -> str:
  """Versions of what is installed of the packages, devices, BLAS threads."""
  names = ["jax", "jaxlib", *(name for name in packages if is_installed(name))]
  versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
  devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
  return (
    f"Python {platform.python_version()}, {', '.join(versions)}; {devices},"
    f" {platform.machine()}, {os.cpu_count()} cores,"
    f" OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
  )


def is_installed(package: str) -> bool:
  """Whether a package (by its name on PyPI) can be imported."""
  return importlib.util.find_spec(_MODULES.get(package, package)) is not None
