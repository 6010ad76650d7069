"""What is run, what is kept of it, and that one failure is not all."""

import pathlib
import subprocess

import pytest

from experiments.runner import kept as kept_runs
from experiments.runner import run_quick
from tgmm_jax.training import interrupts

QUESTION = '''"""What?"""
import types

PAGES = {{
  variant: types.SimpleNamespace(figures={figures})
  for variant in {variants}
}}
'''


@pytest.fixture
def found(tmp_path):
  """Three questions in a folder of their own, one with two variants."""
  folder = tmp_path / "experiments"
  folder.mkdir()
  for name, variants in (
    ("first", ("quick", "pretrained")),
    ("second", ("quick",)),
    ("third", ("quick",)),
  ):
    text = QUESTION.format(figures={"error": "Error"}, variants=variants)
    (folder / f"{name}.py").write_text(text)
  for command in ("main.py", "launch.py"):
    (folder / command).write_text("raise AssertionError")
  (folder / "room").mkdir()
  (folder / "room" / "other.py").write_text("raise AssertionError")
  return kept_runs.find(folder)


def leave(workdir):
  """What a run leaves."""
  (workdir / "figures").mkdir(parents=True)
  for name in (
    *("results.csv", "config.json", "versions.json", "duration.json"),
    *("figures/error.png", "figures/error.pdf", "figures/other.png"),
    "report.html",
  ):
    (workdir / name).write_text(name)


class Runner:
  """Writes a run, or fails with a status."""

  def __init__(self, **statuses):
    self.statuses = statuses
    self.calls = []

  def __call__(self, config, workdir):
    self.calls.append((config, workdir))
    if status := self.statuses.get(workdir.name, 0):
      return status
    leave(workdir)
    return 0


def test_a_question_is_known_by_where_it_stands():
  names = {path.stem for path in kept_runs.questions()}
  folder = pathlib.Path(kept_runs.__file__).parents[1]
  assert names == {path.stem for path in folder.glob("*.py")} - {
    *("main", "launch"),
  }
  found = kept_runs.find()
  # Of the shipped networks the variant that trains nothing is kept.
  quick = {kept.question for kept in found if kept.variant == "quick"}
  is_shipped = {
    name for name in names if name.startswith(("pretrained", "tgmm_networks"))
  }
  assert quick == names - is_shipped
  assert {kept.name for kept in found if kept.variant != "quick"} == {
    *("rq1_pretrained", "rq3_anisotropic_pretrained"),
    *("pretrained_unit_shipped", "pretrained_tied_spherical_shipped"),
    *("pretrained_diag_shipped", "pretrained_full_shipped"),
    "tgmm_networks_shipped",
  }
  for kept in found:
    assert kept.variant in kept.module.VARIANTS


def test_all_are_run_in_folders_of_their_own(found, tmp_path):
  runner = Runner()
  assert run_quick.run_all(found, tmp_path / "runs", runner) == {}
  assert runner.calls == [
    ("experiments/first.py:quick", tmp_path / "runs" / "first"),
    (
      "experiments/first.py:pretrained",
      tmp_path / "runs" / "first_pretrained",
    ),
    ("experiments/second.py:quick", tmp_path / "runs" / "second"),
    ("experiments/third.py:quick", tmp_path / "runs" / "third"),
  ]


def test_names_of_questions_and_of_folders_choose(found):
  def names(*chosen):
    return [kept.name for kept in kept_runs.select(found, chosen)]

  assert names("first", "third") == ["first", "first_pretrained", "third"]
  assert names("first_pretrained") == ["first_pretrained"]
  assert len(names()) == 4
  with pytest.raises(ValueError, match="name is 'fourth', takes one of"):
    names("third", "fourth")


def test_one_that_fails_does_not_stop_the_others(found, tmp_path):
  runner = Runner(first_pretrained=1)
  failed = run_quick.run_all(found, tmp_path / "runs", runner)
  assert failed == {"first_pretrained": "exit status 1"}
  assert len(runner.calls) == 4


def test_after_a_signal_none_is_begun(found, tmp_path):
  runner = Runner(first=interrupts.EXIT_STOPPED)
  failed = run_quick.run_all(found, tmp_path / "runs", runner)
  assert len(runner.calls) == 1
  assert failed.pop("first") == f"exit status {interrupts.EXIT_STOPPED}"
  assert set(failed.values()) == {"not begun"}
  assert len(failed) == 3


def test_tables_and_shown_figures_are_kept_and_old_ones_go(found, tmp_path):
  leave(tmp_path / "runs" / "second")
  folder = tmp_path / "kept"
  (folder / "second" / "figures").mkdir(parents=True)
  (folder / "second" / "figures" / "old.png").touch()
  kept = kept_runs.select(found, ["second"])
  assert run_quick.keep_all(kept, tmp_path / "runs", folder) == {}
  left = {path for path in folder.rglob("*") if path.is_file()}
  assert {str(path.relative_to(folder / "second")) for path in left} == {
    *("results.csv", "config.json", "versions.json", "duration.json"),
    "figures/error.png",
  }


@pytest.mark.parametrize("lost", ["results.csv", "figures/error.png"])
def test_a_run_that_lacks_something_is_named_and_what_was_kept_stays(
  found, tmp_path, lost
):
  leave(tmp_path / "runs" / "second")
  leave(tmp_path / "runs" / "third")
  (tmp_path / "runs" / "second" / lost).unlink()
  folder = tmp_path / "kept"
  (folder / "second").mkdir(parents=True)
  (folder / "second" / "results.csv").write_text("before")
  kept = kept_runs.select(found, ["second", "third"])
  failed = run_quick.keep_all(kept, tmp_path / "runs", folder)
  assert list(failed) == ["second"]
  assert lost in failed["second"]
  assert (folder / "second" / "results.csv").read_text() == "before"
  assert (folder / "third" / "results.csv").exists()


def test_a_checkout_with_changes_is_refused(tmp_path):
  def git(*arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", "-C", str(tmp_path), *identity, *arguments]
    subprocess.run(command, check=True, capture_output=True)

  with pytest.raises(ValueError, match="no git checkout"):
    run_quick.check_clean(tmp_path / "nowhere")
  git("init")
  (tmp_path / "a").touch()
  with pytest.raises(ValueError, match="not committed, takes none or --dirty"):
    run_quick.check_clean(tmp_path)
  git("add", "a")
  git("commit", "-m", "a")
  run_quick.check_clean(tmp_path)
  clean = run_quick.folder_of(tmp_path, is_dirty=False)
  assert clean == run_quick.folder_of(tmp_path, is_dirty=False)
  assert clean.parent == tmp_path / "runs"
  assert "dirty" in run_quick.folder_of(tmp_path, is_dirty=True).name


def test_the_command_names_what_failed(found, tmp_path, monkeypatch, capsys):
  """From the choice to the pages, with runs that cost nothing."""
  runner, pages = Runner(second=3), []
  monkeypatch.setattr(run_quick, "_run", runner)
  monkeypatch.setattr(run_quick, "_python", lambda name: pages.append(name))
  monkeypatch.setattr(run_quick, "check_clean", lambda root: None)
  monkeypatch.setattr(
    run_quick, "folder_of", lambda root, *, is_dirty: tmp_path / "runs"
  )
  monkeypatch.setattr(kept_runs, "find", lambda: found)
  monkeypatch.setattr(kept_runs, "RESULTS", tmp_path / "kept")
  monkeypatch.setattr(run_quick, "_DIRTY", type("Flag", (), {"value": False}))
  with pytest.raises(SystemExit) as ended:
    run_quick.main(["run_quick", "second", "third"])
  assert ended.value.code == "error: failed:\n  second: exit status 3"
  assert [path.name for path in (tmp_path / "kept").iterdir()] == ["third"]
  assert pages == ["experiments.results_pages"]
