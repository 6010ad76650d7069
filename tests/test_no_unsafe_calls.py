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
MODULES |= {"yaml", "code", "codeop"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {"unsafe_load", "system", "popen", "read_pickle", "to_pickle"}
# Of whom a loaded file can be a program.
LOADERS = {"joblib", "torch"}
KEYWORDS = {"allow_pickle", "shell"}


def unsafe_in(text):
  """Names of what could run data, with their lines."""
  for node in ast.walk(ast.parse(text)):
    names = set()
    if isinstance(node, ast.Import):
      names = {alias.name.split(".")[0] for alias in node.names} & MODULES
    elif isinstance(node, ast.ImportFrom):
      module = (node.module or "").split(".")[0]
      of_loader = {alias.name for alias in node.names} & {"load"}
      names = {module} & MODULES | (of_loader if module in LOADERS else set())
    elif isinstance(node, ast.Call):
      names = unsafe_in_call(node)
    for name in names:
      yield name, node.lineno


def unsafe_in_call(call):
  names, function = set(), call.func
  if isinstance(function, ast.Name):
    names = {function.id} & CALLS
  elif isinstance(function, ast.Attribute):
    names = {function.attr} & ATTRIBUTES
    of = function.value
    if isinstance(of, ast.Name) and of.id in LOADERS:
      names |= {function.attr} & {"load"}
  for own in call.keywords:
    is_off = isinstance(own.value, ast.Constant) and own.value.value is False
    if own.arg in KEYWORDS and not is_off:
      names.add(own.arg)
  return names


def test_no_file_can_run_data():
  found = {
    str(path.relative_to(ROOT)): list(unsafe_in(path.read_text()))
    for path in FILES
  }
  assert len(found) > 100
  assert {path: own for path, own in found.items() if own} == {}


@pytest.mark.parametrize(
  "text",
  [
    "import pickle",
    "from joblib import load",
    "def f():\n  import yaml.reader",
    "torch.load(path)",
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
