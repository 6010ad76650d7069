import os

import pytest

from tgmm_jax.training import files


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_json_is_written_whole_or_not_at_all(tmp_path):
  file = tmp_path / "value.json"
  files.write_json(file, {"a": 1})
  with pytest.raises(TypeError):
    files.write_json(file, {"a": object()})
  assert contents(tmp_path) == {"value.json": b'{\n  "a": 1\n}\n'}
  assert files.read_json(file) == {"a": 1}
  assert files.read_json(tmp_path / "none.json") == {}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
  file = tmp_path / "below" / "value"
  files.write(file, b"old")

  def fail(*_):
    raise OSError("no space left")

  monkeypatch.setattr(os, "fsync", fail)
  with pytest.raises(OSError, match="no space"):
    files.write(file, b"new")
  assert contents(file.parent) == {"value": b"old"}


def test_writers_with_one_process_id_do_not_meet(tmp_path, monkeypatch):
  # As in two containers that share a disk.
  monkeypatch.setattr(os, "getpid", lambda: 1)
  file, replace = tmp_path / "value", os.replace

  def meet(source, target):
    monkeypatch.setattr(os, "replace", replace)
    files.write(file, b"other")
    replace(source, target)

  monkeypatch.setattr(os, "replace", meet)
  files.write(file, b"own")
  assert contents(tmp_path) == {"value": b"own"}


@pytest.mark.parametrize("text", ["[]", "1", "null", "{", "[" * 10**5])
def test_what_is_no_object_is_named(tmp_path, text):
  file = tmp_path / "value.json"
  file.write_text(text)
  with pytest.raises(ValueError, match=r"value\.json is damaged: ") as error:
    files.read_json(file)
  assert "\n" not in str(error.value)
