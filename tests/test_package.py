"""What is published: one version, one author, a light import, a command."""

import ast
import configparser
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def metadata():
  parser = configparser.ConfigParser()
  parser.read(ROOT / "setup.cfg")
  return parser


def test_the_version_and_the_authors_are_the_same_everywhere(metadata):
  version, author = (metadata["metadata"][key] for key in ("version", "author"))
  citation = (ROOT / "CITATION.cff").read_text()
  assert f"\nversion: {version}\n" in citation
  assert f"\nauthors:\n  - name: {author}\n" in citation
  page = (ROOT / "docs" / "cite.md").read_text().replace("\\_", "_")
  assert f"version = {{{version}}}" in page
  assert f"author = {{{{{author}}}}}" in page
  changes = (ROOT / "CHANGELOG.md").read_text()
  assert re.search(r"^## ([\d.]+)", changes, re.MULTILINE)[1] == version
  assert author in (ROOT / "mkdocs.yml").read_text()


def test_the_console_script_is_the_command(metadata):
  script = metadata["options.entry_points"]["console_scripts"].strip()
  name, place = script.split(" = ")
  module, function = place.split(":")
  assert name == "tgmm-jax"
  assert getattr(importlib.import_module(module), function).__module__ == (
    "tgmm_jax.command_line.entry"
  )


def test_the_type_marker_is_part_of_the_package(metadata):
  assert metadata["options.package_data"]["tgmm_jax"] == "py.typed"
  assert (ROOT / "tgmm_jax" / "py.typed").exists()


def test_what_the_site_takes_is_in_both_extras(metadata):
  """So that the tests of the site are not left out."""
  extras = metadata["options.extras_require"]
  assert set(extras["docs"].split("\n")) <= set(extras["test"].split("\n"))


def test_importing_the_package_imports_no_other_one():
  code = "import sys; before = set(sys.modules); import tgmm_jax\n"
  code += "print(*sorted(set(sys.modules) - before))"
  ended = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
  )
  own = ended.stdout.split()
  assert "tgmm_jax" in own, ended.stderr
  assert not {name for name in own if name.startswith("tgmm_jax.")}
  assert {name.split(".")[0] for name in own} <= (
    {"tgmm_jax"} | sys.stdlib_module_names
  )


@pytest.mark.parametrize("name", ["tgmm_jax", "tgmm_jax.fitting"])
def test_lazy_faces_tell_type_checkers_what_they_offer(name):
  """What is imported for those alone is what is there at first use."""
  face = importlib.import_module(name)
  tree = ast.parse(pathlib.Path(face.__file__).read_text())
  told = {}
  for node in ast.walk(tree):
    is_checking = isinstance(node, ast.If) and (
      getattr(node.test, "id", None) == "TYPE_CHECKING"
    )
    for own in node.body if is_checking else ():
      if isinstance(own, ast.ImportFrom):
        for alias in own.names:
          told[alias.asname or alias.name] = (own.module, alias.name)
  assert set(told) == set(face.__all__)
  for offered, (module, own) in told.items():
    place = getattr(importlib.import_module(module), own)
    assert getattr(face, offered) is place
