"""What MkDocs is told beyond `mkdocs.yml`: pages and links outside of `docs`.

The site has the layout of the repository, with `docs` as its root. Pages are
written for readers of files: their links lead from file to file. What they lead
to outside of `docs` (other pages, figures, tables, configs) becomes part of the
site, and a link that leads nowhere fails a strict build.
"""

import pathlib
import posixpath
import re

from mkdocs.structure import files as mkdocs_files

ROOT = pathlib.Path(__file__).parents[2]
_LINK = re.compile(r"(\]\(\s*)([^)#\s]+)([^)]*\))")
_FENCE = re.compile(r"^```", re.MULTILINE)
_OUTSIDE = re.compile(r"\w+:|/|#")


def on_config(config):
  """The results have a page for each question: all that are there."""
  for section in config.nav:
    if "Results" in section:
      found = sorted((ROOT / "docs" / "results").glob("*.md"))
      section["Results"] += [f"results/{path.name}" for path in found]
  return config


def on_files(files, config):
  """Adds what the pages lead to and `docs` has not."""
  waiting = [file.src_uri for file in files.documentation_pages()]
  waiting += [uri for uri in _named(config.nav) if uri not in waiting]
  done = set()
  while waiting:
    uri = waiting.pop()
    if uri in done:
      continue
    done.add(uri)
    path = ROOT / _path_of(uri)
    if files.get_file_from_path(uri) is None:
      files.append(_file(config, uri, path))
    if path.suffix == ".md" and path.exists():
      targets = _targets(path)
      waiting += [_uri_of(own) for own in targets if (ROOT / own).is_file()]
  return files


def on_page_markdown(markdown, page, config, files):
  """Links lead to where things stand on the site; prompts are no input."""
  parts = _FENCE.split(markdown)
  # Every second part is within a fence.
  parts[::2] = [_with_links(part, page.file.src_uri) for part in parts[::2]]
  parts[1::2] = [_shown(part) for part in parts[1::2]]
  return "```".join(parts)


def _named(nav):
  """The pages that the navigation names."""
  if isinstance(nav, str):
    yield nav
  elif isinstance(nav, dict):
    yield from _named(list(nav.values()))
  else:
    for entry in nav:
      yield from _named(entry)


def _path_of(uri):
  """Of a file of the site, the file in the repository that it shows."""
  if (ROOT / "docs" / uri).exists():
    return f"docs/{uri}"
  source = uri.removesuffix(".md")
  return source if uri.endswith(".py.md") else uri


def _uri_of(path):
  """Of a file in the repository, the file of the site that shows it."""
  if path.startswith("docs/"):
    return path.removeprefix("docs/")
  return f"{path}.md" if path.endswith(".py") else path


def _file(config, uri, path):
  """A file of the site that is none in `docs`."""
  if uri.endswith(".py.md"):
    title = path.relative_to(ROOT)
    content = f"# `{title}`\n\n```python\n{path.read_text()}```\n"
    content = f"---\nsearch:\n  exclude: true\n---\n\n{content}"
    return mkdocs_files.File.generated(
      config,
      uri,
      content=content,
      inclusion=mkdocs_files.InclusionLevel.NOT_IN_NAV,
    )
  return mkdocs_files.File.generated(config, uri, abs_src_path=str(path))


def _targets(path):
  """The files that a page leads to, by their paths in the repository."""
  folder = path.relative_to(ROOT).parent
  for part in _FENCE.split(path.read_text())[::2]:
    for _, link, _ in _LINK.findall(part):
      if not _OUTSIDE.match(link):
        yield posixpath.normpath(posixpath.join(folder, link))


def _with_links(text, uri):
  """Text with its links led from file of the site to file of the site."""
  folder = posixpath.dirname(_path_of(uri))

  def led(match):
    before, link, after = match.groups()
    if _OUTSIDE.match(link):
      return match.group()
    target = _uri_of(posixpath.normpath(posixpath.join(folder, link)))
    here = posixpath.dirname(uri) or "."
    return f"{before}{posixpath.relpath(target, here)}{after}"

  return _LINK.sub(led, text)


def _shown(fenced):
  """A block of code: a session at a prompt is coloured as one.

  The empty line at its end is for doctest, which takes all up to it for
  output.
  """
  name, _, code = fenced.partition("\n")
  if code.startswith(">>>"):
    return f"pycon\n{code.rstrip()}\n"
  return fenced
