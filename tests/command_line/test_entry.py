"""How commands end: a status, and a line where they cannot go on."""

import subprocess
import sys

import pytest

from tests.command_line import started
from tgmm_jax import command_line
from tgmm_jax.command_line import fit


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["fit"], "the following arguments are required: points"),
    (["fit", "a.csv", "--seed", str(2**70)], "--seed is '1180591620717411303"),
    (["fit", "a.csv", "--seed=-1"], "--seed is '-1', takes an integer from 0"),
    (["fit", "a.csv", "--restarts=x"], "--restarts is 'x', takes an integer"),
    (["fit", "a.csv", "--max-components=0"], "--max-components is '0', takes"),
    (["fit", "a.csv", "--components=2.0"], "--components is '2.0', takes an"),
    (["fit", "a.csv", "--covariance=x"], "--covariance invalid choice: 'x'"),
    (["fit", "a.csv", "--missing=x"], "--missing invalid choice: 'x'"),
    (["fit", "a.csv", "--columns=,"], "--columns is ',', takes names or num"),
    (["fit", "a.csv", "--out=x"], "unrecognized arguments: --out=x"),
    (["fot"], "COMMAND invalid choice: 'fot'"),
    ([], "the following arguments are required: COMMAND"),
    (["fit", "no.csv"], "No such file or directory: 'no.csv'"),
  ],
)
def test_what_cannot_be_is_one_line(arguments, message, capsys):
  assert command_line.main(arguments) == 1
  captured = capsys.readouterr()
  assert captured.err.startswith("error: ")
  assert message in captured.err
  assert captured.err.count("\n") == 1
  assert not captured.out


@pytest.mark.parametrize(
  ("error", "status", "message"),
  [
    (ValueError("two\nlines"), 1, "error: two lines\n"),
    (MemoryError("3 TB"), 1, "error: there is not enough memory (3 TB)\n"),
    (RuntimeError("RESOURCE_EXHAUSTED: x"), 1, "error: there is not enough"),
    (KeyboardInterrupt(), 130, "interrupted\n"),
  ],
)
def test_errors_of_a_command(error, status, message, monkeypatch, capsys):
  def run(_):
    raise error

  monkeypatch.setattr(fit, "run", run)
  assert command_line.main(["fit", "a.csv"]) == status
  assert capsys.readouterr().err.startswith(message)


def test_errors_of_the_code_are_not_hidden(monkeypatch):
  def run(_):
    raise RuntimeError("a mistake")

  monkeypatch.setattr(fit, "run", run)
  with pytest.raises(RuntimeError, match="a mistake"):
    command_line.main(["fit", "a.csv"])


def test_help_and_a_missing_file_import_neither_jax_nor_pandas(tmp_path):
  code = (
    "import sys; from tgmm_jax import command_line\n"
    "try: command_line.main(sys.argv[1:])\n"
    "except SystemExit: pass\n"
    "print(sorted({'jax', 'pandas', 'rich', 'numpy'} & set(sys.modules)))"
  )
  for arguments in (["fit", "--help"], ["fit", "a", "--seed=x"]):
    ended = subprocess.run(
      [sys.executable, "-c", code, *arguments],
      capture_output=True,
      text=True,
      cwd=tmp_path,
    )
    assert ended.stdout.strip().split("\n")[-1] == "[]", ended.stderr


def test_help_of_every_command(capsys):
  for name in ("fit", "predict", "networks"):
    with pytest.raises(SystemExit) as ended:
      command_line.main([name, "--help"])
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_error():
  ended = started.run("networks", text=False)
  assert ended.returncode == 0
  process = subprocess.Popen(
    [sys.executable, "-m", "tgmm_jax", "networks"],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  process.stdout.close()
  assert b"Traceback" not in process.stderr.read()
  process.wait()
