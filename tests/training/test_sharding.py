import jax
import jax.numpy as jnp
import pytest

from tgmm_jax.training import sharding

# What 8 devices do is in tests/devices.


def fake_mesh(num_devices):
  return jax.sharding.AbstractMesh(
    (num_devices,),
    (sharding.DATA,),
    axis_types=(jax.sharding.AxisType.Auto,),
  )


def test_mesh_has_one_axis_that_the_compiler_shards():
  mesh = sharding.make_mesh()
  assert mesh.axis_names == ("data",)
  assert mesh.axis_types == (jax.sharding.AxisType.Auto,)
  assert mesh.size == jax.device_count()


@pytest.mark.parametrize("num_devices", [-1, 1000])
def test_devices_that_are_not_there(num_devices):
  message = f"num_devices is {num_devices}, takes 0 .all. to"
  with pytest.raises(ValueError, match=message):
    sharding.make_mesh(num_devices)


def test_batch_must_be_a_multiple_of_the_devices():
  mesh = fake_mesh(8)
  sharding.check_divisible(16, mesh)
  with pytest.raises(ValueError, match="batch_size is 12, takes a multiple of"):
    sharding.check_divisible(12, mesh)


def test_state_is_split_where_the_devices_divide_it():
  mesh = fake_mesh(8)
  tree = {
    "vector": jax.ShapeDtypeStruct((512,), jnp.float32),
    "second axis": jax.ShapeDtypeStruct((3, 16), jnp.float32),
    "odd": jax.ShapeDtypeStruct((7,), jnp.float32),
    "few": jax.ShapeDtypeStruct((4,), jnp.float32),
    "scalar": jax.ShapeDtypeStruct((), jnp.int32),
  }
  sharded = sharding.state_shardings(tree, mesh, rule="sharded")
  specs = {name: leaf.spec for name, leaf in sharded.items()}
  assert specs == {
    "vector": jax.P("data"),
    "second axis": jax.P(None, "data"),
    "odd": jax.P(),
    "few": jax.P(),
    "scalar": jax.P(),
  }
  replicated = sharding.state_shardings(tree, mesh, rule="replicated")
  assert {leaf.spec for leaf in replicated.values()} == {jax.P()}


def test_rule_that_does_not_exist():
  with pytest.raises(ValueError, match="rule is 'fsdp', takes one of"):
    sharding.state_shardings({}, sharding.make_mesh(1), rule="fsdp")


def test_every_process_has_a_device_in_the_mesh(monkeypatch):
  mesh = sharding.make_mesh(1)
  sharding.check_all_take_part(mesh)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(ValueError, match="takes 0 .* that process 1"):
    sharding.check_all_take_part(mesh)
