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
