"""What a record says of its files, and when it says that they are others."""

import json
import os

import pytest

from experiments.runner import derived

MADE_OF = {"step": 140, "settings": {"evaluation": {"seed": 1, "dims": (2, 8)}}}


@pytest.fixture
def record(tmp_path):
  """The record of one table."""
  (tmp_path / "table.csv").write_text("1")
  path = tmp_path / "measured.json"
  derived.write(path, MADE_OF, [tmp_path / "table.csv"], versions={"jax": "1"})
  return path


def test_what_was_written_is_current_whatever_its_time(record):
  assert not derived.difference(record, MADE_OF)
  os.utime(record.parent / "table.csv", (0, 0))
  assert not derived.difference(record, MADE_OF)
  assert derived.read(record)["versions"] == {"jax": "1"}
  # Part of it may be asked for alone.
  assert not derived.difference(record, {"step": 140})


@pytest.mark.parametrize(
  ("key", "value", "said"),
  [
    ("step", 3000, "step is 140 there and 3000 here"),
    (
      "settings",
      {"evaluation": {"seed": 2, "dims": (2, 8)}},
      "settings.evaluation.seed is 1 there and 2 here",
    ),
    ("code", "f0", "code is '(not set)' there and 'f0' here"),
  ],
)
def test_a_difference_is_named_with_both_values(record, key, value, said):
  assert derived.difference(record, {**MADE_OF, key: value}) == said


def test_many_differences_are_one_line(record):
  own = {name: 0 for name in "abcde"}
  said = derived.difference(record, own)
  assert said.count(" there and 0 here") == 3
  assert said.endswith(" and 2 values more")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made_of": {}}', "\x00"])
def test_a_record_that_is_none(record, text):
  record.write_text(text)
  said = derived.difference(record, MADE_OF)
  assert said == "there is no measured.json of what it was made of"
  record.unlink()
  assert derived.difference(record, MADE_OF) == said


def test_a_file_that_was_changed_or_is_gone(record):
  table = record.parent / "table.csv"
  said = "table.csv is not what was written"
  for change in (lambda: table.write_text("2"), table.unlink):
    change()
    assert derived.difference(record, MADE_OF) == said


def test_record_is_strict_json_with_names_below_its_folder(tmp_path):
  (tmp_path / "figures").mkdir()
  for name in ("b.csv", "figures/a.png"):
    (tmp_path / name).write_text(name)
  made = [tmp_path / "figures" / "a.png", tmp_path / "b.csv"]
  derived.write(tmp_path / "report.json", MADE_OF, made)
  stored = json.loads((tmp_path / "report.json").read_text())
  assert list(stored["files"]) == ["b.csv", "figures/a.png"]


def code_of(tmp_path, monkeypatch, is_shown=False, question=""):
  """The version of a small copy of the code."""
  library, root = tmp_path / "lib", tmp_path / "root"
  monkeypatch.setattr(derived, "_ROOT", root)
  monkeypatch.setattr(
    derived.run_folder, "__file__", str(library / "training" / "run_folder.py")
  )
  derived.code.cache_clear()
  found = derived.code(*[question] * bool(question), is_shown=is_shown)
  derived.code.cache_clear()
  return found


@pytest.fixture
def sources(tmp_path):
  for name in (
    *("lib/training/loop.py", "lib/figures/style.py", "lib/figures/page.html"),
    *("lib/weights/unit.safetensors", "root/experiments/runner/parts.py"),
    *("root/experiments/rq1.py", "root/experiments/results/rq1.csv"),
  ):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("one")
  return tmp_path


@pytest.mark.parametrize(
  ("name", "rows_change", "page_changes"),
  [
    ("lib/training/loop.py", True, True),
    ("lib/weights/unit.safetensors", True, True),
    ("root/experiments/runner/parts.py", True, True),
    ("lib/figures/style.py", False, True),
    ("lib/figures/page.html", False, True),
    ("root/experiments/rq1.py", False, False),
    ("root/experiments/results/rq1.csv", False, False),
    ("lib/training/loop.pyc", False, False),
  ],
)
def test_code_is_what_rows_or_pages_follow_from(
  sources, monkeypatch, name, rows_change, page_changes
):
  before = [code_of(sources, monkeypatch, shown) for shown in (False, True)]
  (sources / name).write_text("two")
  after = [code_of(sources, monkeypatch, shown) for shown in (False, True)]
  changes = [old != new for old, new in zip(before, after, strict=True)]
  assert changes == [rows_change, page_changes]


def test_code_of_a_question_counts_where_it_measures(sources, monkeypatch):
  question = sources / "root" / "experiments" / "rq1.py"
  before = code_of(sources, monkeypatch, question=str(question))
  assert before == code_of(sources, monkeypatch, question=str(question))
  question.write_text("two")
  assert code_of(sources, monkeypatch, question=str(question)) != before
