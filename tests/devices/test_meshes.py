"""On 1 and on 8 devices: the same tasks, and losses that agree."""

import numpy as np
import pytest

from tests.devices import eight_devices

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def meshes():
  return eight_devices.run("compare_meshes")


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
