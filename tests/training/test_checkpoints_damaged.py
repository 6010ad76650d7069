"""Faults of a disk or of a hand in the folder: never used, never lost."""

import hashlib
import json
import pathlib
import pickle
import re
import shutil

import numpy as np
import pytest

from tests.training import saved_states
from tgmm_jax.training import checkpoints

# After an error Orbax leaves coroutines that nobody awaits.
pytestmark = pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning"
)


def test_flipped_bits_are_never_used(tmp_path):
  saved_states.save(tmp_path, 1, 2)
  file = saved_states.data_file(tmp_path / "2")
  num_bits = 8 * file.stat().st_size
  generator = np.random.default_rng(0)
  template = saved_states.template(saved_states.make_state(0))
  num_rejected = 0
  with checkpoints.Checkpointer(
    tmp_path, config=saved_states.CONFIG
  ) as checkpointer:
    for bit in generator.integers(num_bits, size=50):
      saved_states.flip(file, bit)
      restored = checkpointer.restore_latest(template)
      saved_states.assert_same(
        restored.state, saved_states.make_state(restored.step)
      )
      if restored.step == 1:
        num_rejected += 1
        (aside,) = tmp_path.glob("corrupt-2-*")
        aside.rename(tmp_path / "2")
      saved_states.flip(file, bit)
  # A bit that no reader looks at may be flipped unnoticed.
  assert num_rejected >= 45


def test_run_goes_on_after_a_damaged_step(tmp_path, caplog):
  saved_states.save(tmp_path, 10, 20)
  saved_states.flip(saved_states.data_file(tmp_path / "20"), 80_000)
  with checkpoints.Checkpointer(
    tmp_path, config=saved_states.CONFIG
  ) as checkpointer:
    restored = checkpointer.restore_latest(
      saved_states.template(saved_states.make_state(0))
    )
    assert restored.step == 10
    lines = [line for line in caplog.messages if "is damaged" in line]
    assert len(lines) == 1
    assert "step 20" in lines[0]
    assert re.search(r"layer[01]\.(w|gain)", lines[0])
    checkpointer.save(20, saved_states.make_state(20))
  assert len(list(tmp_path.glob("corrupt-20-*"))) == 1
  restored = saved_states.restore(tmp_path)
  assert restored.step == 20
  saved_states.assert_same(restored.state, saved_states.make_state(20))


@pytest.mark.parametrize(
  "damage",
  [
    lambda file, size: file.unlink(),
    lambda file, size: saved_states.cut(file, 0),
    lambda file, size: saved_states.cut(file, size // 2),
    lambda file, size: saved_states.cut(file, size - 1),
  ],
  ids=["deleted", "emptied", "halved", "cut"],
)
def test_each_file_damaged(tmp_path, damage):
  saved_states.save(tmp_path, 1, 2)
  shutil.copytree(tmp_path / "2", tmp_path / "whole")
  files = [file for file in (tmp_path / "2").rglob("*") if file.is_file()]
  num_rejected = 0
  for file in files:
    damage(file, file.stat().st_size)
    restored = checkpoints.restore(
      tmp_path, saved_states.template(saved_states.make_state(0))
    )
    saved_states.assert_same(
      restored.state, saved_states.make_state(restored.step)
    )
    num_rejected += restored.step == 1
    shutil.rmtree(tmp_path / "2")
    shutil.copytree(tmp_path / "whole", tmp_path / "2")
  assert num_rejected >= 3  # data, manifest, metadata of the step


def _change_first_leaf(meta, change):
  name = min(meta["leaves"])
  meta["leaves"][name] = change(meta["leaves"][name])


@pytest.mark.parametrize(
  "change",
  [
    lambda meta: meta.pop("leaves"),
    lambda meta: meta.update(leaves=[]),
    lambda meta: meta.pop("config"),
    lambda meta: meta.update(config=None),
    lambda meta: meta.update(format=True),
    lambda meta: meta.update(format=-1),
    lambda meta: meta.pop("step"),
    lambda meta: _change_first_leaf(meta, lambda leaf: leaf | {"digest": 1}),
    lambda meta: _change_first_leaf(meta, lambda leaf: {"type": leaf["type"]}),
    lambda meta: _change_first_leaf(meta, lambda leaf: leaf | {"type": None}),
    lambda meta: _change_first_leaf(meta, lambda leaf: None),
    lambda meta: meta["config"].update(
      json.loads('{"a":' * 90 + "1" + "}" * 90)
    ),
  ],
)
def test_metadata_with_a_good_digest_and_a_fault(tmp_path, caplog, change):
  saved_states.save(tmp_path, 1, 2)
  file = tmp_path / "2" / "meta" / "metadata"
  meta = json.loads(file.read_text())
  change(meta)
  content = {key: value for key, value in meta.items() if key != "sha256"}
  text = json.dumps(content, sort_keys=True)
  digest = hashlib.sha256(text.encode()).hexdigest()
  file.write_text(json.dumps({"sha256": digest, **content}))
  restored = saved_states.restore(tmp_path)
  assert restored.step == 1
  saved_states.assert_same(restored.state, saved_states.make_state(1))
  (line,) = [line for line in caplog.messages if "is damaged" in line]
  assert "\n" not in line
  assert len(list(tmp_path.glob("corrupt-2-*"))) == 1


def test_foreign_entries(tmp_path):
  saved_states.save(tmp_path, 1, 2)
  (tmp_path / "9").mkdir()
  (tmp_path / "8").write_text("")
  (tmp_path / "7").symlink_to(tmp_path / "2")
  shutil.copytree(tmp_path / "2", tmp_path / "6")
  shutil.copytree(tmp_path / "2", tmp_path / "5")
  (tmp_path / "5" / "commit_success.txt").unlink()
  restored = saved_states.restore(tmp_path)
  assert restored.step == 2
  # The copy that says it is another step is set aside, the rest ignored.
  left = sorted(path.name[:9] for path in tmp_path.iterdir())
  assert left == ["1", "2", "7", "8", "corrupt-6"]


def test_all_damaged_is_an_error_every_time(tmp_path):
  saved_states.save(tmp_path, 1, 2)
  for step in ("1", "2"):
    saved_states.cut(saved_states.data_file(tmp_path / step), 100)
  for _ in range(2):
    with pytest.raises(
      checkpoints.CheckpointError, match=r"step 2: .*step 1: .*from scratch"
    ):
      saved_states.restore(tmp_path)


def test_planted_code_is_never_run(tmp_path):
  """Files by which other formats would run what a stranger wrote."""
  canary = tmp_path / "canary"
  saved_states.save(tmp_path / "run", 1)

  class Planted:
    def __reduce__(self):
      return pathlib.Path.touch, (canary,)

  folders = [own for own in tmp_path.rglob("*") if own.is_dir()]
  for folder in folders:
    (folder / "state.pkl").write_bytes(pickle.dumps(Planted()))
    array = np.array([Planted()], dtype=object)
    np.save(folder / "array.npy", array, allow_pickle=True)
    (folder / "conftest.py").write_text(f"open({str(canary)!r}, 'w')")
    (folder / "__init__.py").write_text(f"open({str(canary)!r}, 'w')")
  restored = saved_states.restore(tmp_path / "run")
  saved_states.assert_same(restored.state, saved_states.make_state(1))
  assert not canary.exists()
