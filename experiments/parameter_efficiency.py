"""How many parameters more does a further task cost?

  python -m experiments.main --config=experiments/parameter_efficiency.py:quick

One backbone serves s numbers of components; per task are a row of the
embedding of K and a readout, O(s d D) in all (appendix B of arXiv 2505.11918).
Nothing is trained: the networks are built and counted, the paper's at d = 2, 8,
32 and 128 and s = 1 ... 8, and held against the formula.
"""

import functools

import jax
import ml_collections

from experiments import results_pages
from experiments.runner import fields, studies
from tgmm_jax.evaluation import results
from tgmm_jax.figures import curves as curve_figures
from tgmm_jax.models import factory, parameters, tgmm

VARIANTS = ("", "quick", "smoke")

sweep = studies.sweep

CONCLUSION = (
  "The counts are the formula's to the last parameter; the shared part hardly"
  " depends on d and not on s."
  " What is per task grows faster than s, since every readout is as large as"
  " that of the largest K, but even for eight numbers of components at d = 128"
  " it is less than a tenth of all."
)
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Parameters that all tasks share, and parameters per task for s numbers"
      " of components; `predicted` is the formula.",
      results_pages.series(
        *("d = 2", "d = 2 (predicted)", "d = 8", "d = 8 (predicted)"),
        *("d = 32", "d = 32 (predicted)", "d = 128", "d = 128 (predicted)"),
      ),
      {"shared": {"metric": "parameters shared", "x": 1.0}}
      | results_pages.across(
        "x", (1.0, 2.0, 4.0, 8.0), "s = {:g}", metric="parameters per task"
      ),
    ),
    figures={"parameters": "Parameters shared and per task, and the formula"},
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant; they differ in the sizes only."""
  fields.check_variant(variant, VARIANTS)
  config = studies.get_config()
  config.title = "Parameter efficiency"
  config.question = (
    "How many parameters does one network for s numbers of components share,"
    " and how many are per task?"
  )
  config.variant = variant
  config.studies.parameters = ml_collections.ConfigDict(
    {
      "dims": (2, 8, 32, 128),
      "num_tasks": 8,  # s = 1 ... this
      "width": 128,  # D
      "num_layers": 12,  # L
    }
  )
  if variant == "smoke":
    config.studies.parameters.update(dims=(2,), num_tasks=2, width=8)
    config.studies.parameters.num_layers = 1
  return config


def formula(dim: int, width: int, num_tasks: int, embedding_width: int) -> int:
  """Parameters per task: s times an embedding, K queries and a linear map.

  All readouts are padded to the largest K, s + 1, since K starts at 2.
  """
  size = num_tasks + 1
  readout = size * width + (width + 1) * (size + dim)
  return num_tasks * (embedding_width + readout)


def _measure(settings, seed, on_step):
  """Counted parameters of every network, and those of the formula."""
  rows = []
  for done, dim in enumerate(settings.dims):
    for num_tasks in range(1, settings.num_tasks + 1):
      model_config = tgmm.TGMMConfig(
        dim=dim,
        num_components=tuple(range(2, num_tasks + 2)),
        width=settings.width,
        num_layers=settings.num_layers,
      )
      params = jax.eval_shape(
        factory.build(model_config).init, jax.random.key(seed)
      )
      counts = parameters.count(params)
      expected = formula(
        dim, settings.width, num_tasks, model_config.embedding_width
      )
      point = functools.partial(
        _point, x=num_tasks, metric="parameters per task"
      )
      rows += [
        point(series=f"d = {dim}", value=counts.per_task),
        point(series=f"d = {dim} (predicted)", value=expected),
        _point(
          f"d = {dim}", num_tasks, counts.shared, metric="parameters shared"
        ),
      ]
    on_step(done + 1, len(settings.dims))
  return rows


def _point(series, x, value, *, metric):
  return results.CurveRow(
    *("parameters", metric, series, float(x)),
    *(float(value), float("nan"), 1, 0),
  )


def _draw(rows):
  panels = [
    curve_figures.Panel(
      *("parameters", metric, metric.capitalize()),
      *("s, numbers of components served", "parameters"),
    )
    for metric in ("parameters per task", "parameters shared")
  ]
  return curve_figures.draw(rows, panels)


def _tabulate(rows):
  """By d: shared, then per task for each s, and its largest share."""
  table = {}
  for row in rows:
    if row.series.endswith("(predicted)"):
      continue
    line = table.setdefault(row.series, {})
    if row.metric == "parameters shared":
      line["shared"] = int(row.value)
    else:
      line[f"s = {row.x:.0f}"] = int(row.value)
  for line in table.values():
    *_, last = (value for name, value in line.items() if name != "shared")
    line["share of all"] = f"{last / (last + line['shared']):.1%}"
  return table


STUDIES = {
  "parameters": studies.Study(
    "Parameters shared and per task, and the formula",
    _measure,
    _draw,
    _tabulate,
  ),
}

experiment = studies.experiment_of(STUDIES, get_config)
