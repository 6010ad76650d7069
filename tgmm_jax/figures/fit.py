"""A fitted mixture as a picture: points, and ellipses of the components."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import figure as mpl_figure
from matplotlib import patches

from tgmm_jax import gmm, types
from tgmm_jax.figures import style as figure_style

# From the palette of Okabe and Ito, which the colour-blind can tell apart.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Radii of the ellipses, in standard deviations.
_RADII = (1.0, 2.0)


def draw(
  points: np.ndarray,
  mixture: types.Mixture,
  labels: np.ndarray,
  *,
  covariance_type: str,
) -> mpl_figure.Figure:
  """Draws a fit; of more than two dimensions the leading principal directions.

  Args:
    points: `[N, d]`; one dimension is drawn as a strip.
    mixture: without padding.
    labels: `[N]`, -1 for points that are not drawn.
    covariance_type: of the mixture.

  Returns:
    The figure, ellipses at one and two standard deviations.
  """
  points = np.asarray(points, float)
  basis, names = _plane(points)
  centre = points.mean(axis=0)
  flat = (points - centre) @ basis if points.shape[1] > 2 else points @ basis
  means = np.asarray(mixture.means, float)
  means = (means - centre) @ basis if points.shape[1] > 2 else means @ basis
  covariances = gmm.covariance_matrices(
    jax.tree.map(jnp.asarray, mixture), covariance_type=covariance_type
  )
  covariances = np.asarray(covariances, float)
  with figure_style.style():
    figure = mpl_figure.Figure(figsize=(6.0, 5.0), layout="constrained")
    axis = figure.subplots()
    for index, (mean, covariance) in enumerate(
      zip(means, covariances, strict=True)
    ):
      color = _COLORS[index % len(_COLORS)]
      own = flat[np.asarray(labels) == index]
      weight = float(mixture.weights[index])
      label = f"{index}: weight {weight:.2f}"
      axis.scatter(*own.T, s=12, color=color, alpha=0.6, lw=0, label=label)
      _add_ellipses(axis, mean, basis.T @ covariance @ basis, color)
      axis.plot(*mean, marker="+", color="black", markersize=9, zorder=4)
    axis.set_xlabel(names[0])
    axis.set_ylabel(names[1])
    if points.shape[1] > 1:
      axis.set_aspect("equal", adjustable="datalim")
    axis.legend(fontsize=8)
  return figure


def save(
  points: np.ndarray,
  mixture: types.Mixture,
  labels: np.ndarray,
  path: str | os.PathLike,
  *,
  covariance_type: str,
) -> pathlib.Path:
  """Draws a fit into a PNG file, and a PDF beside it; see `draw`."""
  path = pathlib.Path(path)
  if path.suffix != ".png":
    raise ValueError(f"plot is {str(path)!r}, takes a path that ends in .png")
  figure = draw(points, mixture, labels, covariance_type=covariance_type)
  return pathlib.Path(figure_style.save(figure, path.with_suffix(""))[0])


def _plane(points):
  """Columns that take points to the plane `[d, 2]`, and names of the axes."""
  dim = points.shape[1]
  if dim == 1:
    return np.array([[1.0, 0.0]]), ("x", "")
  if dim == 2:
    return np.eye(2), ("first coordinate", "second coordinate")
  _, _, rows = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
  names = ("first principal direction", "second principal direction")
  return rows[:2].T, names


def _add_ellipses(axis, mean, covariance, color):
  values, vectors = np.linalg.eigh(covariance)
  angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
  for radius in _RADII:
    height, width = 2.0 * radius * np.sqrt(np.maximum(values, 0.0))
    ellipse = patches.Ellipse(mean, width, height, angle=angle)
    ellipse.set(fill=False, edgecolor=color, linewidth=1.5)
    axis.add_patch(ellipse)
