"""Imports point one way (DESIGN.md), and each library has its place."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Each may import what stands before it, and its own row.
ORDER = [
  ("types",),
  ("gmm", "linalg"),
  ("tasks", "metrics", "spectral_metrics", "solvers"),
  ("estimator_start", "sklearn_base", "gaussian_mixture"),
  ("losses", "constructed", "models"),
  ("optim", "sharding", "run_folder", "tree_digest", "step_metadata")
  + ("checkpoints", "metric_writer", "results", "interrupts"),
  ("pretrained", "probes", "proposals"),
  ("solver_groups", "learners", "fitting"),
  ("train_step",),
  ("train", "evaluate", "spectral_evaluation", "clustering_evaluation"),
  ("figure_style", "figure_panels", "figures", "curve_figures")
  + ("report_tables", "report", "fit_figure"),
  ("__init__", "__main__"),
]
LEVELS = {name: level for level, row in enumerate(ORDER) for name in row}
# What only some modules may import: by package, the files.
PLACES = {
  "orbax": ("checkpoints.py",),
  "tensorboardX": ("metric_writer.py",),
  "matplotlib": ("figures.py", "figure_panels.py", "figure_style.py")
  + ("curve_figures.py", "fit_figure.py", "report.py"),
  "safetensors": ("pretrained.py",),
  "sklearn": ("sklearn_base.py", "image_sources.py"),
  "mlxtend": ("image_sources.py",),
}
NEVER = ("scipy", "torch", "tensorflow", "transformers", "absl")
NEVER += ("ml_collections", "experiments", "tensorly", "pickle")
FILES = sorted((ROOT / "tgmm_jax").rglob("*.py"))


def imported(path):
  """Full names of what a file imports, wherever in it."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path} has a relative import"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
  "path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES]
)
def test_imports_point_one_way(path):
  own = path.relative_to(ROOT / "tgmm_jax").parts[0].removesuffix(".py")
  for name in imported(path):
    package, *rest = name.split(".")
    assert package not in NEVER, f"imports {name}"
    assert path.name in PLACES.get(package, (path.name,)), f"imports {name}"
    if package != "tgmm_jax" or not rest or own == "__init__":
      continue
    assert LEVELS[rest[0]] <= LEVELS[own], f"{own} imports {name}"
    assert {own, rest[0]} != {"solvers", "models"}, f"{own} imports {name}"


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
