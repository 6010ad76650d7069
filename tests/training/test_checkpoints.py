import os
import resource
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import saved_states
from tgmm_jax.training import (
  checkpoint_metadata,
  checkpoints,
  run_folder,
  tree_digest,
)

# After an error Orbax leaves coroutines that nobody awaits.
pytestmark = pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning"
)


def test_round_trip_into_a_new_process_state(tmp_path):
  saved_states.save(tmp_path / "a" / "b", 1, 2)
  restored = saved_states.restore(tmp_path / "a" / "b")
  assert restored.step == 2
  assert restored.config == saved_states.CONFIG
  saved_states.assert_same(restored.state, saved_states.make_state(2))


def test_empty_folder_restores_nothing(tmp_path):
  assert saved_states.restore(tmp_path) is None


def test_oldest_steps_go_only_after_the_commit(tmp_path):
  with checkpoints.Checkpointer(
    tmp_path, config=saved_states.CONFIG, max_to_keep=1
  ) as checkpointer:
    checkpointer.save(1, saved_states.make_state(1))
    checkpointer.wait()
    checkpointer.save(2, saved_states.make_state(2))
    assert (tmp_path / "1").exists()
    checkpointer.wait()
    assert checkpointer.latest_step() == 2
  assert sorted(os.listdir(tmp_path)) == ["2"]


def test_donated_state_is_saved_as_it_was(tmp_path):
  double = jax.jit(
    lambda state: jax.tree.map(lambda leaf: leaf * 2, state), donate_argnums=0
  )
  state = saved_states.make_state(1)
  expected = jax.tree.map(np.array, state)
  with checkpoints.Checkpointer(
    tmp_path, config=saved_states.CONFIG
  ) as checkpointer:
    checkpointer.save(1, state)
    for _ in range(20):
      state = double(state)
  saved_states.assert_same(saved_states.restore(tmp_path).state, expected)


def _save_and_raise(directory, error):
  with checkpoints.Checkpointer(
    directory, config=saved_states.CONFIG
  ) as checkpointer:
    checkpointer.save(5, saved_states.make_state(5))
    raise error


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_leaving_in_any_way_commits_the_save(tmp_path, error):
  with pytest.raises(error):
    _save_and_raise(tmp_path, error)
  assert saved_states.restore(tmp_path).step == 5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_state_is_not_saved_and_removes_nothing(tmp_path, bad):
  with checkpoints.Checkpointer(
    tmp_path, config=saved_states.CONFIG, max_to_keep=1
  ) as checkpointer:
    checkpointer.save(1, saved_states.make_state(1))
    for step in (2, 3):
      state = saved_states.make_state(step)
      weights = state.params["layer1"]["w"].at[3, 5].set(bad)
      state.params["layer1"]["w"] = weights
      with pytest.raises(
        checkpoints.CheckpointError, match="step . is not saved.*layer1.w"
      ):
        checkpointer.save(step, state)
  assert saved_states.restore(tmp_path).step == 1


def test_same_step_again(tmp_path):
  with checkpoints.Checkpointer(
    tmp_path, config=saved_states.CONFIG
  ) as checkpointer:
    checkpointer.save(3, saved_states.make_state(3))
    checkpointer.save(3, saved_states.make_state(3))
    for step in (3, 2):
      with pytest.raises(checkpoints.CheckpointError, match="holds step 3"):
        checkpointer.save(step, saved_states.make_state(2))
  with checkpoints.Checkpointer(
    tmp_path, config=saved_states.CONFIG
  ) as checkpointer:
    restored = checkpointer.restore_latest(
      saved_states.template(saved_states.make_state(0))
    )
    checkpointer.save(3, restored.state)
  saved_states.assert_same(
    saved_states.restore(tmp_path).state, saved_states.make_state(3)
  )


def _renamed(state):
  params = dict(state.params)
  params["other"] = params.pop("layer1")
  return state._replace(params=params)


def _as_float16(state):
  params = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), state.params)
  return state._replace(params=params)


@pytest.mark.parametrize(
  ("state", "leaf"),
  [
    (
      saved_states.make_state(0, width=9),
      r"w is float32\[8,700\] .* float32\[9,700\]",
    ),
    (
      saved_states.make_state(0, depth=3),
      r"layer2.gain is missing there and bfloat16\[8",
    ),
    (
      saved_states.make_state(0, depth=1),
      r"layer1.gain is bfloat16\[8\] there and miss",
    ),
    (_renamed(saved_states.make_state(0)), "layer1.gain is .* missing here"),
    (
      _as_float16(saved_states.make_state(0)),
      "w is float32.* there and float16",
    ),
  ],
  ids=["width", "missing", "extra", "renamed", "dtype"],
)
def test_another_model_is_an_error_not_damage(tmp_path, state, leaf):
  saved_states.save(tmp_path, 1, 2)
  config = {"model": {"width": 9}, "seed": 0}
  with (
    checkpoints.Checkpointer(tmp_path, config=config) as checkpointer,
    pytest.raises(checkpoints.MismatchError, match=leaf) as caught,
  ):
    checkpointer.restore_latest(saved_states.template(state))
  assert "model.width is 8 there and 9 here" in str(caught.value)
  assert sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_newer_format_is_an_error_not_damage(tmp_path, monkeypatch):
  saved_states.save(tmp_path, 1)
  monkeypatch.setattr(checkpoint_metadata, "FORMAT", 2)
  saved_states.save(tmp_path, 2)
  monkeypatch.undo()
  with pytest.raises(checkpoints.CheckpointError, match="a newer version"):
    saved_states.restore(tmp_path)
  assert sorted(os.listdir(tmp_path)) == ["1", "2"]


@pytest.fixture
def small_files_only():
  """Lets no file grow over 20 kB, as a stand-in for a full disk."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)

  def limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

  yield limit
  resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _fail_to_save(directory, how, limit):
  with checkpoints.Checkpointer(
    directory, config=saved_states.CONFIG, max_to_keep=1
  ) as checkpointer:
    limit()
    checkpointer.save(2, saved_states.make_state(2))
    if how == "wait":
      checkpointer.wait()
    elif how == "next save":
      checkpointer.save(3, saved_states.make_state(3))
    elif how == "leave early":
      sys.exit(0)


@pytest.mark.parametrize("how", ["wait", "next save", "leave", "leave early"])
def test_failed_write_is_reported(tmp_path, small_files_only, how):
  saved_states.save(tmp_path, 1)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  with pytest.raises(
    checkpoints.CheckpointError, match=f"step 2 was not saved in {tmp_path}"
  ):
    _fail_to_save(tmp_path, how, small_files_only)
  resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  saved_states.assert_same(
    saved_states.restore(tmp_path).state, saved_states.make_state(1)
  )


def test_run_goes_on_after_a_failed_write(tmp_path, small_files_only):
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  with checkpoints.Checkpointer(
    tmp_path, config=saved_states.CONFIG
  ) as checkpointer:
    checkpointer.save(1, saved_states.make_state(1))
    checkpointer.wait()
    small_files_only()
    checkpointer.save(2, saved_states.make_state(2))
    with pytest.raises(checkpoints.CheckpointError, match="step 2"):
      checkpointer.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpointer.latest_step() == 1
    checkpointer.save(2, saved_states.make_state(2))
  saved_states.assert_same(
    saved_states.restore(tmp_path).state, saved_states.make_state(2)
  )


def test_own_folder_then_restore_dir_then_scratch(tmp_path):
  own, other = tmp_path / "own", tmp_path / "other"
  saved_states.save(other, 7)
  before = sorted(path.name for path in other.rglob("*"))
  template = saved_states.template(saved_states.make_state(0))
  with checkpoints.Checkpointer(
    own, config=saved_states.CONFIG
  ) as checkpointer:
    assert checkpointer.restore_latest(template) is None
    restored = checkpointer.restore_latest(template, restore_dir=other)
    assert restored.step == 7
    checkpointer.save(1, saved_states.make_state(1))
    restored = checkpointer.restore_latest(template, restore_dir=other)
    assert restored.step == 1
  assert sorted(path.name for path in other.rglob("*")) == before
  with (
    checkpoints.Checkpointer(tmp_path / "new", config={}) as checkpointer,
    pytest.raises(checkpoints.CheckpointError, match="holds no checkpoint"),
  ):
    checkpointer.restore_latest(template, restore_dir=tmp_path / "none")


def test_reader_takes_a_subtree_and_touches_nothing(tmp_path):
  saved_states.save(tmp_path, 1, 2)
  saved_states.flip(saved_states.data_file(tmp_path / "2"), 80_000)
  (tmp_path / "3").mkdir()
  params = saved_states.make_state(1).params
  restored = checkpoints.restore(
    tmp_path,
    saved_states.template(params),
    subtree="params",
    config=saved_states.CONFIG,
  )
  assert restored.step == 1
  saved_states.assert_same(restored.state, params)
  assert sorted(os.listdir(tmp_path)) == ["1", "2", "3"]
  with pytest.raises(checkpoints.CheckpointError, match="no checkpoint"):
    checkpoints.restore(tmp_path / "none", saved_states.template(params))
  assert not (tmp_path / "none").exists()


def test_newest_step_and_digest_are_read_without_arrays(tmp_path):
  assert checkpoints.newest(tmp_path / "none", "params") is None
  saved_states.save(tmp_path, 1, 2)
  expected = {
    step: (step, tree_digest.of_tree(saved_states.make_state(step).params))
    for step in (1, 2)
  }
  assert expected[1][1] != expected[2][1]
  assert checkpoints.newest(tmp_path, "params") == expected[2]
  saved_states.cut(tmp_path / "2" / "meta" / "metadata", 50)
  assert checkpoints.newest(tmp_path, "params") == expected[1]
  assert sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_bad_arguments(tmp_path):
  with pytest.raises(ValueError, match="max_to_keep is 0"):
    checkpoints.Checkpointer(tmp_path, config={}, max_to_keep=0)
  (tmp_path / "file").write_text("")
  with pytest.raises(run_folder.RunFolderError, match="file cannot be written"):
    checkpoints.Checkpointer(tmp_path / "file", config={})


_RESHARD = """
  import sys
  import jax
  import jax.numpy as jnp
  from jax.sharding import AxisType, NamedSharding
  from tgmm_jax.training import checkpoints, tree_digest

  state = {"w": jax.random.normal(jax.random.key(0), (24, 40)),
           "step": jnp.asarray(3)}
  expected = tree_digest.digests(state)

  def place(num_devices, spec):
    mesh = jax.make_mesh((num_devices,), ("data",),
                         axis_types=(AxisType.Auto,),
                         devices=jax.devices()[:num_devices])
    where = {"w": NamedSharding(mesh, spec),
             "step": NamedSharding(mesh, jax.P())}
    template = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding), state, where)
    return jax.device_put(state, where), template

  layouts = [place(1, jax.P()), place(8, jax.P()), place(8, jax.P("data")),
             place(8, jax.P(None, "data")), place(4, jax.P("data")),
             place(3, jax.P("data"))]
  with checkpoints.Checkpointer(sys.argv[1], config={}) as checkpointer:
    for step, (placed, _) in enumerate(layouts[:4]):
      assert tree_digest.digests(placed) == expected
      checkpointer.save(step, placed)
      for _, template in layouts:
        restored = checkpointer.restore_latest(template)
        assert restored.step == step
        assert tree_digest.digests(restored.state) == expected
        for name, leaf in restored.state.items():
          assert leaf.sharding == template[name].sharding
"""


@pytest.mark.slow
def test_restored_onto_other_devices(tmp_path):
  child = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(_RESHARD), str(tmp_path)],
    env=os.environ
    | {
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": "8",
    },
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert child.returncode == 0, child.stderr


def test_steps_between_the_regular_ones_go_for_a_newer_one(tmp_path):
  options = {"max_to_keep": 3, "kept_every": 10}
  saved_states.save(tmp_path, 10, 20, 25, 27, **options)
  assert left_in(tmp_path) == [10, 20, 27]
  saved_states.save(tmp_path, 30, 40, 43, **options)
  assert left_in(tmp_path) == [30, 40, 43]


def left_in(folder):
  return sorted(int(path.name) for path in folder.iterdir())
