"""Imports point one way (docs/architecture.md), each library has its place."""

import ast
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LIBRARY = ROOT / "tgmm_jax"

# Each may import what stands in the rows before it.
ORDER = [
  {"types", "linalg"},
  {"gmm"},
  {"metrics", "solvers", "models", "tasks"},
  {"constructed", "training"},
  {"pretrained"},
  {"fitting", "evaluation"},
  {"figures"},
  {"command_line"},
  {"__init__", "__main__"},
]
# What only some files may import: by package, the files.
PLACES = {
  "orbax": ("training/checkpoints.py",),
  "tensorboardX": ("training/event_files.py",),
  "matplotlib": ("figures/cells.py", "figures/panels.py", "figures/style.py")
  + ("figures/curves.py", "figures/fit.py", "figures/report.py"),
  "safetensors": ("pretrained/stored_params.py", "fitting/saved/files.py"),
  "sklearn": ("fitting/estimator/gaussian_mixture.py",)
  + ("fitting/estimator/door.py", "fitting/estimator/running.py")
  + ("fitting/fitted/as_sklearn.py", "tasks/images/sources.py")
  # For type checkers alone.
  + ("fitting/fitted/record.py",),
  "jinja2": ("figures/report.py",),
  "pandas": ("fitting/tables/text.py", "fitting/tables/reading.py")
  + ("solvers/checks/conversion.py", "fitting/fitted/door.py"),
  "mlxtend": ("tasks/images/sources.py",),
}
NEVER = ("scipy", "torch", "tensorflow", "transformers", "absl")
NEVER += ("ml_collections", "experiments", "tests", "tensorly", "pickle")
FILES = sorted(LIBRARY.rglob("*.py"))
IDS = [str(path.relative_to(LIBRARY)) for path in FILES]


def module_of(path):
  """Dotted name of a file; of a package that of its folder."""
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imported(path):
  """Full names of what a file imports, wherever in it."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path} has a relative import"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def target_of(name):
  """The module of this library that an imported name is, or stands in."""
  return name if name in MODULES else name.rpartition(".")[0]


def own_imports(path):
  """The modules of this library that a file imports."""
  return {
    target_of(name)
    for name in imported(path)
    if name.split(".")[0] == "tgmm_jax"
  }


def top_of(module):
  """The entry at the top of the library that a module stands in."""
  return (module.split(".") + ["__init__"])[1]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_libraries_have_their_places(path):
  for name in imported(path):
    package = name.split(".")[0]
    own = str(path.relative_to(LIBRARY))
    assert package not in NEVER, f"imports {name}"
    assert own in PLACES.get(package, (own,)), f"imports {name}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_point_one_way(path):
  level_of = {name: level for level, row in enumerate(ORDER) for name in row}
  own = top_of(module_of(path))
  for module in own_imports(path):
    other = top_of(module)
    if other != own:
      assert level_of[other] < level_of[own], f"{own} imports {module}"


def test_every_entry_at_the_top_has_its_row():
  entries = {path.stem for path in LIBRARY.iterdir() if path.suffix == ".py"}
  entries |= {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
  assert entries == set().union(*ORDER)
  assert len(entries - {"__init__", "__main__"}) <= 14


def levels(graph):
  """The longest way down from each node of a graph without circles."""
  found = {}

  def visit(node, above):
    assert node not in above, " -> ".join((*above, node))
    if node not in found:
      below = [visit(other, (*above, node)) for other in graph[node]]
      found[node] = 1 + max(below, default=0)
    return found[node]

  for node in graph:
    visit(node, ())
  return found


def graph_of(folder):
  """Imports among the entries of a folder, by their names."""
  prefix = module_of(folder / "__init__.py").count(".") + 1
  graph = {}
  for path in folder.rglob("*.py"):
    parts = module_of(path).split(".")
    if len(parts) == prefix:
      continue  # the face
    others = graph.setdefault(parts[prefix], set())
    for module in own_imports(path):
      below = module.split(".")
      inside = below[:prefix] == parts[:prefix] and len(below) > prefix
      if inside and below[prefix] != parts[prefix]:
        others.add(below[prefix])
  return graph


FOLDERS = sorted({path.parent for path in FILES if path.name == "__init__.py"})


@pytest.mark.parametrize(
  "folder", FOLDERS, ids=[str(path.relative_to(ROOT)) for path in FOLDERS]
)
def test_no_folder_has_a_circle(folder):
  found = levels(graph_of(folder))
  most = {"tgmm_jax": 8, "solvers": 5}.get(folder.name, 7)
  assert max(found.values(), default=0) <= most, found
  if folder.name == "solvers":
    assert len(found) <= 10


def test_a_folder_with_a_face_is_entered_through_it():
  faces = {
    module
    for module, path in MODULES.items()
    if path.name == "__init__.py"
    and module != "tgmm_jax"
    and hasattr(importlib.import_module(module), "__all__")
  }
  assert {"tgmm_jax.solvers.em", "tgmm_jax.pretrained"} <= faces
  for module, path in MODULES.items():
    for other in own_imports(path):
      package = other.rpartition(".")[0]
      is_inside = f"{module}.".startswith(f"{package}.")
      assert package not in faces or is_inside, f"{module} imports {other}"


def test_library_does_not_print_and_has_no_module_named_utils():
  for path in FILES:
    assert "util" not in path.stem
    for node in ast.walk(ast.parse(path.read_text())):
      is_name = isinstance(node, ast.Name)
      assert not (is_name and node.id == "print"), f"{path}:{node.lineno}"


def test_only_the_factory_takes_modules_apart():
  for path in FILES:
    if path.name != "factory.py":
      text = path.read_text()
      for name in ("nnx.split", "nnx.merge", "nnx.jit"):
        assert name not in text, path
