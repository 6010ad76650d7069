"""Ways in which a task may differ from those that a network was trained on.

The paper perturbs the means. The others are what a user's data do: other
shares of the components, a wrong K, heavier tails, outliers, another scale.
A shift has a kind and a size, and size 0 is none.
"""

import math

import jax
import jax.numpy as jnp

from tgmm_jax import types

KINDS = {
  "means": "standard deviation of a normal perturbation of the means",
  "weights": "weights are raised to the power 1 + size and divided anew",
  "stated_components": "added to the K that solvers are told",
  "student_t": "1 / degrees of freedom of the noise",
  "outliers": "share of the points that are uniform on a box three times"
  " as wide as that of the means",
  "scale": "points and means are multiplied by 2 to the power of the size",
  "standardised": "the same, and then divided by the points' root mean square"
  " and multiplied by the usual one",
}
# Kinds that change the mixture before anything is drawn from it.
_OF_MIXTURES = ("means", "weights")
_BOX = 3.0


def check(kind: str, size: float) -> None:
  """Refuses a shift that cannot be drawn.

  Raises:
    ValueError: an unknown kind, or a size outside its range.
  """
  if kind not in KINDS:
    raise ValueError(f"shift_kind is {kind!r}, takes one of {list(KINDS)}")
  low, high, takes = {
    "stated_components": (-1.0, 1.0, "-1, 0 or 1"),
    "student_t": (0.0, 0.5, "0 to 0.5, where the variance ends"),
    "outliers": (0.0, 1.0, "0 to 1"),
    "scale": (-20.0, 20.0, "-20 to 20"),
    "standardised": (-20.0, 20.0, "-20 to 20"),
  }.get(kind, (0.0, math.inf, "a finite number >= 0"))
  is_whole = kind != "stated_components" or size == int(size)
  if not (math.isfinite(size) and low <= size <= high and is_whole):
    raise ValueError(f"shift is {size}, takes {takes} for {kind!r}")
  if kind == "student_t" and size == 0.5:
    raise ValueError(f"shift is {size}, takes {takes} for {kind!r}")


def changes_points(kind: str) -> bool:
  """Whether `shift_points` has anything to do for this kind."""
  return kind not in (*_OF_MIXTURES, "stated_components")


def shift_points(
  key: jax.Array,
  task: types.TaskBatch,
  kind: str,
  size: float,
  *,
  mean_range: float,
) -> types.TaskBatch:
  """Applies a shift of the points to a task that was drawn without.

  Args:
    key: consumed; tails or outliers.
    task: without the axis B.
    kind: one of `KINDS`, static.
    size: of the shift, static.
    mean_range: of the law; half the width of the box of the means.

  Returns:
    The task. Outliers have the label -1: they belong to no component, so the
    accuracy of the best solver is 1 less their share. With another scale the
    truth is scaled too, and errors are in the units of the points; the noise
    then has another variance than the 1 that solvers believe in.
  """
  is_point = task.sample_weight > 0
  if kind == "student_t":
    # Normal noise over the root of chi squared / dof, one for each point.
    half = 0.5 / size
    chi = jax.random.gamma(key, half, task.labels.shape) / half
    means = task.mixture.means[task.labels]
    points = means + (task.points - means) / jnp.sqrt(chi)[:, None]
  elif kind == "outliers":
    choice_key, place_key = jax.random.split(key)
    is_outlier = jax.random.bernoulli(choice_key, size, task.labels.shape)
    bound = _BOX * mean_range
    places = jax.random.uniform(
      place_key, task.points.shape, minval=-bound, maxval=bound
    )
    points = jnp.where(is_outlier[:, None], places, task.points)
    labels = jnp.where(is_outlier & is_point, -1, task.labels)
    task = task._replace(labels=labels)
  else:
    factor = 2.0**size
    if kind == "standardised":
      usual = math.sqrt(mean_range**2 / 3.0 + 1.0)
      factor = usual / _root_mean_square(task)
    points = factor * task.points
    mixture = task.mixture._replace(means=factor * task.mixture.means)
    task = task._replace(mixture=mixture)
  return task._replace(points=jnp.where(is_point[:, None], points, 0.0))


def _root_mean_square(task):
  """About the origin, where the means of the law have their centre."""
  squares = jnp.mean(task.points**2, axis=-1)
  total = jnp.sum(task.sample_weight)
  return jnp.sqrt(jnp.sum(task.sample_weight * squares) / total)
