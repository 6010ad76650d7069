"""How many components? `fit` names K; BIC over restarts of EM does too.

  python -m experiments.main --config=experiments/num_components.py[:VARIANT]

Tasks of known laws, each K equally likely. Every way fits each K and turns a
criterion C (in units of -2 log-likelihood) into probabilities, the softmax of
-C / 2, and names the most probable K:

* `fit` with `num_components="auto"`: the shipped network's views, then EM;
* BIC over EM with one k-means++ start and with ten, and over scikit-learn's
  `GaussianMixture` with one start, where it has the covariance type and is
  installed, on fewer tasks;
* other criteria over the same fits: AIC, AICc (Hurvich and Tsai 1989), ICL, BIC
  with log K! added to the log-likelihood, and the `evidence`. The components of
  a mixture have no order, so the likelihood has K! equal maxima, and BIC
  integrates around one (Bishop 2006, section 10.2.4).

The probabilities are scored by the logarithm of what the true K got and by
Brier's score, both proper, and shown against how often they come true. Where
components overlap no rule can name K: two means that are close have the
points of one.

No variant: 1,000 tasks for each K.
`:quick`: 100, minutes on 2 CPU cores.
`:smoke`: K up to 2, in seconds, for the tests.
"""

import functools
import importlib.util
import pathlib
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from scipy import special

import tgmm_jax
from experiments import evidence, studies, variants
from experiments import num_components_figures as figures
from tgmm_jax import evaluate, metrics, pretrained, results, types
from tgmm_jax.solvers import em, selection
from tgmm_jax.tasks import mixtures

VARIANTS = ("", "quick", "smoke")
FIT, PEER = figures.FIT, figures.PEER
RESTARTS = {"EM, 1 start": 1, "EM, 10 starts": 10}
# By whose fits; `fit` itself uses one of them.
CRITERIA = {
  FIT: ("evidence",),
  "EM, 1 start": ("BIC",),
  "EM, 10 starts": (
    *("BIC", "BIC + log K!", "evidence"),
    *("ICL", "AIC", "AICc"),
  ),
}
# Of scikit-learn, among the types of the tasks.
_PEER_TYPES = ("spherical", "diag", "full")
# A task whose K got 0 would have an infinite score: every way's probabilities
# are mixed with this share of equal ones before the logarithm.
_UNIFORM_SHARE = 0.01
# Edges of the highest probability, for the reliability.
_EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

sweep = studies.sweep


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  variants.check(variant, VARIANTS)
  config = studies.get_config()
  config.title = "The number of components"
  config.question = (
    "How often does fit name the K that the points were drawn with, how sure"
    " is it, and is BIC over restarts of EM as good?"
  )
  config.variant = variant
  laws = (("unit", 2, 128),)
  if variant != "smoke":
    laws += (
      ("unit", 2, 32),
      ("unit", 8, 128),
      ("tied_spherical", 2, 128),
      ("diag", 2, 128),
      ("diag", 8, 128),
      ("full", 2, 128),
    )
  for covariance_type, dim, num_points in laws:
    name = f"{covariance_type}_d{dim}_n{num_points}"
    config.studies[name] = ml_collections.ConfigDict(
      {
        "covariance_type": covariance_type,
        "dim": dim,
        "num_points": num_points,
        "max_components": 5,  # K = 1 to here
        "num_tasks": 1000 if not variant else 100,  # of each K
        "num_peer_tasks": 200 if not variant else 30,  # of each K
        "repeats": 3 if not variant else 1,  # timed calls
      }
    )
  if variant == "smoke":
    # A type that scikit-learn has too.
    settings = {"covariance_type": "diag", "max_components": 2}
    settings |= {"num_points": 24, "num_tasks": 6, "num_peer_tasks": 3}
    config.studies.unit_d2_n128.update(settings)
  return config


def experiment(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> studies.Experiment:
  """What runs a config of this file."""
  return studies.Experiment(
    config,
    workdir,
    studies={
      name: studies.Study(
        label(settings), _measure, figures.draw, figures.tabulate
      )
      for name, settings in config.studies.items()
    },
    template=get_config(config.variant),
  )


def label(settings: ml_collections.ConfigDict) -> str:
  """The name of a study's law."""
  return (
    f"{settings.covariance_type}, d = {settings.dim}, N = {settings.num_points}"
  )


class Answer(NamedTuple):
  """What one way says of B tasks and R candidates.

  Attributes:
    probabilities: `[B, R]` of K = 1 to R.
    means: `[B, R, d]` of the fit of the most probable K, or None.
    milliseconds: for a task, or None where another way's fits are used.
  """

  probabilities: np.ndarray
  means: np.ndarray | None = None
  milliseconds: float | None = None


def probabilities(values: np.ndarray, status: np.ndarray) -> np.ndarray:
  """Of each candidate, from a criterion of its fit.

  Args:
    values: `[B, R]`, the less the better.
    status: `[B, R]` of the fits; a degenerate one has no chance. Where all
      are, chances are equal.

  Returns:
    `[B, R]`, the softmax of half the negative values.
  """
  values = np.asarray(values, np.float64)
  is_sound = (np.asarray(status) < types.Status.DEGENERATE) & ~np.isnan(values)
  values = np.where(is_sound, values, np.inf)
  values[~np.isfinite(values).any(axis=1)] = 0.0
  return special.softmax(-0.5 * values, axis=1)


def score(
  answer: Answer, batch: types.TaskBatch, *, study: str, series: str
) -> list[results.CurveRow]:
  """Rows of one way: scores, which K are named, reliability.

  Args:
    answer: of the tasks.
    batch: the tasks.
    study: of the rows.
    series: of the rows.
  """
  true = np.asarray(batch.num_components)
  size = answer.probabilities.shape[1]
  named = 1 + answer.probabilities.argmax(axis=1)
  highest = answer.probabilities.max(axis=1)
  is_right = named == true
  is_true = np.arange(1, size + 1) == true[:, None]
  mixed = _UNIFORM_SHARE / size + (1 - _UNIFORM_SHARE) * answer.probabilities
  columns = {
    figures.RIGHT: is_right,
    "error of K": abs(named - true),
    "log probability of K": np.log(mixed[is_true]),
    "Brier score": ((answer.probabilities - is_true) ** 2).sum(axis=1),
    "highest probability": highest,
  }
  if answer.means is not None:
    errors = jax.jit(jax.vmap(metrics.l2_error))(
      answer.means, batch.mixture.means, batch.num_components
    )
    columns["l2_error where right"] = np.asarray(errors)[is_right]
  if answer.milliseconds is not None:
    columns["milliseconds"] = np.array([answer.milliseconds])
  num_points = batch.points.shape[1]
  point = functools.partial(results.mean_point, study)
  rows = [
    point(metric, series, num_points, values)
    for metric, values in columns.items()
    if values.size
  ]
  for own in np.unique(true):
    part = named[true == own]
    rows += [
      point(f"{figures.NAMED}{own}", series, other, part == other)
      for other in range(1, size + 1)
    ]
  which = np.digitize(highest, _EDGES[1:-1])
  for index in np.unique(which):
    part = which == index
    rows.append(
      point(figures.RELIABILITY, series, highest[part].mean(), is_right[part])
    )
  return rows


def _measure(settings, seed, on_step):
  """The rows of all ways."""
  law = mixtures.TaskConfig(
    dim=settings.dim,
    num_components=tuple(range(1, settings.max_components + 1)),
    min_points=settings.num_points,
    max_points=settings.num_points,
    covariance_type=settings.covariance_type,
  )
  batch, _ = evaluate.sample_tasks(law, settings.num_tasks, seed)
  batch = jax.tree.map(np.asarray, batch)
  study = functools.partial(score, study=label(settings))
  has_peer = settings.covariance_type in _PEER_TYPES
  total = 1 + len(RESTARTS) + has_peer
  rows = study(_answer_of_fit(batch, settings, seed), batch, series=FIT)
  named = _answers_of_network(batch, settings, seed)
  for criterion in CRITERIA[FIT]:
    series = f"{FIT}, {criterion}"
    rows += study(named[criterion], batch, series=series)
  on_step(1, total)
  for done, (series, count) in enumerate(RESTARTS.items()):
    named = _answers_of_em(batch, settings, seed, count)
    for criterion in CRITERIA[series]:
      rows += study(named[criterion], batch, series=f"{series}, {criterion}")
    on_step(2 + done, total)
  if has_peer and importlib.util.find_spec("sklearn"):
    places = np.arange(len(batch.points)).reshape(-1, settings.num_tasks)
    few = places[:, : settings.num_peer_tasks].flatten()
    few = jax.tree.map(lambda leaf: leaf[few], batch)
    rows += study(_answer_of_peer(few, settings, seed), few, series=PEER)
    on_step(total, total)
  return rows


def _answer_of_fit(batch, settings, seed):
  def solve():
    found = _fit(batch.points, "auto", settings, seed)
    return jax.block_until_ready((found.probabilities, found.mixture.means))

  (chances, means), spent = _timed(solve, batch, settings.repeats)
  return Answer(np.asarray(chances), np.asarray(means), spent)


def _fit(points, count, settings, seed):
  with warnings.catch_warnings():
    # Some tasks are at the edge of what the network was trained on.
    warnings.simplefilter("ignore", pretrained.OutsideRangeWarning)
    return tgmm_jax.fit(
      points,
      count,
      covariance_type=settings.covariance_type,
      max_components=settings.max_components,
      seed=seed,
    )


def _answers_of_network(batch, settings, seed):
  """By criterion, over the fits among which `fit` chooses."""
  points, counts = _candidates(batch, settings)
  found = _fit(points, counts, settings, seed)
  return answers(points, found.mixture, counts, found.status, settings)


def _answers_of_em(batch, settings, seed, num_init):
  """By criterion; the time is with BIC's."""
  points, counts = _candidates(batch, settings)

  def solve():
    return jax.block_until_ready(
      em.fit_batch(
        jax.random.key(seed),
        points,
        counts,
        covariance_type=settings.covariance_type,
        max_components=settings.max_components,
        num_init=num_init,
      )
    )

  found, spent = _timed(solve, batch, settings.repeats)
  named = answers(points, found.mixture, counts, found.status, settings)
  return named | {"BIC": named["BIC"]._replace(milliseconds=spent)}


def _candidates(batch, settings):
  """Each task once for each K: points `[B R, N, d]`, counts `[B R]`."""
  size = settings.max_components
  counts = jnp.tile(jnp.arange(1, size + 1), len(batch.points))
  return jnp.repeat(batch.points, size, axis=0), counts


def answers(
  points: jax.Array,
  mixture: types.Mixture,
  counts: jax.Array,
  status: jax.Array,
  settings: ml_collections.ConfigDict,
) -> dict[str, Answer]:
  """What each criterion says of the same fits.

  Args:
    points: `[B R, N, d]`, each task once for each K = 1 to R.
    mixture: the fits, with an axis B R.
    counts: `[B R]`, K.
    status: `[B R]`, of the fits.
    settings: of the study: the type, and R.
  """
  covariance_type, size = settings.covariance_type, settings.max_components
  _, num_points, dim = points.shape

  @jax.jit
  @jax.vmap
  def score_one(points, mixture, count):
    options = {"covariance_type": covariance_type}
    table = selection.criteria(points, mixture, count, **options)
    return *table, evidence.evidence(points, mixture, count, **options)

  bic, aic, icl, integrated = (
    np.asarray(values, np.float64)
    for values in score_one(points, mixture, counts)
  )
  counts = np.asarray(counts)
  free = selection.num_parameters(counts, dim, covariance_type)
  # Infinite where there are as many parameters as points.
  left = num_points - free - 1
  penalty = 2.0 * free * (free + 1) / np.maximum(left, 1)
  table = {
    "BIC": bic,
    "BIC + log K!": bic - 2.0 * special.gammaln(counts + 1),
    "evidence": integrated,
    "ICL": icl,
    "AIC": aic,
    "AICc": aic + np.where(left > 0, penalty, np.inf),
  }
  status = np.asarray(status).reshape(-1, size)
  means = np.asarray(mixture.means).reshape(-1, size, size, dim)
  found = {}
  for name, values in table.items():
    chances = probabilities(values.reshape(-1, size), status)
    best = chances.argmax(axis=1)
    found[name] = Answer(chances, means[np.arange(len(best)), best])
  return found


def _answer_of_peer(batch, settings, seed):
  # Imported here: the extra may not be installed.
  from sklearn import mixture

  num_problems, _, dim = batch.points.shape
  size = settings.max_components
  values = np.zeros((num_problems, size))
  means = np.zeros((num_problems, size, dim))
  start = time.perf_counter()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for index, points in enumerate(np.asarray(batch.points, np.float64)):
      fits = [
        mixture.GaussianMixture(
          count, covariance_type=settings.covariance_type, random_state=seed
        ).fit(points)
        for count in range(1, size + 1)
      ]
      values[index] = [fit.bic(points) for fit in fits]
      best = int(values[index].argmin())
      means[index, : best + 1] = fits[best].means_
  spent = 1e3 * (time.perf_counter() - start) / num_problems
  chances = probabilities(values, np.zeros(values.shape, int))
  return Answer(chances, jnp.asarray(means, jnp.float32), spent)


def _timed(solve: Callable[[], object], batch, repeats):
  """What it returns, and the least milliseconds for a task, once compiled."""
  found = solve()
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    solve()
    seconds.append(time.perf_counter() - start)
  return found, 1e3 * min(seconds) / len(batch.points)
