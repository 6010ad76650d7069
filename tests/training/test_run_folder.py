import json
import multiprocessing
import os
import re
import shutil
import socket
import subprocess

import pytest

from tgmm_jax.training import run_folder

_CONFIG = {"model": {"width": 8, "dims": (2, 8)}, "steps": 10, "log_every": 5}


def _contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_second_lock_names_the_owner(tmp_path):
  owner = f"in use by pid {os.getpid()} on host {socket.gethostname()}"
  with run_folder.lock(tmp_path / "new" / "folder"):
    with (
      pytest.raises(run_folder.RunFolderError, match=owner),
      run_folder.lock(tmp_path / "new" / "folder"),
    ):
      pass
  with run_folder.lock(tmp_path / "new" / "folder"):
    pass
  assert (tmp_path / "new" / "folder" / ".lock").read_text() == ""


def test_lock_is_released_by_an_error(tmp_path):
  with pytest.raises(ZeroDivisionError), run_folder.lock(tmp_path):
    raise ZeroDivisionError
  with run_folder.lock(tmp_path):
    pass


def test_lock_of_a_dead_process_is_taken_over(tmp_path, caplog):
  (tmp_path / ".lock").write_text("pid 4194305 on host elsewhere")
  with run_folder.lock(tmp_path):
    assert "pid 4194305 on host elsewhere" in caplog.text
    text = (tmp_path / ".lock").read_text()
    assert text == f"pid {os.getpid()} on host {socket.gethostname()}"


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda lock, other: lock.symlink_to(other), "lock is a link, takes a"),
    (lambda lock, _: lock.symlink_to("nowhere"), "lock is a link, takes a"),
    (
      lambda lock, other: lock.hardlink_to(other),
      "lock is a second name of a file, takes a file of its own",
    ),
    (lambda lock, _: os.mkfifo(lock), "lock is no plain file, takes a file"),
    (lambda lock, _: lock.mkdir(), "cannot be written: Is a directory"),
  ],
)
def test_lock_that_is_somebody_elses_file(tmp_path, make, message):
  other = tmp_path / "precious"
  other.write_text("kept")
  folder = tmp_path / "run"
  folder.mkdir()
  make(folder / ".lock", other)
  with (
    pytest.raises(run_folder.RunFolderError, match=message),
    run_folder.lock(folder),
  ):
    pass
  assert other.read_text() == "kept"
  assert not (folder / "nowhere").exists()


def _take_lock(folder, barrier, results):
  barrier.wait()
  try:
    with run_folder.lock(folder):
      results.put("won")
      barrier.wait()
  except run_folder.RunFolderError:
    results.put("refused")
    barrier.wait()


@pytest.mark.slow
def test_of_simultaneous_starters_one_wins(tmp_path):
  context = multiprocessing.get_context("spawn")
  num_starters = 3
  barrier, results = context.Barrier(num_starters), context.Queue()
  starters = [
    context.Process(target=_take_lock, args=(tmp_path, barrier, results))
    for _ in range(num_starters)
  ]
  for starter in starters:
    starter.start()
  outcomes = [results.get(timeout=60) for _ in starters]
  for starter in starters:
    starter.join(timeout=60)
  assert sorted(outcomes) == ["refused"] * (num_starters - 1) + ["won"]


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda folder: "", "workdir is empty"),
    (lambda folder: folder / "file", "file cannot be written: File exists"),
    (lambda folder: folder / "file" / "below", "cannot be written: Not a dir"),
    (lambda folder: folder / ("x" * 300), "cannot be written: File name too"),
  ],
)
def test_folders_that_cannot_be_used(tmp_path, make, message):
  (tmp_path / "file").write_text("kept")
  with (
    pytest.raises(run_folder.RunFolderError, match=message),
    run_folder.lock(make(tmp_path)),
  ):
    pass
  assert _contents(tmp_path) == {"file": b"kept"}


def test_first_start_writes_the_config_and_the_same_again_changes_nothing(
  tmp_path,
):
  folder = tmp_path / "run"
  run_folder.check_identity(folder, _CONFIG)
  assert json.loads((folder / "config.json").read_text()) == {
    "model": {"width": 8, "dims": [2, 8]},
    "steps": 10,
    "log_every": 5,
  }
  before = (folder / "config.json").stat().st_mtime_ns, _contents(folder)
  run_folder.check_identity(folder, _CONFIG)
  assert before == (
    (folder / "config.json").stat().st_mtime_ns,
    _contents(folder),
  )


def test_another_config_is_refused_and_nothing_written(tmp_path):
  run_folder.check_identity(tmp_path, _CONFIG)
  before = _contents(tmp_path)
  other = {
    "model": {"width": 16, "dims": [2, 8], "heads": 4},
    "steps": 20,
  }
  with pytest.raises(run_folder.RunFolderError) as caught:
    run_folder.check_identity(tmp_path, other, free_keys=("steps",))
  message = str(caught.value)
  assert "log_every is 5 there and '(not set)' here" in message
  assert "model.heads is '(not set)' there and 4 here" in message
  assert "model.width is 8 there and 16 here" in message
  assert "steps" not in message
  assert "dims" not in message
  assert "\n" not in message
  assert _contents(tmp_path) == before


def test_free_keys_may_differ(tmp_path):
  run_folder.check_identity(tmp_path, _CONFIG)
  before = _contents(tmp_path)
  other = {"model": {"width": 9}, "steps": 20, "log_every": 1}
  free = ("steps", "log_every", "model")
  run_folder.check_identity(tmp_path, other, free_keys=free)
  assert _contents(tmp_path) == before
  with pytest.raises(run_folder.RunFolderError, match="model.width"):
    run_folder.check_identity(tmp_path, other, free_keys=("step", "mod"))


def test_config_is_that_of_the_tables_in_what_is_free(tmp_path):
  run_folder.check_identity(tmp_path, _CONFIG)
  other = {"model": {"width": 16}, "steps": 20}
  run_folder.update_config(tmp_path, other, ("steps", "title"))
  stored = json.loads((tmp_path / "config.json").read_text())
  assert stored == json.loads(json.dumps({**_CONFIG, "steps": 20}))


@pytest.mark.parametrize(
  "text",
  [
    '{"model":',
    "null",
    "[1, 2]",
    "\xff",
    "[" * 100_000,
    '{"a":' * 100_000 + "1" + "}" * 100_000,
    '{"a":' * 90 + "1" + "}" * 90,
  ],
)
def test_damaged_config_is_named_and_stays(tmp_path, text):
  (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
  before = _contents(tmp_path)
  with pytest.raises(
    run_folder.RunFolderError, match="config.json is damaged"
  ) as error:
    run_folder.check_identity(tmp_path, _CONFIG)
  assert "\n" not in str(error.value)
  assert _contents(tmp_path) == before


@pytest.mark.parametrize(
  "text", ["[]", "{", '{"seconds": "long"}', '{"num_starts": null}']
)
def test_damaged_duration_is_told_before_the_work(tmp_path, text):
  (tmp_path / "duration.json").write_text(text)
  with (
    pytest.raises(run_folder.RunFolderError, match="duration.json is damaged"),
    run_folder.timed(tmp_path),
  ):
    pytest.fail("the work was begun")


def test_versions_are_plain_and_complete(tmp_path):
  run_folder.note_versions(tmp_path)
  versions = json.loads((tmp_path / "versions.json").read_text())
  assert set(versions) == {
    "tgmm_jax",
    "git_commit",
    "python",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "system",
    "platform",
    "device_kind",
    "num_devices",
    "num_cores",
    "num_processes",
  }
  assert versions["num_devices"] >= 1
  assert versions["jax"].count(".") >= 2


def test_other_versions_are_told_in_one_line_when_a_run_goes_on(
  tmp_path, caplog
):
  run_folder.note_versions(tmp_path)
  run_folder.note_versions(tmp_path)
  assert not caplog.messages
  file = tmp_path / "versions.json"
  versions = json.loads(file.read_text())
  own = versions["jax"]
  file.write_text(json.dumps(versions | {"jax": "0.1.2"}))
  before = _contents(tmp_path)
  run_folder.note_versions(tmp_path)
  assert caplog.messages == [
    f"{tmp_path}: the run goes on with other versions: jax is '0.1.2' there"
    f" and {own!r} here"
  ]
  assert _contents(tmp_path) == before
  file.write_text("[]")
  with pytest.raises(run_folder.RunFolderError, match="versions.json is dam"):
    run_folder.note_versions(tmp_path)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_of_an_enclosing_repository_is_not_taken(tmp_path, monkeypatch):
  git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x"]
  subprocess.run([*git, "init", "-q"], check=True)
  subprocess.run([*git, "commit", "-qm", "x", "--allow-empty"], check=True)
  installed = tmp_path / "run_folder.py"
  installed.write_text("")
  monkeypatch.setattr(run_folder, "__file__", str(installed))
  assert run_folder._git_commit() is None
  subprocess.run([*git, "add", "run_folder.py"], check=True)
  commit = run_folder._git_commit()
  assert re.fullmatch("[0-9a-f]{40}-dirty", commit)
  monkeypatch.setenv("PATH", "")
  assert run_folder._git_commit() is None


def test_a_disk_with_no_room_for_a_second_checkpoint(tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(
    shutil, "disk_usage", lambda path: usage._replace(free=1999)
  )
  run_folder.check_space(tmp_path, 999)
  with pytest.raises(
    run_folder.RunFolderError, match="has 1,999 bytes free, takes at least 2,0"
  ):
    run_folder.check_space(tmp_path, 1000)


@pytest.mark.parametrize("path", ["gs://bucket/run", "gs:/bucket/run"])
def test_a_bucket_is_no_folder(tmp_path, monkeypatch, path):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(run_folder.RunFolderError, match="has to be mounted"):
    run_folder.make(path)
  assert not list(tmp_path.iterdir())
