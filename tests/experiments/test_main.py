"""The command as a user starts it, each time in a process of its own."""

import pathlib
import shutil

import pytest

from tests.experiments import conftest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
SMOKE = "--config=experiments/rq1.py:smoke"


def contents(folder):
  return {
    path.relative_to(folder): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def error_of(ended):
  """The one line of the error."""
  assert ended.returncode == 1, ended.stderr[-3000:]
  assert "Traceback" not in ended.stderr
  *_, last = ended.stderr.splitlines()
  assert last.startswith("error: ")
  return last


def test_main_is_short():
  text = (ROOT / "experiments" / "main.py").read_text()
  assert len(text.splitlines()) < 100


# First what needs no `smoke`: another worker may be at it.
def test_unknown_key(start, tmp_path):
  workdir = tmp_path / "run"
  ended = start(SMOKE, f"--workdir={workdir}", "--config.sede=1")
  assert "--config.sede is no key" in error_of(ended)
  assert "--config.seed" in error_of(ended)
  assert len(ended.stderr.splitlines()) == 1
  assert not workdir.exists()


def test_element_of_the_sweep_and_a_report_of_what_is_there(start, tmp_path):
  workdir = tmp_path / "run"
  flags = (SMOKE, f"--workdir={workdir}")
  ended = start(*flags, "--sweep_index=1", "--mode=train")
  assert ended.returncode == 0, ended.stderr[-3000:]
  folders = {path.name for path in workdir.iterdir() if path.is_dir()}
  assert folders == {"tgmm-d2"}
  assert not (workdir / "report.html").exists()
  ended = start(*flags, "--mode=report")
  assert ended.returncode == 0, ended.stderr[-3000:]
  page = (workdir / "report.html").read_text()
  assert "planned results are missing" in page
  assert "data:image/png" in page
  assert {path.name for path in workdir.iterdir() if path.is_dir()} == {
    "tgmm-d2",
    "figures",
  }


def test_log_is_seen_and_it_is_ours_alone(smoke):
  _, ended = smoke
  lines = [line for line in ended.stderr.splitlines() if line]
  for part in (
    "refiner: step 40/40, loss ",
    "tgmm-d2: step 40/40, loss ",
    "evaluating em/oracle at d = 2",
    "evaluating refiner at d = 2",
  ):
    assert any(part in line for line in lines), part
  own = {f"{path.name}:" for path in (ROOT / "experiments").rglob("*.py")}
  own |= {f"{path.name}:" for path in (ROOT / "tgmm_jax").rglob("*.py")}
  for line in lines:
    if line.startswith("I"):
      assert any(name in line for name in own), line
  assert "WARNING" not in ended.stderr
  assert not any(line.startswith(("W", "E")) for line in lines)


def test_the_environment_is_written_nowhere(smoke):
  workdir, ended = smoke
  for content in contents(workdir).values():
    assert conftest.SECRET.encode() not in content
  assert conftest.SECRET not in ended.stdout + ended.stderr


def test_table_and_page_are_named_at_the_end(smoke):
  _, ended = smoke
  workdir = ended.args[-1].removeprefix("--workdir=")
  assert ended.stdout.splitlines()[-1].split() == [
    "report:",
    f"{workdir}/report.html",
  ]
  for name in ("refiner-x8+em5", "tgmm+em5", "spectral", "labels"):
    assert any(
      line.strip().startswith(name) for line in ended.stdout.splitlines()
    )


def test_finished_experiment_started_again_changes_nothing(start, smoke):
  workdir, _ = smoke
  before = contents(workdir)
  ended = start(SMOKE, f"--workdir={workdir}")
  assert ended.returncode == 0, ended.stderr[-3000:]
  after = contents(workdir)
  # It has the state of the git checkout, in which somebody may be at work.
  versions = pathlib.Path("versions.json")
  assert after.pop(versions)
  assert before.pop(versions)
  assert after == before


def test_run_evaluated_half_way_and_then_trained_to_its_end(
  start, smoke, tmp_path
):
  """It ends with the table of one that was never looked at."""
  workdir = tmp_path / "run"
  shutil.copytree(smoke[0], workdir)
  table, page = workdir / "results.csv", workdir / "report.html"
  finished = table.read_bytes()
  for step in (30, 40):
    shutil.rmtree(workdir / "refiner" / "checkpoints" / str(step))
  ended = start(SMOKE, f"--workdir={workdir}", "--mode=evaluate")
  assert ended.returncode == 0, ended.stderr[-3000:]
  (line,) = (x for x in ended.stderr.splitlines() if "measured again" in x)
  assert "refiner is measured again: " in line
  assert line.endswith("step is 40 there and 20 here")
  assert table.read_bytes() != finished
  ended = start(SMOKE, f"--workdir={workdir}")
  assert ended.returncode == 0, ended.stderr[-3000:]
  assert "refiner: step 40/40, loss " in ended.stderr
  assert "step is 20 there and 40 here" in ended.stderr
  # What nobody trained is as it was.
  assert "evaluating em/oracle" not in ended.stderr
  assert table.read_bytes() == finished
  assert "40 of 40" in page.read_text()
  assert "since then" not in page.read_text()


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--config.evaluation.seed=1", "evaluation.seed is 20000 there and 1 here"),
    (
      "--config.evaluation.num_tasks=8",
      "evaluation.num_tasks is 16 there and 8 here",
    ),
  ],
)
def test_report_with_other_settings(start, smoke, flag, message):
  workdir, _ = smoke
  before = contents(workdir)
  ended = start(SMOKE, f"--workdir={workdir}", "--mode=report", flag)
  assert message in error_of(ended)
  assert contents(workdir) == before


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    (
      "--config.runs.refiner.num_steps=20",
      "holds step 40 of refiner, takes at",
    ),
    ("--config.seed=3", "trained otherwise: seed is 0 there and 3 here"),
  ],
)
def test_restored_run_of_other_steps_or_seed(
  start, smoke, tmp_path, flag, message
):
  workdir, source = tmp_path / "run", f"--config.restore_dir={smoke[0]}"
  ended = start(SMOKE, f"--workdir={workdir}", source, flag)
  assert message in error_of(ended)
  assert not workdir.exists()


def test_report_is_made_again_from_the_parts(start, smoke, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(smoke[0], workdir)
  (workdir / "report.html").unlink()
  (workdir / "results.csv").unlink()
  ended = start(SMOKE, f"--workdir={workdir}", "--mode=report")
  assert ended.returncode == 0, ended.stderr[-3000:]
  table = (workdir / "results.csv").read_bytes()
  assert table == (smoke[0] / "results.csv").read_bytes()
  assert (workdir / "report.html").exists()


def test_config_that_is_not_the_folders(start, smoke):
  workdir, _ = smoke
  before = contents(workdir)
  for flag, message in (
    ("--config.seed=3", "seed is 0 there and 3 here"),
    (
      "--config.runs['tgmm-d2'].dims=(3,)",
      "runs.tgmm-d2.dims is [2] there and [3] here",
    ),
  ):
    ended = start(SMOKE, f"--workdir={workdir}", "--mode=evaluate", flag)
    error = error_of(ended)
    assert message in error or "is of another model" in error
  assert contents(workdir) == before


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    (
      "--config.runs['tgmm-d2'].dims=(3,)",
      "runs.tgmm-d2.dims is [2] there and [3] here",
    ),
    (
      "--config.runs.refiner.model.width=16",
      "runs.refiner.model.width is 8 there and 16 here",
    ),
  ],
)
def test_checkpoint_of_another_network(start, smoke, tmp_path, flag, message):
  source, _ = smoke
  before = contents(source)
  workdir = tmp_path / "run"
  ended = start(
    SMOKE, f"--workdir={workdir}", f"--config.restore_dir={source}", flag
  )
  error = error_of(ended)
  assert "is of another model" in error
  assert message in error
  assert not workdir.exists()
  assert contents(source) == before
