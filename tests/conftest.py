"""What holds for every test of the suite."""

import gc
import pathlib

import jax
import pytest


def pytest_configure(config):
  """A warning that our own code causes is an error."""
  for package in ("tgmm_jax", "experiments"):
    config.addinivalue_line("filterwarnings", rf"error:::{package}(\.|$)")


# Of the 65,530 memory maps that Linux gives a process; each compiled program
# takes some, and where none is left the compiler crashes.
_MOST_MAPS = 30_000
_MAPS = pathlib.Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def _programs_are_dropped_in_time():
  yield
  if _MAPS.exists() and len(_MAPS.read_text().splitlines()) > _MOST_MAPS:
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def x64():
  """Arrays are 64 bits wide where a test says nothing else."""
  with jax.enable_x64(True):
    yield
