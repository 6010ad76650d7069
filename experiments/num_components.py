"""How many components? `fit` names K; BIC over restarts of EM does too.

  python -m experiments.main --config=experiments/num_components.py[:VARIANT]

Tasks of known laws, each K equally likely. Every way fits each K and turns a
criterion C (in units of -2 log-likelihood) into probabilities, the softmax of
-C / 2, and names the most probable K:

* `fit` with `num_components="auto"`: the shipped network's views, then EM;
* BIC over EM with one k-means++ start and with ten, and over scikit-learn's
  `GaussianMixture` with one start, where it has the covariance type and is
  installed;
* other criteria over the same fits: AIC, AICc (Hurvich and Tsai 1989), ICL, BIC
  with log K! added to the log-likelihood, and the `evidence`. The components of
  a mixture have no order, so the likelihood has K! equal maxima, and BIC
  integrates around one (Bishop 2006, section 10.2.4).

The probabilities are scored by the logarithm of what the true K got and by
Brier's score, both proper, and shown against how often they come true. Where
components overlap no rule can name K: two means that are close have the
points of one. The criteria are also measured on tables whose classes are known,
which are not quite Gaussian: there a criterion that is right about mixtures may
split a class.

No variant: 1,000 tasks for each K.
`:quick`: 100, minutes on 2 CPU cores.
`:smoke`: K up to 2, in seconds, for the tests.
"""

import functools

import jax
import ml_collections
import numpy as np

from experiments import results_pages
from experiments.runner import fields, studies
from experiments.studies import tables
from experiments.studies.num_components import figures, ways
from tgmm_jax import metrics, types
from tgmm_jax.evaluation import mixtures as mixture_evaluation
from tgmm_jax.evaluation import results
from tgmm_jax.tasks import mixtures

VARIANTS = ("", "quick", "smoke")
FIT = figures.FIT
RESTARTS = {"EM, 1 start": 1, "EM, 10 starts": 10}
# A task whose K got 0 would have an infinite score: every way's probabilities
# are mixed with this share of equal ones before the logarithm.
_UNIFORM_SHARE = 0.01
# Covariance type, d and N.
_LAWS = (
  ("unit", 2, 128),
  ("unit", 2, 32),
  ("unit", 8, 128),
  ("tied_spherical", 2, 128),
  ("diag", 2, 128),
  ("diag", 8, 128),
  ("full", 2, 128),
)
# Of `tables`: few points, and classes that are not quite Gaussian.
_TABLES = ("iris", "wine", "breast_cancer")
# Between bins of the highest probability, for the reliability.
_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

sweep = studies.sweep

CONCLUSION = (
  "Told the covariance type, fit names K under every law at least as often as"
  " BIC over one start of EM or over ten, and as often as the same rule, BIC"
  " and log K!, over ten starts; the evidence over ten starts is right as often"
  " or more often still, by less than the standard errors but for full and"
  " diagonal covariances at d = 2."
  " It is too sure: with diagonal covariances at d = 2 the mean probability of"
  " what it names is {sure}, and a share of {right} is right; on tables of"
  " classes the evidence splits them and never names the number of wine or of"
  " breast cancer."
)
_WAYS = (
  *("fit", "fit, evidence", "EM, 1 start, BIC", "EM, 10 starts, BIC"),
  *("EM, 10 starts, BIC + log K!", "EM, 10 starts, evidence", figures.PEER),
)
_DIAGONAL = {"study": "diag, d = 2, N = 128", "series": "fit"}
PAGES = {
  "quick": results_pages.Page(
    CONCLUSION,
    results_pages.cells(
      "Share of {count} tasks whose K is named right, with its standard error,"
      " by covariance type.",
      results_pages.series(*_WAYS),
      {
        name: {"study": name}
        for name in ("{}, d = {}, N = {}".format(*law) for law in _LAWS)
      },
      metric=figures.RIGHT,
    ),
    figures={
      "unit_d2_n128": "Which K is named of which, known variance, d = 2",
      "diag_d2_n128": "The same with diagonal covariances, d = 2",
    },
    numbers={
      "sure": _DIAGONAL | {"metric": "highest probability"},
      "right": _DIAGONAL | {"metric": figures.RIGHT},
    },
  ),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  fields.check_variant(variant, VARIANTS)
  config = studies.get_config()
  config.title = "The number of components"
  config.question = (
    "How often does fit name the K that the points were drawn with, how sure"
    " is it, and is BIC over restarts of EM as good?"
  )
  config.variant = variant
  is_smoke = variant == "smoke"
  # In the smoke test a type that scikit-learn has too.
  laws = (("diag", 2, 24),) if is_smoke else _LAWS
  for covariance_type, dim, num_points in laws:
    name = f"{covariance_type}_d{dim}_n{num_points}"
    config.studies[name] = ml_collections.ConfigDict(
      {
        "covariance_type": covariance_type,
        "dim": dim,
        "num_points": num_points,
        "max_components": 5,  # K = 1 to here
        "num_tasks": 1000 if not variant else 100,  # of each K
        "repeats": 3 if not variant else 1,  # timed calls
      }
    )
  if is_smoke:
    settings = {"max_components": 2, "num_tasks": 6}
    config.studies.diag_d2_n24.update(settings)
  else:
    config.studies.real = ml_collections.ConfigDict(
      {
        "covariance_type": "full",
        "datasets": _TABLES,
        "max_components": 5,
        "num_splits": 50 if not variant else 10,
      }
    )
  return config


def _study(name, settings):
  if name == "real":
    return studies.Study(
      "Tables of classes", _measure_real, None, figures.tabulate_studies
    )
  return studies.Study(
    label(settings), _measure, figures.draw, figures.tabulate
  )


def label(settings: ml_collections.ConfigDict) -> str:
  """The name of a study's law."""
  return (
    f"{settings.covariance_type}, d = {settings.dim}, N = {settings.num_points}"
  )


def score(
  answer: ways.Answer, batch: types.TaskBatch, *, study: str, series: str
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
  which = np.digitize(highest, _EDGES)
  for index in np.unique(which):
    part = which == index
    rows.append(
      point(figures.RELIABILITY, series, highest[part].mean(), is_right[part])
    )
  return rows


def _measure(settings, seed, on_step):
  """The rows of all ways on tasks of one law."""
  law = mixtures.TaskConfig(
    dim=settings.dim,
    num_components=tuple(range(1, settings.max_components + 1)),
    min_points=settings.num_points,
    max_points=settings.num_points,
    covariance_type=settings.covariance_type,
  )
  batch, _ = mixture_evaluation.sample_tasks(law, settings.num_tasks, seed)
  batch = jax.tree.map(np.asarray, batch)
  own = functools.partial(score, study=label(settings))
  has_peer = settings.covariance_type in ways.PEER_TYPES
  total = 1 + len(RESTARTS) + has_peer
  points = batch.points
  rows = own(ways.of_fit(points, settings, seed), batch, series=FIT)
  answers = ways.of_network(points, settings, seed)
  rows += own(answers["evidence"], batch, series=f"{FIT}, evidence")
  on_step(1, total)
  for done, (series, count) in enumerate(RESTARTS.items()):
    answers = ways.of_em(points, settings, seed, count)
    for criterion, answer in answers.items():
      # Criteria differ in the same way whatever the starts.
      if criterion == "BIC" or count == max(RESTARTS.values()):
        rows += own(answer, batch, series=f"{series}, {criterion}")
    on_step(2 + done, total)
  if has_peer:
    answer = ways.of_peer(points, settings, seed)
    rows += own(answer, batch, series=figures.PEER)
    on_step(total, total)
  return rows


def _measure_real(settings, seed, on_step):
  """What the criteria say of tables whose classes are known."""
  rows = []
  for done, name in enumerate(settings.datasets):
    points, labels = tables.load(name)
    fitted = np.stack(
      [
        tables.split(name, points, seed + index)[0]
        for index in range(settings.num_splits)
      ]
    ).astype(np.float32)
    batch = types.TaskBatch(
      points=fitted,
      sample_weight=np.ones(fitted.shape[:2], np.float32),
      num_components=np.full(len(fitted), len(np.unique(labels))),
      mixture=None,
      labels=None,
    )
    answers = ways.of_network(fitted, settings, seed)
    for criterion, answer in answers.items():
      rows += score(
        answer._replace(means=None),
        batch,
        study=name,
        series=f"{FIT}, {criterion}",
      )
    on_step(done + 1, len(settings.datasets))
  return rows


def _studies(config):
  """One study for each law of the config, and one for the tables."""
  return {
    name: _study(name, settings) for name, settings in config.studies.items()
  }


experiment = studies.experiment_of(_studies, get_config)
