"""Regression by a mixture, for `docs/using_a_mixture.md`.

  python -m experiments.pictures.regression

The points are drawn: two groups of eruptions as of a geyser, how long one lasts
and how long the next is waited for, and a third whose wait goes the other way.
"""

import pathlib

import numpy as np
from matplotlib import figure as mpl_figure

from tgmm_jax import GaussianMixture
from tgmm_jax.figures import style as figure_style
from tgmm_jax.training import files

PATH = pathlib.Path(__file__).parents[2] / "docs/pictures/regression.png"
# Short and long eruptions in minutes, and the third group.
_MEANS = np.array([[2.0, 54.0], [4.3, 80.0], [6.0, 58.0]])
_DEVIATIONS = np.array([[0.27, 5.5], [0.40, 5.5], [0.35, 7.0]])
_CORRELATIONS = np.array([0.3, 0.4, -0.7])
_NUM_POINTS = 240


def draw_points(seed: int = 0) -> np.ndarray:
  """Durations and waits in minutes, `[N, 2]`."""
  generator = np.random.default_rng(seed)
  labels = generator.choice(3, _NUM_POINTS, p=[0.35, 0.45, 0.2])
  noise = generator.normal(size=(_NUM_POINTS, 2))
  tilt = _CORRELATIONS[labels]
  noise[:, 1] = tilt * noise[:, 0] + np.sqrt(1 - tilt**2) * noise[:, 1]
  return _MEANS[labels] + _DEVIATIONS[labels] * noise


def draw(points: np.ndarray) -> mpl_figure.Figure:
  """Points, the mean wait given the duration, and a deviation each way."""
  mixture = GaussianMixture(3, random_state=0, n_init=5).fit(points)
  duration = np.linspace(points[:, 0].min(), points[:, 0].max(), 300)
  mean, deviation = mixture.predict_conditional(
    duration[:, None], [0], return_std=True
  )
  mean, deviation = mean[:, 0], deviation[:, 0]
  with figure_style.style():
    figure = mpl_figure.Figure(figsize=(4.6, 2.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*points.T, "o", color="#9a9a9a", markersize=2.5)
    axes.fill_between(
      duration,
      mean - deviation,
      mean + deviation,
      color="#0072B2",
      alpha=0.2,
      linewidth=0,
      label="one standard deviation",
    )
    axes.plot(duration, mean, color="#0072B2", label="mean of the wait")
    axes.set_xlabel("duration of an eruption, minutes")
    axes.set_ylabel("wait for the next, minutes")
    axes.legend(loc="upper left")
  return figure


if __name__ == "__main__":
  PATH.parent.mkdir(exist_ok=True)
  files.write(PATH, figure_style.render(draw(draw_points()), "png"))
