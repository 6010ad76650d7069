import os
import resource
import shutil
import subprocess
import sys
import textwrap
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tgmm_jax import checkpoints, run_folder, step_metadata

# After an error Orbax leaves coroutines that nobody awaits.
pytestmark = pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning"
)

_CONFIG = {"model": {"width": 8}, "seed": 0}


class _State(NamedTuple):
  step: jax.Array
  params: Any
  opt_state: Any


def _make_state(step, *, width=8, depth=2):
  key = jax.random.fold_in(jax.random.key(0), step)
  params = {
    f"layer{index}": {
      "w": jax.random.normal(jax.random.fold_in(key, index), (width, 700)),
      "gain": jnp.ones((width,), jnp.bfloat16) * step,
    }
    for index in range(depth)
  }
  return _State(
    jnp.asarray(step, jnp.int32), params, optax.adam(0.1).init(params)
  )


def _template(state):
  return jax.eval_shape(lambda: state)


def _assert_same(state, expected):
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  for got, want in zip(
    jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
  ):
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(np.asarray(got), np.asarray(want))


def _save(directory, *steps, **options):
  with checkpoints.Checkpointer(
    directory, config=_CONFIG, **options
  ) as checkpointer:
    for step in steps:
      checkpointer.save(step, _make_state(step))


def _restore(directory, template=None):
  template = _template(_make_state(0)) if template is None else template
  with checkpoints.Checkpointer(directory, config=_CONFIG) as checkpointer:
    return checkpointer.restore_latest(template)


def _data_file(path):
  """The file that holds the arrays: the largest."""
  return max(
    (file for file in path.rglob("*") if file.is_file()),
    key=lambda file: file.stat().st_size,
  )


def _flip(file, bit):
  raw = bytearray(file.read_bytes())
  raw[bit // 8] ^= 1 << (bit % 8)
  file.write_bytes(raw)


def test_round_trip_into_a_new_process_state(tmp_path):
  _save(tmp_path / "a" / "b", 1, 2)
  restored = _restore(tmp_path / "a" / "b")
  assert restored.step == 2
  assert restored.config == _CONFIG
  _assert_same(restored.state, _make_state(2))


def test_empty_folder_restores_nothing(tmp_path):
  assert _restore(tmp_path) is None


def test_oldest_steps_go_only_after_the_commit(tmp_path):
  with checkpoints.Checkpointer(
    tmp_path, config=_CONFIG, max_to_keep=1
  ) as checkpointer:
    checkpointer.save(1, _make_state(1))
    checkpointer.wait()
    checkpointer.save(2, _make_state(2))
    assert (tmp_path / "1").exists()
    checkpointer.wait()
    assert checkpointer.latest_step() == 2
  assert sorted(os.listdir(tmp_path)) == ["2"]


def test_donated_state_is_saved_as_it_was(tmp_path):
  double = jax.jit(
    lambda state: jax.tree.map(lambda leaf: leaf * 2, state), donate_argnums=0
  )
  state = _make_state(1)
  expected = jax.tree.map(np.array, state)
  with checkpoints.Checkpointer(tmp_path, config=_CONFIG) as checkpointer:
    checkpointer.save(1, state)
    for _ in range(20):
      state = double(state)
  _assert_same(_restore(tmp_path).state, expected)


def _save_and_raise(directory, error):
  with checkpoints.Checkpointer(directory, config=_CONFIG) as checkpointer:
    checkpointer.save(5, _make_state(5))
    raise error


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_leaving_in_any_way_commits_the_save(tmp_path, error):
  with pytest.raises(error):
    _save_and_raise(tmp_path, error)
  assert _restore(tmp_path).step == 5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_state_is_not_saved_and_removes_nothing(tmp_path, bad):
  with checkpoints.Checkpointer(
    tmp_path, config=_CONFIG, max_to_keep=1
  ) as checkpointer:
    checkpointer.save(1, _make_state(1))
    for step in (2, 3):
      state = _make_state(step)
      weights = state.params["layer1"]["w"].at[3, 5].set(bad)
      state.params["layer1"]["w"] = weights
      with pytest.raises(
        checkpoints.CheckpointError, match="step . is not saved.*layer1.w"
      ):
        checkpointer.save(step, state)
  assert _restore(tmp_path).step == 1


def test_same_step_again(tmp_path):
  with checkpoints.Checkpointer(tmp_path, config=_CONFIG) as checkpointer:
    checkpointer.save(3, _make_state(3))
    checkpointer.save(3, _make_state(3))
    for step in (3, 2):
      with pytest.raises(checkpoints.CheckpointError, match="holds step 3"):
        checkpointer.save(step, _make_state(2))
  with checkpoints.Checkpointer(tmp_path, config=_CONFIG) as checkpointer:
    restored = checkpointer.restore_latest(_template(_make_state(0)))
    checkpointer.save(3, restored.state)
  _assert_same(_restore(tmp_path).state, _make_state(3))


def test_flipped_bits_are_never_used(tmp_path):
  _save(tmp_path, 1, 2)
  file = _data_file(tmp_path / "2")
  num_bits = 8 * file.stat().st_size
  generator = np.random.default_rng(0)
  template = _template(_make_state(0))
  num_rejected = 0
  with checkpoints.Checkpointer(tmp_path, config=_CONFIG) as checkpointer:
    for bit in generator.integers(num_bits, size=50):
      _flip(file, bit)
      restored = checkpointer.restore_latest(template)
      _assert_same(restored.state, _make_state(restored.step))
      if restored.step == 1:
        num_rejected += 1
        (aside,) = tmp_path.glob("corrupt-2-*")
        aside.rename(tmp_path / "2")
      _flip(file, bit)
  # A bit that no reader looks at may be flipped unnoticed.
  assert num_rejected >= 45


def test_run_goes_on_after_a_damaged_step(tmp_path, caplog):
  _save(tmp_path, 10, 20)
  _flip(_data_file(tmp_path / "20"), 80_000)
  with checkpoints.Checkpointer(tmp_path, config=_CONFIG) as checkpointer:
    restored = checkpointer.restore_latest(_template(_make_state(0)))
    assert restored.step == 10
    lines = [line for line in caplog.messages if "is damaged" in line]
    assert len(lines) == 1
    assert "step 20" in lines[0]
    assert "the digest of" in lines[0]
    checkpointer.save(20, _make_state(20))
  assert len(list(tmp_path.glob("corrupt-20-*"))) == 1
  restored = _restore(tmp_path)
  assert restored.step == 20
  _assert_same(restored.state, _make_state(20))


def _cut(file, size):
  file.write_bytes(file.read_bytes()[:size])


@pytest.mark.parametrize(
  "damage",
  [
    lambda file, size: file.unlink(),
    lambda file, size: _cut(file, 0),
    lambda file, size: _cut(file, size // 2),
    lambda file, size: _cut(file, size - 1),
  ],
  ids=["deleted", "emptied", "halved", "cut"],
)
def test_each_file_damaged(tmp_path, damage):
  _save(tmp_path, 1, 2)
  shutil.copytree(tmp_path / "2", tmp_path / "whole")
  files = [file for file in (tmp_path / "2").rglob("*") if file.is_file()]
  num_rejected = 0
  for file in files:
    damage(file, file.stat().st_size)
    restored = checkpoints.restore(tmp_path, _template(_make_state(0)))
    _assert_same(restored.state, _make_state(restored.step))
    num_rejected += restored.step == 1
    shutil.rmtree(tmp_path / "2")
    shutil.copytree(tmp_path / "whole", tmp_path / "2")
  assert num_rejected >= 3  # data, manifest, metadata of the step


def test_foreign_entries(tmp_path):
  _save(tmp_path, 1, 2)
  (tmp_path / "9").mkdir()
  (tmp_path / "8").write_text("")
  (tmp_path / "7").symlink_to(tmp_path / "2")
  shutil.copytree(tmp_path / "2", tmp_path / "6")
  shutil.copytree(tmp_path / "2", tmp_path / "5")
  (tmp_path / "5" / "commit_success.txt").unlink()
  restored = _restore(tmp_path)
  assert restored.step == 2
  # The copy that says it is another step is set aside, the rest ignored.
  left = sorted(path.name[:9] for path in tmp_path.iterdir())
  assert left == ["1", "2", "7", "8", "corrupt-6"]


def test_all_damaged_is_an_error_every_time(tmp_path):
  _save(tmp_path, 1, 2)
  for step in ("1", "2"):
    _cut(_data_file(tmp_path / step), 100)
  for _ in range(2):
    with pytest.raises(
      checkpoints.CheckpointError, match=r"step 2: .*step 1: .*from scratch"
    ):
      _restore(tmp_path)


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
    (_make_state(0, width=9), r"w is float32\[8,700\] .* float32\[9,700\]"),
    (_make_state(0, depth=3), r"layer2.gain is missing there and bfloat16\[8"),
    (_make_state(0, depth=1), r"layer1.gain is bfloat16\[8\] there and miss"),
    (_renamed(_make_state(0)), "layer1.gain is .* missing here"),
    (_as_float16(_make_state(0)), "w is float32.* there and float16"),
  ],
  ids=["width", "missing", "extra", "renamed", "dtype"],
)
def test_another_model_is_an_error_not_damage(tmp_path, state, leaf):
  _save(tmp_path, 1, 2)
  config = {"model": {"width": 9}, "seed": 0}
  with (
    checkpoints.Checkpointer(tmp_path, config=config) as checkpointer,
    pytest.raises(checkpoints.MismatchError, match=leaf) as caught,
  ):
    checkpointer.restore_latest(_template(state))
  assert "model.width is 8 there and 9 here" in str(caught.value)
  assert sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_newer_format_is_an_error_not_damage(tmp_path, monkeypatch):
  _save(tmp_path, 1)
  monkeypatch.setattr(step_metadata, "FORMAT", 2)
  _save(tmp_path, 2)
  monkeypatch.undo()
  with pytest.raises(checkpoints.CheckpointError, match="a newer version"):
    _restore(tmp_path)
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
    directory, config=_CONFIG, max_to_keep=1
  ) as checkpointer:
    limit()
    checkpointer.save(2, _make_state(2))
    if how == "wait":
      checkpointer.wait()
    elif how == "next save":
      checkpointer.save(3, _make_state(3))
    elif how == "leave early":
      sys.exit(0)


@pytest.mark.parametrize("how", ["wait", "next save", "leave", "leave early"])
def test_failed_write_is_reported(tmp_path, small_files_only, how):
  _save(tmp_path, 1)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  with pytest.raises(
    checkpoints.CheckpointError, match=f"step 2 was not saved in {tmp_path}"
  ):
    _fail_to_save(tmp_path, how, small_files_only)
  resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  _assert_same(_restore(tmp_path).state, _make_state(1))


def test_run_goes_on_after_a_failed_write(tmp_path, small_files_only):
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  with checkpoints.Checkpointer(tmp_path, config=_CONFIG) as checkpointer:
    checkpointer.save(1, _make_state(1))
    checkpointer.wait()
    small_files_only()
    checkpointer.save(2, _make_state(2))
    with pytest.raises(checkpoints.CheckpointError, match="step 2"):
      checkpointer.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpointer.latest_step() == 1
    checkpointer.save(2, _make_state(2))
  _assert_same(_restore(tmp_path).state, _make_state(2))


def test_own_folder_then_restore_dir_then_scratch(tmp_path):
  own, other = tmp_path / "own", tmp_path / "other"
  _save(other, 7)
  before = sorted(path.name for path in other.rglob("*"))
  template = _template(_make_state(0))
  with checkpoints.Checkpointer(own, config=_CONFIG) as checkpointer:
    assert checkpointer.restore_latest(template) is None
    restored = checkpointer.restore_latest(template, restore_dir=other)
    assert restored.step == 7
    checkpointer.save(1, _make_state(1))
    restored = checkpointer.restore_latest(template, restore_dir=other)
    assert restored.step == 1
  assert sorted(path.name for path in other.rglob("*")) == before
  with (
    checkpoints.Checkpointer(tmp_path / "new", config={}) as checkpointer,
    pytest.raises(checkpoints.CheckpointError, match="holds no checkpoint"),
  ):
    checkpointer.restore_latest(template, restore_dir=tmp_path / "none")


def test_reader_takes_a_subtree_and_touches_nothing(tmp_path):
  _save(tmp_path, 1, 2)
  _flip(_data_file(tmp_path / "2"), 80_000)
  (tmp_path / "3").mkdir()
  params = _make_state(1).params
  restored = checkpoints.restore(
    tmp_path, _template(params), subtree="params", config=_CONFIG
  )
  assert restored.step == 1
  _assert_same(restored.state, params)
  assert sorted(os.listdir(tmp_path)) == ["1", "2", "3"]
  with pytest.raises(checkpoints.CheckpointError, match="no checkpoint"):
    checkpoints.restore(tmp_path / "none", _template(params))
  assert not (tmp_path / "none").exists()


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
  from tgmm_jax import checkpoints, tree_digest

  state = {"w": jax.random.normal(jax.random.key(0), (24, 40)),
           "step": jnp.asarray(3)}
  expected = tree_digest.digests(state)

  def place(num_devices, spec):
    mesh = jax.make_mesh((num_devices,), ("data",),
                         axis_types=(AxisType.Auto,),
                         devices=jax.devices()[:num_devices])
    where = {"w": NamedSharding(mesh, spec), "step": NamedSharding(mesh, jax.P())}
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
      "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    },
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert child.returncode == 0, child.stderr
