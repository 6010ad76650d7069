"""Files are written where that harms nobody, or refused before the work."""

import os

import pytest

from tgmm_jax.command_line import outputs
from tgmm_jax.fitting import saved


def refusal(path, *, inputs=(), is_forced=False, suffixes=()):
  try:
    outputs.check(
      "--output",
      str(path),
      inputs=[str(own) for own in inputs],
      is_forced=is_forced,
      suffixes=suffixes,
    )
  except ValueError as error:
    return str(error)
  return None


def test_the_input_is_never_replaced_by_whatever_name(tmp_path, monkeypatch):
  source = tmp_path / "a.csv"
  source.write_text("1,2\n")
  os.symlink(source, tmp_path / "link.csv")
  os.link(source, tmp_path / "hard.csv")
  monkeypatch.chdir(tmp_path)
  for name in (source, "a.csv", "./a.csv", "link.csv", "hard.csv"):
    for is_forced in (False, True):
      found = refusal(name, inputs=[source], is_forced=is_forced)
      assert found is not None
      assert "takes a path of its own" in found
  # An output that is not there yet, twice.
  assert "of its own" in refusal("b.json", inputs=[tmp_path / "b.json"])
  assert refusal("b.json", inputs=["-", source]) is None


def test_files_that_exist_are_replaced_by_force_alone(tmp_path):
  path = tmp_path / "a.json"
  assert refusal(path) is None
  path.write_text("old")
  assert "which exists: --force replaces it" in refusal(path)
  assert refusal(path, is_forced=True) is None
  outputs.write(str(path), b"new")
  assert path.read_text() == "new"
  assert sorted(own.name for own in tmp_path.iterdir()) == ["a.json"]


def test_places_that_cannot_be_written_to(tmp_path):
  assert "a folder that exists" in refusal(tmp_path / "no" / "a.json")
  assert "of a plain file" in refusal(tmp_path, is_forced=True)
  assert "of a plain file" in refusal(os.devnull, is_forced=True)
  assert "ends in .json or .png" in refusal("a", suffixes=(".json", ".png"))
  assert refusal(tmp_path / "A.JSON", suffixes=(".json",)) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(tmp_path):
  tmp_path.chmod(0o500)
  assert "takes a folder to write to" in refusal(tmp_path / "a.json")


def test_a_link_stays_a_link(tmp_path):
  (tmp_path / "a.json").write_text("old")
  os.symlink(tmp_path / "a.json", tmp_path / "link.json")
  outputs.write(str(tmp_path / "link.json"), b"new")
  assert (tmp_path / "link.json").is_symlink()
  assert (tmp_path / "a.json").read_text() == "new"


def test_suffixes_are_those_of_what_writes():
  assert set(outputs.FITS) == set(saved.SUFFIXES)
