"""Where arrays live: a mesh with one axis, `data`, over the tasks.

The same program runs on one CPU and on a pod. The axis type is Auto: vmapped
`while_loop`s and table look-ups fail under JAX's default, Explicit.
"""

from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding

DATA = "data"
RULES = ("replicated", "sharded")


def make_mesh(num_devices: int = 0) -> Mesh:
  """A mesh over the first `num_devices` devices; 0 takes all of them."""
  available = jax.device_count()
  if not 0 <= num_devices <= available:
    raise ValueError(
      f"num_devices is {num_devices}, takes 0 (all) to {available}"
    )
  num_devices = num_devices or available
  return jax.make_mesh(
    (num_devices,),
    (DATA,),
    axis_types=(AxisType.Auto,),
    devices=jax.devices()[:num_devices],
  )


def check_all_take_part(mesh: Mesh) -> None:
  """Raises where a process has no device in the mesh: it could only wait."""
  missing = set(range(jax.process_count())) - {
    device.process_index for device in mesh.devices.flat
  }
  if missing:
    raise ValueError(
      f"num_devices is {mesh.size}, takes 0 (all) or so many that process"
      f" {min(missing)} of {jax.process_count()} has one, too"
    )


def check_divisible(batch_size: int, mesh: Mesh) -> None:
  """Raises where the tasks of a batch cannot be dealt out evenly."""
  if batch_size % mesh.shape[DATA]:
    raise ValueError(
      f"batch_size is {batch_size}, takes a multiple of the mesh's"
      f" {mesh.shape[DATA]} devices"
    )


def replicated(mesh: Mesh) -> NamedSharding:
  """The same array on every device."""
  return NamedSharding(mesh, jax.P())


def over_tasks(mesh: Mesh) -> NamedSharding:
  """The leading axis dealt out over the devices."""
  return NamedSharding(mesh, jax.P(DATA))


def to_host(tree: Any) -> Any:
  """Arrays of a mesh, however they are split, in NumPy on every process."""

  def fetch(leaf):
    # What a process has whole would be gathered once from each.
    if leaf.is_fully_addressable:
      return jax.device_get(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)

  return jax.tree.map(fetch, tree)


def state_shardings(abstract_state: Any, mesh: Mesh, *, rule: str) -> Any:
  """A sharding for each leaf of a train state.

  Args:
    abstract_state: pytree of shapes.
    mesh: the mesh.
    rule: "replicated" (the models here are small), or "sharded": the first
      dimension that the number of devices divides is split, where there is
      one; memory for parameters and optimiser falls by that number.
  """
  if rule not in RULES:
    raise ValueError(f"rule is {rule!r}, takes one of {RULES}")
  num_devices = mesh.shape[DATA]

  def place(leaf):
    if rule == "sharded":
      for axis, size in enumerate(leaf.shape):
        if size >= num_devices and size % num_devices == 0:
          spec = [None] * axis + [DATA]
          return NamedSharding(mesh, jax.P(*spec))
    return replicated(mesh)

  return jax.tree.map(place, abstract_state)
