"""Figures of the experiments with spectra."""

import functools
from collections.abc import Sequence

from experiments.runner import pages
from experiments.spectra import probe
from tgmm_jax.evaluation import results
from tgmm_jax.evaluation import spectra as spectrum_evaluation
from tgmm_jax.figures import curves as curve_figures

# Fields that runs may differ in, with the label of the axis.
VARIABLES = {
  "dim": "d",
  "num_points": "N",
  "num_targets": "k",
  "num_layers": "layers",
}
_METRIC_LABELS = {
  "relative squared error": "relative squared error",
  "|cos|": "|cos| with the eigenvector",
  "projector distance": "squared sines of the angles, sum",
}


def draw(rows: Sequence[results.CurveRow]) -> pages.Figures:
  """A figure of the runs by target, and one for each field that varies."""
  studies = list(dict.fromkeys(row.study for row in rows))
  over = [study for study in studies if study.startswith("over ")]
  probed = {probe.STUDY, probe.DEPTH} & set(studies)
  by_target = [study for study in studies if study not in {*over, *probed}]
  found = {}
  if probed:
    caption = "Does the network do what the power method does?"
    found[caption] = ("probe", probe.draw(rows))
  long = [
    study
    for study in by_target
    if any(row.x > 1 for row in rows if row.study == study)
  ]
  if long:
    panels = [
      panel
      for study in long
      for panel in _panels(rows, study, "index", title=study)
    ]
    found["By index, the largest first"] = (
      "by_index",
      _draw(rows, panels),
    )
  for study in over:
    varied, *source = study.removeprefix("over ").split(" of ")
    label = VARIABLES[varied]
    title = " of ".join([f"over {label}", *source])
    panels = _panels(rows, study, label, title=title)
    found[f"Mean over the targets, {title}"] = (
      study.replace(" ", "_"),
      _draw(rows, panels),
    )
  return found


_draw = functools.partial(
  curve_figures.draw, emphasised=spectrum_evaluation.NETWORK
)


def _panels(rows, study, x_label, *, title):
  metrics = sorted({row.metric for row in rows if row.study == study})
  return [
    curve_figures.Panel(
      study,
      metric,
      title,
      x_label,
      _METRIC_LABELS[metric],
      is_log_y=metric != "|cos|",
    )
    for metric in metrics
  ]
