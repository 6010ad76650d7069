"""What is drawn into one panel of a figure, and how its axes are set."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import artist, container, lines, ticker
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure

from tgmm_jax.evaluation import results, sorted_loss
from tgmm_jax.figures import style as figure_style

# Predicting 0 for every mean scores 8.3, so there is nothing to see above:
# such points become an arrow with their value.
_CEILING = 30.0
ERROR_METRICS = ("l2_error", "l2_error_released")

_LINEAR_METRICS = ("accuracy", "log_likelihood", "log_likelihood_fresh")


def draw_solvers(
  panel: mpl_axes.Axes,
  rows: Sequence[results.Row],
  solvers: Sequence[str],
  metric: str,
) -> dict[str, container.ErrorbarContainer]:
  """Draws the rows of one setting and metric; returns a handle by solver."""
  cells = {(row.solver, row.num_components): row for row in rows}
  ticks = sorted({row.num_components for row in rows})
  moved = [name for name in solvers if name not in results.REFERENCES]
  span = min(0.05 * len(moved), 0.4)
  offsets = dict(
    zip(moved, np.linspace(-span / 2, span / 2, len(moved)), strict=True)
  )
  handles, num_above = {}, dict.fromkeys(ticks, 0)
  for solver in solvers:
    found = [cells.get((solver, tick)) for tick in ticks]
    if not any(found):
      continue
    style = figure_style.solver_style(solver)
    is_reference = solver in results.REFERENCES
    positions = np.array(ticks) + offsets.get(solver, 0.0)
    means, errors = np.array(
      [
        (row.mean, row.standard_error) if row else (np.nan,) * 2
        for row in found
      ]
    ).T
    is_above = means > (_CEILING if metric in ERROR_METRICS else np.inf)
    for tick, x, mean in zip(ticks, positions, means, strict=True):
      if metric in ERROR_METRICS and mean > _CEILING:
        _draw_arrow(panel, x, mean, style.color, num_above[tick])
        num_above[tick] += 1
    handles[solver] = panel.errorbar(
      positions,
      np.where(is_above, np.nan, means),
      np.nan_to_num(errors),
      label=solver,
      color=style.color,
      marker=style.marker,
      linestyle=style.linestyle,
      markeredgecolor=style.color if is_reference else "white",
      markeredgewidth=1.6 if is_reference else 0.5,
      elinewidth=1.0,
      zorder=1.5 if is_reference else 2.0,
    )
  panel.set_xticks(ticks)
  panel.set_xlim(ticks[0] - 0.45, ticks[-1] + 0.45)
  panel.set_xlabel("K, number of components")
  return handles


def draw_against(
  panel: mpl_axes.Axes,
  rows: Sequence[results.Row],
  field: str,
  metric: str,
) -> dict[str, container.ErrorbarContainer]:
  """Draws the rows of one d and K against a field; a handle by solver."""
  handles = {}
  for solver in figure_style.solvers_of(rows):
    part = sorted(
      (row for row in rows if row.solver == solver),
      key=lambda row: getattr(row, field),
    )
    x = [getattr(row, field) for row in part]
    means = np.array([row.mean for row in part])
    errors = np.nan_to_num([row.standard_error for row in part])
    if metric in ERROR_METRICS:
      # What is above the panel is drawn at its edge, without a bar.
      is_above = means > _CEILING
      means = np.where(is_above, _CEILING, means)
      errors = np.where(is_above, 0.0, errors)
    style = figure_style.solver_style(solver)
    handles[solver] = panel.errorbar(
      x,
      means,
      errors,
      label=solver,
      color=style.color,
      marker=style.marker,
      linestyle=style.linestyle,
      markersize=4.0,
      elinewidth=0.8,
    )
  return handles


def _draw_arrow(panel, x, mean, color, num_above):
  """Marks a mean above the panel: an arrow at its top and the value."""
  height = _CEILING / 1.5 ** (num_above + 1)
  panel.plot([x], [height], marker="^", color=color, linestyle="none")
  panel.annotate(
    f"{mean:,.0f}" if mean < 1e6 else f"{mean:.0e}",
    (x, height),
    xytext=(5, 0),
    textcoords="offset points",
    va="center",
    fontsize=8,
    color=color,
  )


def draw_sorted_optimum(
  panel: mpl_axes.Axes,
  rows: Sequence[results.Row],
  setting: results.Setting,
) -> dict[str, lines.Line2D]:
  """The optimum of the sorted loss, where who was trained by it is shown."""
  if not any(row.solver.startswith("tgmm-released") for row in rows):
    return {}
  shown = {row.num_components for row in rows}
  errors = {
    row.num_components: row.mean
    for row in sorted_loss.errors()
    if row.metric == "l2_error" and results.setting_of(row) == setting
  }
  ticks = sorted(shown & errors.keys())
  if not ticks:
    return {}
  style = figure_style.solver_style(sorted_loss.OPTIMUM)
  (line,) = panel.plot(
    ticks,
    [errors[tick] for tick in ticks],
    color=style.color,
    linestyle=style.linestyle,
    linewidth=2.2,
    label=sorted_loss.OPTIMUM,
    zorder=1.8,
  )
  return {sorted_loss.OPTIMUM: line}


def set_limits(
  panels: Iterable[mpl_axes.Axes], rows: Sequence[results.Row], metric: str
) -> None:
  """Sets a log axis around the means of rows, the same in all panels."""
  if metric in _LINEAR_METRICS:
    return
  metrics = ERROR_METRICS if metric in ERROR_METRICS else (metric,)
  means = np.array([row.mean for row in rows if row.metric in metrics])
  means = means[np.isfinite(means) & (means > 0)]
  if metric in ERROR_METRICS:
    means = np.minimum(means, _CEILING)
  for panel in panels:
    # A bar down to 0 or below then ends at the edge of the panel.
    panel.set_yscale("log", nonpositive="clip")
    if means.size:
      panel.set_ylim(means.min() / 1.5, means.max() * 1.5)
    _label_log_axis(panel)


def cut_outliers(panel: mpl_axes.Axes, rows: Iterable[results.Row]) -> None:
  """Lets a likelihood far below the others leave a panel at its lower edge.

  Else a single solver that failed would hide all differences. What is cut is
  six times as far below the best as the median.
  """
  means = np.array([row.mean for row in rows])
  means = means[np.isfinite(means)]
  if not means.size:
    return
  best, lowest = means.max(), means.min()
  kept = best - 6.0 * (best - np.median(means))
  if lowest < kept < best:
    panel.set_ylim(kept, best + 0.05 * (best - kept))


def _label_log_axis(panel):
  bottom, top = panel.get_ylim()
  subs = (1.0, 2.0, 5.0) if top / bottom < 300 else (1.0, 3.0)
  panel.yaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=20))
  panel.yaxis.set_major_formatter(
    ticker.FuncFormatter(lambda value, _: f"{value:g}")
  )
  panel.yaxis.set_minor_locator(ticker.NullLocator())


def line_of(handle: artist.Artist) -> artist.Artist:
  """The line of an errorbar, for a legend without bars; others as they are."""
  is_errorbar = isinstance(handle, container.ErrorbarContainer)
  return handle.lines[0] if is_errorbar else handle


def legend_below(
  figure: mpl_figure.Figure,
  handles: Mapping[str, artist.Artist],
  *,
  num_columns: int,
) -> None:
  """One legend for all panels, below them, in the order of tables."""
  names = sorted(handles, key=figure_style.solver_order)
  figure.legend(
    [line_of(handles[name]) for name in names],
    names,
    loc="outside lower center",
    ncols=num_columns,
  )


def smoothed(values: np.ndarray) -> np.ndarray:
  """Running mean over a fortieth of the curve, of what there is at its ends.

  Args:
    values: `[steps]`, finite.

  Returns:
    `[steps]`; the values themselves where there are fewer than 80.
  """
  half = values.size // 80
  if half == 0:
    return values
  ones = np.ones(2 * half + 1)
  totals = np.convolve(values, ones, mode="same")
  return totals / np.convolve(np.ones(values.size), ones, mode="same")


def draw_curve(
  panel: mpl_axes.Axes,
  steps: np.ndarray,
  values: np.ndarray,
  *,
  label: str,
  color: str,
  linestyle: str,
) -> None:
  """A smoothed curve over its raw one; values that are not finite left out."""
  is_known = np.isfinite(values)
  steps, values = np.asarray(steps)[is_known], values[is_known]
  smooth = smoothed(values)
  if not np.array_equal(smooth, values):
    panel.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
  panel.plot(steps, smooth, label=label, color=color, linestyle=linestyle)


def scale_curves(panel: mpl_axes.Axes) -> None:
  """Sets a log axis, unless a curve has values that it could not show."""
  if all(np.all(line.get_ydata() > 0) for line in panel.get_lines()):
    panel.set_yscale("log")
    _label_log_axis(panel)
