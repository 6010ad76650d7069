"""Every way to hand over points, with one answer."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

import tgmm_jax
from tgmm_jax import command_line, gmm, types
from tgmm_jax.solvers import em, selection
from tgmm_jax.training import sharding

KEY = jax.random.key(0)


class Answer(NamedTuple):
  """What a door answers for one table, in NumPy.

  Attributes:
    mixture: without padding, components by ascending weight.
    labels: `[N]`.
    status: as a name.
    num_components: K.
  """

  mixture: types.Mixture
  labels: np.ndarray
  status: str
  num_components: int


def fit(table, num_components, **options):
  found = tgmm_jax.fit(table, num_components, **options)
  return found.mixture, found.labels, found.status


def fit_batch(table, num_components, *, sample_weight=None, **options):
  if sample_weight is not None:
    sample_weight = sample_weight[None]
  found = em.fit_batch(
    KEY,
    table[None],
    num_components,
    num_init=3,
    sample_weight=sample_weight,
    **options,
  )
  found = jax.tree.map(lambda leaf: leaf[0], found)
  return found.mixture, None, found.status


def select(table, num_components, *, sample_weight=None, **options):
  """K is looked for, whether it is given or not."""
  if sample_weight is not None:
    sample_weight = sample_weight[None]
  found = selection.select(
    KEY,
    table[None],
    (1, 2, 3, 4),
    num_init=3,
    sample_weight=sample_weight,
    **options,
  )
  chosen = int(found.num_components[0])
  mixture = jax.tree.map(lambda leaf: np.asarray(leaf[0]), found.result.mixture)
  weights, means, covariances = mixture
  if gmm.kind_of(options["covariance_type"]).is_per_component:
    covariances = covariances[:chosen]
  mixture = types.Mixture(weights[:chosen], means[:chosen], covariances)
  return mixture, None, found.result.status[0]


def fit_stream(table, num_components, *, sample_weight=None, **options):
  half = len(table) // 2
  blocks = [table[:half], table[half:]]
  if sample_weight is not None:
    weights = sample_weight[:half], sample_weight[half:]
    blocks = list(zip(blocks, weights, strict=True))
  found = em.fit_stream(KEY, blocks, num_components, **options)
  return found.mixture, None, found.status


def fit_sharded(table, num_components, **options):
  found = em.fit_sharded(
    KEY, table, num_components, mesh=sharding.make_mesh(1), **options
  )
  return found.mixture, None, found.status


def estimator(table, num_components, *, sample_weight=None, **options):
  # The default of 1e-6 is in squared units of the points, as scikit-learn's.
  found = tgmm_jax.GaussianMixture(
    num_components, random_state=0, n_init=3, reg_covar=0.0, **options
  )
  found.fit(table, sample_weight=sample_weight)
  mixture = types.Mixture(found.weights_, found.means_, found.covariances_)
  return mixture, found.predict(table), found.status_


def from_file(folder, table, num_components, *, covariance_type):
  """The command line, in this process."""
  source, output = folder / "points.csv", folder / "fit.json"
  # As many digits as tell every number from its neighbours.
  names = ",".join("abcdefgh"[: table.shape[1]])
  np.savetxt(
    source, table, fmt="%.17g", delimiter=",", header=names, comments=""
  )
  command = ["fit", str(source), "--output", str(output), "--force"]
  command += ["--components", str(num_components)]
  assert command_line.main([*command, "--covariance", covariance_type]) == 0
  found = tgmm_jax.load(output)
  return found.mixture, found.labels, found.status


DOORS = {
  "fit": fit,
  "fit_batch": fit_batch,
  "select": select,
  "fit_stream": fit_stream,
  "fit_sharded": fit_sharded,
  "GaussianMixture": estimator,
  "command line": from_file,
}
# These find K, and take "auto".
FIND = ("fit", "command line")


def ask(
  name: str, folder: Any, table: np.ndarray, num_components: Any, **options: Any
) -> Answer:
  """What a door answers.

  Args:
    name: of the door.
    folder: for files.
    table: `[N, d]`.
    num_components: K, or "auto".
    **options: `covariance_type`, and `sample_weight` but for files.
  """
  door = DOORS[name]
  if door is from_file:
    door = functools.partial(from_file, folder)
  mixture, labels, status = door(table, num_components, **options)
  mixture = jax.tree.map(np.asarray, mixture)
  covariance_type = options["covariance_type"]
  if labels is None:
    labels = _labels(table, mixture, covariance_type=covariance_type)
  order = np.argsort(mixture.weights)
  weights, means, covariances = mixture
  if gmm.kind_of(covariance_type).is_per_component:
    covariances = covariances[order]
  return Answer(
    types.Mixture(weights[order], means[order], covariances),
    np.argsort(order)[labels],
    types.Status(int(status)).name,
    weights.size,
  )


def _labels(table, mixture, *, covariance_type):
  """By the mixture, in float64."""
  with jax.enable_x64(True):
    mixture = jax.tree.map(lambda leaf: leaf.astype(np.float64), mixture)
    predict = jax.jit(
      functools.partial(gmm.predict, covariance_type=covariance_type)
    )
    # About one of the points, since far from the origin products are rounded.
    first = table[0].astype(np.float64)
    mixture = mixture._replace(means=mixture.means - first)
    return np.asarray(predict(table.astype(np.float64) - first, mixture))
