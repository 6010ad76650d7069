"""Data are never run: no file of this project can make one a program."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(
  path
  for folder in ("tgmm_jax", "experiments")
  for path in (ROOT / folder).rglob("*.py")
)
MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal"}
MODULES |= {"joblib", "torch", "yaml", "code", "codeop"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {"unsafe_load", "system", "popen", "read_pickle", "to_pickle"}
KEYWORDS = {"allow_pickle", "shell"}
# joblib only tells the number of cores, and runs nothing.
ALLOWED = {("solvers/execution/cores.py", "joblib")}


def unsafe_in(text):
  """Names of what could run data, with their lines."""
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.Import):
      names = {alias.name.split(".")[0] for alias in node.names} & MODULES
    elif isinstance(node, ast.ImportFrom):
      names = {(node.module or "").split(".")[0]} & MODULES
    elif isinstance(node, ast.Call):
      function = node.func
      names = {function.id} & CALLS if isinstance(function, ast.Name) else set()
      if isinstance(function, ast.Attribute):
        names = {function.attr} & ATTRIBUTES
      names |= {
        own.arg
        for own in node.keywords
        if own.arg in KEYWORDS
        and not (
          isinstance(own.value, ast.Constant) and own.value.value is False
        )
      }
    else:
      continue
    for name in names:
      yield name, node.lineno


@pytest.mark.parametrize(
  "path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES]
)
def test_no_file_can_run_data(path):
  found = {
    (name, line)
    for name, line in unsafe_in(path.read_text())
    if (
      path.relative_to(ROOT / path.relative_to(ROOT).parts[0]).as_posix(),
      name,
    )
    not in ALLOWED
  }
  assert not found


@pytest.mark.parametrize(
  "text",
  [
    "import pickle",
    "from joblib import load",
    "def f():\n  import torch.nn",
    "eval(text)",
    "np.load(path, allow_pickle=True)",
    "np.load(path, allow_pickle=is_ours)",
    "subprocess.run(text, shell=True)",
    "os.system(text)",
    "pd.read_pickle(path)",
  ],
)
def test_what_would_is_seen(text):
  assert list(unsafe_in(text))


def test_what_a_command_says_of_its_config():
  """`--config` is code: that is told, and a stored run is never code."""
  text = (ROOT / "experiments" / "main.py").read_text()
  assert "The config file is Python code and is executed." in text
