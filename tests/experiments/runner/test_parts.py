"""Which rows a page joins: never those of other settings, never in silence."""

import pytest

from experiments.runner import parts
from tgmm_jax.evaluation import results

NOW = {"step": 40, "settings": {"seed": 1}, "code": "a"}


def row(study):
  return results.CurveRow(study, "error", "EM", 1.0, 2.0, 0.5, 4, 0)


def keep(workdir, name, **changes):
  made_of = {**NOW, **changes}
  parts.keep_rows(workdir / name, [row(name)], results.CurveRow, made_of)


def test_rows_that_fit_are_found_and_nothing_is_said(tmp_path, caplog):
  keep(tmp_path, "one")
  found = parts.find_parts(tmp_path, {"one": NOW, "two": NOW})
  assert found.tables == {"one": [tmp_path / "one" / "curves.csv"], "two": []}
  assert parts.read_rows(*found.tables["one"]) == [row("one")]
  assert found.lacking == {"two": "not measured yet"}
  assert found.measured["one"]["step"] == "40"
  assert "since then" not in found.measured["one"]
  assert not caplog.records
  assert parts.is_measured(tmp_path / "one", NOW)
  assert not parts.is_measured(tmp_path / "two", NOW)
  assert not caplog.records


def test_rows_of_other_settings_are_left_out_and_it_is_said(tmp_path, caplog):
  keep(tmp_path, "one")
  keep(tmp_path, "two", settings={"seed": 2})
  found = parts.find_parts(tmp_path, {"one": NOW, "two": NOW})
  assert found.tables["two"] == []
  said = "settings.seed is 2 there and 1 here; --mode=evaluate measures it"
  assert said in found.lacking["two"]
  (record,) = caplog.records
  assert said in record.getMessage()
  assert "\n" not in record.getMessage()


@pytest.mark.parametrize("is_old", [True, False])
def test_where_no_rows_fit_there_is_no_page(tmp_path, is_old):
  keep(tmp_path, "one", settings={"seed": 2})
  why = "settings.seed is 2 there and 1 here"
  if is_old:
    (tmp_path / "one" / "measured.json").unlink()
    why = "there is no measured.json"
  with pytest.raises(ValueError, match=f"no such rows: one .*{why}"):
    parts.find_parts(tmp_path, {"one": NOW, "two": NOW})
  assert parts.find_parts(tmp_path, {"two": NOW}).tables == {"two": []}


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"step": 20}, "step is 20 there and 40 here"),
    ({"code": "b"}, "code is 'b' there and 'a' here"),
  ],
)
def test_rows_of_an_earlier_step_or_of_other_code_are_shown_as_such(
  tmp_path, caplog, changes, said
):
  caplog.set_level("INFO", logger="absl")
  keep(tmp_path, "one", **changes)
  found = parts.find_parts(tmp_path, {"one": NOW})
  assert found.tables["one"]
  assert said in found.measured["one"]["since then"]
  assert said in caplog.text
  assert not parts.is_measured(tmp_path / "one", NOW)
  assert f"one is measured again: {said}" in caplog.text


def test_a_table_of_another_type_does_not_stay(tmp_path):
  keep(tmp_path, "one")
  parts.keep_rows(tmp_path / "one", [], results.Row, NOW)
  names = {path.name for path in (tmp_path / "one").iterdir()}
  assert names == {"results.csv", "measured.json"}
