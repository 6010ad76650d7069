"""On 1 and on 8 devices: the same tasks, and losses that agree."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def meshes():
  here = pathlib.Path(__file__).parent
  ended = subprocess.run(
    [sys.executable, here / "compare_meshes.py"],
    env=os.environ
    | {
      "JAX_PLATFORMS": "cpu",
      "PYTHONPATH": str(here.parents[1]),
      "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    },
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert ended.returncode == 0, ended.stderr
  return json.loads(ended.stdout)


@pytest.mark.parametrize("name", ["8", "8 sharded"])
def test_tasks_are_the_same_bit_for_bit(meshes, name):
  assert meshes[name]["task_devices"] == 8
  assert meshes[name]["task_share"] == 2
  assert meshes[name]["tasks"] == meshes["1"]["tasks"]


@pytest.mark.parametrize("name", ["8", "8 sharded"])
def test_losses_agree(meshes, name):
  losses = meshes["1"]["losses"]
  assert len(set(losses)) == 5
  np.testing.assert_allclose(meshes[name]["losses"], losses, rtol=1e-5)
  assert meshes[name]["num_skipped"] == 0


def test_sharded_state_takes_an_eighth(meshes):
  size = meshes["1"]["moment_size"]
  assert meshes["8"]["moment_share"] == size
  assert meshes["8 sharded"]["moment_share"] == size // 8
