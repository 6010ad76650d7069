"""How often do intervals about the parameters of a fit hold the true ones?

  python -m experiments.main --config=experiments/uncertainty.py[:VARIANT]

Tasks of three components in the plane that stand apart. EM is started at the
truth, so that only chance makes errors; then intervals of nominal 90% are made
about each weight, mean and covariance:

* by `em.bootstrap`: quantiles of its replicates, corrected and moved outwards
  as it says, and plain ones;
* by `em.information`, and with the variance of the scores in the place of a
  Gaussian mixture's (`is_robust`).

An interval counts for the task by the share of the task's parameters that are
in theirs. One law has heavy tails: clouds of Student's t with 8 degrees of
freedom, whose covariances a mixture of Gaussians estimates well, but whose
errors are larger than it says.

No variant: 2,000 tasks for each N.
`:quick`: 300, minutes on 2 CPU cores.
`:smoke`: goes through everything in seconds, for the tests.
"""

import functools
import math

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from matplotlib import figure as mpl_figure
from matplotlib import patches

from experiments import results_pages
from experiments.runner import fields, studies
from tgmm_jax import gmm, types
from tgmm_jax.evaluation import results
from tgmm_jax.figures import curves as curve_figures
from tgmm_jax.figures import style as figure_style
from tgmm_jax.solvers import em

VARIANTS = ("", "quick", "smoke")
BOOTSTRAP, QUANTILES = "bootstrap", "bootstrap, plain quantiles"
INFORMATION, ROBUST = "information", "information, robust"
SERIES = (BOOTSTRAP, QUANTILES, INFORMATION, ROBUST)
# What is covered, a metric each; the products are off the diagonals.
PARTS = ("weights", "means", "variances", "products")
LEVEL = 0.9
# Components on a circle, moved by up to 1; standard deviations and correlations
# are drawn between these.
_COUNT, _DIM = 3, 2
_DEVIATIONS, _MOST_CORRELATED = (0.5, 1.5), 0.7
_FREEDOM = 8.0
# Tasks in a call of one program.
_NUM_TOGETHER = 50
_COLORS = ("#0072B2", "#D55E00", "#009E73")

sweep = studies.sweep

_LAWS = {
  "full": "full covariances",
  "spherical": "spherical covariances",
  "heavy": "heavy tails",
}
# Of the page's table: law and N.
_SHOWN = (("full", 400), ("heavy", 400))

CONCLUSION = (
  "Where components are Gaussian both ways hold as often as they say: of the"
  " variances of 400 points with full covariances {variances} by the"
  " information and {drawn} by the bootstrap, where plain quantiles of its"
  " replicates hold {plain}."
  " With heavy tails the information's intervals about variances are too short"
  " ({wrong}); those of the bootstrap ({right}) hardly are."
)
_VARIANCES = {"study": "full", "x": 400.0, "metric": "variances"}
_HEAVY = _VARIANCES | {"study": "heavy"}
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Share of the parameters that are in their intervals of nominal 90%,"
      " {count} tasks, with its standard error.",
      {
        f"{_LAWS[law]}, N = {size}: {series}": {
          "study": law,
          "x": float(size),
          "series": series,
        }
        for law, size in _SHOWN
        for series in SERIES
      },
      results_pages.across("metric", PARTS, "{}"),
    ),
    figures={"picture": "Three means, their replicates and ellipses of 90%"},
    numbers={
      "variances": _VARIANCES | {"series": INFORMATION},
      "drawn": _VARIANCES | {"series": BOOTSTRAP},
      "plain": _VARIANCES | {"series": QUANTILES},
      "wrong": _HEAVY | {"series": INFORMATION},
      "right": _HEAVY | {"series": BOOTSTRAP},
    },
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = studies.get_config()
  config.title = "How sure is a fit?"
  config.question = (
    "Do intervals by the bootstrap and by the information hold the true"
    " parameters as often as they say?"
  )
  config.variant = variant
  is_smoke = variant == "smoke"
  for name in ("full",) if is_smoke else _LAWS:
    sizes = (150, 400, 800) if name != "heavy" else (400,)
    config.studies[name] = ml_collections.ConfigDict(
      {
        "covariance_type": "spherical" if name == "spherical" else "full",
        "has_heavy_tails": name == "heavy",
        "num_points": (60,) if is_smoke else sizes,
        "num_tasks": {"": 2000, "quick": 300, "smoke": 4}[variant],
        "num_replicates": 20 if is_smoke else 200,
        "radius": 6.0,  # of the circle; variances are 1 on average
      }
    )
  config.studies.picture = ml_collections.ConfigDict(
    {"num_points": 80, "num_replicates": 200, "radius": 2.8}
  )
  return config


def draw_task(
  key: jax.Array,
  num_points: int,
  radius: jax.Array | float,
  *,
  covariance_type: str,
  has_heavy_tails: bool = False,
) -> tuple[jax.Array, types.Mixture]:
  """Points `[N, 2]` and the mixture they come from.

  Args:
    key: consumed.
    num_points: N.
    radius: of the circle on which the components are.
    covariance_type: "full" or "spherical".
    has_heavy_tails: whether clouds are of Student's t, of the same covariance.
  """
  keys = jax.random.split(key, 6)
  weights = jax.random.uniform(keys[0], (_COUNT,), minval=0.5)
  angles = 2.0 * math.pi * jnp.arange(_COUNT) / _COUNT
  means = radius * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
  means += jax.random.uniform(keys[1], means.shape, minval=-1.0)
  low, high = _DEVIATIONS
  spread = jax.random.uniform(keys[2], means.shape, minval=low, maxval=high)
  if covariance_type == "spherical":
    covariances = spread[:, 0] ** 2
  else:
    most = _MOST_CORRELATED
    tilt = jax.random.uniform(keys[3], (_COUNT,), minval=-most, maxval=most)
    identity = jnp.eye(_DIM)
    correlation = tilt[:, None, None] * (1.0 - identity) + identity
    covariances = correlation * spread[:, :, None] * spread[:, None]
  mixture = types.Mixture(weights / jnp.sum(weights), means, covariances)
  points, labels = gmm.sample(
    keys[4], mixture, num_points, covariance_type=covariance_type
  )
  if has_heavy_tails:
    shape = (num_points, 1)
    ratio = jax.random.chisquare(keys[5], _FREEDOM, shape) / (_FREEDOM - 2.0)
    centres = means[labels]
    points = centres + (points - centres) * jax.lax.rsqrt(ratio)
  return points, mixture


@functools.partial(
  jax.jit,
  static_argnames=(
    *("num_points", "num_replicates", "covariance_type", "has_heavy_tails"),
  ),
)
def _solve(keys, num_points, num_replicates, radius, *, covariance_type, **law):
  """Truths and what is said of their fits, with an axis of tasks."""
  own = {"covariance_type": covariance_type}

  def solve_one(key):
    key, task_key = jax.random.split(key)
    points, truth = draw_task(task_key, num_points, radius, **own, **law)
    fit = em.fit(key, points, _COUNT, init=truth, max_iter=500, **own).mixture
    drawn = em.bootstrap(
      key, points, fit, num_replicates=num_replicates, level=LEVEL, **own
    )
    of_curvature = [
      em.information(points, fit, level=LEVEL, is_robust=is_robust, **own)
      for is_robust in (False, True)
    ]
    return truth, (drawn, *of_curvature)

  return jax.lax.map(solve_one, keys)


def _measure(settings, seed, on_step):
  """The share of each task's parameters that are in their intervals."""
  rows = []
  num_calls = -(-settings.num_tasks // _NUM_TOGETHER)
  for place, num_points in enumerate(settings.num_points):
    key = jax.random.fold_in(jax.random.key(seed), num_points)
    keys = jax.random.split(key, settings.num_tasks)
    parts = []
    for index in range(num_calls):
      own = keys[index * _NUM_TOGETHER : (index + 1) * _NUM_TOGETHER]
      found = _solve(
        own,
        num_points,
        settings.num_replicates,
        settings.radius,
        covariance_type=settings.covariance_type,
        has_heavy_tails=settings.has_heavy_tails,
      )
      parts.append(_covered(*jax.tree.map(np.asarray, found)))
      done = place * num_calls + index + 1
      on_step(done, len(settings.num_points) * num_calls)
    study = "heavy" if settings.has_heavy_tails else settings.covariance_type
    rows += [
      results.mean_point(
        study,
        metric,
        series,
        num_points,
        np.concatenate([part[series, metric] for part in parts]),
      )
      for series, metric in parts[0]
    ]
  return rows


def _covered(truth, found):
  """By series and part of the parameters: of each task the share in place."""
  drawn, information, robust = found
  chances = np.array([1.0 - LEVEL, 1.0 + LEVEL]) / 2.0
  plain = [
    types.Mixture(*ends)
    for ends in zip(
      *(np.quantile(leaf, chances, axis=1) for leaf in drawn.draws), strict=True
    )
  ]
  ends = {
    BOOTSTRAP: (drawn.lower, drawn.upper),
    QUANTILES: plain,
    INFORMATION: (information.lower, information.upper),
    ROBUST: (robust.lower, robust.upper),
  }
  found = {}
  for series, (lower, upper) in ends.items():
    sides = zip(_parts(lower), _parts(truth), _parts(upper), strict=True)
    for metric, (low, true, high) in zip(PARTS, sides, strict=False):
      is_in = (low <= true) & (true <= high)
      found[series, metric] = is_in.reshape(len(is_in), -1).mean(axis=1)
  return found


def _parts(mixture):
  """Weights, means, variances and, of full covariances, products."""
  weights, means, covariances = mixture
  if covariances.ndim == 2:
    return weights, means, covariances
  variances = np.diagonal(covariances, axis1=-2, axis2=-1)
  return weights, means, variances, covariances[..., 1, 0]


def _draw(rows):
  measured = {row.metric for row in rows}
  panels = [
    curve_figures.Panel(
      rows[0].study,
      metric,
      metric,
      "number of points",
      "share of intervals that hold",
      is_log_x=True,
      is_log_y=False,
      lines={"nominal": LEVEL},
    )
    for metric in PARTS
    if metric in measured
  ]
  return curve_figures.draw(rows, panels, num_columns=2, emphasised=BOOTSTRAP)


def _tabulate(rows):
  """A line for each way and N, a column for each part."""
  table = {}
  for row in rows:
    cell = f"{row.value:.3f} ± {row.standard_error:.3f}"
    table.setdefault(f"{row.series}, N = {row.x:g}", {})[row.metric] = cell
  return table


def _measure_picture(settings, seed, on_step):
  """A few points, draws of the means, and what the information says."""
  key, draw_key = jax.random.split(jax.random.key(seed))
  own = {"covariance_type": "full"}
  points, truth = draw_task(key, settings.num_points, settings.radius, **own)
  fit = em.fit(key, points, _COUNT, init=truth, **own).mixture
  drawn = em.bootstrap(
    draw_key, points, fit, num_replicates=settings.num_replicates, **own
  )
  curved = em.information(points, fit, **own)
  row = functools.partial(results.CurveRow, "picture")
  end = (0.0, 1, 0)  # no standard error
  rows = [row("point", "points", *map(float, one), *end) for one in points]
  for index in range(_COUNT):
    series = f"component {index}"
    for name, means in (("mean", drawn.draws.means), ("fit", fit.means[None])):
      own = np.asarray(means, float)[:, index]
      rows += [row(name, series, *one, *end) for one in own.tolist()]
    spread = np.asarray(curved.mean_covariances, float)[index]
    rows += [
      row(INFORMATION, series, float(place), value, *end)
      for place, value in enumerate(spread[np.tril_indices(_DIM)].tolist())
    ]
  on_step(1, 1)
  return rows


def _draw_picture(rows):
  """Means with ellipses that hold 90%: of the draws, of the information."""

  def pairs(metric, series):
    return np.array(
      [
        (row.x, row.value)
        for row in rows
        if (row.metric, row.series) == (metric, series)
      ]
    )

  with figure_style.style():
    figure = mpl_figure.Figure(figsize=(5.6, 4.6), layout="constrained")
    axis = figure.subplots()
    axis.scatter(*pairs("point", "points").T, s=9, color="#bbbbbb")
    for index, color in enumerate(_COLORS):
      series = f"component {index}"
      draws = pairs("mean", series)
      centre = pairs("fit", series)[0]
      axis.scatter(*draws.T, s=2.5, color=color, alpha=0.35, linewidths=0)
      spread = np.zeros((_DIM, _DIM))
      spread[np.tril_indices(_DIM)] = pairs(INFORMATION, series)[:, 1]
      spread = spread + np.tril(spread, -1).T
      ways = ((np.cov(draws.T), "-", BOOTSTRAP), (spread, "--", INFORMATION))
      for matrix, line, name in ways:
        ellipse = _ellipse(centre, matrix, edgecolor=color, linestyle=line)
        ellipse.set_label(name if index == 0 else None)
        axis.add_patch(ellipse)
    axis.set_aspect("equal")
    axis.legend(loc="upper right")
    axis.set_title("90% ellipses of the means")
  return figure


def _ellipse(centre, covariance, **options):
  """What holds 90% of a normal distribution in the plane."""
  values, vectors = np.linalg.eigh(covariance)
  radii = np.sqrt(-2.0 * math.log(1.0 - LEVEL) * values)
  angle = math.degrees(math.atan2(vectors[1, 0], vectors[0, 0]))
  return patches.Ellipse(
    centre,
    *(2.0 * radii),
    angle=angle,
    facecolor="none",
    linewidth=1.4,
    **options,
  )


STUDIES = {
  name: studies.Study(f"Coverage, {title}", _measure, _draw, _tabulate)
  for name, title in _LAWS.items()
} | {"picture": studies.Study("Means", _measure_picture, _draw_picture)}


def _studies(config):
  """Those of the config."""
  return {name: STUDIES[name] for name in config.studies}


experiment = studies.experiment_of(_studies, get_config)
