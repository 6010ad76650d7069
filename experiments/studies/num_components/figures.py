"""Tables and figures of the experiment on the number of components."""

import numpy as np
from matplotlib import figure as mpl_figure

from tgmm_jax.evaluation import results
from tgmm_jax.figures import style as figure_style

FIT = "fit"
PEER = "scikit-learn, 1 start, BIC"
CRITERIA = ("BIC", "BIC + log K!", "evidence", "ICL", "AIC", "AICc")
# What the figure shows, and the order of the table.
_SHOWN = (
  *(FIT, "fit, evidence", "EM, 1 start, BIC", "EM, 10 starts, BIC", PEER),
)
ORDER = (
  FIT,
  *(
    f"{starts}, {criterion}"
    for starts in (FIT, "EM, 1 start", "EM, 10 starts")
    for criterion in CRITERIA
  ),
  PEER,
)
RIGHT = "share right"
# Of a table, with their digits.
COLUMNS = {
  RIGHT: ".3f",
  "error of K": ".3f",
  "log probability of K": ".3f",
  "Brier score": ".3f",
  "highest probability": ".3f",
  "l2_error where right": ".4f",
  "milliseconds": ".3g",
}
# Before the true K; the abscissa is the named one.
NAMED = "share named, true K = "
RELIABILITY = "share right by highest probability"
# From the palette of Okabe and Ito, which the colour-blind can tell apart.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
# A share of fewer tasks says little.
_LEAST_COUNT = 10


def tabulate(rows: list[results.CurveRow]) -> dict[str, dict[str, str]]:
  """A line for each way, a column for each score."""
  table = {}
  for metric, digits in COLUMNS.items():
    for row in rows:
      if row.metric == metric:
        text = f"{row.value:{digits}}"
        if row.standard_error > 0:
          text += f" ± {row.standard_error:{digits}}"
        table.setdefault(row.series, {})[metric] = text
  for series, line in table.items():
    own = [row for row in rows if row.series == series]
    line["K named, mean"] = f"{_mean_named(own):.2f}"
  return {name: table[name] for name in ORDER if name in table}


def tabulate_studies(rows: list[results.CurveRow]) -> dict[str, dict[str, str]]:
  """The same with a line for each study and way."""
  return {
    f"{study}: {series}": line
    for study in dict.fromkeys(row.study for row in rows)
    for series, line in tabulate(
      [row for row in rows if row.study == study]
    ).items()
  }


def _mean_named(rows):
  """Over all true K, which have equally many tasks."""
  named = [row for row in rows if row.metric.startswith(NAMED)]
  total = sum(row.x * row.value for row in named)
  return total / len({row.metric for row in named})


def draw(rows: list[results.CurveRow]) -> mpl_figure.Figure:
  """Which K each way names of which true K, and how sure it may be."""
  measured = {row.series for row in rows}
  shown = [name for name in _SHOWN if name in measured]
  num_columns = 3
  num_rows = -(-(len(shown) + 1) // num_columns)
  with figure_style.style():
    figure = mpl_figure.Figure(
      figsize=(3.5 * num_columns, 3.4 * num_rows), layout="constrained"
    )
    panels = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    for panel, name in zip(panels, shown, strict=False):
      _draw_named(panel, [row for row in rows if row.series == name], name)
    _draw_reliability(panels[len(shown)], rows, shown)
    for panel in panels[len(shown) + 1 :]:
      panel.remove()
    figure.suptitle(rows[0].study)
  return figure


def _draw_named(panel, rows, name):
  """A map: a row for each true K, a column for each named one."""
  shares = {
    (int(row.metric.removeprefix(NAMED)), int(row.x)): row.value
    for row in rows
    if row.metric.startswith(NAMED)
  }
  size = max(own for own, _ in shares)
  grid = np.array(
    [[shares[own, k] for k in range(1, size + 1)] for own in range(1, size + 1)]
  )
  panel.grid(visible=False)
  panel.imshow(grid, cmap="Blues", vmin=0.0, vmax=1.0)
  for (own, k), share in np.ndenumerate(grid):
    # Nothing stands where a K is never named: the eye finds the others.
    if share:
      color = "white" if share > 0.5 else "#333333"
      text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
      panel.text(k, own, text, ha="center", va="center", color=color)
  ticks = [str(k) for k in range(1, size + 1)]
  panel.set_xticks(range(size), ticks)
  panel.set_yticks(range(size), ticks)
  panel.set_xlabel("named K")
  panel.set_ylabel("true K, % of its tasks")
  (right,) = (row for row in rows if row.metric == RIGHT)
  panel.set_title(f"{name}\n{100 * right.value:.1f}% right")


def _draw_reliability(panel, rows, series):
  """How often the named K is right, over how probable it was said to be."""
  panel.plot((0, 1), (0, 1), color="#777777", linestyle="--", linewidth=1.2)
  for index, name in enumerate(series):
    part = [
      row
      for row in rows
      if (row.metric, row.series) == (RELIABILITY, name)
      and row.count >= _LEAST_COUNT
    ]
    part = sorted(part, key=lambda row: row.x)
    panel.errorbar(
      [row.x for row in part],
      [row.value for row in part],
      np.nan_to_num([row.standard_error for row in part]),
      label=name,
      color=_COLORS[index % len(_COLORS)],
      marker="osD^v"[index % 5],
      markersize=4.0,
      elinewidth=0.8,
    )
  panel.set_xlim(0.3, 1.02)
  panel.set_ylim(0.0, 1.05)
  panel.set_xlabel("highest probability")
  panel.set_ylabel(RIGHT)
  panel.set_title("How sure it may be\n(on the line: rightly so)")
  panel.legend(fontsize=7, loc="upper left")
