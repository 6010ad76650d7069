"""What holds for every function and file, so that no reader has to look."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(
  path
  for folder in ("tgmm_jax", "experiments")
  for path in (ROOT / folder).rglob("*.py")
)
IDS = [str(path.relative_to(ROOT)) for path in FILES]
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_A_FILE = 400
# Everywhere at the same place: by name.
KEYWORD_ONLY = {"covariance_type", "sample_weight"}


def functions_of(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.FunctionDef):
      yield node


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_functions_and_files_are_short(path):
  assert len(path.read_text().splitlines()) <= MOST_LINES_OF_A_FILE
  for node in functions_of(path):
    length = node.end_lineno - node.lineno + 1
    assert length <= MOST_LINES_OF_A_FUNCTION, node.name


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_types_and_weights_are_passed_by_name(path):
  tree = ast.parse(path.read_text())
  for node in tree.body:
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
      # But for a function that is about one of them.
      positional = {own.arg for own in node.args.args[1:]}
      assert not positional & KEYWORD_ONLY, node.name


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_public_functions_say_what_they_take(path):
  """Every argument of a documented function is in its docstring."""
  tree = ast.parse(path.read_text())
  for node in tree.body:
    if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
      continue
    text = ast.get_docstring(node)
    assert text, node.name
    if "Args:" not in text:
      continue
    arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    for own in arguments:
      assert f"\n    {own.arg}: " in text or f"\n  {own.arg}: " in text, (
        node.name,
        own.arg,
      )
