"""Does `tgmm_jax.fit` fit data that nobody here made?

  python -m experiments.main --config=experiments/real_data.py[:VARIANT]

Tables that come with scikit-learn (iris, wine, breast cancer, digits) and,
where Debian's package dataset-fashion-mnist is installed, five classes of
Fashion-MNIST: projected on their leading principal directions where there are
many columns. Each is split at random into 70% for fitting and 30% held out;
full covariances, K the number of classes. Beside `fit` (the shipped network,
8 views, EM) and `fit` that also tries ten restarts stands scikit-learn's
`GaussianMixture` with one start and with ten. And: which K does `fit` name,
and which does BIC over scikit-learn's ten starts?

Nothing is trained. Needs the extra `sklearn`.

No variant: 50 splits of each.
`:quick`: 10 splits, a few minutes on 2 CPU cores.
`:smoke`: 2 splits of iris, for the tests.
"""

import pathlib
import time
import warnings

import ml_collections
import numpy as np
from absl import logging

import tgmm_jax
from experiments import studies, variants
from tgmm_jax import fitting, gmm
from tgmm_jax.evaluation import results
from tgmm_jax.tasks.images import sources as image_sources

VARIANTS = ("", "quick", "smoke")
DATASETS = ("iris", "wine", "breast_cancer", "digits", "fashion")
# Columns of tables with more are projected.
_MAX_DIM = {"wine": 5, "breast_cancer": 5, "digits": 8, "fashion": 8}
# The shipped network answers K <= 5: the first so many classes.
_NUM_CLASSES = 5
_HELD_OUT = 0.3
_NUM_IMAGES = 1000
METRICS = ("held-out log-likelihood", "adjusted Rand index", "milliseconds")

sweep = studies.sweep


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config of a variant."""
  variants.check(variant, VARIANTS)
  config = studies.get_config()
  config.title = "Real data"
  config.question = (
    "Is fit as good as restarts of EM on data that nobody here made?"
  )
  config.variant = variant
  settings = {
    "datasets": ("iris",) if variant == "smoke" else DATASETS,
    "num_splits": {"": 50, "quick": 10, "smoke": 2}[variant],
  }
  config.studies.fits = ml_collections.ConfigDict(settings)
  config.studies.num_components = ml_collections.ConfigDict(settings)
  return config


def experiment(
  config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> studies.Experiment:
  """What runs a config of this file."""
  return studies.Experiment(
    config, workdir, studies=STUDIES, template=get_config(config.variant)
  )


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
  """Points `[N, d]` and labels `[N]` of a table, at most five classes.

  Raises:
    ValueError: a name that is not in `DATASETS`.
    FileNotFoundError: Fashion-MNIST is not installed.
  """
  # Imported here: the extra may not be installed.
  from sklearn import datasets

  if name not in DATASETS:
    raise ValueError(f"datasets has {name!r}, takes names of {DATASETS}")
  if name == "fashion":
    images, _ = image_sources.from_folder(image_sources.FASHION_MNIST)
    points, labels = images.pixels, images.labels
  else:
    table = getattr(datasets, f"load_{name}")()
    points, labels = table.data, table.target
  is_kept = labels < _NUM_CLASSES
  points, labels = points[is_kept], labels[is_kept]
  if name == "fashion":
    points, labels = points[:_NUM_IMAGES], labels[:_NUM_IMAGES]
  return np.asarray(points, np.float64), np.asarray(labels)


def split(name: str, points: np.ndarray, index: int):
  """Fitted and held-out points, standardised and projected by the former."""
  rng = np.random.default_rng(index)
  order = rng.permutation(len(points))
  num_held = round(_HELD_OUT * len(points))
  rows = order[num_held:], order[:num_held]
  fitted, held = (points[own] for own in rows)
  mean, scale = fitted.mean(axis=0), fitted.std(axis=0)
  scale = np.where(scale > 0, scale, 1.0)
  # Pixels have one unit: they stay as they are to each other.
  if name in ("digits", "fashion"):
    scale = np.full_like(scale, scale.mean())
  fitted, held = (fitted - mean) / scale, (held - mean) / scale
  dim = _MAX_DIM.get(name, points.shape[1])
  if dim < points.shape[1]:
    _, _, directions = np.linalg.svd(fitted, full_matrices=False)
    fitted, held = fitted @ directions[:dim].T, held @ directions[:dim].T
  return fitted, held, rows


def _peer(num_init):
  def fit(points, count, seed):
    from sklearn import mixture

    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      return mixture.GaussianMixture(
        count, n_init=num_init, random_state=seed
      ).fit(points)

  return fit


def _ours(num_restarts):
  def fit(points, count, seed):
    found = tgmm_jax.fit(points, count, num_restarts=num_restarts, seed=seed)
    return found._replace(
      log_likelihood=float(found.log_likelihood)  # waits for the device
    )

  return fit


METHODS = {
  "fit": _ours(0),
  "fit and 10 restarts": _ours(10),
  "scikit-learn, 1 start": _peer(1),
  "scikit-learn, 10 starts": _peer(10),
}


def _score(model, points):
  """Mean log-likelihood and labels of points under a fit."""
  if not isinstance(model, fitting.Fit):
    return model.score(points), model.predict(points)
  joint = gmm.log_joint(
    np.asarray(points, np.float32), model.mixture, covariance_type="full"
  )
  joint = np.asarray(joint, np.float64)
  highest = joint.max(axis=1, keepdims=True)
  density = highest[:, 0] + np.log(np.exp(joint - highest).sum(axis=1))
  return density.mean(), joint.argmax(axis=1)


def _measure_fits(settings, seed, on_step):
  """Likelihood and grouping of held-out points, and time, by table."""
  from sklearn import metrics

  rows, done = [], 0
  tables = _tables(settings)
  total = len(tables) * settings.num_splits
  for name, (points, labels) in tables.items():
    count = len(np.unique(labels))
    values = {method: [] for method in METHODS}
    for index in range(settings.num_splits):
      fitted, held, (_, own) = split(name, points, seed + index)
      for method, fit in METHODS.items():
        if index == 0:
          fit(fitted, count, index)  # compiles
        start = time.perf_counter()
        model = fit(fitted, count, index)
        seconds = time.perf_counter() - start
        likelihood, found = _score(model, held)
        rand = metrics.adjusted_rand_score(labels[own], found)
        values[method].append((likelihood, rand, 1e3 * seconds))
      done += 1
      on_step(done, total)
    for method, found in values.items():
      for metric, column in zip(METRICS, np.array(found).T, strict=True):
        rows.append(results.mean_point(name, metric, method, count, column))
  return rows


def _measure_num_components(settings, seed, on_step):
  """How often each K from 1 to 5 is named, by table."""
  rows, done = [], 0
  tables = _tables(settings)
  candidates = range(1, _NUM_CLASSES + 1)
  for name, (points, _) in tables.items():
    named = {"fit": [], "BIC, scikit-learn, 10 starts": []}
    for index in range(settings.num_splits):
      fitted, _, _ = split(name, points, seed + index)
      found = tgmm_jax.fit(fitted, seed=index)
      named["fit"].append(int(found.num_components))
      bic = [_peer(10)(fitted, k, index).bic(fitted) for k in candidates]
      named["BIC, scikit-learn, 10 starts"].append(1 + int(np.argmin(bic)))
      done += 1
      on_step(done, len(tables) * settings.num_splits)
    for method, counts in named.items():
      for count in candidates:
        share = np.array(counts) == count
        rows.append(
          results.mean_point(name, "share of splits", method, count, share)
        )
  return rows


def _tables(settings):
  tables = {}
  for name in settings.datasets:
    try:
      tables[name] = load(name)
    except FileNotFoundError as error:
      logging.warning("%s is left out: %s", name, error)
  return tables


def _tabulate_fits(rows):
  """A line for each table and method."""
  return _lines(rows, lambda row: row.metric)


def _tabulate_num_components(rows):
  return _lines(rows, lambda row: f"K = {row.x:g}")


def _lines(rows, column_of):
  lines = {}
  for row in rows:
    text = f"{row.value:.3g} ± {row.standard_error:.1g}"
    line = lines.setdefault(f"{row.study}: {row.series}", {})
    line[column_of(row)] = text
  return lines


STUDIES = {
  "fits": studies.Study(
    "Held-out points and time", _measure_fits, None, _tabulate_fits
  ),
  "num_components": studies.Study(
    "Which K is named", _measure_num_components, None, _tabulate_num_components
  ),
}
