"""Ablation: width and depth of the paper's network.

  python -m experiments.main --config=experiments/ablation_backbone.py:quick

`tgmm` at d = 2 with several widths at the paper's depth, and several depths at
its width, each trained twice: for as many steps as the paper's network, and for
as many operations (steps are divided by what one step costs more).

No variant: width 64 ... 512, depth 3 ... 24. An accelerator's work. `:quick`:
small networks, minutes on 2 CPU cores. `:smoke`: seconds, for the tests.
"""

import functools
from typing import NamedTuple

import ml_collections

from experiments import mixtures, results_pages
from experiments.runner import fields
from tgmm_jax.evaluation import results
from tgmm_jax.figures import curves as curve_figures

VARIANTS = ("", "quick", "smoke")


class Grid(NamedTuple):
  """What is varied: widths at one depth, and depths at one width."""

  widths: tuple[int, ...]
  depths: tuple[int, ...]
  width: int
  depth: int

  @property
  def sizes(self) -> list[tuple[int, int]]:
    """Pairs of width and depth, each once."""
    pairs = [(width, self.depth) for width in self.widths]
    pairs += [(self.width, depth) for depth in self.depths]
    return list(dict.fromkeys(pairs))


PAPER = Grid((64, 128, 256, 512), (3, 6, 12, 24), 128, 12)
SMALL = Grid((16, 32, 64), (1, 3, 6), 32, 3)
TINY = Grid((8, 16), (1,), 8, 1)

sweep = mixtures.sweep

CONCLUSION = (
  "For equally many steps the widest and the deepest network have the least"
  " error at every K, though not every step pays: width 16 beats 32 at K = 3,"
  " and depth 1 beats 3 at K = 4."
  " For equally many operations the narrowest network, trained for the longest,"
  " is best at every K, and depth does not pay: from K = 4 on the deepest is"
  " the worst of the three, before it they differ little; one seed of each."
)
_EQUAL = {"equal steps": "", "equal operations": "-equal"}
_SIZES = ((16, 3), (32, 3), (64, 3), (32, 1), (32, 6))
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Squared error of the means at d = 2, N = 128, {count} tasks in each"
      " cell, with its standard error; equal to what width 32 and depth 3"
      " take.",
      {
        f"width {width}, depth {depth}, {kind}": {
          "solver": f"tgmm-w{width}-l{depth}{suffix}"
        }
        for kind, suffix in _EQUAL.items()
        for width, depth in _SIZES
        if not suffix or (width, depth) != (32, 3)
      },
      results_pages.across("num_components", (2, 3, 4, 5), "K = {}"),
      metric="l2_error",
    ),
    figures={"sizes": "Error of the means against width and depth"},
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = mixtures.get_config()
  config.title = "Ablation: width and depth"
  config.question = (
    "How much does a wider or deeper backbone help, for equally many steps and"
    " for equally many operations?"
  )
  config.variant = variant
  config.evaluation.dims = (2,)
  grid = {"": PAPER, "quick": SMALL, "smoke": TINY}[variant]
  for width, depth in grid.sizes:
    ratio = _cost(grid.width, grid.depth) / _cost(width, depth)
    for name in (f"tgmm-w{width}-l{depth}", f"tgmm-w{width}-l{depth}-equal"):
      is_equal = name.endswith("-equal")
      if is_equal and ratio == 1.0:
        continue
      run = mixtures.tgmm_run(2)
      if variant == "quick":
        mixtures.make_small(run, num_steps=600)
      run.solver = name
      run.model.width, run.model.num_layers = width, depth
      if is_equal:
        _scale_steps(run, ratio)
      config.runs[name] = run
  if variant == "quick":
    config.evaluation.num_tasks = 512
  elif variant == "smoke":
    mixtures.make_smoke(config)
    for name, run in config.runs.items():
      run.model.width, run.model.num_layers = _size_of(name)
  return config


def _size_of(name):
  width, depth = name.split("-")[1:3]
  return int(width[1:]), int(depth[1:])


def _cost(width, depth, num_points=96):
  """Multiplications of one step a point: maps of D by D, and attention."""
  return depth * (12 * width**2 + 2 * num_points * width)


def _scale_steps(run, ratio):
  """So many times the steps, in whole calls."""
  calls = max(round(ratio * run.num_steps / run.steps_per_call), 1)
  run.num_steps = calls * run.steps_per_call
  run.checkpoint_every = run.num_steps


def _draw(config, rows):
  """Error against width and against depth."""
  grid = {"": PAPER, "quick": SMALL, "smoke": TINY}[config.variant]
  usual = (grid.width, grid.depth)
  curves = []
  for row in rows:
    is_network = row.solver.startswith("tgmm-w") and "+" not in row.solver
    if not is_network or row.metric != "l2_error":
      continue
    width, depth = size = _size_of(row.solver)
    is_equal = row.solver.endswith("-equal")
    # The network that both series share is trained once and is in both.
    kinds = ["equal steps"] if not is_equal else []
    kinds += ["equal operations"] if is_equal or size == usual else []
    places = [("width", width)] if depth == grid.depth else []
    places += [("depth", depth)] if width == grid.width else []
    curves += [
      results.CurveRow(
        *(f"{study}, {kind}", "l2_error", f"K = {row.num_components}"),
        float(x),
        *(row.mean, row.standard_error, row.count, row.failures),
      )
      for kind in kinds
      for study, x in places
    ]
  panels = [
    curve_figures.Panel(
      *(f"{study}, {kind}", "l2_error", f"{study.capitalize()}, {kind}"),
      *(study, "squared error of the means"),
      is_log_x=True,
    )
    for study in ("width", "depth")
    for kind in ("equal steps", "equal operations")
  ]
  if not curves:
    return {}
  figure = curve_figures.draw(curves, panels, num_columns=2)
  return {"Error of the means against width and depth": ("sizes", figure)}


experiment = functools.partial(mixtures.experiment, draw_more=_draw)
