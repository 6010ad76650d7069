"""Spectra: trained networks beside what one would compare them with.

Every series is scored on the same problems. "eigh" is the truth itself, the
spectrum of the sample: 0 error by definition. "power method" is so many steps
of it for each vector, from a random start, with deflation. "population" is the
spectrum of the law that the points were drawn from: what a method would answer
that knew the law and ignored the points. "mean spectrum" ignores both.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tgmm_jax import metrics
from tgmm_jax.evaluation import evaluator, results
from tgmm_jax.solvers import pca
from tgmm_jax.tasks import spectra

NETWORK = "transformer"
# Metrics of one problem: by name, of `(answer, truth)`, each `[k]` or `[]`.
METRICS = {
  "eigenvalues": {"relative squared error": metrics.relative_squared_error},
  "eigenvectors": {"|cos|": metrics.abs_cosine},
  "subspace": {"projector distance": metrics.projector_distance},
}
# Problems in one call; more would not fit the caches.
_BATCH_SIZE = 128
# Of training problems, whose mean spectrum is the constant answer.
_NUM_FOR_MEAN = 4096

Answer = Callable[[spectra.SpectralBatch], jax.Array]
Sample = Callable[[jax.Array, int], spectra.SpectralBatch]


def references(
  loss: str,
  sample: Sample,
  num_targets: int,
  *,
  num_steps: Sequence[int],
  seed: int,
) -> dict[str, Callable]:
  """What stands beside a network, by name: `batch -> answers`.

  Args:
    loss: what is answered, a name in `METRICS`.
    sample: `(key, batch size) -> SpectralBatch`, problems of training.
    num_targets: k.
    num_steps: tau, of the power method.
    seed: of the starts and of the problems for the mean spectrum.
  """
  is_values = loss == "eigenvalues"
  key = jax.random.fold_in(jax.random.key(seed), 1)
  answers = {
    "eigh": _true_values if is_values else _true_vectors,
    "population": functools.partial(
      _population, num_targets=num_targets, is_values=is_values
    ),
  }
  for steps in num_steps:
    label = f"power method, {steps} step" + ("s" if steps > 1 else "")
    answers[label] = functools.partial(
      _power_method,
      key=jax.random.fold_in(key, 2),
      num_targets=num_targets,
      num_steps=steps,
      is_values=is_values,
    )
  if is_values:
    chunks = [
      sample(jax.random.fold_in(key, index), _BATCH_SIZE).eigenvalues
      for index in range(_NUM_FOR_MEAN // _BATCH_SIZE)
    ]
    mean = jnp.mean(jnp.concatenate(chunks), axis=0)
    answers["mean spectrum"] = functools.partial(_constant, answer=mean)
  else:
    answers["random direction"] = functools.partial(
      _random_vectors, key=jax.random.fold_in(key, 3), num_targets=num_targets
    )
  return answers


def make(
  answers: Mapping[str, Answer],
  sample: Sample,
  loss: str,
  num_instances: int,
  seed: int,
  *,
  rows: Callable[[evaluator.Values], list[results.CurveRow]],
) -> evaluator.Evaluator:
  """Scores answers on problems of one law.

  Args:
    answers: by series, `batch -> answers`; no two of them are in one program.
    sample: `(key, batch size) -> SpectralBatch`, problems of testing.
    loss: a name in `METRICS`.
    num_instances: problems; rounded up to whole batches of 128, or all in one
      if there are fewer.
    seed: of the problems.
    rows: of the values, arrays `[num_instances, k]` or `[num_instances, 1]`,
      as `by_target` and `at` make them.
  """
  size = min(num_instances, _BATCH_SIZE)
  key = jax.random.fold_in(jax.random.key(seed), 0)

  def draw():
    return [
      (key, sample(jax.random.fold_in(key, index), size))
      for index in range(-(-num_instances // size))
    ]

  return evaluator.Evaluator(
    contenders={
      series: _contender(series, answer, loss)
      for series, answer in answers.items()
    },
    problems={loss: draw},
    rows=lambda place, values: rows(values),
  )


def _contender(series, answer, loss):
  """Answer and scores in one program; the answers draw nothing."""
  call = jax.jit(functools.partial(_score_batch, answer, loss))
  return lambda key, batch: {series: call(batch)}


def by_target(
  values: evaluator.Values, *, study: str
) -> list[results.CurveRow]:
  """The curve of each series over the k targets, at 1 ... k."""
  return [
    results.mean_point(study, metric, series, index + 1, array[:, index])
    for series, by_metric in values.items()
    for metric, array in by_metric.items()
    for index in range(array.shape[1])
  ]


def at(
  values: evaluator.Values, x: float, *, study: str
) -> list[results.CurveRow]:
  """The point of each series at an abscissa: means over the k targets."""
  return [
    results.mean_point(study, metric, series, x, np.mean(array, axis=1))
    for series, by_metric in values.items()
    for metric, array in by_metric.items()
  ]


def _score_batch(answer, loss, batch):
  answers = answer(batch)
  truth = batch.eigenvalues if loss == "eigenvalues" else batch.eigenvectors
  return {
    name: jax.vmap(metric)(answers, truth).reshape(len(truth), -1)
    for name, metric in METRICS[loss].items()
  }


def _true_values(batch):
  return batch.eigenvalues


def _true_vectors(batch):
  return batch.eigenvectors


def _population(batch, *, num_targets, is_values):
  values, vectors = jax.vmap(spectra.spectrum_of, in_axes=(0, None))(
    batch.covariance, num_targets
  )
  return values if is_values else vectors


def _power_method(batch, *, key, num_targets, num_steps, is_values):
  def one(key, points, sample_weight):
    found = pca.fit(
      key,
      points,
      num_targets,
      sample_weight=sample_weight,
      ddof=1,
      method="deflation",
      max_iter=num_steps,
      tol=0.0,
    )
    return found.eigenvalues if is_values else found.vectors

  keys = jax.random.split(key, len(batch.points))
  return jax.vmap(one)(keys, batch.points, batch.sample_weight)


def _constant(batch, *, answer):
  return jnp.broadcast_to(answer, batch.eigenvalues.shape)


def _random_vectors(batch, *, key, num_targets):
  shape = (*batch.covariance.shape[:2], num_targets)
  return jax.random.normal(key, shape)
