"""The cache of compiled programs: where, and that nothing depends on it."""

import os
import subprocess
import sys

import pytest

from tgmm_jax.command_line import programs

CODE = """
from tgmm_jax import command_line
from tgmm_jax.command_line import networks, programs

def run(_):
  programs.keep()
  import jax, jax.numpy as jnp
  print(jax.jit(lambda x: jnp.sin(x) + 1.0)(jnp.zeros(3))[0])

networks.run = run
command_line.main(["networks"])
"""


def start(folder, **more):
  environment = {
    name: value
    for name, value in os.environ.items()
    if name not in ("JAX_COMPILATION_CACHE_DIR", programs.VARIABLE)
    and not name.startswith("JAX_PERSISTENT_CACHE")
  }
  environment |= {"HOME": str(folder), "JAX_PLATFORMS": "cpu"} | more
  environment = {k: v for k, v in environment.items() if v is not None}
  ended = subprocess.run(
    [sys.executable, "-c", CODE],
    capture_output=True,
    text=True,
    env=environment,
  )
  assert ended.returncode == 0, ended.stderr
  assert ended.stdout.strip() == "1.0"
  return ended.stderr


def files_of(folder):
  return [own for own in folder.rglob("*") if own.is_file()]


@pytest.mark.slow
def test_programs_are_kept_and_read_again(tmp_path):
  own = tmp_path / "own"
  assert not start(tmp_path, **{programs.VARIABLE: str(own)})
  kept = files_of(own)
  assert kept
  times = {path: path.stat().st_mtime_ns for path in kept}
  start(tmp_path, **{programs.VARIABLE: str(own)})
  assert times == {path: path.stat().st_mtime_ns for path in kept}
  assert len(files_of(own)) == len(kept)
  # Programs that are damaged are compiled again and kept, with one note.
  for path in kept:
    path.write_bytes(b"damaged")
  notes = start(tmp_path, **{programs.VARIABLE: str(own)})
  assert notes.startswith("note: kept programs in ")
  assert notes.count("\n") == 1
  assert not start(tmp_path, **{programs.VARIABLE: str(own)})


@pytest.mark.slow
def test_nothing_is_kept_where_nothing_can_or_should_be(tmp_path):
  assert not start(tmp_path, **{programs.VARIABLE: ""})
  assert not files_of(tmp_path)
  blocked = tmp_path / "file"
  blocked.write_text("")
  notes = start(tmp_path, **{programs.VARIABLE: str(blocked)})
  assert notes.startswith("note: compiled programs are not kept: ")
  assert notes.count("\n") == 1
  # JAX's own variable comes first.
  start(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "jax"))
  assert not (tmp_path / ".cache").exists()


def test_other_warnings_are_others_affair():
  assert programs.of_warning("points are unlike those") is None
  message = "Error writing persistent compilation cache entry: disk full"
  assert "are not kept: Error writing" in programs.of_warning(message)


def test_the_folder_is_the_users(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  folder = programs.folder_of({})
  assert str(folder).startswith("/home/me/.cache/tgmm_jax/programs-")
  assert folder == programs.folder_of({"XDG_CACHE_HOME": "relative"})
  folder = programs.folder_of({"XDG_CACHE_HOME": "/var/me"})
  assert str(folder).startswith("/var/me/tgmm_jax/programs-")
  folder = programs.folder_of({programs.VARIABLE: "/x", "XDG_CACHE_HOME": "/y"})
  assert str(folder).startswith("/x/programs-")
  assert programs.folder_of({programs.VARIABLE: ""}) is None
