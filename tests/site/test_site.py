"""The site builds strictly, fetches nothing, and has every public name."""

import html.parser
import importlib
import pathlib
import re
import subprocess
import sys
import zlib

import pytest

pytest.importorskip("mkdocs", reason="takes the extra docs")

ROOT = pathlib.Path(__file__).parents[2]
FACES = (
  "tgmm_jax",
  "tgmm_jax.fitting",
  "tgmm_jax.gmm",
  "tgmm_jax.pretrained",
  "tgmm_jax.solvers.em",
  "tgmm_jax.solvers.spectral",
  "tgmm_jax.tasks.images",
)
# What a page makes a browser fetch, by the tag and its attribute.
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  folder = tmp_path_factory.mktemp("site")
  command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
  ended = subprocess.run(
    [*command, "--quiet", "--site-dir", str(folder)],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert ended.returncode == 0, ended.stdout + ended.stderr
  return folder


class _Fetched(html.parser.HTMLParser):
  """What a page fetches by itself; links are for readers to follow."""

  def __init__(self, text):
    super().__init__()
    self.found = []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    own = dict(attrs)
    is_told_only = tag == "link" and own.get("rel") in ("prev", "next")
    if tag in FETCHED and not is_told_only:
      self.found.append(own.get(FETCHED[tag]) or "")
    # What Material's script would fetch from elsewhere to draw it.
    assert "mermaid" not in own.get("class", "").split()


def test_no_page_fetches_from_another_host(site):
  pages = list(site.rglob("*.html"))
  assert len(pages) > 80
  for path in pages:
    found = _Fetched(path.read_text()).found
    assert len(found) > 5
    for target in found:
      assert not re.match(r"\w+:|//", target), (path, target)
      if path.name != "404.html":
        there = path.parent / target.partition("#")[0].partition("?")[0]
        assert there.exists(), (path, target)
  for path in site.rglob("*.css"):
    assert not re.search(
      r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text()
    )


def test_light_and_dark_follow_the_readers_system(site):
  text = (site / "index.html").read_text()
  for scheme, name in (("light", "default"), ("dark", "slate")):
    media = f'data-md-color-media="(prefers-color-scheme: {scheme})"'
    assert f'{media} data-md-color-scheme="{name}"' in text


def _names_in_the_reference(site):
  """Of what has a place of its own, by Sphinx's inventory."""
  content = (site / "objects.inv").read_bytes()
  lines = zlib.decompress(content.split(b"\n", 4)[4]).decode().splitlines()
  return {line.split(" ")[0] for line in lines}


def test_the_reference_has_every_public_name(site):
  names = _names_in_the_reference(site)
  for face in FACES:
    module = importlib.import_module(face)
    for name in module.__all__:
      value = getattr(module, name)
      if callable(value) or hasattr(value, "__file__"):
        assert {f"{face}.{name}", _place_of(value)} & names, (face, name)
  # What an estimator has of a base of its own counts as well.
  page = (site / "reference" / "fitting.html").read_text()
  assert 'GaussianMixture.partial_fit"' in page


def _place_of(value):
  """The name by which a module, function or class is known itself."""
  if hasattr(value, "__file__"):
    return value.__name__
  return f"{value.__module__}.{value.__qualname__}"
