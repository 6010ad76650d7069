"""Curves of a run as panels, and the residual stream of a network as a map."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import colors as mpl_colors
from matplotlib import figure as mpl_figure
from matplotlib import ticker

from tgmm_jax.evaluation import results
from tgmm_jax.figures import panels as figure_panels
from tgmm_jax.figures import style as figure_style

# From the palette of Okabe and Ito, which the colour-blind can tell apart.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"
# Most ticks that fit beside a map of the residual stream.
_MAX_NAMED = 60


class Panel(NamedTuple):
  """What one panel shows.

  Attributes:
    study: of the rows.
    metric: of the rows.
    title: above the panel.
    x_label: below it.
    y_label: beside it.
    is_log_x: whether the abscissa is logarithmic; whole numbers are named one
      by one.
    is_log_y: whether the ordinate is; values of 0 are then left out.
    lines: horizontal lines by label, as limits.
  """

  study: str
  metric: str
  title: str
  x_label: str
  y_label: str
  is_log_x: bool = False
  is_log_y: bool = True
  lines: Mapping[str, float] = {}


def draw(
  rows: Sequence[results.CurveRow],
  panels: Sequence[Panel],
  *,
  num_columns: int = 3,
  emphasised: str = "",
) -> mpl_figure.Figure:
  """Draws panels side by side with one legend below.

  A series whose name ends in `(predicted)`, `(fit)`, `(Bayes)` or
  `(reference)` is a thin dashed line in the colour of the series of the same
  name without it, or grey if there is none; all others have markers and, where
  known, standard errors.

  Args:
    rows: of any studies; those of the panels are drawn.
    panels: from left to right and from top to bottom.
    num_columns: most panels side by side.
    emphasised: the series that the figure is about, drawn thicker, "" for none.

  Returns:
    The figure.

  Raises:
    ValueError: a panel has no rows.
  """
  shown = [_rows_of(rows, panel) for panel in panels]
  series = sorted({row.series for part in shown for row in part}, key=_natural)
  if emphasised in series:
    series = [emphasised, *(name for name in series if name != emphasised)]
  styles = _styles(series)
  if emphasised in styles:
    styles[emphasised] |= {"linewidth": 2.6, "zorder": 3}
  num_columns = min(num_columns, len(panels))
  num_rows = math.ceil(len(panels) / num_columns)
  with figure_style.style():
    figure = mpl_figure.Figure(
      figsize=(max(4.4 * num_columns + 0.4, 6.4), 3.4 * num_rows + 1.2),
      layout="constrained",
    )
    axes = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    for axis in axes[len(panels) :]:
      axis.remove()
    axes = axes[: len(panels)]
    handles = {}
    for axis, panel, part in zip(axes, panels, shown, strict=True):
      handles |= _draw_panel(axis, panel, part, styles)
    figure.legend(
      [figure_panels.line_of(handles[name]) for name in series],
      series,
      loc="outside lower center",
      ncols=3 if num_columns > 1 else 2,
    )
  return figure


def _rows_of(rows, panel):
  found = [
    row
    for row in rows
    if row.study == panel.study and row.metric == panel.metric
  ]
  if not found:
    raise ValueError(
      f"rows has no {panel.metric} of {panel.study}, takes rows with at least"
      " one"
    )
  return found


def _natural(name):
  """Sorts names by the numbers in them: 64 segments before 256."""
  parts = re.split(r"(\d+(?:\.\d+)?)", name)
  return [
    (1, float(part), "") if index % 2 else (0, 0.0, part)
    for index, part in enumerate(parts)
  ]


def _styles(series):
  """By series: colour, marker and line; references in grey or as their own."""
  measured = [name for name in series if not _is_reference(name)]
  colors = {
    name: _COLORS[index % len(_COLORS)] for index, name in enumerate(measured)
  }
  styles = {}
  for name in series:
    if _is_reference(name):
      own = name.rpartition(" (")[0]
      styles[name] = {"color": colors.get(own, "#777777"), "linestyle": "--"}
      styles[name] |= {"linewidth": 1.2, "marker": "", "zorder": 1.5}
    else:
      index = measured.index(name)
      styles[name] = {
        "color": colors[name],
        "marker": _MARKERS[index % len(_MARKERS)],
        "markersize": 4.0,
        "linestyle": ("-", "-.")[index // len(_COLORS) % 2],
      }
  return styles


def _is_reference(name):
  return name.endswith(("(predicted)", "(fit)", "(Bayes)", "(reference)"))


def _draw_panel(axis, panel, rows, styles):
  handles = {}
  for name in sorted({row.series for row in rows}, key=_natural):
    part = sorted((row for row in rows if row.series == name), key=_abscissa)
    x, y, error = np.array(
      [(row.x, row.value, row.standard_error) for row in part]
    ).T
    if panel.is_log_y:
      y = np.where(y > 0, y, np.nan)
    handles[name] = axis.errorbar(
      x,
      y,
      np.nan_to_num(error),
      label=name,
      elinewidth=1.0,
      markevery=max(len(part) // 12, 1),
      **styles[name],
    )
  for label, height in panel.lines.items():
    axis.axhline(height, color="#999999", linewidth=1.0, linestyle=":")
    axis.annotate(
      label,
      (1.0, height),
      xycoords=("axes fraction", "data"),
      xytext=(-3, 3),
      textcoords="offset points",
      ha="right",
      fontsize=8,
      color="#666666",
    )
  ticks = sorted({row.x for row in rows})
  if panel.is_log_x and all(tick == int(tick) for tick in ticks):
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
  elif panel.is_log_x:
    axis.set_xscale("log")
  elif all(row.x == int(row.x) for row in rows):
    axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  if panel.is_log_y:
    axis.set_yscale("log", nonpositive="clip")
  axis.set_title(panel.title)
  axis.set_xlabel(panel.x_label)
  axis.set_ylabel(panel.y_label)
  return handles


def _abscissa(row):
  return row.x


def residual_stream(
  states: np.ndarray,
  *,
  slots: Sequence[tuple[str, int]],
  tokens: Sequence[str],
  titles: Sequence[str],
) -> mpl_figure.Figure:
  """Maps of the residual stream, one for each layer, slots against tokens.

  Colours are on a symmetric logarithmic scale; white is exactly 0.

  Args:
    states: `[L + 1, D, T]`.
    slots: names and numbers of rows, as `Slots.sizes`.
    tokens: T names.
    titles: L + 1, of the maps.

  Returns:
    The figure.

  Raises:
    ValueError: sizes that do not fit the states.
  """
  num_maps, width, num_tokens = states.shape
  sizes = (len(titles), sum(size for _, size in slots), len(tokens))
  if sizes != states.shape:
    raise ValueError(f"states has shape {states.shape}, takes {sizes}")
  if width > _MAX_NAMED:
    raise ValueError(f"states has D = {width}, takes at most {_MAX_NAMED}")
  norm = mpl_colors.SymLogNorm(1e-3, vmin=-1e2, vmax=1e2)
  names = [
    name if size == 1 else f"{name}{index + 1}"
    for name, size in slots
    for index in range(size)
  ]
  with figure_style.style():
    figure = mpl_figure.Figure(
      figsize=(0.22 * num_tokens * num_maps + 2.4, 0.17 * width + 1.5),
      layout="constrained",
    )
    panels = figure.subplots(1, num_maps, sharey=True, squeeze=False)[0]
    for panel, state, title in zip(panels, states, titles, strict=True):
      image = panel.imshow(
        np.where(state == 0.0, np.nan, state),
        cmap="RdBu_r",
        norm=norm,
        aspect="auto",
        interpolation="nearest",
      )
      _rule_slots(panel, slots)
      panel.set_title(title, fontsize=9)
      panel.set_xticks(range(num_tokens), tokens, fontsize=7, rotation=90)
    panels[0].set_yticks(range(width), names, fontsize=7)
    bar = figure.colorbar(image, ax=list(panels), fraction=0.02, pad=0.01)
    bar.set_ticks([-100.0, -1.0, -0.01, 0.0, 0.01, 1.0, 100.0])
    bar.ax.tick_params(labelsize=7)
  return figure


def _rule_slots(panel: mpl_axes.Axes, slots):
  """A line between slots, none between the rows of one."""
  panel.grid(visible=False)
  edges = np.cumsum([size for _, size in slots])[:-1]
  for edge in edges:
    panel.axhline(edge - 0.5, color="#bbbbbb", linewidth=0.6)
