"""Two groups and 10% outliers: the plain fit, noise component, t components.

  python -m experiments.pictures.outliers

draws `docs/pictures/outliers.png`, the picture of docs/outliers.md.
"""

import pathlib

import jax
import numpy as np
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import patches

from tgmm_jax import gmm, types
from tgmm_jax.figures import style
from tgmm_jax.solvers import em
from tgmm_jax.training import files

PATH = pathlib.Path(__file__).parents[2] / "docs/pictures/outliers.png"
FULL = {"covariance_type": "full"}
_COLORS = ("#0072B2", "#D55E00")
_NOISE = "#999999"


def points_of(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """180 points of two groups and 20 anywhere in a box, `[200, 2]`; labels."""
  generator = np.random.default_rng(seed)
  shapes = np.array([[[1.2, 0.0], [0.8, 0.5]], [[0.6, 0.0], [-0.3, 1.1]]])
  labels = np.repeat([0, 1, -1], [100, 80, 20])
  noise = generator.normal(size=(200, 2))
  points = np.array([[-2.5, 0.0], [2.5, 1.5]])[labels]
  points = points + np.einsum("nij,nj->ni", shapes[labels], noise)
  outliers = generator.uniform(-12.0, 12.0, size=(200, 2))
  points = np.where(labels[:, None] < 0, outliers, points)
  return points.astype(np.float32), labels


def draw(points: np.ndarray) -> mpl_figure.Figure:
  """A panel for each fit, ellipses at two standard deviations (scales, of t).

  Args:
    points: `[N, 2]`.
  """
  key = jax.random.key(0)
  plain = em.fit(key, points, 2, **FULL)
  noise = em.noise.fit(key, points, 2, **FULL)
  student = em.student.fit(key, points, 2, max_iter=500, **FULL)
  degrees = " and ".join(f"{one:.1f}" for one in student.degrees)
  panels = (
    ("plain\n", plain.mixture, gmm.predict(points, plain.mixture, **FULL)),
    (
      f"noise component\nweight {noise.noise_weight:.2f}",
      noise.result.mixture,
      em.noise.predict(points, noise, **FULL),
    ),
    (
      f"t components\ndegrees {degrees}",
      student.result.mixture,
      em.student.predict(points, student, **FULL),
    ),
  )
  with style.style():
    figure = mpl_figure.Figure(figsize=(6.6, 2.8), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
      _add(axis, points, *panel)
  return figure


def _add(
  axis: mpl_axes.Axes,
  points: np.ndarray,
  title: str,
  mixture: types.Mixture,
  labels: jax.Array,
) -> None:
  """One panel: points in the colour of their component, grey where noise."""
  order = np.argsort(mixture.means[:, 0])
  for color, label in ((_NOISE, -1), *zip(_COLORS, order, strict=True)):
    own = points[np.asarray(labels) == label]
    axis.scatter(*own.T, s=6, color=color, alpha=0.6, lw=0)
  for color, index in zip(_COLORS, order, strict=True):
    values, vectors = np.linalg.eigh(mixture.covariances[index])
    height, width = 4.0 * np.sqrt(values)
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    mean = np.asarray(mixture.means[index])
    ellipse = patches.Ellipse(mean, width, height, angle=angle)
    ellipse.set(fill=False, edgecolor=color, linewidth=1.6)
    axis.add_patch(ellipse)
    axis.plot(*mean, marker="+", color="black", markersize=8)
  axis.set_title(title, fontsize=8)
  axis.set_aspect("equal")
  axis.grid(False)


def main() -> None:
  """Draws the picture."""
  points, _ = points_of()
  PATH.parent.mkdir(exist_ok=True)
  files.write(PATH, style.render(draw(points), "png"))


if __name__ == "__main__":
  main()
