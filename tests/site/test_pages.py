"""Pages lead to what people look for; their commands are those there are."""

import ast
import importlib
import importlib.util
import pathlib
import posixpath
import re
import shlex

import pytest

from tgmm_jax.command_line import entry

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted(
  [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
  + [ROOT / "experiments" / "README.md"]
)
IDS = [str(path.relative_to(ROOT)) for path in PAGES]
# What a new reader looks for, at most two clicks away from the README.
SOUGHT = {
  "fit a CSV": "docs/command_line.md",
  "fit 10,000 mixtures": "docs/fit_many_mixtures.md",
  "what the papers' claims come to": "docs/papers.md",
  "train on a law of one's own": "docs/train_and_ship_a_network.md",
  "run on a TPU VM": "docs/tpu.md",
  "cite": "CITATION.cff",
  "when to trust a network": "docs/when_to_trust_a_network.md",
  "what came out of a question": "docs/results/rq1.md",
}
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def links(path):
  """The files that a page leads to, by their paths in the repository."""
  folder = path.relative_to(ROOT).parent
  for link in re.findall(r"\]\(\s*([^)#\s]+)", path.read_text()):
    if "://" not in link:
      yield posixpath.normpath(posixpath.join(folder, link))


def test_two_clicks_lead_from_the_readme_to_what_people_look_for():
  first = set(links(ROOT / "README.md"))
  second = {
    link
    for name in first
    if name.endswith(".md")
    for link in links(ROOT / name)
  }
  for wish, name in SOUGHT.items():
    assert name in first | second, wish
    assert (ROOT / name).exists()


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_pages_name_the_commands_that_make_their_figures(path):
  """On the page itself or, of the README, on one that it leads to."""
  text = path.read_text()
  told = text
  if path == ROOT / "README.md":
    told += (ROOT / "docs" / "results" / "frontier.md").read_text()
  for figure in re.findall(r"!\[[^\]]*\]\(\s*([^)\s]+)\)", text):
    parts = pathlib.Path(figure).parts
    if "quick" in parts:
      question = parts[parts.index("quick") + 1]
      file = r"--config=experiments/(\w+)\.py:(\w+)"
      made = {
        f"{a}_{b}" if b != "quick" else a for a, b in re.findall(file, told)
      }
      assert question in made, figure
    else:
      assert re.search(r"python -m\s+[\w.]*(pictures|benchmarks)\.\w+", told)


def blocks(path, *languages):
  """The blocks of code of a page."""
  for language, code in _BLOCK.findall(path.read_text()):
    if language in languages:
      yield code


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_python_on_pages_runs_or_at_least_compiles(path):
  for code in blocks(path, "python"):
    if not code.startswith(">>>"):  # else it is run as a doctest
      ast.parse(code)
    elif path.parent == ROOT and path.name != "README.md":
      pytest.fail("only README.md and docs are run as doctests")


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_commands_on_pages_are_those_there_are(path):
  for code in blocks(path, "bash"):
    for line in code.replace("\\\n", " ").splitlines():
      for command in line.partition("#")[0].split("&&"):
        _check(shlex.split(command))


def _check(words):
  """Whether a command names what there is: modules, configs, arguments."""
  if words[:2] == ["python", "-m"]:
    words = words[2:]
    assert importlib.util.find_spec(words[0]), words
  elif words[:1] == ["tgmm-jax"]:
    words = ["tgmm_jax", *words[1:]]
  if words[:1] == ["tgmm_jax"]:
    entry._parser().parse_args(words[1:])
  for word in words:
    name, _, value = word.partition("=")
    if name == "--config" and "NAME" not in value and value != "FILE:VARIANT":
      file, _, variant = value.partition(":")
      module = importlib.import_module(f"experiments.{pathlib.Path(file).stem}")
      assert pathlib.Path(file) == pathlib.Path(module.__file__).relative_to(
        ROOT
      )
      assert variant in module.VARIANTS, words
