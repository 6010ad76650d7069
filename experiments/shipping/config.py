"""What the questions of the shipped networks share: one refiner, K = 1 to 5."""

import ml_collections

from experiments import mixtures, results_pages
from experiments.runner import fields
from tgmm_jax import gmm

VARIANTS = ("", "shipped", "quick", "smoke")
_NUM_COMPONENTS = (1, 2, 3, 4, 5)

# Of networks that read all coordinates, so that d has a limit.
ALL_COORDINATES = {
  "dims": (1, 2, 3, 4, 5, 6, 8),
  "batch_sizes": (3, 10, 5, 4, 3, 3, 4),
  "evaluated_dims": (2, 8),
}


def get_config(
  variant: str,
  *,
  covariance_type: str,
  dims: tuple[int, ...],
  batch_sizes: tuple[int, ...],
  evaluated_dims: tuple[int, ...],
  num_steps: int,
) -> ml_collections.ConfigDict:
  """The config of a variant; title and question are still empty.

  The network of a type has its name; `:shipped` trains nothing and gives the
  numbers on its card.

  Args:
    variant: one of `VARIANTS`.
    covariance_type: of the tasks.
    dims: d of the tasks in a batch.
    batch_sizes: tasks of each of them.
    evaluated_dims: d of the cells.
    num_steps: of the training; `:quick` has an eighth, in thousands.
  """
  fields.check_variant(variant, VARIANTS)
  config = mixtures.get_config()
  config.variant = variant
  config.tasks.covariance_type = covariance_type
  config.tasks.num_components = _NUM_COMPONENTS
  config.tasks.min_points = 16
  config.evaluation.num_components = _NUM_COMPONENTS
  config.evaluation.dims = evaluated_dims
  config.evaluation.num_points = (128,)
  if variant != "quick":
    config.evaluation.num_points = (16, 128, 1024)
  config.evaluation.num_tasks = 640
  # Peers are in RQ1's table (`rq1.py:pretrained`) and on the frontier.
  config.evaluation.with_baselines = False
  if variant == "shipped":
    config.evaluation.with_pretrained = covariance_type
    return config
  run = mixtures.refiner_run()
  if variant == "quick":
    num_steps = num_steps // 8_000 * 1_000
  run.solver = "pretrained"
  run.dims = dims
  run.batch_sizes = batch_sizes
  mixtures.make_small(run, num_steps=num_steps)
  run.checkpoint_every = min(run.num_steps, 10_000) // 2
  frame = gmm.kind_of(covariance_type).frame
  if frame in ("similarity", "linear"):
    # Points without a unit have no origin that a prior could be centred at.
    run.model.origin_rate = 0.0
  config.runs.refiner = run
  if variant == "smoke":
    mixtures.make_smoke(config)
  if frame in ("axes", "linear"):
    run.model.rank = max(run.dims)
  return config


_VIEWS = "pretrained-x8+em5"
_LINES = {
  "one forward pass": "pretrained",
  "5 EM steps": "pretrained+em5",
  "8 views, 5 EM steps": _VIEWS,
}


def pages(
  conclusion: str, dims: tuple[int, ...]
) -> dict[str, results_pages.Page]:
  """The page of `:shipped`, which trains nothing.

  Args:
    conclusion: what came out.
    dims: d of the cells.
  """
  return {
    "shipped": results_pages.Page(
      conclusion,
      _table(dims, (16, 128, 1024)),
      figures={"num_points": "Error of the means against N"},
    ),
  }


def _table(dims, sizes):
  """Solvers at each N by d and K."""
  counts = (2, 3, 5) if len(dims) < 3 else (2, 5)
  return results_pages.cells(
    "Squared error of the means, {count} tasks in each cell, with its standard"
    " error.",
    {
      f"N = {size}, {head}": {"solver": solver, "num_points": size}
      for size in sizes
      for head, solver in _LINES.items()
    },
    {
      f"d = {dim}, K = {count}": {"dim": dim, "num_components": count}
      for dim in dims
      for count in counts
    },
    metric="l2_error",
  )
