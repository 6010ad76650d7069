"""Labels of points: trained networks, solvers and limits.

Every series labels the same problems. Its score is the accuracy under the best
naming of the classes; for few points chance is therefore above 1 / K, and
"random labels" shows where it is.

"true parameters (Bayes)" takes the largest posterior under the mixture that
the points were drawn from: no rule is right more often. For images the mixture
is that of Gaussian classes with the moments of the split, "class moments": a
limit for who knows moments, not for all.
"""

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import gmm, linalg, metrics, types
from tgmm_jax.constructed import clustering, power_method
from tgmm_jax.evaluation import evaluator, results
from tgmm_jax.models import factory
from tgmm_jax.solvers import em, k_means
from tgmm_jax.tasks import spectra

NETWORK = "transformer"
CONSTRUCTED = "constructed"
TRUE_PARAMETERS = "true parameters (Bayes)"
CLASS_MOMENTS = "class moments (fit)"
BAYES = "Phi(|mu|) (Bayes)"
CHANCE = "random labels"
METRIC = "accuracy"
# Problems in one call; more would not fit the caches.
_BATCH_SIZE = 128
# Starts of k-means, and of EM where its name says so; the best is kept.
_NUM_INIT = 10
# Of EM on standardised images, where a class has hardly more points than
# dimensions: without a floor the most likely mixtures have a component on a
# few points that lie in a plane.
_MIN_VARIANCE = 0.1

# `(key, problems with the axis B) -> labels [B, N]`.
Labeller = Callable[[jax.Array, types.TaskBatch], jax.Array]
# `(key, first, size) -> problems`, those of numbers first ... first + size - 1.
Sample = Callable[[jax.Array, int, int], types.TaskBatch]


def network(model: factory.SetModel, params: Any) -> Labeller:
  """What a trained network says."""

  def label(key, batch):
    del key
    logits = model.apply(params, batch.points, batch.sample_weight)
    return jnp.argmax(logits, axis=-1)

  return label


def references(
  num_classes: int, dim: int, *, has_unit_covariance: bool
) -> dict[str, Labeller]:
  """What stands beside a network, by name.

  Args:
    num_classes: K.
    dim: d.
    has_unit_covariance: whether the classes have the known unit covariance;
      False for images, where EM is shown with three kinds of covariance, its
      variances being at least a tenth of those of all the images.
  """
  labellers = {}
  if num_classes == 2:
    labellers[CONSTRUCTED] = functools.partial(
      _constructed, network=power_method.build(dim)
    )
  labellers["spectral"] = functools.partial(_spectral, num_classes=num_classes)
  labellers["k-means"] = functools.partial(_k_means, num_classes=num_classes)
  run_em = functools.partial(_em, num_classes=num_classes)
  if has_unit_covariance:
    labellers["em/k-means++"] = functools.partial(
      run_em, covariance_type="unit", num_init=1
    )
    labellers[f"em/k-means++-x{_NUM_INIT}"] = functools.partial(
      run_em, covariance_type="unit", num_init=_NUM_INIT
    )
    labellers[TRUE_PARAMETERS] = functools.partial(
      _posterior, covariance_type="unit"
    )
  else:
    for covariance_type in ("tied", "diag", "full"):
      labellers[f"em/{covariance_type}-x{_NUM_INIT}"] = functools.partial(
        run_em,
        covariance_type=covariance_type,
        num_init=_NUM_INIT,
        min_variance=_MIN_VARIANCE,
      )
    labellers[CLASS_MOMENTS] = functools.partial(
      _posterior, covariance_type="full"
    )
  labellers[CHANCE] = functools.partial(_random, num_classes=num_classes)
  return labellers


def make(
  labellers: Mapping[str, Labeller],
  samples: Mapping[Hashable, Sample],
  num_classes: int,
  num_instances: int,
  seed: int,
  *,
  rows: Callable[[Hashable, evaluator.Values], list[results.CurveRow]],
) -> evaluator.Evaluator:
  """Scores labellers on problems of several laws.

  Args:
    labellers: by series; each is compiled once, for all laws.
    samples: by law, or its abscissa, what draws problems; all of one N and d.
    num_classes: K.
    num_instances: problems of each law; rounded up to whole batches of 128,
      or all in one if there are fewer.
    seed: of the problems and of what labels them.
    rows: of the accuracies `[num_instances]` of one law, as `at` makes them.
  """
  size = min(num_instances, _BATCH_SIZE)
  problem_key, label_key = jax.random.split(jax.random.key(seed))

  def draw(place, sample):
    key = jax.random.fold_in(problem_key, place)
    return [
      (
        jax.random.fold_in(label_key, index),
        sample(jax.random.fold_in(key, first), first, size),
      )
      for index, first in enumerate(range(0, num_instances, size))
    ]

  return evaluator.Evaluator(
    contenders={
      series: _contender(series, labeller, num_classes)
      for series, labeller in labellers.items()
    },
    problems={
      x: functools.partial(draw, place, sample)
      for place, (x, sample) in enumerate(samples.items())
    },
    rows=rows,
  )


def _contender(series, labeller, num_classes):
  """Labels and their accuracy in one program."""
  call = jax.jit(functools.partial(_score_batch, labeller, num_classes))
  return lambda key, batch: {series: {METRIC: call(key, batch)}}


def at(
  x: float, values: evaluator.Values, *, study: str
) -> list[results.CurveRow]:
  """The mean accuracy of each series at an abscissa."""
  return [
    results.mean_point(study, METRIC, series, x, by_metric[METRIC])
    for series, by_metric in values.items()
  ]


def bayes_rows(
  separations: Iterable[float], *, study: str
) -> list[results.CurveRow]:
  """The rate of two classes with known means, in closed form."""
  return [
    results.mean_point(
      study, METRIC, BAYES, x, np.array([spectra.bayes_accuracy(x)])
    )
    for x in separations
  ]


def _score_batch(labeller, num_classes, key, batch):
  def accuracy(predicted, labels, sample_weight):
    return metrics.clustering_accuracy(
      predicted, labels, num_classes, sample_weight=sample_weight
    )

  return jax.vmap(accuracy)(
    labeller(key, batch), batch.labels, batch.sample_weight
  )


def _constructed(key, batch, *, network):
  def one(key, points, sample_weight):
    return clustering.cluster(
      key, points, sample_weight=sample_weight, network=network
    ).labels

  return _each(one, key, batch)


def _spectral(key, batch, *, num_classes):
  def one(key, points, sample_weight):
    num_directions = min(num_classes - 1, points.shape[-1])
    _, directions = spectra.sample_spectrum(
      points, num_directions, sample_weight=sample_weight
    )
    centred = points - linalg.weighted_mean(points, sample_weight=sample_weight)
    projected = linalg.matmul(centred, directions)
    if num_classes == 2:
      return (projected[:, 0] > 0).astype(jnp.int32)
    return _best_of_k_means(
      key, projected, num_classes, sample_weight=sample_weight
    )

  return _each(one, key, batch)


def _k_means(key, batch, *, num_classes):
  def one(key, points, sample_weight):
    return _best_of_k_means(
      key, points, num_classes, sample_weight=sample_weight
    )

  return _each(one, key, batch)


def _best_of_k_means(
  key,
  points,
  num_classes,
  *,
  sample_weight,
):
  """Labels of the start with the smallest sum of squared distances."""

  def run(key):
    return k_means.k_means(
      key,
      points,
      num_classes,
      sample_weight=sample_weight,
      max_components=num_classes,
    )

  found = jax.vmap(run)(jax.random.split(key, _NUM_INIT))
  return found.labels[jnp.argmin(found.potential)]


def _em(
  key, batch, *, num_classes, covariance_type, num_init, min_variance=None
):
  found = em.fit_batch(
    key,
    batch.points,
    batch.num_components,
    covariance_type=covariance_type,
    sample_weight=batch.sample_weight,
    max_components=num_classes,
    init="k-means++",
    num_init=num_init,
    min_variance=min_variance,
  )
  predict = functools.partial(gmm.predict, covariance_type=covariance_type)
  return jax.vmap(predict)(batch.points, found.mixture)


def _posterior(key, batch, *, covariance_type):
  del key
  predict = functools.partial(gmm.predict, covariance_type=covariance_type)
  return jax.vmap(predict)(batch.points, batch.mixture)


def _random(key, batch, *, num_classes):
  return jax.random.randint(key, batch.labels.shape, 0, num_classes)


def _each(one, key, batch):
  keys = jax.random.split(key, len(batch.points))
  return jax.vmap(one)(keys, batch.points, batch.sample_weight)
