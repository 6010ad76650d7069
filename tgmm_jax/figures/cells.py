"""Pictures of a run, drawn from its table and its metrics.

Each function returns a `matplotlib.figure.Figure`; nothing here touches pyplot
or leaves a setting behind, and the same rows give the same bytes.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import figure as mpl_figure

from tgmm_jax.evaluation import results
from tgmm_jax.figures import panels as figure_panels
from tgmm_jax.figures import style as figure_style

save = figure_style.save

# From the highest line to the lowest, as the legend stands beside them.
_FRONT_LABELS = {
  "em/normal": "EM, one random start\n(the usual baseline)",
  "em/k-means++-x10": "EM, best of ten\nk-means++ starts",
  "em/ward": "EM, one start by\nWard's rule",
  "refiner": "trained network,\none forward pass",
  "refiner-x8+em5": "trained network,\n8 views, 5 EM steps",
  "pretrained": "shipped network,\none forward pass",
  "pretrained-x8+em5": "shipped network,\n8 views, 5 EM steps",
  "em/oracle": "EM started at\nthe truth",
}
# What the README's picture shows, as far as a run has it.
_FRONT_VALUES = {
  "dim": (2, 8),
  "num_points": (128,),
  "shift": (0.0,),
  "solver": tuple(_FRONT_LABELS),
}
_CURVE_TITLES = {
  "loss": "training loss",
  "l2_error": "squared error of the means during training",
}
_UNSHARED_METRICS = ("log_likelihood", "log_likelihood_fresh")


def error_against_components(
  rows: Sequence[results.Row], *, metric: str = "l2_error"
) -> mpl_figure.Figure:
  """A metric against K, a panel for each setting, a line for each solver.

  Bars are standard errors. Solvers are set slightly apart along K; a cell
  without a row, or whose mean is not finite, leaves a gap in its line.

  Args:
    rows: of any metrics; those of `metric` are drawn.
    metric: which one.

  Returns:
    The figure, with the legend below.

  Raises:
    ValueError: no row has the metric.
  """
  rows = _rows_of(rows, metric)
  settings = results.settings_of(rows)
  num_columns = min(len(settings), 2)
  num_rows = math.ceil(len(settings) / num_columns)
  with figure_style.style():
    figure = mpl_figure.Figure(
      figsize=(8.3, 3.1 * num_rows + 1.3),
      layout="constrained",
    )
    panels = figure.subplots(
      num_rows,
      num_columns,
      squeeze=False,
      sharey=metric not in _UNSHARED_METRICS,
    ).flatten()
    for panel in panels[len(settings) :]:
      panel.remove()
    lines = {}
    for panel, setting in zip(figure.axes, settings, strict=True):
      here = [row for row in rows if results.setting_of(row) == setting]
      lines |= figure_panels.draw_solvers(
        panel, here, figure_style.solvers_of(rows), metric
      )
      panel.set_title(figure_style.setting_label(setting, settings))
      if metric in _UNSHARED_METRICS:
        figure_panels.cut_outliers(panel, here)
      if metric == "l2_error":
        lines |= figure_panels.draw_sorted_optimum(panel, here, setting)
    for panel in figure.axes[::num_columns]:
      label = figure_style.METRIC_LABELS.get(metric, metric)
      panel.set_ylabel(label.replace(", ", ",\n"))
    figure_panels.set_limits(figure.axes, rows, metric)
    figure_panels.legend_below(figure, lines, num_columns=3)
  return figure


# What a figure with an abscissa other than K does not show: the baselines'
# other starts would only hide the rest.
_LEFT_OUT = (
  "em/normal-identity",
  "em/random_points",
  "em/k-means++",
  "em/k-means++-x10-projected",
  "spectral+em",
  "spectral/estimated",
)
# Above so many lines, networks are shown without what EM makes of them.
_MAX_LINES = 14


def error_against(
  rows: Sequence[results.Row],
  field: str,
  *,
  label: str,
  title: str = "",
  metric: str = "l2_error",
  is_log_x: bool = False,
) -> mpl_figure.Figure:
  """A metric against another field than K, a panel for each d and K.

  Args:
    rows: of any metrics; those of `metric` are drawn, less some baselines.
    field: of the rows, `num_points` or `shift`.
    label: of the abscissa.
    title: above all panels.
    metric: which one.
    is_log_x: whether the abscissa is logarithmic.

  Returns:
    The figure, a row of panels for each d, with the legend below.

  Raises:
    ValueError: no row has the metric.
  """
  rows = [row for row in _rows_of(rows, metric) if row.solver not in _LEFT_OUT]
  if len({row.solver for row in rows}) > _MAX_LINES:
    rows = [row for row in rows if "+em" not in row.solver]
  dims = sorted({row.dim for row in rows})
  counts = sorted({row.num_components for row in rows})
  with figure_style.style():
    figure = mpl_figure.Figure(
      figsize=(2.3 * len(counts) + 1.0, 2.5 * len(dims) + 1.2),
      layout="constrained",
    )
    panels = figure.subplots(
      len(dims), len(counts), squeeze=False, sharex=True, sharey="row"
    )
    lines = {}
    for dim, row_of_panels in zip(dims, panels, strict=True):
      here = [row for row in rows if row.dim == dim]
      for count, panel in zip(counts, row_of_panels, strict=True):
        part = [row for row in here if row.num_components == count]
        lines |= figure_panels.draw_against(panel, part, field, metric)
        panel.set_title(f"d = {dim}, K = {count}")
        if is_log_x:
          panel.set_xscale("log", base=2)
          ticks = sorted({getattr(row, field) for row in here})
          panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
      figure_panels.set_limits(row_of_panels, here, metric)
      name = figure_style.METRIC_LABELS.get(metric, metric)
      row_of_panels[0].set_ylabel(name.replace(", ", ",\n"))
    for panel in panels[-1]:
      panel.set_xlabel(label)
    figure.suptitle(title)
    figure_panels.legend_below(figure, lines, num_columns=4)
  return figure


def alignment_contrast(
  rows: Sequence[results.Row],
  *,
  solvers: Sequence[str] = (
    "refiner",
    "pretrained",
    "em/normal",
    "em/k-means++-x10",
    "em/oracle",
    "labels",
  ),
) -> mpl_figure.Figure:
  """The right error and the published one side by side, for a few solvers.

  The published evaluation applies the inverse of the assignment that it finds:
  for K > 2 right answers in another order score as wrong.

  Args:
    rows: with `l2_error` and `l2_error_released`; of the first setting in
      which a chosen solver has both, cells are drawn.
    solvers: which ones, as far as there are rows of them; others take their
      place if there are none.

  Returns:
    The figure.

  Raises:
    ValueError: there is no row of one of the metrics.
  """
  released = _rows_of(rows, "l2_error_released")
  kept = _preferred({row.solver for row in released}, solvers)
  rows = [row for row in rows if row.solver in kept]
  released = [row for row in released if row.solver in kept]
  setting = results.settings_of(released)[0]
  rows = [row for row in rows if results.setting_of(row) == setting]
  with figure_style.style():
    figure = mpl_figure.Figure(figsize=(8.0, 3.9), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    lines = {}
    for panel, metric in zip(panels, figure_panels.ERROR_METRICS, strict=True):
      here = _rows_of(rows, metric)
      lines |= figure_panels.draw_solvers(
        panel, here, figure_style.solvers_of(rows), metric
      )
    label = figure_style.setting_label(setting, [setting])
    panels[0].set_title(f"{label}: right alignment")
    panels[1].set_title(f"{label}: published alignment")
    panels[0].set_ylabel(figure_style.METRIC_LABELS["l2_error"])
    figure_panels.set_limits(panels, rows, "l2_error")
    figure_panels.legend_below(figure, lines, num_columns=max(len(lines), 1))
  return figure


def front_picture(rows: Sequence[results.Row]) -> mpl_figure.Figure:
  """Trained against classical solvers at d = 2 and 8, the first picture of RQ1.

  Its title states a finding only where the rows support it: that the network
  beats ten restarts of EM at d = 2, for which K, by two standard errors.

  Args:
    rows: with `l2_error`; of those at d = 2 and 8, N = 128, shift 0 and of five
      solvers are drawn. Where there are none of these, others take their place.

  Returns:
    The figure.

  Raises:
    ValueError: there is no `l2_error`.
  """
  rows = _rows_of(rows, "l2_error")
  for field, wanted in _FRONT_VALUES.items():
    kept = _preferred({getattr(row, field) for row in rows}, wanted)
    rows = [row for row in rows if getattr(row, field) in kept]
  settings = results.settings_of(rows)
  solvers = figure_style.solvers_of(rows)
  solvers.sort(key=[*_FRONT_LABELS, *solvers].index)
  with figure_style.style():
    figure = mpl_figure.Figure(figsize=(8.3, 3.8), layout="constrained")
    panels = figure.subplots(1, len(settings), squeeze=False, sharey=True)[0]
    lines = {}
    for panel, setting in zip(panels, settings, strict=True):
      here = [row for row in rows if results.setting_of(row) == setting]
      lines |= figure_panels.draw_solvers(panel, here, solvers, "l2_error")
      panel.set_title(figure_style.setting_label(setting, settings))
    panels[0].set_ylabel(figure_style.METRIC_LABELS["l2_error"])
    figure_panels.set_limits(panels, rows, "l2_error")
    figure.legend(
      [figure_panels.line_of(line) for line in lines.values()],
      [_FRONT_LABELS.get(name, name) for name in lines],
      loc="outside right center",
      labelspacing=1.1,
    )
    figure.suptitle(_finding(rows), fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(
      f"{min(row.count for row in rows):,} tasks per point, "
      f"N = {rows[0].num_points}; bars are standard errors",
      fontsize=8.5,
      color="#555555",
      x=0.01,
      ha="left",
    )
  return figure


def _preferred(values, wanted):
  """The wanted ones of values, or as many of the smallest if there are none."""
  found = [value for value in wanted if value in values]
  return found or sorted(values)[: len(wanted)]


def _finding(rows) -> str:
  """What rows of one setting per d say; without a claim if they have none."""
  cells = {
    (row.solver, row.num_components): row
    for row in rows
    if results.setting_of(row) == results.Setting(2, 128, "means", 0.0)
  }
  subjects = {
    "refiner": "One forward pass beats",
    "refiner-x8+em5": "Eight views and 5 EM steps beat",
    "pretrained": "One forward pass of the shipped network beats",
  }
  for solver, subject in subjects.items():
    better, is_worse = [], False
    for name, num_components in sorted(cells):
      baseline = cells.get(("em/k-means++-x10", num_components))
      if name != solver or baseline is None:
        continue
      row = cells[name, num_components]
      # As if the tasks were not the same, which is on the safe side.
      margin = 2 * math.hypot(row.standard_error, baseline.standard_error)
      if row.mean + margin < baseline.mean:
        better.append(num_components)
      # Also true of nan.
      is_worse |= not row.mean - margin <= baseline.mean
    if better and not is_worse:
      listed = ", ".join(map(str, better))
      return f"{subject} ten restarts of EM at d = 2, K = {listed}"
  return "Error of the estimated means"


def learning_curves(
  metrics: Mapping[str, Mapping[str, np.ndarray]],
  *,
  titles: Mapping[str, str] = _CURVE_TITLES,
) -> mpl_figure.Figure:
  """Scalars during training against the step, raw and smoothed.

  Args:
    metrics: by run, what `metric_writer.read_metrics` gives.
    titles: of the panels. The panel `loss` shows the columns of that name and
      those that start with `loss/`; it is left out if no run has one.

  Returns:
    The figure.

  Raises:
    ValueError: no run has any of the columns.
  """
  columns = {}
  for prefix in titles:
    found = [
      (run, name)
      for run, scalars in metrics.items()
      for name in scalars
      if name == prefix or name.startswith(prefix + "/")
    ]
    if found:
      columns[prefix] = found
  if not columns:
    raise ValueError(
      f"metrics has none of the columns {', '.join(titles)}, takes one of them"
    )
  with figure_style.style():
    figure = mpl_figure.Figure(
      figsize=(max(4.2 * len(columns), 6.0), 3.8), layout="constrained"
    )
    axes = figure.subplots(1, len(columns), squeeze=False)[0]
    for panel, (prefix, found) in zip(axes, columns.items(), strict=True):
      styles = figure_style.curve_styles(found)
      for run, name in found:
        label = run + name.removeprefix(prefix)
        color, linestyle = styles[run, name]
        figure_panels.draw_curve(
          panel,
          metrics[run]["step"],
          np.asarray(metrics[run][name], float),
          label=label,
          color=color,
          linestyle=linestyle,
        )
      figure_panels.scale_curves(panel)
      panel.set_title(titles[prefix])
      panel.set_xlabel("step")
      panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
  return figure


def _rows_of(rows, metric):
  found = [row for row in rows if row.metric == metric]
  if not found:
    raise ValueError(
      f"rows has no {metric} to draw, takes rows with at least one"
    )
  return found
