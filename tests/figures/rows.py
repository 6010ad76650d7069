"""Rows to draw, and what was drawn of them."""

import math

from tgmm_jax.evaluation import results

COMPONENTS = (2, 3, 4, 5)


def make_rows(means, *, metric="l2_error", num_points=128, shift=0.0):
  """Rows from {(solver, d): means for K = 2, 3, ...}; None is no row."""
  return [
    results.Row(
      *(solver, dim, k, num_points, shift, "means", metric),
      *(mean, 0.1 * mean, 1280, 3),
    )
    for (solver, dim), values in means.items()
    for k, mean in zip(COMPONENTS, values, strict=False)
    if mean is not None
  ]


def drawn(panel):
  """Points of each solver's line in a panel, K to the nearest integer."""
  return {
    container.get_label(): {
      round(x): y
      for x, y in zip(*container.lines[0].get_data(), strict=True)
      if not math.isnan(y)
    }
    for container in panel.containers
  }


def legend_of(figure):
  return [text.get_text() for text in figure.legends[0].get_texts()]


MEANS = {
  ("refiner", 2): (0.020, 0.036, 0.067, 0.142),
  ("refiner", 8): (0.018, 0.027, 0.038, 0.076),
  ("em/k-means++-x10", 2): (0.021, 0.045, 0.094, 0.188),
  ("em/oracle", 2): (0.021, 0.036, 0.059, 0.092),
  ("labels", 2): (0.017, 0.027, 0.035, 0.046),
}
