"""What holds for every test of the suite."""

import gc

import jax
import pytest


def pytest_configure(config):
  """A warning that our own code causes is an error."""
  for package in ("tgmm_jax", "experiments"):
    config.addinivalue_line("filterwarnings", rf"error:::{package}(\.|$)")


@pytest.fixture(autouse=True, scope="module")
def _programs_are_dropped():
  """Thousands of compiled programs would use up a process's memory maps."""
  yield
  jax.clear_caches()
  gc.collect()


@pytest.fixture
def x64():
  """Arrays are 64 bits wide where a test says nothing else."""
  with jax.enable_x64(True):
    yield
