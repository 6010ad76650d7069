"""A fitted mixture as a picture, by the number of its dimensions.

Of one dimension it is a histogram with the components' densities, of two the
points with ellipses, of more the pairs of the leading principal directions.
"""

import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import patches, patheffects

from tgmm_jax import gmm, types
from tgmm_jax.figures import style as figure_style

# From the palette of Okabe and Ito, which the colour-blind can tell apart; the
# markers change where the colours begin again.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v")
# Radii of the ellipses, in standard deviations.
_RADII = (1.0, 2.0)
# More points are a cloud anyway, and a PDF of megabytes.
_MOST_POINTS = 20_000
_MOST_BINS = 80
# Axes of more unlike lengths have scales of their own.
_MOST_UNLIKE = 4.0
# Directions that pairs are made of, and the columns that name one.
_NUM_DIRECTIONS, _NUM_NAMED, _MOST_LETTERS = 3, 2, 24
_MOST_IN_LEGEND = 16


def draw(
  points: np.ndarray,
  mixture: types.Mixture,
  labels: np.ndarray,
  *,
  covariance_type: str,
  columns: Sequence[str] | None = None,
) -> mpl_figure.Figure:
  """Draws a fit.

  Args:
    points: `[N, d]`.
    mixture: without padding.
    labels: `[N]`, -1 for points that are not drawn.
    covariance_type: of the mixture.
    columns: d names of the coordinates, or None.

  Returns:
    The figure; ellipses are at one and two standard deviations.
  """
  points, labels = np.asarray(points, float), np.asarray(labels)
  points, labels = points[labels >= 0], labels[labels >= 0]
  covariances = gmm.covariance_matrices(
    jax.tree.map(jnp.asarray, mixture), covariance_type=covariance_type
  )
  shown = _Shown(
    points,
    labels,
    np.asarray(mixture.weights, float),
    np.asarray(mixture.means, float),
    np.asarray(covariances, float),
  )
  dim = points.shape[1]
  names = columns or [f"x{index}" for index in range(dim)]
  with figure_style.style():
    if dim == 1:
      return _histogram(shown, names[0])
    if dim == 2:
      return _plane(shown, names)
    has_units = gmm.kind_of(covariance_type).structure == "ball"
    return _pairs(*_leading(shown, names, has_units))


def save(
  points: np.ndarray,
  mixture: types.Mixture,
  labels: np.ndarray,
  path: str | os.PathLike,
  *,
  covariance_type: str,
  columns: Sequence[str] | None = None,
) -> pathlib.Path:
  """Draws a fit into a PNG file, and a PDF beside it.

  Args:
    points: see `draw`, as all others.
    mixture: without padding.
    labels: `[N]`.
    path: of the PNG file.
    covariance_type: of the mixture.
    columns: names of the coordinates, or None.

  Raises:
    ValueError: the path does not end in `.png`.
  """
  path = pathlib.Path(path)
  if path.suffix != ".png":
    raise ValueError(f"plot is {str(path)!r}, takes a path that ends in .png")
  figure = draw(
    points, mixture, labels, covariance_type=covariance_type, columns=columns
  )
  return pathlib.Path(figure_style.save(figure, path.with_suffix(""))[0])


class _Shown(NamedTuple):
  """What is drawn, in the coordinates of the picture.

  Attributes:
    points: `[N, d]`.
    labels: `[N]`.
    weights: `[K]`.
    means: `[K, d]`.
    covariances: `[K, d, d]`.
  """

  points: np.ndarray
  labels: np.ndarray
  weights: np.ndarray
  means: np.ndarray
  covariances: np.ndarray


def _histogram(shown, name):
  """Of one dimension: shares of points, and weighted densities."""
  figure = mpl_figure.Figure(figsize=(6.4, 4.2), layout="constrained")
  axis = figure.subplots()
  points = shown.points[:, 0]
  num_bins = int(np.clip(2.0 * np.sqrt(len(points)), 10, _MOST_BINS))
  axis.hist(points, num_bins, density=True, color="#d4d4d4", zorder=1)
  means, variances = shown.means[:, 0], shown.covariances[:, 0, 0]
  deviations = np.sqrt(np.maximum(variances, np.finfo(float).tiny))
  # Narrow components need places of their own.
  places = means + deviations * np.linspace(-5.0, 5.0, 201)[:, None]
  low, high = axis.get_xlim()
  places = np.concatenate([np.linspace(low, high, 401), places.ravel()])
  places = np.unique(np.clip(places, low, high))
  scaled = (places[:, None] - means) / deviations
  densities = np.exp(-0.5 * scaled**2) / (deviations * np.sqrt(2.0 * np.pi))
  densities = densities * shown.weights
  for index in range(len(means)):
    color = _COLORS[index % len(_COLORS)]
    own = densities[:, index]
    axis.plot(places, own, color=color, label=_label(shown, index), zorder=3)
    axis.fill_between(places, own, color=color, alpha=0.15, lw=0, zorder=2)
  total = densities.sum(axis=1)
  axis.plot(
    places, total, color="black", ls="--", lw=1.0, label="all", zorder=4
  )
  axis.set_xlim(low, high)
  axis.set_xlabel(name)
  axis.set_ylabel("density")
  _add_legend(axis, *axis.get_legend_handles_labels())
  return figure


def _plane(shown, names):
  figure = mpl_figure.Figure(figsize=(6.4, 5.0), layout="constrained")
  axis = figure.subplots()
  _add_pair(axis, shown, (0, 1), names)
  _add_legend(axis, *axis.get_legend_handles_labels())
  _add_note(figure, shown)
  return figure


def _pairs(shown, names, texts):
  """Three directions: a panel for each two; what they are is in the fourth."""
  figure = mpl_figure.Figure(figsize=(9.0, 8.0), layout="constrained")
  axes = figure.subplots(2, 2)
  pairs = itertools.combinations(range(_NUM_DIRECTIONS), 2)
  places = (axes[0, 0], axes[1, 0], axes[1, 1])
  for axis, pair in zip(places, pairs, strict=True):
    _add_pair(axis, shown, pair, names)
  beside = axes[0, 1]
  beside.set_axis_off()
  text = beside.text(0.0, 1.0, "\n".join(texts), fontsize=8, va="top")
  text.set_in_layout(False)  # or the panels below would be narrower
  _add_legend(
    beside, *axes[0, 0].get_legend_handles_labels(), loc="center left"
  )
  _add_note(figure, shown)
  return figure


def _leading(shown, names, has_units):
  """The mixture in the leading principal directions, their names, and texts.

  Columns count in their own spread, unless the components are balls, for which
  all columns have the same unit.
  """
  centre = shown.points.mean(axis=0)
  away = shown.points - centre
  spread = np.ones(len(names)) if has_units else away.std(axis=0)
  spread = np.where(spread > 0, spread, 1.0)
  _, values, rows = np.linalg.svd(away / spread, full_matrices=False)
  shares = values**2 / max(np.sum(values**2), np.finfo(float).tiny)
  if len(rows) < _NUM_DIRECTIONS:  # fewer points than directions
    rows = np.linalg.svd(away / spread, full_matrices=True)[2]
    shares = np.pad(shares, (0, len(rows) - len(shares)))
  # Of two signs the one whose largest entry is positive.
  rows = rows[:_NUM_DIRECTIONS]
  largest = np.take_along_axis(
    rows, np.argmax(np.abs(rows), axis=1)[:, None], axis=1
  )
  rows = rows * np.sign(largest)
  basis = rows.T / spread[:, None]
  titles = [f"direction {index + 1}" for index in range(len(rows))]
  texts = [
    f"{title}, {share:.0%} of the variance:\n    {_sum_of(row, names)}"
    for title, share, row in zip(titles, shares, rows, strict=False)
  ]
  if not has_units:
    texts.append("(columns in units of their spread)")
  flat = _Shown(
    away @ basis,
    shown.labels,
    shown.weights,
    (shown.means - centre) @ basis,
    basis.T @ shown.covariances @ basis,
  )
  return flat, titles, texts


def _sum_of(row, names):
  """`0.71 height - 0.60 girth ...`: the columns that a direction is made of."""
  order = np.argsort(-np.abs(row), kind="stable")[:_NUM_NAMED]
  text = ""
  for index in order:
    sign = "−" if row[index] < 0 else "+"
    text += f" {sign} {abs(row[index]):.2f} {names[index][:_MOST_LETTERS]}"
  return text.removeprefix(" + ") + (" ..." if len(row) > _NUM_NAMED else "")


def _add_pair(axis, shown, pair, names):
  """Points and ellipses in two of the coordinates."""
  pair = list(pair)
  step = -(-len(shown.points) // _MOST_POINTS)
  flat, labels = shown.points[::step, pair], shown.labels[::step]
  for index in range(len(shown.weights)):
    color = _COLORS[index % len(_COLORS)]
    own = flat[labels == index]
    axis.scatter(
      *own.T,
      s=12,
      color=color,
      marker=_MARKERS[index // len(_COLORS) % len(_MARKERS)],
      alpha=0.6 if len(flat) < 2000 else 0.25,
      lw=0,
      label=_label(shown, index),
      rasterized=len(flat) > 2000,
    )
  for index, mean in enumerate(shown.means[:, pair]):
    covariance = shown.covariances[index][np.ix_(pair, pair)]
    _add_ellipses(axis, mean, covariance, _COLORS[index % len(_COLORS)])
    axis.plot(*mean, marker="+", color="black", markersize=9, zorder=4)
  axis.set_xlabel(names[pair[0]])
  axis.set_ylabel(names[pair[1]])
  extents = np.ptp(flat, axis=0) if len(flat) else np.ones(2)
  if np.max(extents) <= _MOST_UNLIKE * np.min(extents):
    axis.set_aspect("equal", adjustable="datalim")


def _add_ellipses(axis: mpl_axes.Axes, mean, covariance, color):
  values, vectors = np.linalg.eigh(covariance)
  angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
  for radius in _RADII:
    height, width = 2.0 * radius * np.sqrt(np.maximum(values, 0.0))
    ellipse = patches.Ellipse(mean, width, height, angle=angle)
    ellipse.set(fill=False, edgecolor=color, linewidth=1.5, zorder=3)
    # So that it is seen on points of its own colour.
    halo = patheffects.withStroke(linewidth=3.5, foreground="white")
    ellipse.set_path_effects([halo])
    axis.add_patch(ellipse)


def _label(shown, index):
  return f"{index}: weight {shown.weights[index]:.2f}"


def _add_legend(axis, handles, labels, **options):
  """A legend of at most so many lines."""
  if len(labels) > _MOST_IN_LEGEND:
    labels = [*labels[: _MOST_IN_LEGEND - 1], f"... {len(labels)} in all"]
    handles = handles[:_MOST_IN_LEGEND]
  legend = axis.legend(handles, labels, fontsize=8, **options)
  for handle in legend.legend_handles:
    handle.set_alpha(1.0)


def _add_note(figure, shown):
  """Says so where not all points are drawn."""
  count = len(shown.points)
  step = -(-count // _MOST_POINTS)
  if step > 1:
    drawn = len(range(0, count, step))
    figure.suptitle(f"{drawn:,} of {count:,} points", fontsize=9)
